"""How large an image may be, and the words in which a larger one is refused.

This module decides the limits. It must not know how images are read or decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

from vision_backends.errors import ImageTooLargeError

__all__ = ["DEFAULT_LIMITS", "ImageLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may cost to read.

    Attributes:
        max_bytes: Largest encoded size, in bytes.
        max_pixels: Largest width × height, in pixels. The default holds every phone's photo and about 160 MB of
            decoded pixels. Above Pillow's own ``MAX_IMAGE_PIXELS`` (89 megapixels) it warns about some formats.
    """

    max_bytes: int = 50_000_000
    max_pixels: int = 40_000_000

    def check_bytes(self, size_bytes: int, *, name: str) -> None:
        """Return if that many encoded bytes are allowed.

        Raises:
            ImageTooLargeError: They are too many.
        """
        if size_bytes > self.max_bytes:
            raise ImageTooLargeError(
                f"{name} has more than {self.max_bytes / 1e6:g} MB.",
                remedy="Pass a smaller file, or raise max_bytes in the image limits.",
            )

    def check_pixels(self, size: tuple[int, int], *, name: str) -> None:
        """Return if an image of that width and height is allowed; asked before any pixel is decoded.

        Raises:
            ImageTooLargeError: It has too many pixels.
        """
        width, height = size
        if width * height > self.max_pixels:
            raise ImageTooLargeError(
                f"{name} has {width}×{height} pixels, more than {self.max_pixels / 1e6:g} megapixels.",
                remedy="Pass a smaller image, or raise max_pixels in the image limits.",
            )


DEFAULT_LIMITS = ImageLimits()
"""50 MB and 40 megapixels."""
