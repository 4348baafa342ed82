"""Files that are cut short, lie about themselves, or hold more than an image should."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from io import BytesIO

import pytest
from pictures import (
    FORMATS,
    encode,
    make_scene,
    mean_difference,
    png_chunk,
    with_jpeg_segment,
    with_png_chunk,
)
from PIL import Image as PILImage

from vision_backends.errors import ImageTooLargeError, InvalidImageError
from vision_backends.images import ImageLimits, open_image
from vision_backends.images.pixels import translated_errors

SCENE = make_scene()


class TestDamage:
    """Files that begin like an image and do not go on like one."""

    @pytest.mark.parametrize(("kind", "options"), FORMATS)
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
    def test_a_file_cut_short_is_refused(self, kind: str, options: dict, share: float):
        """Only decoding all of it finds that out."""
        grain = PILImage.effect_noise((256, 192), 60).convert("RGB")
        data = encode(grain, kind, **options)
        for source in (data[: int(share * len(data))], data[: max(16, int(share * len(data)))]):
            with pytest.raises(
                InvalidImageError, match=r"The bytes object (is|looks|are).*(Fetch or save|Accepted are)"
            ):
                open_image(source)

    def test_a_jpeg_cut_short_is_refused_at_reduced_scale_too(self, photo_jpeg: bytes):
        """Reading fewer pixels still reads every byte."""
        for share in (0.1, 0.5, 0.9):
            with pytest.raises(InvalidImageError, match="damaged or cut short"):
                open_image(photo_jpeg[: int(share * len(photo_jpeg))], min_side_px=100)

    def test_a_file_is_named(self, tmp_path):
        """In a long list, the message says which."""
        path = tmp_path / "holiday.jpg"
        path.write_bytes(encode(SCENE, "JPEG")[:-200])
        with pytest.raises(InvalidImageError, match=r"holiday\.jpg is damaged or cut short"):
            open_image(path)

    def test_damage_is_found_in_a_lazily_opened_pil_image(self):
        """Pillow itself notices when the pixels are asked for."""
        lazy = PILImage.open(BytesIO(encode(SCENE, "JPEG")[:-30]))
        with pytest.raises(InvalidImageError, match="The PIL image is damaged"):
            open_image(lazy)

    def test_padding_between_segments_is_no_damage(self):
        """Decoders skip stray bytes, restart markers and repeated 0xFF."""
        jpeg = encode(SCENE, "JPEG", quality=95, subsampling=0)
        padded = jpeg[:2] + b"\xff\xff\xff" + jpeg[3:20] + b"\x00\x00\xff\xd0" + jpeg[20:]
        assert mean_difference(open_image(padded).rgb(), SCENE) < 3


def bomb_png(width: int, height: int) -> bytes:
    """Return a small PNG that claims to be large, and would be."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def bomb_gif(*, screen: int, frame: int) -> bytes:
    """Return a GIF whose first frame reaches over its screen."""
    comment = b"!\xfe\x05hello\x00\x00"
    image = b"," + struct.pack("<4HB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + bytes(6) + comment + image


def bomb_tiff(**tags: int) -> bytes:
    """Return a TIFF with tags of the caller's choice."""
    numbers = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262,
        "strip": 273, "strip_bytes": 279, "tile_width": 322, "tile_height": 323, "tiles": 324, "tile_bytes": 325,
    }  # fmt: skip
    entries = sorted((numbers[name], value) for name, value in tags.items())
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHLL", number, 4, 1, value) for number, value in entries)
    return b"II*\x00\x08\x00\x00\x00" + directory + struct.pack("<L", 0) + bytes(64)


BOMBS = {
    "png": bomb_png(50_000, 50_000),
    "png above Pillow's warning": bomb_png(10_000, 10_000),
    "gif screen": bomb_gif(screen=65_535, frame=10),
    "gif frame": bomb_gif(screen=1, frame=65_000),
    "gif frame above Pillow's warning": bomb_gif(screen=1, frame=10_000),
    "tiff": bomb_tiff(width=60_000, height=60_000, bits=8, photometric=1, strip=8, strip_bytes=64),
    "tiff tile": bomb_tiff(
        width=9, height=9, bits=8, compression=5, photometric=1,
        tile_width=60_000, tile_height=60_000, tiles=8, tile_bytes=64,
    ),
    "webp": b"RIFF\xff\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + b"\xff\xff\xff\xff\xff\x00" + bytes(64),
    "webp lossless": b"RIFF\xff\x00\x00\x00WEBPVP8L\xff\x00\x00\x00\x2f\xff\xff\xff\x0f" + bytes(64),
    "webp lossy": b"RIFF\xff\x00\x00\x00WEBPVP8 \xff\x00\x00\x00\x00\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(64),
    "bmp": b"BM" + struct.pack("<LLLLLLHHLLLLLL", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
}  # fmt: skip


def test_a_lack_of_memory_is_an_error_of_the_caller():
    """A smaller image is the remedy."""
    with pytest.raises(ImageTooLargeError, match=r"photo does not fit.*smaller"), translated_errors("photo"):
        raise MemoryError


class TestBombs:
    """Small files that would become large images."""

    @pytest.mark.parametrize("name", BOMBS)
    def test_a_bomb_is_refused_by_its_header(self, name: str):
        """Before anything is decoded or allocated, and without Pillow's warning."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(ImageTooLargeError, match=r"pixels, more than 40 megapixels\..*max_pixels"):
                open_image(BOMBS[name])
        assert not caught

    def test_the_limit_of_pixels_can_be_set(self):
        """Both ways; a PIL image has the same limit."""
        for source in (encode(SCENE, "JPEG"), SCENE):
            assert open_image(source, limits=ImageLimits(max_pixels=64 * 48)).width == 64
            with pytest.raises(ImageTooLargeError, match=r"64×48 pixels, more than 0\.003071 megapixels"):
                open_image(source, limits=ImageLimits(max_pixels=64 * 48 - 1))

    def test_a_limit_above_pillows_own_is_honoured_without_a_warning(self):
        """Pillow warns from 89 megapixels on; its global state is not touched."""
        before = PILImage.MAX_IMAGE_PIXELS
        limits = ImageLimits(max_pixels=200_000_000)
        image = open_image(encode(PILImage.new("L", (9_500, 9_500)), "JPEG"), limits=limits, min_side_px=100)
        assert image.width == 9_500
        assert before == PILImage.MAX_IMAGE_PIXELS

    def test_huge_texts_and_profiles_are_skipped(self):
        """What inflates to 300 MB is metadata, which nobody reads."""
        huge = zlib.compress(bytes(300_000_000), 1)
        png = encode(SCENE, "PNG")
        for name, body in (
            (b"zTXt", b"Comment\x00\x00" + huge),
            (b"iCCP", b"profile\x00\x00" + huge),
            (b"iCCP", b"profile\x00\x00not zlib"),
            (b"iTXt", b"Comment\x00\x01\x00\x00\x00" + huge),
        ):
            assert mean_difference(open_image(with_png_chunk(png, name, body)).rgb(), SCENE) == 0

    def test_absurdly_many_parts_are_refused(self):
        """Each part costs time, however small the file is; the error says of what there is too much."""
        jpeg = encode(SCENE, "JPEG", progressive=True)
        scan = jpeg[jpeg.index(b"\xff\xda") : -2]
        png = encode(SCENE, "PNG")
        gif = encode(SCENE, "GIF")[:6] + struct.pack("<HHBBB", 9, 9, 0, 0, 0)
        webp = encode(SCENE, "WEBP", lossless=True, icc_profile=b"none")
        for data, counted in (
            (jpeg[:-2] + scan * 600 + jpeg[-2:], "500 scans"),
            (jpeg[:2] + b"\xff\xe5\x00\x02" * 100_001 + jpeg[2:], "100,000 segments"),
            (png[:33] + png_chunk(b"tEXt", b"a\x00b") * 100_001 + png[33:], "100,000 chunks"),
            (gif + b"!\xfe\x01a\x00" * 250_000, "100,000 parts"),
            (gif + b"!\xfe" + b"\x01a" * 250_000, "100,000 blocks"),
            (b"II+\x00\x08\x00\x00\x00" + struct.pack("<QQ", 16, 1 << 20), "a directory of 1048576 entries"),
            (webp[:30] + b"FREE\x00\x00\x00\x00" * 100_001 + webp[30:], "100,000 chunks"),
        ):
            with pytest.raises(InvalidImageError, match=counted):
                open_image(data)

    def test_metadata_of_a_tiff_is_not_looked_at(self):
        """Tags that are broken, repeated or no matter of pixels neither fail nor warn."""
        entries = [
            (256, 4, 1, 8),  # width
            (257, 4, 1, 8),  # height
            (257, 4, 1, 9_999),  # height once more
            (258, 3, 1, 8),  # bits
            (262, 3, 1, 1),  # black is zero
            (270, 2, 9_999_999, 5),  # a description beyond the end
            (273, 4, 1, 250),  # where the pixels are
            (277, 99, 1, 1),  # samples per pixel, in a type that does not exist
            (278, 4, 1, 8),  # rows per strip
            (279, 4, 1, 64),  # bytes of the pixels
            (305, 2, 4, 0x41414141),  # software
            (317, 3, 7, 8),  # a predictor of seven values
            (320, 3, 768, 0xFFFFFF00),  # a palette beyond the end
            (339, 3, 500_000, 8),  # absurdly many sample formats
            (34853, 4, 1, 0xFFFFFFFF),  # GPS beyond the end
        ]
        directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries)
        data = b"II*\x00\x08\x00\x00\x00" + directory + struct.pack("<L", 8)  # the next page is this one
        data = data.ljust(250, b"\x00") + bytes(range(64))
        image = open_image(data)
        assert (image.width, image.height) == (8, 8)
        assert image.rgb().getpixel((7, 7)) == (63, 63, 63)


def test_warnings_of_broken_metadata_never_leak():
    """What Pillow warns about when it reads such files is out of its sight."""
    directory = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x0e\x01\x02\x00\xff\x00\x00\x00\xff\x00\x00\x00"
    files = [
        with_jpeg_segment(encode(SCENE, "JPEG", quality=95), 0xE1, directory),
        with_png_chunk(encode(SCENE, "PNG"), b"acTL", struct.pack(">II", 0, 0)),
        encode(SCENE, "TIFF", tiffinfo={270: "x" * 50}).replace(
            b"\x0e\x01\x02\x00\x33\x00", b"\x0e\x01\x02\x00\xff\xff"
        ),
    ]
    for data in files:
        with (
            pytest.warns(UserWarning, match=r"larger than file|Invalid APNG|Corrupt EXIF|Truncated"),
            contextlib.suppress(OSError),
        ):
            PILImage.open(BytesIO(data)).load()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in files:
            assert mean_difference(open_image(data).rgb(), SCENE) < 3
    assert not caught
