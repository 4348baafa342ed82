"""Good image files of every kind, and changes to them: flipped bits, odd numbers, parts cut, doubled or moved.

This module decides which files there are and how they are changed, the same for the same random numbers. It must not
know who opens them.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage
from PIL import ImageDraw

if TYPE_CHECKING:
    import random

__all__ = ["mutate", "seeds"]

INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x01\x00")


def _scene() -> PILImage.Image:
    image = PILImage.new("RGB", (40, 30), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 19, 14), fill=(200, 30, 30))
    draw.rectangle((20, 0, 39, 14), fill=(30, 160, 30))
    return image


def _encode(image: PILImage.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401 — Pillow's own options
    buffer = BytesIO()
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in options["append_images"]]
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """Return one good file of each kind, with as many optional parts as it can have."""
    scene = _scene()
    exif = PILImage.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description that is kept elsewhere"
    meta = {"exif": exif, "icc_profile": b"no profile"}
    more = [PILImage.new("RGB", scene.size, "blue")]
    clear = PILImage.effect_noise((40, 30), 90).convert("RGBA")
    clear.putalpha(99)
    return {
        "jpeg": _encode(scene, "JPEG", comment=b"hello", **meta),
        "jpeg progressive": _encode(scene, "JPEG", progressive=True),
        "jpeg cmyk": _encode(scene.convert("CMYK"), "JPEG"),
        "mpo": _encode(scene, "MPO", save_all=True, append_images=more),
        "png": _encode(clear, "PNG", **meta),
        "png palette": _encode(scene.quantize(16), "PNG", transparency=b"\x00\x80", bits=4),
        "png 16 bits": _encode(PILImage.new("I;16", (9, 9), 999), "PNG"),
        "apng": _encode(scene, "PNG", save_all=True, append_images=more),
        "gif": _encode(scene, "GIF", save_all=True, append_images=more, comment=b"hello", transparency=1),
        "webp": _encode(scene, "WEBP", **meta),
        "webp lossless": _encode(clear, "WEBP", lossless=True),
        "webp animated": _encode(scene, "WEBP", save_all=True, append_images=more),
        "bmp": _encode(scene.quantize(16), "BMP"),
        "tiff": _encode(scene, "TIFF", **meta),
        "tiff lzw": _encode(scene.quantize(16), "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "tiff jpeg": _encode(scene, "TIFF", compression="jpeg"),
        "tiff fax": _encode(scene.convert("1"), "TIFF", compression="group4"),
        "tiff pages": _encode(scene, "TIFF", save_all=True, append_images=more),
        "tiff big": _encode(scene, "TIFF", big_tiff=True),
        "bmp runs": _run_length_bmp(),
        "avif": _encode(clear, "AVIF", speed=10, **meta),
        "avif animated": _encode(scene, "AVIF", speed=10, save_all=True, append_images=more),
    }


def _run_length_bmp() -> bytes:
    """Return a BMP of 40×30 pixels in runs, which Pillow does not write."""
    rows = b"".join(bytes([20, row, 20, row + 9, 0, 0]) for row in range(30)) + b"\x00\x01"
    header = struct.pack("<LLLLLLHHLLLLLL", 54 + 1024 + len(rows), 0, 1078, 40, 40, 30, 1, 8, 1, len(rows), 0, 0, 0, 0)
    return b"BM" + header + bytes(range(256)) * 4 + rows


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return a file with one to a few changes: flipped bits, odd numbers, parts cut, doubled or moved."""
    mutant = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 12))):
        reach = min(len(mutant), chance.choice((64, 400, 1 << 30)))  # headers are where it matters
        at = chance.randrange(max(reach, 1))
        match chance.randrange(6):
            case 0:
                mutant[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                odd = chance.choice(INTERESTING)
                mutant[at : at + len(odd)] = odd
            case 2:
                mutant[at : at + 4] = struct.pack(chance.choice("<>") + "L", chance.randrange(1 << 17))
            case 3:
                del mutant[at : at + chance.randrange(1, 40)]
            case 4:
                other = chance.randrange(len(mutant) + 1)
                mutant[at:at] = mutant[other : other + chance.randrange(1, 60)]
            case 5:
                del mutant[at + 1 :]
    return bytes(mutant)
