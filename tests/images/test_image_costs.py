"""What decoding takes is counted before it begins, the way the decoder counts: sizes, scans, parts, memory."""

from __future__ import annotations

import struct
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from pictures import encode, make_scene, mean_difference, png_chunk
from PIL import Image as PILImage
from test_image_damage import bomb_tiff

from vision_backends.errors import ImageTooLargeError, InvalidImageError
from vision_backends.images import ImageLimits, open_image
from vision_backends.images.formats import strip

SCENE = make_scene()


def segment(marker: int, body: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(side: int, scans: int, *, between: bytes = b"") -> bytes:
    """Return a grey progressive JPEG of nearly no bytes: after the first scan, each has one run of empty blocks.

    Args:
        side: Its width and height.
        scans: How many scans follow the first one.
        between: What stands before them.
    """
    blocks = (side + 7) // 8 * ((side + 7) // 8)
    runs = "".join("0" + "1" * 14 for _ in range((blocks + 32_766) // 32_767))
    runs += "1" * (-len(runs) % 8)
    empty = bytes(int(runs[at : at + 8], 2) for at in range(0, len(runs), 8)).replace(b"\xff", b"\xff\x00")
    head = b"\xff\xd8" + segment(0xDB, b"\x00" + bytes([1] * 64))
    head += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00")
    head += segment(0xC4, b"\x00\x01" + bytes(15) + b"\x00") + segment(0xC4, b"\x10\x01" + bytes(15) + b"\xe0")
    first = segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes((blocks + 7) // 8)
    further = [segment(0xDA, bytes([1, 1, 0, 1 + n % 63, 1 + n % 63, 0])) + empty for n in range(scans)]
    return head + first + between + b"".join(further) + b"\xff\xd9"


def flat_png(width: int, height: int) -> bytes:
    """Return a black grey PNG."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


class TestScans:
    """A JPEG's decoder goes over all pixels for each scan, however few bytes it has."""

    def test_too_many_for_its_size_are_refused_at_once(self):
        """The error names both; a small image may have them, and a usual progressive one any size."""
        started = time.process_time()
        with pytest.raises(ImageTooLargeError, match="has 101 scans for 6000×6000 pixels"):
            open_image(progressive(6_000, 100))
        assert time.process_time() - started < 1
        assert open_image(progressive(80, 100)).width == 80

    @pytest.mark.parametrize(
        "between",
        [
            segment(0xFE, b"x\xff\xd9x"),
            segment(0xE5, b"\xff\xd9"),
            b"\xff\xff\xfe\x00\x04\xff\xd9",
            b"junk\xff\x00\xff\xd3more",
        ],
        ids=["comment", "application", "padded", "junk"],
    )
    def test_scans_behind_what_looks_like_an_end_are_counted(self, between: bytes):
        """A comment may hold anything, and decoders pass over it."""
        with pytest.raises(ImageTooLargeError, match="has 101 scans"):
            open_image(progressive(6_000, 100, between=between))
        image = open_image(progressive(80, 100, between=between))
        assert mean_difference(image.rgb(), open_image(progressive(80, 100)).rgb()) == 0

    def test_nothing_that_was_not_counted_is_left_for_the_decoder(self):
        """Whatever stands behind the end of the file."""
        whole = encode(SCENE, "JPEG")
        assert strip(whole + progressive(80, 600), kind="JPEG").data == strip(whole, kind="JPEG").data

    def test_a_lazily_opened_pil_image_is_counted_too(self):
        """Pillow would begin to decode when its pixels are asked for."""
        with pytest.raises(ImageTooLargeError, match="The PIL image has 101 scans"):
            open_image(PILImage.open(BytesIO(progressive(6_000, 100))))

    def test_scans_within_a_tiff_are_counted(self):
        """Its strips may be JPEGs."""
        wide = PILImage.new("L", (6_000, 6_000))
        data = encode(wide, "TIFF", compression="jpeg", tiffinfo={278: 6_000})
        open_image(data)
        with pytest.raises(ImageTooLargeError, match="scans in its parts"):
            open_image(data + b"\xff\xda" * 100)


class TestSizes:
    """What the decoder would allocate, whatever else the file says."""

    @pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
    def test_both_sides_are_limited(self, size: tuple[int, int]):
        """Each row takes memory of its own."""
        with pytest.raises(ImageTooLargeError, match=r"no side may be longer than 65535.*max_side_px"):
            open_image(flat_png(*size))
        with pytest.raises(ImageTooLargeError, match="no side may be longer"):
            open_image(np.zeros((size[1], size[0]), dtype="uint8"))
        assert open_image(flat_png(*size), limits=ImageLimits(max_side_px=200_000)).width == size[0]

    def test_an_avif_is_as_large_as_it_is_coded(self):
        """Its container may say another size."""
        data = encode(PILImage.new("RGB", (7_000, 6_000)), "AVIF", speed=10)
        lying = data.replace(struct.pack(">LL", 7_000, 6_000), struct.pack(">LL", 64, 64))
        assert lying != data
        with pytest.raises(ImageTooLargeError, match="7000×6000 pixels"):
            open_image(lying)

    def test_an_avif_with_many_coded_frames_is_refused(self):
        """Only the last of them would be seen."""
        data = encode(PILImage.new("RGB", (2_000, 2_000)), "AVIF", speed=10)
        start = data.index(b"mdat") + 4
        (length,) = struct.unpack_from(">L", data, start - 8)
        item = data[start : start - 8 + length]
        at = data.index(b"iloc") + 18  # offset and length of the only extent
        assert struct.unpack_from(">L", data, at + 4) == (len(item),)
        many = item * 400
        data = data[: at + 4] + struct.pack(">L", len(many)) + data[at + 8 : start] + many
        with pytest.raises(ImageTooLargeError, match="400 coded frames"):
            open_image(data)

    def test_of_an_animated_avif_the_first_picture_is_seen(self):
        """As of every animation."""
        others = [PILImage.new("RGB", SCENE.size, colour) for colour in ("blue", "red")]
        data = encode(SCENE, "AVIF", save_all=True, append_images=others, quality=95)
        assert mean_difference(open_image(data).rgb(), SCENE) < 6

    def test_a_tiff_is_as_large_as_its_tiles(self):
        """Those that reach over the edge are decoded whole."""
        tiles = {"tile_width": 16, "tile_height": 65_520, "tiles": 8, "tile_bytes": 64}
        data = bomb_tiff(width=4_096, height=64, bits=8, compression=5, photometric=1, **tiles)
        with pytest.raises(ImageTooLargeError, match="4096×65520 pixels"):
            open_image(data)

    def test_a_png_with_two_headers_is_refused(self):
        """Of two sizes one would be checked and the other decoded."""
        png = encode(SCENE, "PNG")
        with pytest.raises(InvalidImageError, match="damaged"):
            open_image(png[:33] + png[8:33] + png[33:])

    def test_runs_of_a_bmp_are_counted(self):
        """Pillow unpacks them in Python, byte by byte."""
        header = struct.pack("<LLLLL", 99, 0, 1_078, 40, 6_000) + struct.pack(
            "<LHHLLLLLL", 6_000, 1, 8, 1, 0, 0, 0, 0, 0
        )
        data = b"BM" + header + bytes(1_024)
        with pytest.raises(ImageTooLargeError, match="runs for 6000×6000 pixels"):
            open_image(data + b"\x00\x00" * 1_000)

    @pytest.mark.parametrize("kind", ["GIF", "WEBP"])
    def test_of_an_animation_only_the_first_picture_is_handed_on(self, kind: str):
        """Thousands of further ones cost nothing."""
        others = [PILImage.new("RGB", SCENE.size, (n, 0, 0)) for n in range(40)]
        animated = encode(SCENE, kind, save_all=True, append_images=others, lossless=True)
        image = open_image(animated)
        assert mean_difference(image.rgb(), SCENE) < 3
        if kind == "WEBP":
            assert strip(animated, kind=kind).data.count(b"ANMF") == 1


class TestMemory:
    """What is made of pixels takes room for little more than the result."""

    @pytest.mark.parametrize("mode", ["I", "F", "I;16", "RGBA", "LA"])
    def test_large_images_are_worked_on_in_parts_without_a_seam(self, mode: str):
        """The parts together are what the whole would be."""
        values = np.arange(2_000 * 1_500, dtype="uint32").reshape(1_500, 2_000) % 60_000
        if mode in {"RGBA", "LA"}:
            grey = PILImage.fromarray((values % 251).astype("uint8"))
            image = PILImage.merge(mode, [grey] * len(mode))
            want = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image.convert("RGBA"))
        else:
            kind = {"I": "int32", "F": "float32", "I;16": "uint16"}[mode]
            image = PILImage.fromarray(values.astype(kind))
            want = PILImage.fromarray(np.rint(values * (255 / 65_535)).astype("uint8"))
        assert image.mode == mode
        assert mean_difference(open_image(image).rgb(), want.convert("RGB")) < 0.01

    def test_an_array_of_floats_is_worked_on_in_parts_too(self):
        """As one of bytes is seen."""
        values = (np.arange(2_000 * 1_500).reshape(1_500, 2_000) % 256).astype("uint8")
        assert mean_difference(open_image(values / 255.0).rgb(), open_image(values).rgb()) == 0


def test_an_image_of_more_parts_than_memory_is_refused():
    """A small canvas may be put together from any number of large pictures."""
    limits = ImageLimits(max_pixels=1_000)
    with pytest.raises(ImageTooLargeError, match=r"would take \d+ MB"):
        limits.check_memory((10, 100), 1_000_000, name="It")
    limits.check_memory((10, 100), 20, name="It")
