"""Images as they leave the machine: the file's own compressed pixels, or pixels that are encoded here.

This module decides which of the two is sent, in which format and how large, and how much of an image has to be decoded
for it. No EXIF, GPS, comment, text or colour profile of an image is ever included. It must not know where an image
comes from, nor who receives it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from vision_backends.images.passing import MIME_TYPES, passing

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image as PILImage

__all__ = ["WireImage", "WireRule", "encode_for_wire"]

_CHECK_SIDE_PX = 64
"""A JPEG that is passed on as it is is decoded at the smallest scale, for the check that it can be."""

_JPEG_QUALITY = 88
_JPEG_MAX_SIDE_PX = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_FLAT_SHARE = 0.5
"""Share of pixels equal to their right neighbour above which an image is taken for graphics: in photos it is a few
hundredths, in screenshots more than nine tenths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRule:
    """What of an image is sent.

    Attributes:
        fit: Returns the size that is looked at, for that of an upright image in pixels; never larger.
        formats: Files of these formats may be sent as they are: ``"JPEG"``, ``"PNG"``, ``"WEBP"``.
        max_bytes: No larger file is.
        scales: Whether the receiver scales a larger image down by itself, at no higher price.
    """

    fit: Callable[[int, int], tuple[int, int]]
    formats: frozenset[str] = frozenset()
    max_bytes: int = 1_000_000
    scales: bool = False

    def passed(self, data: bytes, *, kind: str, size: tuple[int, int], parts: object = None) -> WireImage | None:
        """Return a file as it is sent; None where its pixels have to be encoded anew.

        Args:
            data: The file, of which all pixels are known to be shown as they are stored.
            kind: Its format.
            size: Width and height in pixels.
            parts: Those of a JPEG, where they are known already.
        """
        if kind not in self.formats or len(data) > self.max_bytes or not (self.scales or self.fit(*size) == size):
            return None
        plain = passing(data, kind=kind, parts=parts)
        return None if plain is None else WireImage(data=plain, mime_type=MIME_TYPES[kind])

    def decoded_side_px(self, passed: WireImage | None, *, size: tuple[int, int]) -> int:
        """Return how long the shorter side of the decoded pixels has to be.

        Args:
            passed: The JPEG as it is sent, unless it is encoded anew.
            size: Width and height in pixels.
        """
        return min(self.fit(*size)) if passed is None else _CHECK_SIDE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class WireImage:
    """An encoded image without metadata.

    Attributes:
        data: The bytes of the file.
        mime_type: ``image/jpeg``, ``image/png`` or ``image/webp``.
    """

    data: bytes = field(repr=False)
    mime_type: str

    @property
    def data_url(self) -> str:
        """The image as a ``data:`` URL."""
        return f"data:{self.mime_type};base64,{base64.b64encode(self.data).decode('ascii')}"


def encode_for_wire(image: PILImage.Image) -> WireImage:
    """Encode pixels alone: no EXIF, GPS, comment, text or colour profile of the image is included.

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
