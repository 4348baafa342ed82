"""The photos that are sent: as large as wanted, each a different file.

This module decides what they show and how they differ. It must not know what is measured with them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SIZES", "as_another_file", "make_photo", "write_photos"]

PHOTOS = Path(__file__).parents[1] / "photos"

SIZES = {"20 kB": (320, 240), "210 kB": (1600, 1200), "12 megapixels": (4000, 3000)}
"""How photos are called by about what they weigh, and their sizes in pixels."""

QUALITY = 90

START_OF_IMAGE = b"\xff\xd8"

COMMENT = b"\xff\xfe\x00\x06"
"""A comment of four bytes in a JPEG."""


def make_photo(name: str) -> bytes:
    """Return the JPEG of a real photo, scaled to one of `SIZES`."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(PHOTOS / "cat.jpg") as photo:
        photo.convert("RGB").resize(SIZES[name], Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def as_another_file(photo: bytes, number: int) -> bytes:
    """Return a JPEG with a number in a comment, so that no cache knows its bytes."""
    return START_OF_IMAGE + COMMENT + number.to_bytes(4, "big") + photo.removeprefix(START_OF_IMAGE)


def write_photos(folder: Path, name: str, count: int) -> Iterator[Path]:
    """Write different files of one photo; yield their paths."""
    photo = make_photo(name)
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        path.write_bytes(as_another_file(photo, number))
        yield path
