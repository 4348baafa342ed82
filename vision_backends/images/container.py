"""An encoded image as a decoder gets it, and what decoding it takes by its own count.

This module decides what is counted. It must not know a format, nor what is too much.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["MAX_PARTS", "Container", "ExcessError", "count_scans"]

MAX_PARTS = 100_000
"""More segments, chunks or boxes than any image needs; each costs time, even an empty one."""


class ExcessError(Exception):
    """An image has more of something than any image needs.

    Args:
        counted: How much of what: ``"more than 500 scans"``.
    """

    def __init__(self, counted: str) -> None:
        super().__init__(counted)
        self.counted = counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An encoded image without its metadata, and without anything that was not counted.

    Attributes:
        data: The bytes for the decoder.
        orientation: 1 to 8 as in EXIF; None where only the decoder can tell.
        size: Width and height in pixels that the decoder would allocate; None where it says so before it does.
        steps: How many pixels the decoder goes over, all passes together; None for those of ``size`` once.
        counted: What makes these so many, for a message: ``"490 scans"``.
        bytes_per_pixel: Memory that the decoder takes for each pixel, the decoded one included.
        is_certain: Whether that is all that the decoder can take; where not, it has to run where it can be ended.
        icc_profile: The colour profile, where it is not left in ``data``.
        ended: Whether the file has an end, as far as that is looked at here.
        parts: What the module of its format has read of it, which need not be read again.
    """

    data: bytes = field(repr=False)
    orientation: int | None = None
    size: tuple[int, int] | None = None
    steps: int | None = None
    counted: str = ""
    bytes_per_pixel: int = 8
    is_certain: bool = True
    icc_profile: bytes | None = field(default=None, repr=False)
    ended: bool = True
    parts: object = field(default=None, repr=False)


def count_scans(data: bytes) -> int:
    """Return how many scans there are at most in data that has JPEGs anywhere, as the strips of a TIFF are."""
    return data.count(b"\xff\xda")
