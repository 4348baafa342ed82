"""What an image may cost to read and to decode, and what is said where it costs more.

This module decides what is too much. It must not know how anything is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vision_backends.arguments import check_flag, check_number
from vision_backends.errors import ImageTooLargeError

__all__ = ["DEFAULT_LIMITS", "Encoded", "ImageLimits"]

_MOST_PASSES = 25
"""An image at the limit of pixels may be gone over so often, about a second's work; most progressive JPEGs take 12."""

_LEAST_STEPS = 1_000_000_000
"""Pixels that may be gone over whatever the limit of pixels, all passes together."""

_MOST_BYTES_PER_PIXEL = 32
"""Memory that an image at the limit of pixels may take while it is decoded; most formats take 8 to 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may cost to read.

    Attributes:
        max_bytes: Largest encoded size, in bytes.
        max_pixels: Largest width × height, in pixels. The default holds every phone's photo and about 160 MB of
            decoded pixels. Above its own ``MAX_IMAGE_PIXELS`` (89 megapixels) Pillow warns about some formats.
        max_side_px: Largest width and largest height: a row takes memory even where it has one pixel.
        allow_urls: Whether an image may be an ``http://`` or ``https://`` address, which is then fetched.
        allow_private_urls: Whether that address may be on this machine or in a private network.

    Raises:
        InvalidRequestError: One is not a number, or not a switch.

    Examples:
        >>> from vision_backends import ImageLimits, ImageTooLargeError, open_image
        >>> try:
        ...     open_image("cat.jpg", limits=ImageLimits(max_side_px=200))
        ... except ImageTooLargeError as error:
        ...     print(error.kind)
        image_too_large
    """

    max_bytes: int = 50_000_000
    max_pixels: int = 40_000_000
    max_side_px: int = 65_535
    allow_urls: bool = False
    allow_private_urls: bool = False

    def __post_init__(self) -> None:
        check_number("max_bytes", self.max_bytes, example=50_000_000, optional=False)
        check_number("max_pixels", self.max_pixels, example=40_000_000, optional=False)
        check_number("max_side_px", self.max_side_px, example=65_535, optional=False)
        check_flag("allow_urls", self.allow_urls)
        check_flag("allow_private_urls", self.allow_private_urls)

    def check_bytes(self, size_bytes: int, *, name: str) -> None:
        """Return if that many encoded bytes are allowed.

        Raises:
            ImageTooLargeError: They are too many.
        """
        if size_bytes > self.max_bytes:
            raise self.too_many_bytes(name)

    def too_many_bytes(self, name: str) -> ImageTooLargeError:
        """Return the error for a file that is larger than allowed."""
        return ImageTooLargeError(
            f"{name} has more than {self.max_bytes / 1e6:g} MB.",
            remedy="Pass a smaller file, or raise max_bytes in the image limits.",
        )

    def check_pixels(self, size: tuple[int, int], *, name: str) -> None:
        """Return if an image of that width and height is allowed; called before any pixel is decoded.

        Raises:
            ImageTooLargeError: It has too many pixels.
        """
        width, height = size
        if width * height > self.max_pixels:
            raise ImageTooLargeError(
                f"{name} has {width}×{height} pixels, more than {self.max_pixels / 1e6:g} megapixels.",
                remedy="Pass a smaller image, or raise max_pixels in the image limits.",
            )
        if max(size) > self.max_side_px:
            raise ImageTooLargeError(
                f"{name} has {width}×{height} pixels; no side may be longer than {self.max_side_px}.",
                remedy="Pass parts of it, or raise max_side_px in the image limits.",
            )

    def check_steps(self, size: tuple[int, int], steps: int, *, counted: str, name: str) -> None:
        """Return if a decoder may go over so many pixels, all passes together; called before any is decoded.

        Raises:
            ImageTooLargeError: They are too many.
        """
        if steps > max(_LEAST_STEPS, _MOST_PASSES * self.max_pixels):
            width, height = size
            raise ImageTooLargeError(
                f"{name} has {counted} for {width}×{height} pixels, which would take too long to decode.",
                remedy="Save it again: a usual file of this format has a tenth of that. A smaller image may have more.",
            )

    def check_memory(self, size: tuple[int, int], bytes_per_pixel: int, *, name: str) -> None:
        """Return if decoding may take so much memory; called before any pixel is decoded.

        Raises:
            ImageTooLargeError: It is too much.
        """
        width, height = size
        taken_bytes = width * height * bytes_per_pixel
        if taken_bytes > self.max_pixels * _MOST_BYTES_PER_PIXEL:
            raise ImageTooLargeError(
                f"{name} has {width}×{height} pixels, which would take {taken_bytes / 1e6:.0f} MB to decode.",
                remedy="Save it again as one picture, or raise max_pixels in the image limits.",
            )


DEFAULT_LIMITS = ImageLimits()
"""50 MB and 40 megapixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The bytes of an image file.

    Attributes:
        name: What to call them in messages: the file's path, or "The bytes object".
        data: The bytes, whatever they are.
    """

    name: str
    data: bytes = field(repr=False)
