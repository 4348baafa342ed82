"""`open_image`: whatever can be an image, decoded and checked once, before anybody works with it.

This module decides when pixels are decoded, kept and handed out. It must not know what the image is for.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from typing import TYPE_CHECKING, TypeAlias, cast

from vision_backends.images.limits import DEFAULT_LIMITS
from vision_backends.images.sources import read_source

if TYPE_CHECKING:
    import os
    from typing import Any, BinaryIO

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.images.limits import ImageLimits
    from vision_backends.images.sources import Encoded

__all__ = ["Image", "ImageSource", "open_image"]

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PILImage.Image | npt.NDArray[Any]"
)
"""What `open_image` takes: a path or data URL, encoded bytes, a binary file, a PIL image or a numpy array."""


class Image:
    """One checked, upright RGB image, made by `open_image`. Nobody can change it; any thread may use it.

    Args:
        pixels: Upright pixels, mode RGB, which nobody else holds.
        width: Width of the whole image in pixels.
        height: Height of the whole image in pixels.
        encoded: The file that the pixels came from; None where there is none.
        limits: The limits under which it was decoded.
    """

    __slots__ = ("_digest", "_encoded", "_height", "_limits", "_lock", "_pixels", "_width")

    def __init__(
        self,
        pixels: PILImage.Image,
        *,
        width: int,
        height: int,
        encoded: Encoded | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        self._pixels = pixels
        self._width = width
        self._height = height
        self._encoded = encoded
        self._limits = limits
        self._digest: str | None = None
        self._lock = threading.Lock()

    @property
    def width(self) -> int:
        """Width of the whole upright image in pixels, however few of them were decoded."""
        return self._width

    @property
    def height(self) -> int:
        """Height of the whole upright image in pixels, however few of them were decoded."""
        return self._height

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hexadecimal: of the encoded bytes, or of the pixels where there are none."""
        if self._digest is None:
            if self._encoded is not None:
                content = hashlib.sha256(self._encoded.data)
            else:
                content = hashlib.sha256(f"RGB {self._width}x{self._height}\n".encode())
                content.update(self._pixels.tobytes())
            self._digest = content.hexdigest()
        return self._digest

    def rgb(self, *, min_side_px: int | None = None) -> PILImage.Image:
        """Return a copy of the pixels, upright and in mode RGB.

        Args:
            min_side_px: How long the shorter side must be at least, unless the whole image is smaller; the copy
                may be larger. None asks for all pixels.
        """
        from vision_backends.images.decoding import decode

        with self._lock:
            if self._encoded is not None and not self._has(min_side_px):
                self._pixels = decode(self._encoded, limits=self._limits, min_side_px=min_side_px).pixels
            pixels = self._pixels
        return pixels.copy()

    def __repr__(self) -> str:
        return f"<Image {self._width}×{self._height} px{f', {self._encoded.name}' if self._encoded else ''}>"

    def _has(self, min_side_px: int | None) -> bool:
        if self._pixels.size == (self._width, self._height):
            return True
        return min_side_px is not None and min(self._pixels.size) >= min_side_px


def open_image(source: ImageSource, *, min_side_px: int | None = None, limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Decode and check an image completely, so that nobody after this meets a broken one.

    Orientation from EXIF is applied, transparency laid over white, colour profiles converted to sRGB, of an
    animation the first picture taken. A format is recognised by its bytes, never by its name or media type.

    Args:
        source: A path or ``data:`` URL, encoded bytes, a binary file (read to its end, not closed), a PIL image,
            or a numpy array (uint8 or float in [0, 1]; [H, W], [H, W, 3] RGB or [H, W, 4] RGBA).
        min_side_px: How long the shorter side of the decoded pixels must be at least; a large JPEG is then
            decoded at reduced scale, several times faster. None decodes all of them.
        limits: How many bytes and pixels it may have.

    Raises:
        InvalidImageError: It cannot be read, or is not an image that can be used.
        ImageTooLargeError: It has more bytes or pixels than the limits allow.
    """
    from vision_backends.images.decoding import decode

    pixels = _pixels_in_memory(source, limits=limits)
    if pixels is not None:
        return Image(pixels, width=pixels.width, height=pixels.height)
    encoded = read_source(source, limits=limits)
    decoded = decode(encoded, limits=limits, min_side_px=min_side_px)
    return Image(decoded.pixels, width=decoded.width, height=decoded.height, encoded=encoded, limits=limits)


def _pixels_in_memory(source: object, *, limits: ImageLimits) -> PILImage.Image | None:
    from vision_backends.images.pixels import pixels_of_array, pixels_of_pil

    if _is_instance(source, "PIL.Image", "Image"):
        return pixels_of_pil(cast("PILImage.Image", source), limits=limits)
    if _is_instance(source, "numpy", "ndarray"):
        return pixels_of_array(cast("npt.NDArray[Any]", source), limits=limits)
    return None


def _is_instance(value: object, module_name: str, class_name: str) -> bool:
    """Tell whether a value is an instance of a class, without importing its module: who has one, has imported it.

    Another thread may be importing that very module now: then the class is not there yet, nor any instance of it.
    """
    found = getattr(sys.modules.get(module_name), class_name, None)
    return found is not None and isinstance(value, found)
