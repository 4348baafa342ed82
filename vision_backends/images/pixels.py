"""PIL images and numpy arrays → upright RGB pixels that share nothing with them.

This module decides which images in memory are accepted. It must not know any file format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidImageError
from vision_backends.images.decoding import make_upright, translated_errors
from vision_backends.images.modes import to_rgb
from vision_backends.images.tiff import exif_orientation

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.images.limits import ImageLimits

__all__ = ["pixels_of_array", "pixels_of_pil"]

_ARRAYS = (
    "Accepted are uint8 arrays, or float arrays from 0 to 1, of shape (height, width) for grey, "
    "(height, width, 3) for RGB and (height, width, 4) for RGBA."
)


def pixels_of_pil(image: PILImage.Image, *, limits: ImageLimits) -> PILImage.Image:
    """Return upright RGB pixels of a PIL image, which is loaded but not changed.

    Raises:
        InvalidImageError: It is closed, empty or damaged.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    name = "The PIL image"
    if 0 in image.size:
        raise InvalidImageError(f"{name} has {image.width}×{image.height} pixels, which is nothing to look at.")
    limits.check_pixels(image.size, name=name)
    with translated_errors(name):
        image.load()
        rgb = to_rgb(image, icc_profile=image.info.get("icc_profile"))
        if rgb is image:
            rgb = image.copy()
        return make_upright(rgb, exif_orientation(image.info.get("exif")))


def pixels_of_array(array: npt.NDArray[Any], *, limits: ImageLimits) -> PILImage.Image:
    """Return RGB pixels of a numpy array.

    Args:
        array: uint8 or float in [0, 1]; grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4].
        limits: How many pixels it may have.

    Raises:
        InvalidImageError: It has another type, shape or range.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    from PIL import Image as PILImage

    shape, dtype = array.shape, array.dtype
    is_float = dtype.kind == "f"
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in {3, 4})) or array.size == 0:
        raise InvalidImageError(f"An array of shape {shape} is not an image.", remedy=_ARRAYS)
    if not is_float and dtype != "uint8":
        raise InvalidImageError(f"An array of type {dtype} is not an image.", remedy=_ARRAYS)
    limits.check_pixels((shape[1], shape[0]), name="The array")
    if is_float:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # also where they are no numbers
            raise InvalidImageError(f"The array has values from {low:g} to {high:g}.", remedy=_ARRAYS)
        array = (array * 255.0).round().astype("uint8")
    pixels = PILImage.fromarray(array)
    return to_rgb(pixels)
