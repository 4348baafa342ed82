"""What a viewer on a white page would see: pixels of any mode, and arrays → upright RGB pixels.

This module decides what becomes of transparency, depth and colour profiles. It translates every exception of Pillow. It
must not know where an image comes from, nor what it is for.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_backends.errors import ImageTooLargeError, InvalidImageError, VisionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.images.limits import ImageLimits

__all__ = [
    "Decoded",
    "pixels_of_array",
    "translated_errors",
    "upright_rgb",
    "visible",
]

_OPAQUE = 255
_ALPHA_MODES = {"LA": "L", "RGBA": "RGB"}
"""Modes whose alpha is often there and not used, and what they are without."""

_PLAIN_MODES = frozenset({"1", "L", "P", "RGB", *_ALPHA_MODES})
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILED_MODES = frozenset({"L", "RGB", "CMYK", "LAB"})

_RANGES = ((0, 1), (0, 255), (0, 65_535))
"""What 0 to 1, 8-bit and 16-bit values look like in a mode that does not state its range."""

_ARRAYS = (
    "Accepted are uint8 arrays, or float arrays from 0 to 1, of shape (height, width) for grey, "
    "(height, width, 3) for RGB and (height, width, 4) for RGBA."
)

_OPAQUE_KINDS = frozenset({"BMP", "DIB", "ICO", "CUR"})
"""Formats whose alpha is not used where it is zero throughout."""

_BAND_PIXELS = 1 << 20
"""Pixels that are worked on in one go where that takes room for more than a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Pixels, and the size of the whole image that they show.

    Attributes:
        pixels: Upright, mode RGB, without metadata; smaller than the image after a reduced decode.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        notes: What a viewer of the image would want to know, in a sentence each.
        as_stored: Whether any other program shows the same, even if it knows nothing of orientation, transparency and
            profiles.
    """

    pixels: PILImage.Image
    width: int
    height: int
    notes: tuple[str, ...] = ()
    as_stored: bool = False


class Upright(NamedTuple):
    """Pixels as a viewer shows them.

    Attributes:
        pixels: Upright, 8-bit RGB in sRGB, without metadata.
        as_stored: As for `Decoded`.
    """

    pixels: PILImage.Image
    as_stored: bool


def pixels_of_array(array: npt.NDArray[Any], *, limits: ImageLimits) -> Decoded:
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
        if not (low >= 0.0 and high <= 1.0):  # refuses NaN as well
            raise InvalidImageError(f"The array has values from {low:g} to {high:g}.", remedy=_ARRAYS)
        array = _bytes_of(array)
    shown, notes = visible(PILImage.fromarray(array), kind=None, name="The array")
    return Decoded(pixels=upright_rgb(shown).pixels, width=shape[1], height=shape[0], notes=notes)


def _bytes_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of values from 0 to 1 in bytes."""
    import numpy as np

    result = np.empty(array.shape, "uint8")
    rows = max(1, _BAND_PIXELS // array.shape[1])
    for top in range(0, len(array), rows):
        result[top : top + rows] = (array[top : top + rows] * 255.0).round()
    return result


@contextmanager
def translated_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises about a damaged image into an error of the caller.

    Raises:
        InvalidImageError: The image is damaged.
        ImageTooLargeError: There is not enough memory for it.
    """
    try:
        yield
    except VisionError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError(f"{name} does not fit into memory.", remedy="Pass a smaller image.") from error
    except Exception as error:  # Pillow's plugins raise almost anything
        raise InvalidImageError(
            f"{name} is damaged or cut short: its pixels cannot be decoded.",
            remedy="Fetch or save it again.",
        ) from error


def upright_rgb(
    image: PILImage.Image, *, orientation: int = 1, icc_profile: bytes | None = None, copy: bool = False
) -> Upright:
    """Return a loaded image as a viewer on a white page would show it: 8-bit RGB in sRGB, upright, without metadata.

    Transparency is laid over white: what is hidden stays hidden. A profile that is broken, or not one for this
    kind of image, is ignored.

    Args:
        image: A loaded image of any mode.
        orientation: How it was held, 1 to 8 as in EXIF.
        icc_profile: The profile of its colours; None takes them for sRGB.
        copy: Whether ``image`` must not become part of the result.

    Raises:
        InvalidImageError: It holds values that are infinite or not numbers.
    """
    from PIL import Image as PILImage

    as_stored = orientation == 1 and image.mode in _PLAIN_MODES
    pixels = _to_8_bit(image) if image.mode in _DEEP_MODES else image
    if pixels.mode in _ALPHA_MODES and pixels.getchannel("A").getextrema()[0] == _OPAQUE:
        pixels = pixels.convert(_ALPHA_MODES[pixels.mode])
    if pixels.has_transparency_data:
        pixels, as_stored = _on_white(pixels), False
    if icc_profile:
        converted = _to_srgb(pixels, icc_profile)
        pixels, as_stored = converted, as_stored and converted is pixels
    if pixels.mode != "RGB":
        pixels = pixels.convert("RGB")
    turns = {
        2: PILImage.Transpose.FLIP_LEFT_RIGHT,
        3: PILImage.Transpose.ROTATE_180,
        4: PILImage.Transpose.FLIP_TOP_BOTTOM,
        5: PILImage.Transpose.TRANSPOSE,
        6: PILImage.Transpose.ROTATE_270,
        7: PILImage.Transpose.TRANSVERSE,
        8: PILImage.Transpose.ROTATE_90,
    }
    if orientation in turns:
        pixels = pixels.transpose(turns[orientation])
    elif copy and pixels is image:
        pixels = image.copy()
    pixels.info = {}
    return Upright(pixels, as_stored)


def visible(image: PILImage.Image, *, kind: str | None, name: str) -> tuple[PILImage.Image, tuple[str, ...]]:
    """Return an image without an alpha channel that is not used, and a note where nothing of it can be seen.

    A BMP whose alpha is zero throughout has none: that is how programs write 32-bit pixels, and how browsers read them.
    """
    if "A" not in image.getbands() or image.getchannel("A").getextrema()[1]:
        return image, ()
    if kind in _OPAQUE_KINDS:
        return image.convert("RGB"), ()
    note = f"{name} is wholly transparent: a white page. If its alpha is not used, pass its colours alone."
    return image, (note,)


def _bands(image: PILImage.Image) -> Iterator[tuple[int, PILImage.Image]]:
    """Yield an image in parts of whole rows, each with its first row: what is made of it takes no room for all."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _to_8_bit(image: PILImage.Image) -> PILImage.Image:
    """Scale deep grey values to 8 bits; Pillow would clip them at 255.

    16-bit modes have the range that their name states. The 32-bit modes I and F have none: their values are taken to
    span the narrowest common range that holds them, or else are stretched from the lowest to the highest.
    """
    import numpy as np
    from PIL import Image as PILImage

    is_16_bit = image.mode.startswith("I;16")
    with np.errstate(all="ignore"):
        ends = [(float(values.min()), float(values.max())) for values in (np.asarray(b) for _, b in _bands(image))]
        low, high = np.min(ends), np.max(ends)  # which are no numbers where one of them is none
        if not np.isfinite([low, high]).all():
            raise InvalidImageError("The image has values that are infinite or not numbers.")
        ranges = _RANGES[2:] if is_16_bit else _RANGES[image.mode == "I" :]
        start, end = next((r for r in ranges if r[0] <= low and high <= r[1]), (low, high))
        scale = 255 / ((end - start) or 1)
        result = PILImage.new("L", image.size)
        for top, band in _bands(image):
            scaled = np.multiply(np.asarray(band), scale, dtype=np.float32 if is_16_bit else np.float64)
            result.paste(PILImage.fromarray(np.rint(scaled - start * scale).astype(np.uint8)), (0, top))
    return result


def _on_white(image: PILImage.Image) -> PILImage.Image:
    from PIL import Image as PILImage

    result = PILImage.new("RGB", image.size)
    for top, band in _bands(image):
        colours = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
        white = PILImage.new("RGBA", band.size, "white")
        result.paste(PILImage.alpha_composite(white, colours).convert("RGB"), (0, top))
    return result


def _to_srgb(image: PILImage.Image, icc_profile: bytes) -> PILImage.Image:
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        srgb = ImageCms.createProfile("sRGB")
        profiled = image
        if image.mode not in _PROFILED_MODES:
            profiled = image.convert("L" if image.mode == "1" else "RGB")
        converted = ImageCms.profileToProfile(profiled, profile, srgb, outputMode="RGB")
    except Exception:  # noqa: BLE001 — a broken profile may fail anywhere; slightly wrong colours are better than no image
        return image
    return image if converted is None else converted
