"""Images as they really arrived: decoded, measured and counted in tokens.

This module decides which bytes the sandbox accepts as an image and what it remembers of one. It must not know
which endpoint asked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageStat

from vision_backends.testing.sandbox.wire import ApiError

__all__ = ["Album", "Picture", "image_tokens"]

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_MAX_PIXELS = 50_000_000
_REMEMBERED = 256

_STRUCTURAL = frozenset(
    {
        *("jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe", "adobe_transform", "dpi", "aspect"),
        *("progressive", "progression", "interlace", "gamma", "srgb", "chromaticity", "transparency"),
        *("background", "loop", "duration", "timestamp", "version", "extension"),
    }
)
"""Entries of Pillow's ``Image.info`` that belong to the coding of pixels; anything else is metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is remembered of one image.

    Attributes:
        sha256: Hex digest of the encoded bytes.
        pixels_sha256: Hex digest of the decoded pixels, the same for two encodings of the same picture.
        format: ``"PNG"``, ``"JPEG"``, ``"WEBP"`` or ``"GIF"``.
        width: Width in pixels, as encoded (EXIF orientation is not applied).
        height: Height in pixels, as encoded.
        mean_rgb: Mean colour over all pixels, each 0 to 255.
        size_bytes: Length of the encoded bytes.
        metadata: Names of what was sent besides pixels, such as ``"exif"``, ``"icc_profile"``, ``"comment"``.
        detail: ``detail`` in the request.
    """

    sha256: str
    pixels_sha256: str
    format: str
    width: int
    height: int
    mean_rgb: tuple[int, int, int]
    size_bytes: int
    metadata: tuple[str, ...]
    detail: str = "auto"

    @property
    def tokens(self) -> int:
        """Tokens that are billed for the image."""
        return image_tokens(self.width, self.height, detail=self.detail)

    @property
    def colour(self) -> str:
        """The mean colour as ``"#rrggbb"``."""
        return "#{:02x}{:02x}{:02x}".format(*self.mean_rgb)


def image_tokens(width: int, height: int, *, detail: str = "auto") -> int:
    """Return the tokens of an image, by the tile rule for every model.

    85 at low detail; otherwise the image is scaled down to fit 2048×2048 px, then to a shorter side of 768 px, and
    costs 85 + 170 for each tile of 512×512 px that it covers or touches.
    """
    if detail == "low":
        return 85
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    tiles = math.ceil(round(width * scale, 3) / 512) * math.ceil(round(height * scale, 3) / 512)
    return 85 + 170 * tiles


class Album:
    """Decodes images and remembers the latest by their content, so that one that is sent often is decoded once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: OrderedDict[str, Picture] = OrderedDict()

    def picture(self, url: Any, *, detail: Any = None) -> Picture:  # noqa: ANN401 — whatever a client sent
        """Return the image in a data URL; its declared type is ignored, only its bytes count.

        Raises:
            ApiError: It is not a data URL, or not an image; nothing is ever fetched.
        """
        data = _bytes_of(url)
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            known = self._pictures.get(digest)
        if known is None:
            known = _decode(data, digest)
            with self._lock:
                self._pictures[digest] = known
                if len(self._pictures) > _REMEMBERED:
                    self._pictures.popitem(last=False)
        return replace(known, detail=detail if isinstance(detail, str) else "auto")


def _bytes_of(url: Any) -> bytes:  # noqa: ANN401 — whatever a client sent
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ApiError("invalid_image_url", message="The sandbox fetches nothing: send the image as a data URL.")
    _, separator, payload = url.partition(";base64,")
    try:
        data = base64.b64decode(payload, validate=True) if separator else None
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise ApiError("invalid_base64_image")
    if not data:
        raise ApiError("empty_image_file")
    return data


def _decode(data: bytes, digest: str) -> Picture:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as exc:
        raise ApiError("image_too_large") from exc
    except (OSError, ValueError, SyntaxError) as exc:
        raise ApiError("invalid_image_format") from exc
    with image:
        if image.width * image.height > _MAX_PIXELS:
            raise ApiError("image_too_large")
        if image.format == "GIF" and getattr(image, "is_animated", False):
            raise ApiError("invalid_image_format")
        try:
            pixels = image.convert("RGB")
            red, green, blue = (round(mean) for mean in ImageStat.Stat(pixels).mean)
        except (OSError, ValueError, SyntaxError) as exc:
            raise ApiError("image_parse_error") from exc
        return Picture(
            sha256=digest,
            pixels_sha256=hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest(),
            format=image.format or "",
            width=image.width,
            height=image.height,
            mean_rgb=(red, green, blue),
            size_bytes=len(data),
            metadata=tuple(sorted({str(key) for key in image.info} - _STRUCTURAL)),
        )
