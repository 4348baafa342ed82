"""Whatever bytes come, only an image or an error of the caller comes out, soon and without a warning."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import warnings

import pytest
from pictures import encode, make_scene
from PIL import Image as PILImage

from vision_backends.errors import CallerError
from vision_backends.images import ImageLimits, open_image

LIMITS = ImageLimits(max_pixels=250_000, max_bytes=200_000)
CASES = 60
INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x01\x00")


def seeds() -> dict[str, bytes]:
    """Return one good file of each kind, with as many optional parts as it can have."""
    scene = make_scene(40, 30)
    exif = PILImage.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description that is kept elsewhere"
    meta = {"exif": exif, "icc_profile": b"no profile"}
    more = [PILImage.new("RGB", scene.size, "blue")]
    clear = PILImage.effect_noise((40, 30), 90).convert("RGBA")
    clear.putalpha(99)
    return {
        "jpeg": encode(scene, "JPEG", comment=b"hello", **meta),
        "jpeg progressive": encode(scene, "JPEG", progressive=True),
        "jpeg cmyk": encode(scene.convert("CMYK"), "JPEG"),
        "mpo": encode(scene, "MPO", save_all=True, append_images=more),
        "png": encode(clear, "PNG", **meta),
        "png palette": encode(scene.quantize(16), "PNG", transparency=b"\x00\x80", bits=4),
        "png 16 bits": encode(PILImage.new("I;16", (9, 9), 999), "PNG"),
        "apng": encode(scene, "PNG", save_all=True, append_images=more),
        "gif": encode(scene, "GIF", save_all=True, append_images=more, comment=b"hello", transparency=1),
        "webp": encode(scene, "WEBP", **meta),
        "webp lossless": encode(clear, "WEBP", lossless=True),
        "webp animated": encode(scene, "WEBP", save_all=True, append_images=more),
        "bmp": encode(scene.quantize(16), "BMP"),
        "tiff": encode(scene, "TIFF", **meta),
        "tiff lzw": encode(scene.quantize(16), "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "tiff jpeg": encode(scene, "TIFF", compression="jpeg"),
        "tiff fax": encode(scene.convert("1"), "TIFF", compression="group4"),
        "tiff pages": encode(scene, "TIFF", save_all=True, append_images=more),
        "tiff big": encode(scene, "TIFF", big_tiff=True),
        "avif": encode(clear, "AVIF", speed=10, **meta),
    }


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


@pytest.mark.parametrize("name", seeds())
def test_only_errors_of_the_caller_come_out(name: str):
    """Neither another error nor a warning; and no case takes long or much memory."""
    data = seeds()[name]
    chance = random.Random(name)  # noqa: S311
    outcomes = {"image": 0, "error": 0}
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # as errors they would be taken for damage
        for _ in range(CASES):
            started = time.perf_counter()
            outcomes[attempt(mutate(data, chance), min_side_px=chance.choice((None, 10)))] += 1
            assert time.perf_counter() - started < 2
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not caught
    assert peak_bytes < 20_000_000
    assert min(outcomes.values()) > 0  # the changes are neither harmless nor all fatal


def attempt(data: bytes, *, min_side_px: int | None) -> str:
    """Open a file and say what came of it."""
    try:
        image = open_image(data, min_side_px=min_side_px, limits=LIMITS)
    except CallerError:
        return "error"
    assert image.rgb().size == (image.width, image.height)
    assert image.width * image.height <= LIMITS.max_pixels
    return "image"
