"""TIFF directories: the one of a file with only what pixels depend on, and the orientation in an EXIF block.

This module decides what of a TIFF a decoder gets, and what that decoder would allocate. It must not know how pixels are
decoded.

References: Adobe, TIFF revision 6.0, section 2; BigTIFF as in libtiff's design document.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.images.container import Container, ExcessError, count_scans

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["exif_orientation", "strip_tiff"]

_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 274, 278, 322, 323

_SINGLE_TAGS = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, 262, 266, 277, _ROWS, 284, 292, 293, 317, _TILE_WIDTH, _TILE_HEIGHT, 332}
    | {347, 512, 513, 514, 515, 531, 34675}
)
"""Tags with one value that pixels depend on: geometry, compression, photometry, JPEG tables, colour profile."""

_LIST_TAGS = frozenset({258, 273, 279, 320, 324, 325, 338, 339} | {517, 518, 519, 520, 521, 529, 530, 532, 50674})
"""Tags with several values that pixels depend on: bits, strips, tiles, palette, samples, tables."""

_MAX_VALUES = 1 << 18
"""More strips than any encoder writes; Pillow holds a record of some hundred bytes for each."""

_MAX_ENTRIES = 65_535
"""As many as a directory can have that is not a BigTIFF's; each costs time."""

_JPEG_COMPRESSIONS = frozenset({6, 7})

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_STRING_TYPES = frozenset({1, 2, 7})
_INTEGER_TYPES = {1: "B", 3: "H", 4: "L", 16: "Q"}


class _Layout(NamedTuple):
    """How a directory is laid out: struct formats, and how many bytes of values fit into the entry itself."""

    offset_at: int
    offset: str
    number: str
    entry: str
    inline_bytes: int


_LAYOUTS = {42: _Layout(4, "L", "H", "HHL4s", 4), 43: _Layout(8, "Q", "Q", "HHQ8s", 8)}


class _Entry(NamedTuple):
    """One tag: its number, its type, the number of its values, and their bytes or the offset to them."""

    tag: int
    kind: int
    values: int
    payload: bytes


class _Directory:
    """The first tag directory of a TIFF file or EXIF block.

    Raises:
        ValueError: The data has no such directory.
        struct.error: The directory is cut short.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.endian = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        layout = _LAYOUTS.get(struct.unpack_from(f"{self.endian}H", data, 2)[0])
        if not self.endian or layout is None:
            raise ValueError("not a TIFF directory")
        self.layout = layout
        (self.start,) = struct.unpack_from(self.endian + layout.offset, data, layout.offset_at)

    def __iter__(self) -> Iterator[_Entry]:
        number_format, entry_format = self.endian + self.layout.number, self.endian + self.layout.entry
        (number,) = struct.unpack_from(number_format, self.data, self.start)
        if number > _MAX_ENTRIES:
            raise ExcessError(f"a directory of {number} entries")
        at = self.start + struct.calcsize(number_format)
        for _ in range(number):
            yield _Entry(*struct.unpack_from(entry_format, self.data, at))
            at += struct.calcsize(entry_format)

    def size_bytes(self, entry: _Entry) -> int | None:
        """Return the size of an entry's value; None if the type is unknown or the value lies outside the data."""
        size = entry.values * _TYPE_BYTES.get(entry.kind, 0)
        if size > self.layout.inline_bytes:
            (offset,) = struct.unpack(self.endian + self.layout.offset, entry.payload)
            if offset + size > len(self.data):
                return None
        return size or None

    def integer(self, entry: _Entry) -> int:
        """Return the value of an entry that holds one small integer, otherwise 0."""
        form = _INTEGER_TYPES.get(entry.kind)
        if form is None or entry.values != 1 or struct.calcsize(f"={form}") > self.layout.inline_bytes:
            return 0
        return int(struct.unpack_from(self.endian + form, entry.payload)[0])


def exif_orientation(exif: object) -> int:
    """Return how an image was held, 1 to 8 as in EXIF; 1 (upright) where the block is missing or broken."""
    if not isinstance(exif, bytes):
        return 1
    try:
        directory = _Directory(exif.removeprefix(b"Exif\x00\x00"))
        value = next((directory.integer(entry) for entry in directory if entry.tag == _ORIENTATION), 1)
    except (ExcessError, struct.error, ValueError, OverflowError):  # the last: an offset larger than any memory
        return 1
    return value if 1 <= value <= 8 else 1


def strip_tiff(data: bytes) -> Container:
    """Keep one directory, with only the sound tags that pixels depend on; measure what a decoder would allocate.

    Orientation is among the tags that go, because Pillow would apply it by itself.
    """
    directory = _Directory(data)
    kept: dict[int, _Entry] = {}
    budget_bytes = len(data)
    for entry in directory:
        single = entry.tag in _SINGLE_TAGS and (entry.values == 1 or entry.kind in _STRING_TYPES)
        listed = entry.tag in _LIST_TAGS and entry.values <= _MAX_VALUES
        size_bytes = directory.size_bytes(entry) if single or listed else None
        if size_bytes and entry.tag not in kept and size_bytes <= budget_bytes:
            budget_bytes -= size_bytes
            kept[entry.tag] = entry
    endian, layout = directory.endian, directory.layout
    packed = struct.pack(endian + layout.number, len(kept))
    packed += b"".join(struct.pack(endian + layout.entry, *entry) for entry in kept.values())
    packed += struct.pack(endian + layout.offset, 0)  # no further pages
    start = directory.start
    numbers = {tag: directory.integer(entry) for tag, entry in kept.items()}
    width, height = _decoded_size(numbers)
    scans = max(1, count_scans(data)) if numbers.get(_COMPRESSION) in _JPEG_COMPRESSIONS else 1
    return Container(
        data=data[:start] + packed + data[start + len(packed) :],
        orientation=exif_orientation(data),
        size=(width, height),
        steps=width * _part_rows(numbers, height) * max(scans, math.ceil(height / _part_rows(numbers, height))),
        counted=f"{scans} scans in its parts" if scans > 1 else "",
        bytes_per_pixel=12,
    )


def _decoded_size(numbers: Mapping[int, int]) -> tuple[int, int]:
    """Return the size of all tiles together, those included that reach over the edge: each is decoded whole."""
    sides = []
    for side, tile in ((numbers.get(_WIDTH, 0), _TILE_WIDTH), (numbers.get(_HEIGHT, 0), _TILE_HEIGHT)):
        step = numbers.get(tile, 0) or 1
        sides.append(math.ceil(side / step) * step)
    return sides[0], sides[1]


def _part_rows(numbers: Mapping[int, int], height: int) -> int:
    """Return how many rows are decoded in one go: a strip's or a tile's."""
    rows = numbers.get(_TILE_HEIGHT, 0) or numbers.get(_ROWS, 0) or height
    return max(1, min(rows, height))
