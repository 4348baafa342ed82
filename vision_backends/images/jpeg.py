"""JPEG files: the segments that pixels depend on, the scans, and where the file ends.

This module decides what of a JPEG a decoder gets, and counts its scans: libjpeg goes over all pixels for each, however
few bytes it has. It reads markers as libjpeg does, and hands on nothing that it has not read. It must not know how
pixels are decoded.

Reference: ITU-T T.81, annex B and section G.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vision_backends.images.container import MAX_PARTS, Container, ExcessError
from vision_backends.images.tiff import exif_orientation

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JpegFile", "strip_jpeg", "with_jpeg_end"]

_MAX_SCANS = 500
"""More scans than any encoder writes into a progressive JPEG, the same number as TurboJPEG's ``TJFLAG_LIMITSCANS``;
how many are too many for a large image is told by its steps."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_ENTROPY = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # restart markers stand between compressed data
_SCAN, _END = 0xDA, 0xD9
_RESTARTS = frozenset(range(0xD0, 0xD8))
_BARE = frozenset({0x01, 0xD8, *_RESTARTS})
_UNASSIGNED = frozenset(range(0x02, 0xC0))
_IN_HEADER = frozenset(
    {
        *range(0xC0, 0xC8),  # frames and Huffman tables
        *range(0xC9, 0xD0),
        *range(0xDB, 0xE1),  # quantization, restarts, JFIF
        0xEE,  # Adobe, which tells the colour space
    }
)
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
_FRAMES = frozenset(code for code in range(0xC0, 0xD0) if code not in {0xC4, 0xC8, 0xCC})
"""Markers of the segment that tells the size and the number of components."""
_COEFFICIENTS = 64


def strip_jpeg(data: bytes) -> Container:
    """Keep the segments that pixels depend on, and the colour profile; a missing end is put there.

    Raises:
        ExcessError: It has absurdly many segments or scans.
    """
    file = JpegFile(data)
    return Container(
        data=file.stripped() + bytes([0xFF, _END]),
        orientation=exif_orientation(file.exif),
        size=file.size,
        steps=file.passes * file.size[0] * file.size[1],
        counted=f"{file.scans} scans",
        bytes_per_pixel=8 + (2 * file.components if file.scans > 1 else 0),  # all coefficients are kept between scans
        ended=file.ended,
        parts=file,
    )


def with_jpeg_end(data: bytes, missing: bytes) -> bytes | None:
    """Return a JPEG with something in place of what is missing of its last scan; None where whole scans are."""
    file = JpegFile(data)
    if not file.is_covered():
        return None
    return file.stripped().rstrip(b"\xff") + missing + bytes([0xFF, _END])


class JpegFile:
    """The parts of a JPEG file, as libjpeg would find them.

    Attributes:
        exif: The body of the EXIF segment; empty where there is none.
        size: Width and height in pixels.
        frames: The headers that tell these, with their markers.
        segments: What pixels may depend on, with the colour profile, each with its marker; a scan has its data.
        scans: How many there are.
        passes: How often pixels of one component are gone over.
        ended: Whether the file has an end.

    Raises:
        ExcessError: It has absurdly many segments or scans.
    """

    def __init__(self, data: bytes) -> None:
        self.exif = b""
        self.size = (0, 0)
        self.frames: list[tuple[int, bytes]] = []
        self.segments: list[tuple[int, bytes]] = []
        self.scans = 0
        self.passes = 0
        self.ended = False
        self._begin = data[:2]
        self._left: dict[int, set[int]] = {}  # by component, the coefficients that lack some bits
        for marker, segment in self._segments(data):
            if marker == _SCAN:
                self._note_scan(segment)
            elif marker in _FRAMES and not self.scans:
                self.frames.append((marker, segment))
                self.size = int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
            elif segment.startswith(b"Exif\x00\x00", 4):
                self.exif = self.exif or segment[4:]
            is_wanted = marker in _IN_HEADER if not self.scans else marker not in _METADATA
            if is_wanted or marker == _SCAN or (not self.scans and segment.startswith(b"ICC_PROFILE\x00", 4)):
                self.segments.append((marker, segment))

    @property
    def components(self) -> int:
        """How many components there are: 1 for grey, 3 for colours, 4 for print."""
        return self.frames[-1][1][9] if self.frames else 0

    def stripped(self) -> bytes:
        """Return what pixels depend on, without an end."""
        return self._begin + b"".join(segment for _, segment in self.segments)

    def is_covered(self) -> bool:
        """Return whether scans have begun for every coefficient of every component in all its bits.

        A progressive JPEG begins with few of them.
        """
        return self.scans > 0 and len(self._left) >= self.components and not any(self._left.values())

    def _segments(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each segment with its marker; that of a scan includes its compressed data."""
        at = 2
        for _ in range(MAX_PARTS):
            found = _MARKER.search(data, at)  # anything between segments is padding
            if found is None:
                return
            start, marker = found.start(), data[found.start() + 1]
            at = start + 2
            if marker == _END and self.scans:
                self.ended = True
                return
            if marker in _BARE or marker == _END:
                continue
            if marker not in _UNASSIGNED:
                at += max(2, int.from_bytes(data[at : at + 2], "big"))
            if marker == _SCAN:
                end = _END_OF_ENTROPY.search(data, at)
                at = end.start() if end else len(data)
            yield marker, data[start:at]
        raise ExcessError(f"more than {MAX_PARTS:,} segments")

    def _note_scan(self, segment: bytes) -> None:
        self.scans += 1
        if self.scans > _MAX_SCANS:
            raise ExcessError(f"more than {_MAX_SCANS} scans")
        count = segment[4]
        self.passes += count
        if len(segment) < 8 + 2 * count:  # it was cut within
            return
        first, last, bits = segment[5 + 2 * count : 8 + 2 * count]
        for component in segment[5 : 5 + 2 * count : 2]:
            lacking = self._left.setdefault(component, set(range(_COEFFICIENTS)))
            if bits & 0x0F == 0:
                lacking -= set(range(first, last + 1))
