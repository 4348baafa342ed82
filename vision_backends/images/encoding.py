"""Pixels → the bytes that may leave this machine: an image file that holds pixels and nothing else.

This module decides in which format. It must not know who receives it, nor the image that the pixels came from.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["WireImage", "encode_for_wire"]

_JPEG_QUALITY = 88
_JPEG_MAX_SIDE_PX = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_FLAT_SHARE = 0.5
"""Share of pixels equal to their right neighbour above which an image is taken for graphics: photos have a few
hundredths, screenshots more than nine tenths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireImage:
    """An encoded image without metadata.

    Attributes:
        data: The bytes of the file.
        mime_type: ``image/jpeg`` or ``image/png``.
    """

    data: bytes = field(repr=False)
    mime_type: str

    @property
    def data_url(self) -> str:
        """The image as a ``data:`` URL."""
        return f"data:{self.mime_type};base64,{base64.b64encode(self.data).decode('ascii')}"


def encode_for_wire(image: PILImage.Image) -> WireImage:
    """Encode pixels alone: no EXIF, GPS, comment, text or colour profile of the image comes along.

    A photo becomes a JPEG. A drawing or screenshot becomes a PNG, or a JPEG in full colour resolution where that
    is smaller.

    Args:
        image: An image in mode RGB.
    """
    pixels = image.copy()
    pixels.info = {}
    fits_jpeg = max(pixels.size) <= _JPEG_MAX_SIDE_PX
    if fits_jpeg and not _is_flat(pixels):
        return _encode(pixels, "JPEG", quality=_JPEG_QUALITY, subsampling="4:2:0")
    candidates = [_encode(pixels, "PNG")]
    if fits_jpeg:
        candidates.append(_encode(pixels, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4"))
    return min(candidates, key=lambda candidate: len(candidate.data))


def _is_flat(image: PILImage.Image) -> bool:
    from PIL import ImageChops

    width, height = image.size
    grey = image.convert("L")
    left, right = grey.crop((0, 0, max(width - 1, 1), height)), grey.crop((min(1, width - 1), 0, width, height))
    equal = ImageChops.difference(left, right).histogram()[0]
    return equal >= _FLAT_SHARE * width * height


def _encode(image: PILImage.Image, kind: str, **options: Any) -> WireImage:  # noqa: ANN401 — Pillow's own options
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return WireImage(data=buffer.getvalue(), mime_type=f"image/{kind.lower()}")
