"""AVIF files: the sizes that their pictures are coded in, which need not be the ones that the container names.

This module decides what of an AVIF a decoder gets, and counts what that decoder would allocate: it reads the sequence
header of every coded picture. It must not know how pixels are decoded.

References: ISO/IEC 14496-12 (boxes) and 23008-12 (items); AV1 Bitstream & Decoding Process Specification, section 5.5.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.images.container import MAX_PARTS, Container, ExcessError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["measure_heif", "strip_avif"]

_EXIF_ITEM = re.compile(rb"(?s)(infe[\x02\x03].{7,9})Exif")

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_OBU_EXTENSION, _OBU_HAS_SIZE = 0x04, 0x02

_IN_FILE, _IN_IDAT = 0, 1
"""Where the data of an item is."""

_PLANES_BYTES, _OUTPUT_BYTES = 8, 12
"""Memory for a pixel: planes of YUV and alpha in 16 bits; the interleaved pixels, a copy of them and the image."""


def strip_avif(data: bytes) -> Container:
    """Hide the EXIF item, as of two orientations the container's own is the valid one (MIAF, ISO 23000-22); measure.

    Of a sequence, the still picture is chosen that it has for those who show only one.
    """
    hidden = _EXIF_ITEM.sub(rb"\1none", data)
    file = _Items(hidden)
    pictures = [picture for picture in map(_look_into, file.coded()) if picture is not None]
    sizes = [*file.sizes(), *((picture.width, picture.height) for picture in pictures)]
    width, height = max((side[0] for side in sizes), default=0), max((side[1] for side in sizes), default=0)
    planes = sum(picture.most_pixels for picture in pictures)
    steps = sum(picture.most_pixels * picture.frames for picture in pictures)
    is_certain = file.has_primary and bool(pictures) and all(picture.is_certain for picture in pictures)
    return Container(
        data=hidden[:8] + b"avif" + hidden[12:] if file.has_primary else hidden,
        size=(width, height),
        steps=steps,
        counted=f"{sum(picture.frames for picture in pictures)} coded frames",
        bytes_per_pixel=_OUTPUT_BYTES + -(-planes * _PLANES_BYTES // max(1, width * height)),
        is_certain=is_certain,
    )


def measure_heif(data: bytes) -> Container:
    """Measure what an HEIF file says of itself; its decoder is not Pillow's, and what that takes is not known."""
    try:
        sizes = list(_Items(data).sizes())
    except (ExcessError, ValueError, IndexError, struct.error):  # it is for the decoder to say so
        sizes = []
    width, height = max((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0)
    return Container(data=data, size=(width, height) if sizes else None, bytes_per_pixel=16)


class _Picture(NamedTuple):
    """What the data of one item says.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        most_pixels: As many as any of its frames can have.
        frames: How many there are.
        is_certain: Whether its frames can be no larger than that by much.
    """

    width: int
    height: int
    most_pixels: int
    frames: int
    is_certain: bool


def _look_into(data: bytes) -> _Picture | None:
    """Return the largest size that coded data asks for; None where it begins no sequence."""
    headers = []
    frames = 0
    for kind, payload in _units(data):
        if kind in {_FRAME_HEADER, _FRAME}:
            frames += 1
        elif kind == _SEQUENCE_HEADER:
            headers.append(_sequence(payload))
    if not headers:
        return None
    largest = max(headers, key=lambda header: header.most_pixels)
    return largest._replace(frames=max(1, frames), is_certain=all(header.is_certain for header in headers))


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the beginning of each open bitstream unit."""
    at = 0
    for _ in range(MAX_PARTS):
        if at >= len(data):
            return
        header = data[at]
        at += 2 if header & _OBU_EXTENSION else 1
        size_bytes = len(data) - at
        if header & _OBU_HAS_SIZE:
            size_bytes = 0
            for place in range(8):
                byte = data[at]
                at += 1
                size_bytes |= (byte & 0x7F) << (7 * place)
                if not byte & 0x80:
                    break
        yield header >> 3 & 0x0F, data[at : min(at + size_bytes, at + 2048)]
        at += size_bytes
    raise ExcessError(f"more than {MAX_PARTS:,} units")


class _Bits:
    """Reads numbers of any number of bits."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def __call__(self, number: int) -> int:
        self._left -= number
        if self._left < 0:
            raise ValueError("a sequence header that is cut short")
        return self._value >> self._left & ((1 << number) - 1)

    def variable(self) -> int:
        """Read a number with its length in front, in zeros."""
        zeros = 0
        while not self(1):
            zeros += 1
        return self(min(zeros, 32))


def _sequence(payload: bytes) -> _Picture:
    """Read a sequence header as far as its size; names are the specification's."""
    bits = _Bits(payload)
    bits(4)  # seq_profile, still_picture
    is_reduced = bits(1)
    if is_reduced:
        bits(5)  # seq_level_idx
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    width, height = bits(width_bits) + 1, bits(height_bits) + 1
    if is_reduced:  # frames have no sizes of their own
        return _Picture(width, height, width * height, 1, is_certain=True)
    is_certain = (1 << width_bits) <= 2 * width and (1 << height_bits) <= 2 * height
    return _Picture(width, height, 1 << width_bits + height_bits if is_certain else width * height, 1, is_certain)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    has_model = 0
    if bits(1):  # timing_info_present_flag
        bits(64)  # num_units_in_display_tick, time_scale
        if bits(1):  # equal_picture_interval
            bits.variable()
        has_model = bits(1)
        if has_model:
            delay_bits = bits(5) + 1
            bits(42)  # num_units_in_decoding_tick, buffer_removal_time_length, frame_presentation_time_length
    has_delay = bits(1)  # initial_display_delay_present_flag
    for _ in range(bits(5) + 1):
        bits(12)  # operating_point_idc
        if bits(5) > 7:  # seq_level_idx
            bits(1)  # seq_tier
        if has_model and bits(1):
            bits(2 * delay_bits + 1)
        if has_delay and bits(1):
            bits(4)


@dataclass(slots=True)
class _Places:
    """Where the data of one item is: the method, and the extents."""

    method: int
    extents: list[tuple[int, int]] = field(default_factory=list)


class _Items:
    """The items of a file.

    Attributes:
        has_primary: Whether one of them is what is shown, and the data of all can be found.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._idat = b""
        self._found_bytes = 0
        self._kinds: dict[int, bytes] = {}
        self._places: dict[int, _Places] = {}
        self._sizes: list[tuple[int, int]] = []
        primary = None
        for kind, body in _boxes(data):
            if kind == b"meta":
                for name, content in _boxes(body[4:]):
                    match name:
                        case b"pitm":
                            primary = int.from_bytes(content[4 : 8 if content[0] else 6], "big")
                        case b"idat":
                            self._idat = content
                        case b"iinf":
                            self._note_kinds(content)
                        case b"iloc":
                            self._note_places(content)
                        case b"iprp":
                            self._note_sizes(content)
        self.has_primary = self._kinds.get(primary or 0) in {b"av01", b"grid"} and all(
            place.method in {_IN_FILE, _IN_IDAT} for item, place in self._places.items() if self._is_picture(item)
        )

    def coded(self) -> Iterator[bytes]:
        """Yield the coded data of each picture."""
        for item, kind in self._kinds.items():
            if kind == b"av01" and item in self._places:
                yield self._content(item)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield the sizes that the container names, those of pictures in a grid together included."""
        yield from self._sizes
        for item, kind in self._kinds.items():
            if kind == b"grid" and item in self._places:
                grid = self._content(item)
                yield struct.unpack_from(">LL" if grid[1] & 1 else ">HH", grid, 4)

    def _is_picture(self, item: int) -> bool:
        return self._kinds.get(item) in {b"av01", b"grid"}

    def _content(self, item: int) -> bytes:
        place = self._places[item]
        lengths = [length for _, length in place.extents]
        self._found_bytes += sum(lengths)
        if self._found_bytes > 2 * len(self._data) or (len(lengths) > 1 and not all(lengths)):
            raise ValueError("pictures of more data than there is")
        source = self._idat if place.method == _IN_IDAT else self._data
        return b"".join(source[at : at + length] if length else source[at:] for at, length in place.extents)

    def _note_kinds(self, content: bytes) -> None:
        for _, body in _boxes(content[8 if content[0] else 6 :]):
            wide = body[0] > 2
            item = int.from_bytes(body[4 : 8 if wide else 6], "big")
            self._kinds[item] = body[10:14] if wide else body[8:12]

    def _note_sizes(self, content: bytes) -> None:
        for name, properties in _boxes(content):
            if name == b"ipco":
                self._sizes += [
                    struct.unpack_from(">LL", body, 4) for kind, body in _boxes(properties) if kind == b"ispe"
                ]

    def _note_places(self, content: bytes) -> None:
        version = content[0]
        read = _Numbers(content, 4)
        offset_bytes, length_bytes = divmod(read(1), 16)
        base_bytes, index_bytes = divmod(read(1), 16)
        for _ in range(min(MAX_PARTS, read(4 if version > 1 else 2))):
            item = read(4 if version > 1 else 2)
            place = _Places(method=read(2) & 0x0F if version else _IN_FILE)
            read(2)  # data_reference_index
            base = read(base_bytes)
            for _ in range(read(2)):
                if version:
                    read(index_bytes)
                place.extents.append((base + read(offset_bytes), read(length_bytes)))
            self._places[item] = place


class _Numbers:
    """Reads numbers of any number of bytes."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def __call__(self, size_bytes: int) -> int:
        start, self._at = self._at, self._at + size_bytes
        if self._at > len(self._data):
            raise ValueError("a box that is cut short")
        return int.from_bytes(self._data[start : self._at], "big")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the content of each box."""
    at = 0
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        size_bytes, kind = struct.unpack_from(">L4s", data, at)
        header_bytes = 8
        if size_bytes == 1:
            (size_bytes,) = struct.unpack_from(">Q", data, at + 8)
            header_bytes = 16
        if size_bytes == 0:
            size_bytes = len(data) - at
        if size_bytes < header_bytes:
            raise ValueError("a box smaller than its header")
        yield kind, data[at + header_bytes : at + size_bytes] if kind != b"mdat" else b""
        at += size_bytes
    raise ExcessError(f"more than {MAX_PARTS:,} boxes")
