"""Which formats are open, and the bytes of an image without anything that its pixels do not depend on.

This module recognises formats by their bytes, never by their name. Decoders see neither EXIF nor comments, texts,
further pictures or animations: nothing broken in those can fail a good image, or raise a warning through filters that
all threads share. It must not know how pixels are decoded.

References: Adobe, TIFF revision 6.0, section 2; BigTIFF as in libtiff's design document; RFC 9649 for WEBP.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.errors import InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ACCEPTED", "Container", "exif_orientation", "identify", "strip", "with_end"]

ACCEPTED = (
    "Accepted are JPEG, PNG, WEBP, GIF, BMP, TIFF and AVIF images (HEIC with the pillow-heif plugin) as a path, "
    "bytes, binary file, data: URL, PIL image or numpy array."
)
"""The remedy of most errors about images."""

_MAGIC = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF8"),
    ("BMP", b"BM"),
    ("TIFF", b"II*\x00"),
    ("TIFF", b"MM\x00*"),
    ("TIFF", b"II+\x00"),
    ("TIFF", b"MM\x00+"),
)
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

_OTHERS = (
    ("a PDF", rb"%PDF"),
    ("an SVG drawing", rb"(?s)(\xef\xbb\xbf)?\s*<(svg|\?xml.{,2000}<svg|!DOCTYPE svg)"),
    ("an HTML page", rb"(?i)\s*<(!doctype html|html|head|body)"),
    ("a JPEG XL image", rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    ("a JPEG 2000 image", rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  "),
    ("a Photoshop document", rb"8BPS"),
    ("an icon", rb"\x00\x00[\x01\x02]\x00"),
    ("a ZIP archive or office document", rb"PK\x03\x04"),
    ("a video", rb"(?s)....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI "),
    ("a data URL, which must be passed as a string", rb"data:"),
    ("text", rb"[\x09\x0a\x0d\x20-\x7e]{16}"),
)
"""What people pass by mistake, as patterns for the first bytes."""

_MAX_SCANS = 500
"""More scans than any encoder writes into a progressive JPEG; each costs a pass over all pixels. The same number
as TurboJPEG's ``TJFLAG_LIMITSCANS``."""

_MAX_SEGMENTS = 100_000
"""More segments or chunks than any image needs; each costs time, even an empty one."""

_MAX_GIF_HEADER_BYTES = 1_000_000
_MAX_PROFILE_BYTES = 4_000_000

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_HEADER = frozenset({b"\xda", b""})  # the first scan, or the end of the data
_BARE_MARKERS = frozenset(bytes([code]) for code in (0x01, *range(0xD0, 0xDA)))
_KEPT_MARKERS = frozenset(
    bytes([code])
    for code in (
        *range(0xC0, 0xC8),  # frames and Huffman tables
        *range(0xC9, 0xD0),
        *range(0xDB, 0xE1),  # quantization, restarts, JFIF
        0xEE,  # Adobe, which tells the colour space
    )
)

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_COEFFICIENTS = 64

_FRAMES = frozenset(bytes([code]) for code in range(0xC0, 0xD0) if code not in {0xC4, 0xC8, 0xCC})
"""Markers of the segment that tells the size and the number of components."""

_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by type of colour."""
_PNG_MAX_DEPTH = 16

_WIDTH, _HEIGHT, _ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 274, 322, 323

_SINGLE_TAGS = frozenset(
    {_WIDTH, _HEIGHT, 259, 262, 266, 277, 278, 284, 292, 293, 317, _TILE_WIDTH, _TILE_HEIGHT, 332}
    | {347, 512, 513, 514, 515, 531, 34675}
)
"""Tags with one value that pixels depend on: geometry, compression, photometry, JPEG tables, colour profile."""

_LIST_TAGS = frozenset({258, 273, 279, 320, 324, 325, 338, 339} | {517, 518, 519, 520, 521, 529, 530, 532, 50674})
"""Tags with several values that pixels depend on: bits, strips, tiles, palette, samples, tables."""

_MAX_VALUES = 1 << 18
"""More strips than any encoder writes; Pillow holds a record of some hundred bytes for each."""

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_STRING_TYPES = frozenset({1, 2, 7})
_INTEGER_TYPES = {1: "B", 3: "H", 4: "L", 16: "Q"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An encoded image without its metadata.

    Attributes:
        data: The bytes for the decoder.
        orientation: 1 to 8 as in EXIF; None where only the decoder can tell.
        size: Width and height in pixels that the decoder would allocate; None where it says so before it does.
        icc_profile: The colour profile, where it is not left in ``data``.
        ended: Whether the file has an end, as far as that is looked at here.
    """

    data: bytes = field(repr=False)
    orientation: int | None = None
    size: tuple[int, int] | None = None
    icc_profile: bytes | None = field(default=None, repr=False)
    ended: bool = True


def identify(data: bytes, *, name: str) -> str:
    """Return Pillow's name of the format of some bytes.

    Raises:
        InvalidImageError: It is not one of those that are open.
    """
    for kind, magic in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        brands = {box[at : at + 4] for at in range(0, len(box), 4)}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    if not data:
        raise InvalidImageError(f"{name} is empty.", remedy=ACCEPTED)
    guess = next((words for words, pattern in _OTHERS if re.match(pattern, data[:4096])), None)
    looks = f"looks like {guess}" if guess else "is not in a supported format"
    raise InvalidImageError(f"{name} {looks}.", remedy=ACCEPTED)


def strip(data: bytes, *, kind: str) -> Container:
    """Return the image without what its pixels do not depend on.

    Raises:
        ValueError: It is damaged or malicious. IndexError, OverflowError and struct.error mean the same.
    """
    return _STRIPPERS[kind](data) if kind in _STRIPPERS else Container(data=data)


def with_end(data: bytes, fill: bytes, *, kind: str, max_pixels: int) -> bytes | None:
    """Return a file that was cut short, with something in place of what is missing, however much that is.

    What a decoder makes of two files with different fills is the same as far as the file goes, and differs from there.

    Args:
        data: The file.
        fill: The byte that is put in place of every missing one.
        kind: Its format.
        max_pixels: Nothing is made up for an image of more pixels.

    Returns:
        None for a format whose end cannot be made up, and where the end is not all that is missing.

    Raises:
        ValueError: It is damaged. IndexError, zlib.error and struct.error mean the same.
    """
    missing = fill * (len(data) + 64)
    if kind == "JPEG":
        header = _JpegHeader(data)
        return data[: header.end] + missing + _END if header.is_covered() else None
    if kind == "PNG":
        return _with_png_end(data, fill, max_pixels=max_pixels)
    return data + missing if kind in {"BMP", "WEBP", "TIFF"} else None


class _JpegHeader:
    """What stands before the pixels of a JPEG, and where they begin and end.

    Raises:
        ValueError: It has absurdly many segments.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.kept = [data[:2]]  # the segments that pixels depend on, and the colour profile
        self.exif = b""
        self.components = 0
        self.at = 2  # where the first scan begins
        for _ in range(_MAX_SEGMENTS):
            found = _MARKER.search(data, self.at)  # anything between segments is padding
            self.at = found.start() if found else len(data)
            marker = data[self.at + 1 : self.at + 2]
            if marker in _END_OF_HEADER:
                break
            self._note(marker)
        else:
            raise ValueError("a JPEG with absurdly many segments")
        self.end = data.find(_END, self.at)
        self.ended = self.end >= 0
        if not self.ended:
            self.end = len(data)

    def _note(self, marker: bytes) -> None:
        length = 0 if marker in _BARE_MARKERS else max(2, int.from_bytes(self.data[self.at + 2 : self.at + 4], "big"))
        segment = self.data[self.at : self.at + 2 + length]
        if segment.startswith(b"Exif\x00\x00", 4):
            self.exif = self.exif or segment[4:]
        if marker in _KEPT_MARKERS or segment.startswith(b"ICC_PROFILE\x00", 4):
            self.kept.append(segment)
        if marker in _FRAMES:
            self.components = segment[9]
        self.at += 2 + length

    def is_covered(self) -> bool:
        """Return whether scans have begun for every coefficient of every component in all its bits.

        A progressive JPEG begins with few of them; ITU-T T.81, section G.1.
        """
        left: dict[int, set[int]] = {}
        at = self.data.find(_SCAN, self.at)
        while 0 <= at < self.end:
            count = self.data[at + 4]
            first, last, bits = self.data[at + 5 + 2 * count : at + 8 + 2 * count]
            for component in self.data[at + 5 : at + 5 + 2 * count : 2]:
                lacking = left.setdefault(component, set(range(_COEFFICIENTS)))
                if bits & 0x0F == 0:
                    lacking -= set(range(first, last + 1))
            at = self.data.find(_SCAN, at + 2)
        return len(left) >= self.components and not any(left.values())


def _strip_jpeg(data: bytes) -> Container:
    """Keep the segments that pixels depend on, and the colour profile; a missing end is put there."""
    header = _JpegHeader(data)
    if data.count(_SCAN, header.at, header.end) > _MAX_SCANS:
        raise ValueError("a progressive JPEG with absurdly many scans")
    body = data[header.at :] if header.ended else data[header.at :] + _END
    orientation = exif_orientation(header.exif)
    return Container(data=b"".join(header.kept) + body, orientation=orientation, ended=header.ended)


def _strip_png(data: bytes) -> Container:
    """Keep the critical chunks and transparency; take the colour profile out."""
    kept = [data[:8]]
    orientation = 1
    profile = None
    at = 8
    name = b""
    for _ in range(_MAX_SEGMENTS):
        if at >= len(data) or name == b"IEND":
            break
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if name in _PNG_CHUNKS:
            kept.append(data[at:end])
        elif name == b"eXIf":
            orientation = exif_orientation(data[at + 8 : end - 4])
        elif name == b"iCCP":
            profile = _inflate_profile(data[at + 8 : end - 4])
        at = end
    else:
        raise ValueError("a PNG with absurdly many chunks")
    return Container(data=b"".join(kept), orientation=orientation, icc_profile=profile)


def _with_png_end(data: bytes, fill: bytes, *, max_pixels: int) -> bytes:
    """Return a PNG whose compressed rows go on with something else where the file ends."""
    stripped = _strip_png(data).data
    begin = stripped.index(b"IDAT") - 4
    packed, at = [], begin
    while stripped[at + 4 : at + 8] == b"IDAT":
        length = int.from_bytes(stripped[at : at + 4], "big")
        packed.append(stripped[at + 8 : at + 8 + length])
        at += 12 + length
    width, height, depth, colours = struct.unpack_from(">LLBB", stripped, 16)
    if not 0 < width * height <= max_pixels or depth > _PNG_MAX_DEPTH:
        raise ValueError("a PNG of an absurd size")
    row_bytes = 1 + math.ceil(width * depth * _PNG_SAMPLES.get(colours, 4) / 8)
    most_bytes = row_bytes * height + 16 * (width + height)  # some more where it is interlaced
    rows = zlib.decompressobj().decompress(b"".join(packed), most_bytes).ljust(most_bytes, fill)
    return stripped[:begin] + _png_chunk(b"IDAT", zlib.compress(rows, 1)) + _png_chunk(b"IEND", b"")


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def _inflate_profile(body: bytes) -> bytes | None:
    """Return the profile of an iCCP chunk (name, null, method, zlib stream); None if it is broken or huge."""
    _, _, packed = body.partition(b"\x00")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def _strip_avif(data: bytes) -> Container:
    """Hide the EXIF item; of two orientations the container's own is the valid one (MIAF, ISO 23000-22)."""
    return Container(data=re.sub(rb"(?s)(infe[\x02\x03].{7,9})Exif", rb"\1none", data))


def _measure_gif(data: bytes) -> Container:
    """Measure the canvas of a GIF's first frame, which may exceed the screen size in its header."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while at < _MAX_GIF_HEADER_BYTES:
        match data[at]:
            case 0x2C:  # an image
                left, top, frame_width, frame_height = struct.unpack_from("<4H", data, at + 1)
                size = max(width, left + frame_width), max(height, top + frame_height)
                return Container(data=data, size=size)
            case 0x21:  # an extension: a label, then blocks until an empty one
                at += 2
                while (length := data[at]) and at < _MAX_GIF_HEADER_BYTES:
                    at += length + 1
        at += 1
    raise ValueError("a GIF with absurdly much before its first image")


def _measure_webp(data: bytes) -> Container:
    match data[12:16]:
        case b"VP8X":
            width = int.from_bytes(data[24:27], "little") + 1
            height = int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<L", data, 21)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:  # VP8, lossy
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Container(data=data, size=(width, height))


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
    except (struct.error, ValueError, OverflowError):  # the last: an offset larger than any memory
        return 1
    return value if 1 <= value <= 8 else 1


def _strip_tiff(data: bytes) -> Container:
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
    sizes = {tag: directory.integer(entry) for tag, entry in kept.items()}
    width = max(sizes.get(_WIDTH, 0), sizes.get(_TILE_WIDTH, 0))
    height = max(sizes.get(_HEIGHT, 0), sizes.get(_TILE_HEIGHT, 0))
    stripped = data[:start] + packed + data[start + len(packed) :]
    return Container(data=stripped, orientation=exif_orientation(data), size=(width, height))


_STRIPPERS: dict[str, Callable[[bytes], Container]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "TIFF": _strip_tiff,
    "GIF": _measure_gif,
    "WEBP": _measure_webp,
    "AVIF": _strip_avif,
}
