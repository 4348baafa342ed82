"""Everything that can be an image → one checked, upright `Image`.

This module decides what is accepted, the limits of size, and how pixels are decoded and encoded. It must not
know what the image is for, nor any backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import os
    from typing import Any

    import numpy.typing as npt
    from PIL import Image as PILImage

__all__ = ["DEFAULT_LIMITS", "Image", "ImageLimits", "ImageSource", "encode_for_wire", "open_image"]

ImageSource = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PILImage.Image | npt.NDArray[Any]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may cost to read."""

    max_bytes: int = 50_000_000
    max_pixels: int = 40_000_000


DEFAULT_LIMITS = ImageLimits()


class Image:
    """One decoded, upright RGB image. Safe to use from many threads; immutable to its users."""

    width: int  # upright full size
    height: int
    digest: str  # hex sha256 of the content

    def rgb(self, *, min_side_px: int | None = None) -> PILImage.Image:
        """Return upright RGB pixels whose shorter side is at least min_side_px, or all of them."""
        raise NotImplementedError


def open_image(
    source: ImageSource, *, min_side_px: int | None = None, limits: ImageLimits = DEFAULT_LIMITS
) -> Image:
    raise NotImplementedError


def encode_for_wire(image: PILImage.Image) -> tuple[bytes, str]:
    raise NotImplementedError
