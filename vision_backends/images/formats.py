"""Which formats are open, and the bytes of an image without anything that its pixels do not depend on.

This module recognises formats by their bytes, never by their name. Decoders see neither EXIF nor comments, texts,
further pictures or animations: nothing broken in those can fail a good image, or raise a warning through filters that
all threads share, and what takes time by its own count is known before it is decoded. It must not know how pixels are
decoded, nor what is too much.

References: RFC 9649 for WEBP; GIF89a; W3C, Portable Network Graphics, third edition.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.errors import InvalidImageError
from vision_backends.images.avif import measure_heif, strip_avif
from vision_backends.images.container import MAX_PARTS, Container, ExcessError
from vision_backends.images.jpeg import strip_jpeg, with_jpeg_end
from vision_backends.images.tiff import exif_orientation, strip_tiff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ACCEPTED", "FORMATS", "Mended", "identify", "strip", "with_end"]

FORMATS = "Accepted are JPEG, PNG, WEBP, GIF, BMP, TIFF and AVIF images (HEIC with the pillow-heif plugin)."
"""The remedy of errors about what a file holds."""

ACCEPTED = f"{FORMATS[:-1]} as a path, bytes, binary file, data: URL, PIL image or numpy array."
"""The remedy of errors about what stands for an image."""

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

_MAX_PROFILE_BYTES = 4_000_000

_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by type of colour."""
_PNG_MAX_DEPTH = 16
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps to the next ones, of the passes of an interlaced image."""

_WEBP_KEPT = frozenset({b"VP8X", b"ICCP", b"ANIM", b"ALPH"})
_WEBP_FIRST = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
"""Chunks that have the first picture; further ones are not handed on."""
_WEBP_METADATA_FLAGS = 0x0C  # EXIF and XMP

_BMP_RUNS = frozenset({1, 2})
_STEPS_OF_A_RUN = 125
"""Pillow decodes these in Python: a pixel or a run takes as long as so many pixels of other formats."""


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
        raise InvalidImageError(f"{name} is empty.", remedy=FORMATS)
    guess = next((words for words, pattern in _OTHERS if re.match(pattern, data[:4096])), None)
    looks = f"looks like {guess}" if guess else "is not in a supported format"
    raise InvalidImageError(f"{name} {looks}.", remedy=FORMATS)


class Mended(NamedTuple):
    """A file that was cut short, with something in place of what is missing.

    Attributes:
        data: The file.
        missing: The share of it that is missing, where that is known without decoding it.
    """

    data: bytes
    missing: float | None = None


def strip(data: bytes, *, kind: str) -> Container:
    """Return the image without what its pixels do not depend on.

    Raises:
        ExcessError: It has absurdly much of something.
        ValueError: It is damaged. IndexError, OverflowError and struct.error mean the same.
    """
    return _STRIPPERS[kind](data)


def with_end(data: bytes, fill: bytes, *, kind: str, max_pixels: int) -> Mended | None:
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
    if kind == "PNG":
        return _with_png_end(data, fill, max_pixels=max_pixels)
    if kind == "GIF":
        return _with_gif_fill(data, fill)
    missing = fill * (len(data) + 64)
    mended = with_jpeg_end(data, missing) if kind == "JPEG" else data + missing
    return None if mended is None or kind not in {"JPEG", "BMP", "WEBP", "TIFF"} else Mended(mended)


def _strip_png(data: bytes) -> Container:
    """Keep the critical chunks and transparency; take the colour profile out."""
    kept = [data[:8]]
    orientation = 1
    profile = None
    at = 8
    name = b""
    for _ in range(MAX_PARTS):
        if at >= len(data) or name == b"IEND":
            break
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if (name == b"IHDR") is not (at == 8):
            raise ValueError("a PNG that does not begin with its only header")
        if name in _PNG_CHUNKS:
            kept.append(data[at:end])
        elif name == b"eXIf":
            orientation = exif_orientation(data[at + 8 : end - 4])
        elif name == b"iCCP":
            profile = _inflate_profile(data[at + 8 : end - 4])
        at = end
    else:
        raise ExcessError(f"more than {MAX_PARTS:,} chunks")
    size = struct.unpack_from(">LL", data, 16)
    return Container(data=b"".join(kept), orientation=orientation, size=size, icc_profile=profile)


def _with_png_end(data: bytes, fill: bytes, *, max_pixels: int) -> Mended:
    """Return a PNG whose compressed rows go on with something else where the file ends."""
    stripped = _strip_png(data).data
    begin = stripped.index(b"IDAT") - 4
    packed, at = [], begin
    while stripped[at + 4 : at + 8] == b"IDAT":
        length = int.from_bytes(stripped[at : at + 4], "big")
        packed.append(stripped[at + 8 : at + 8 + length])
        at += 12 + length
    width, height, depth, colours, _, _, is_interlaced = struct.unpack_from(">LLBBBBB", stripped, 16)
    if not 0 < width * height <= max_pixels or depth > _PNG_MAX_DEPTH:
        raise ValueError("a PNG of an absurd size")
    bits = depth * _PNG_SAMPLES.get(colours, 4)
    whole_bytes = _png_rows_bytes(width, height, bits, _PNG_PASSES if is_interlaced else ((0, 0, 1, 1),))
    rows = zlib.decompressobj().decompress(b"".join(packed), whole_bytes)
    missing_bytes = whole_bytes - len(rows)
    packing = zlib.compressobj(1)
    mended = packing.compress(rows) + packing.compress(fill * missing_bytes) + packing.flush()
    data = stripped[:begin] + _png_chunk(b"IDAT", mended) + _png_chunk(b"IEND", b"")
    return Mended(data, missing_bytes / whole_bytes)


def _png_rows_bytes(width: int, height: int, bits: int, passes: Sequence[tuple[int, int, int, int]]) -> int:
    """Return how many bytes all rows are, each with the byte of its filter."""
    total = 0
    for left, top, across, down in passes:
        columns, rows = max(0, -(-(width - left) // across)), max(0, -(-(height - top) // down))
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


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


def _strip_gif(data: bytes) -> Container:
    """Keep the first image and what says which colour of it is transparent; it may exceed the screen's size."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = start = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    for _ in range(MAX_PARTS):
        match data[at]:
            case 0x2C:  # an image
                left, top, frame_width, frame_height = struct.unpack_from("<4H", data, at + 1)
                size = max(width, left + frame_width), max(height, top + frame_height)
                return Container(data=data[:start] + control + data[at:], size=size, bytes_per_pixel=9)
            case 0x21:  # an extension: a label, then blocks until an empty one
                if data[at + 1] == 0xF9 and data[at + 2] == 4:
                    control = data[at : at + 7] + b"\x00"
                at = _end_of_gif_blocks(data, at + 2)
            case _:
                at += 1
    raise ExcessError(f"more than {MAX_PARTS:,} parts before its first picture")


def _with_gif_fill(data: bytes, fill: bytes) -> Mended:
    """Return a GIF of its first picture alone, on a screen of its size, in which what is missing has a colour's number.

    Decoders leave what they do not reach transparent, so that the transparent colour is what says where they end.
    """
    stripped = _strip_gif(data).data
    start = 13 + (3 << (stripped[10] & 7) + 1 if stripped[10] & 0x80 else 0)
    image = stripped[start:]
    if image[0] == 0x21:
        image = image[8:]
    control = b"!\xf9\x04\x01\x00\x00" + fill + b"\x00"
    return Mended(stripped[:6] + image[5:9] + stripped[10:start] + control + image[:1] + bytes(4) + image[5:])


def _end_of_gif_blocks(data: bytes, at: int) -> int:
    """Return where blocks end, each with its length before it, after an empty one."""
    for _ in range(MAX_PARTS):
        length = data[at]
        at += length + 1
        if not length:
            return at
    raise ExcessError(f"more than {MAX_PARTS:,} blocks before its first picture")


def _strip_webp(data: bytes) -> Container:
    """Keep the first picture, and what it needs; the chunks behind it are only searched for its orientation."""
    kept: list[bytes] = []
    orientation = 1
    missing_bytes = 0  # of the picture, where the file is cut short
    has_picture = False
    at = 12
    for _ in range(MAX_PARTS):
        name, size_bytes = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size_bytes + size_bytes % 2
        if name == b"EXIF":
            orientation = exif_orientation(data[at + 8 : end])
        elif not has_picture and (name in _WEBP_KEPT or name in _WEBP_FIRST):
            kept.append(data[at:end])
            missing_bytes = max(0, end - len(data))
            has_picture = name in _WEBP_FIRST
        at = end
        if at >= len(data):
            break
    else:
        raise ExcessError(f"more than {MAX_PARTS:,} chunks")
    if not has_picture:
        return Container(data=data, size=_webp_size(data))  # which is refused for one reason or the other
    body = b"".join(kept)
    if body.startswith(b"VP8X"):
        body = body[:8] + bytes([body[8] & ~_WEBP_METADATA_FLAGS]) + body[9:]
    stripped = b"RIFF" + struct.pack("<L", 4 + len(body) + missing_bytes) + b"WEBP" + body
    return Container(data=stripped, orientation=orientation, size=_webp_size(stripped), bytes_per_pixel=16)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the size of the canvas; libwebp refuses pictures that do not fit it."""
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<L", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:  # VP8, lossy
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF


def _count_bmp(data: bytes) -> Container:
    """Measure, and count the runs where there are some."""
    (header_bytes,) = struct.unpack_from("<L", data, 14)
    width, height = (abs(side) for side in struct.unpack_from("<hh" if header_bytes == 12 else "<ll", data, 18))
    if header_bytes < 40 or struct.unpack_from("<L", data, 30)[0] not in _BMP_RUNS:
        return Container(data=data, size=(width, height))
    runs = len(data) // 2
    steps = (width * height + runs) * _STEPS_OF_A_RUN
    return Container(data=data, size=(width, height), steps=steps, counted=f"up to {runs:,} runs")


_STRIPPERS: dict[str, Callable[[bytes], Container]] = {
    "JPEG": strip_jpeg,
    "PNG": _strip_png,
    "TIFF": strip_tiff,
    "GIF": _strip_gif,
    "WEBP": _strip_webp,
    "BMP": _count_bmp,
    "AVIF": strip_avif,
    "HEIF": measure_heif,
}
