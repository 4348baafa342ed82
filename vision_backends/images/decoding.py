"""Encoded bytes → upright RGB pixels, or an error of the caller.

This module decides that a file is complete, small enough and of a format that is open, and translates every
exception of Pillow. It must not know where the bytes come from.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING

from vision_backends.errors import ImageTooLargeError, InvalidImageError, VisionError
from vision_backends.images.containers import guess_other, identify, strip
from vision_backends.images.modes import to_rgb
from vision_backends.images.sources import ACCEPTED
from vision_backends.images.tiff import exif_orientation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any

    from PIL import Image as PILImage

    from vision_backends.images.limits import ImageLimits
    from vision_backends.images.sources import Encoded

__all__ = ["Decoded", "decode", "make_upright", "translated_errors"]

_PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
}
_SIDEWAYS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Pixels, and the size of the whole image that they show.

    Attributes:
        pixels: Upright, mode RGB, without metadata; smaller than the image after a reduced decode.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
    """

    pixels: PILImage.Image
    width: int
    height: int


def decode(encoded: Encoded, *, limits: ImageLimits, min_side_px: int | None = None) -> Decoded:
    """Decode an image file; of an animation, the first picture.

    Args:
        encoded: The bytes of the file.
        limits: How large it may be.
        min_side_px: How long the shorter side must be at least; a JPEG is then decoded at the smallest of the
            scales 1, 1/2, 1/4 and 1/8 that gives it, still reading every byte. None decodes all pixels.

    Raises:
        InvalidImageError: It is not an image, damaged, or of a format that is not open.
        ImageTooLargeError: It has more pixels than the limits allow.
    """
    name = encoded.name
    kind = _identify(encoded)
    with translated_errors(name):
        plugin = _plugin(kind, encoded)
        container = strip(encoded.data, kind=kind)
        limits.check_pixels(container.size or (0, 0), name=name)
        image = plugin(BytesIO(container.data), "")
        limits.check_pixels(image.size, name=name)
        whole_size = image.size
        is_reduced = min_side_px is not None and image.draft(None, (min_side_px, min_side_px)) is not None
        image.load()
        width, height = whole_size if is_reduced else image.size
        orientation = container.orientation or exif_orientation(image.info.get("exif"))
        rgb = to_rgb(image, icc_profile=container.icc_profile or image.info.get("icc_profile"))
        if rgb is image and kind != "JPEG":
            rgb = image.copy()  # the decoders of other formats live, with their buffers, as long as their image
        pixels = make_upright(rgb, orientation)
    sideways = orientation in _SIDEWAYS
    return Decoded(pixels=pixels, width=height if sideways else width, height=width if sideways else height)


def make_upright(image: PILImage.Image, orientation: int) -> PILImage.Image:
    """Return an image turned and mirrored as its EXIF orientation (1 to 8) asks for, without its metadata."""
    from PIL import Image as PILImage

    turns = {
        2: PILImage.Transpose.FLIP_LEFT_RIGHT,
        3: PILImage.Transpose.ROTATE_180,
        4: PILImage.Transpose.FLIP_TOP_BOTTOM,
        5: PILImage.Transpose.TRANSPOSE,
        6: PILImage.Transpose.ROTATE_270,
        7: PILImage.Transpose.TRANSVERSE,
        8: PILImage.Transpose.ROTATE_90,
    }
    upright = image.transpose(turns[orientation]) if orientation in turns else image
    upright.info = {}
    return upright


@contextmanager
def translated_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises about a damaged image into an error of the caller.

    Raises:
        InvalidImageError: The image is damaged.
        ImageTooLargeError: There is no memory for it.
    """
    try:
        yield
    except VisionError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError(f"{name} does not fit into memory.", remedy="Pass a smaller image.") from error
    except Exception as error:  # Pillow's plugins raise nearly all that there is
        raise InvalidImageError(
            f"{name} is damaged or cut short: its pixels cannot be decoded.",
            remedy=f"Fetch or save it again. {ACCEPTED}",
        ) from error


def _identify(encoded: Encoded) -> str:
    if not encoded.data:
        raise InvalidImageError(f"{encoded.name} is empty.", remedy=ACCEPTED)
    kind = identify(encoded.data)
    if kind is None:
        guess = guess_other(encoded.data)
        looks = f"looks like {guess}" if guess else "is none of the formats that are opened"
        raise InvalidImageError(f"{encoded.name} {looks}.", remedy=ACCEPTED)
    return kind


def _plugin(kind: str, encoded: Encoded) -> Callable[[IO[bytes], str], Any]:
    """Return what opens a format.

    Pillow's own ``Image.open`` would warn of large sizes before they can be checked, and the filters of warnings
    are shared by all threads.
    """
    from PIL import Image as PILImage

    if kind in _PLUGINS:
        import_module(_PLUGINS[kind])  # registers itself
    opener, accepts = PILImage.OPEN.get(kind, (None, None))
    if opener is None or (accepts is not None and accepts(encoded.data[:16]) is not True):
        raise InvalidImageError(
            f"{encoded.name} is {kind} of a kind that the installed Pillow does not open.", remedy=ACCEPTED
        )
    return opener
