"""Image files that may be sent on with their compressed pixels, and with nothing else in them.

This module decides what of a JPEG, PNG or WEBP a receiver gets, so that it sees what was checked here, and learns
nothing else: no metadata, thumbnail or second picture, nothing that stands behind the end. It must not know how pixels
are decoded, nor who receives them. A file is only passed on once all of it was decoded without an error.

References: ITU-T T.81, annex B; JFIF 1.02; W3C, Portable Network Graphics, third edition; RFC 9649 for WEBP.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from vision_backends.images.container import ExcessError
from vision_backends.images.jpeg import JpegFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MIME_TYPES", "passing"]

MIME_TYPES: Mapping[str, str] = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats of which files may be passed on, by Pillow's names."""

_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
"""Says that three components are YCbCr, and has no thumbnail."""

_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; Huffman coding
_SCAN = 0xDA
_NEEDED = frozenset({0xC4, _SCAN, 0xDB, 0xDD})  # tables, scans, restarts
_JFIF_MARKER, _ADOBE_MARKER = 0xE0, 0xEE
_PROFILE_MARKER = 0xE2
"""Of the one kind of profile that is handed on: sRGB, or the pixels are not as they are stored."""

_YCBCR = 1
_LETTERS_OF_RGB = b"RGB"

_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PNG_MAX_DEPTH = 8
_PIECE_BYTES = 1 << 20

_WEBP_PICTURES = frozenset({b"VP8 ", b"VP8L"})
_WEBP_LEFT_OUT = frozenset({b"VP8X", b"ICCP"})


def passing(data: bytes, *, kind: str, parts: object = None) -> bytes | None:
    """Return a file without anything but its pixels; None where a receiver may see something else, or too much.

    Args:
        data: The file.
        kind: Its format, one of `MIME_TYPES`.
        parts: Those of a JPEG, where they are known already.
    """
    try:
        return _parts_of_jpeg(parts) if isinstance(parts, JpegFile) else _PASSED[kind](data)
    except (ValueError, LookupError, struct.error, zlib.error, ExcessError):
        return None


def _jpeg(data: bytes) -> bytes | None:
    return _parts_of_jpeg(JpegFile(data))


def _parts_of_jpeg(file: JpegFile) -> bytes | None:
    if not file.ended or len(file.frames) != 1:
        return None
    marker, frame = file.frames[0]
    count = frame[9]
    if marker not in _FRAMES or frame[4] != 8 or count not in {1, 3} or 0 in file.size:
        return None
    if count == 3 and not _is_ycbcr(file, bytes(frame[10 : 10 + 3 * count : 3])):
        return None
    kept = [_JFIF]
    for marker, segment in file.segments:
        if marker in _FRAMES or marker in _NEEDED:
            kept.append(segment.rstrip(b"\xff") if marker == _SCAN else segment)  # where it is only padding
        elif marker not in {_JFIF_MARKER, _ADOBE_MARKER, _PROFILE_MARKER}:
            return None
    return b"\xff\xd8" + b"".join(kept) + b"\xff\xd9"


def _is_ycbcr(file: JpegFile, components: bytes) -> bool:
    """Return whether all decoders take three components for YCbCr, whichever sign they look at first."""
    adobe = [segment for marker, segment in file.segments if marker == _ADOBE_MARKER and segment[4:9] == b"Adobe"]
    return components != _LETTERS_OF_RGB and all(len(segment) > 15 and segment[15] == _YCBCR for segment in adobe)


def _png(data: bytes) -> bytes | None:
    width, height, depth, colours, _, _, is_interlaced = struct.unpack_from(">LLBBBBB", data, 16)
    if depth > _PNG_MAX_DEPTH or is_interlaced:
        return None
    kept, packed = [data[:8]], []
    at, name = 8, b""
    while name != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if end > len(data) or name == b"tRNS" or (at == 8) is not (name == b"IHDR"):
            return None
        if name == b"IDAT":
            packed.append(data[at + 8 : end - 4])
        if name in _PNG_KEPT:
            kept.append(data[at:end])
        at = end
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    rows_bytes = height * (1 + -(-width * depth * samples // 8))
    return b"".join(kept) if _unpacked_bytes(b"".join(packed), at_most=rows_bytes) == rows_bytes else None


def _unpacked_bytes(packed: bytes, *, at_most: int) -> int | None:
    """Return how many bytes come out of a stream; None where something stands behind it, or there are more."""
    inflater, count = zlib.decompressobj(), 0
    while not inflater.eof:
        piece = inflater.decompress(packed, _PIECE_BYTES)
        packed = inflater.unconsumed_tail
        count += len(piece)
        if count > at_most or not (piece or packed):
            return None
    return None if inflater.unused_data else count


def _webp(data: bytes) -> bytes | None:
    at = 12
    while at < len(data):
        name, size_bytes = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size_bytes + size_bytes % 2
        if name in _WEBP_PICTURES:
            if end > len(data):
                return None
            return b"RIFF" + struct.pack("<L", 4 + end - at) + b"WEBP" + data[at:end]
        if name not in _WEBP_LEFT_OUT:  # alpha, an animation
            return None
        at = end
    return None


_PASSED: Mapping[str, Callable[[bytes], bytes | None]] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}
