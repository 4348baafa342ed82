"""What kind of image some bytes are, and the same image without what its pixels do not depend on.

This module decides which formats are open, by their bytes and never by their name. Decoders get to see neither
EXIF nor comments, texts, further pictures or animations: what is broken there can then neither fail a good
image nor raise a warning through filters that all threads share. It must not know how pixels are decoded.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vision_backends.images.tiff import exif_orientation, strip_tiff

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Container", "guess_other", "identify", "strip"]

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
    ("a data URL, which is taken as a string", rb"data:"),
    ("a text", rb"[\x09\x0a\x0d\x20-\x7e]{16}"),
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

_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An encoded image without its metadata.

    Attributes:
        data: The bytes for the decoder.
        orientation: 1 to 8 as in EXIF; None where only the decoder can tell.
        size: Width and height in pixels that the decoder would allocate; None where it says so before it does.
        icc_profile: The colour profile, where it is not left in ``data``.
    """

    data: bytes = field(repr=False)
    orientation: int | None = None
    size: tuple[int, int] | None = None
    icc_profile: bytes | None = field(default=None, repr=False)


def identify(data: bytes) -> str | None:
    """Return Pillow's name of the format of some bytes, None if it is not one of those that are open."""
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
    return None


def guess_other(data: bytes) -> str | None:
    """Return in words what some bytes that are no image look like; None if nobody knows."""
    return next((words for words, pattern in _OTHERS if re.match(pattern, data[:4096])), None)


def strip(data: bytes, *, kind: str) -> Container:
    """Return the image without what its pixels do not depend on.

    Raises:
        ValueError: It is damaged or out to do harm. IndexError, OverflowError and struct.error say the same.
    """
    return _STRIPPERS[kind](data) if kind in _STRIPPERS else Container(data=data)


def _strip_jpeg(data: bytes) -> Container:
    """Keep the segments that pixels depend on, and the colour profile."""
    kept = [data[:2]]
    exif = b""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)  # what stands between segments is padding
        at = found.start() if found else len(data)
        marker = data[at + 1 : at + 2]
        if marker in _END_OF_HEADER:
            break
        length = 0 if marker in _BARE_MARKERS else max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        end = at + 2 + length
        segment = data[at:end]
        if segment.startswith(b"Exif\x00\x00", 4):
            exif = exif or segment[4:]
        if marker in _KEPT_MARKERS or segment.startswith(b"ICC_PROFILE\x00", 4):
            kept.append(segment)
        at = end
    else:
        raise ValueError("a JPEG with absurdly many segments")
    end_of_image = data.find(b"\xff\xd9", at)
    if data.count(b"\xff\xda", at, end_of_image if end_of_image >= 0 else len(data)) > _MAX_SCANS:
        raise ValueError("a progressive JPEG with absurdly many scans")
    return Container(data=b"".join(kept) + data[at:], orientation=exif_orientation(exif))


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


def _inflate_profile(body: bytes) -> bytes | None:
    """Return the profile of an iCCP chunk (name, null, method, zlib stream); None if it is broken or huge."""
    _, _, packed = body.partition(b"\x00")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def _strip_tiff(data: bytes) -> Container:
    stripped, size = strip_tiff(data)
    return Container(data=stripped, orientation=exif_orientation(data), size=size)


def _strip_avif(data: bytes) -> Container:
    """Hide the EXIF item; of two orientations the container's own is the valid one (MIAF, ISO 23000-22)."""
    return Container(data=re.sub(rb"(?s)(infe[\x02\x03].{7,9})Exif", rb"\1none", data))


def _measure_gif(data: bytes) -> Container:
    return Container(data=data, size=_gif_size(data))


def _measure_webp(data: bytes) -> Container:
    return Container(data=data, size=_webp_size(data))


def _gif_size(data: bytes) -> tuple[int, int]:
    """Return the canvas of a GIF's first frame, which may reach over the screen of its header."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while at < _MAX_GIF_HEADER_BYTES:
        match data[at]:
            case 0x2C:  # an image
                left, top, frame_width, frame_height = struct.unpack_from("<4H", data, at + 1)
                return max(width, left + frame_width), max(height, top + frame_height)
            case 0x21:  # an extension: a label, then blocks until an empty one
                at += 2
                while (length := data[at]) and at < _MAX_GIF_HEADER_BYTES:
                    at += length + 1
        at += 1
    raise ValueError("a GIF with absurdly much before its first image")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the canvas of a WEBP image. Reference: RFC 9649."""
    match data[12:16]:
        case b"VP8X":
            return (
                int.from_bytes(data[24:27], "little") + 1,
                int.from_bytes(data[27:30], "little") + 1,
            )
        case b"VP8L":
            (bits,) = struct.unpack_from("<L", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:  # VP8, lossy
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF


_STRIPPERS: dict[str, Callable[[bytes], Container]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "TIFF": _strip_tiff,
    "GIF": _measure_gif,
    "WEBP": _measure_webp,
    "AVIF": _strip_avif,
}
