"""Depth, transparency and colour profiles: what a viewer on a white page would show."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from pictures import encode, make_scene, mean_difference, png_chunk
from PIL import Image as PILImage
from PIL import ImageCms

from vision_backends.errors import InvalidImageError
from vision_backends.images import open_image

SCENE = make_scene()
GREY = SCENE.convert("L").convert("RGB")


def grey_levels(source: object) -> list[int]:
    """Open a picture of one line and return its levels, which are grey."""
    pixels = np.asarray(open_image(source).rgb())
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[0, :, 0].tolist()


def icc_profile(space: bytes, **tags: bytes) -> bytes:
    """Return a colour profile for displays. Reference: ICC.1:2001-04."""
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">L", len(tags)), b""
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += name.encode() + struct.pack(">LL", at + len(body), len(data))
        body += padded
    header = struct.pack(">LLL4s4s4s", at + len(body), 0, 0x02400000, b"mntr", space, b"XYZ ")
    header = header.ljust(36, b"\x00") + b"acsp"
    header = header.ljust(68, b"\x00") + struct.pack(">3l", 63_190, 65_536, 54_061)  # illuminant D50
    return header.ljust(128, b"\x00") + table + body


def xyz(*values: float) -> bytes:
    """Return a colour as a tag of a profile."""
    return b"XYZ \x00\x00\x00\x00" + struct.pack(">3l", *(round(65_536 * value) for value in values))


def gamma(value: float) -> bytes:
    """Return a tone curve as a tag of a profile."""
    return b"curv\x00\x00\x00\x00" + struct.pack(">LH", 1, round(256 * value))


DESCRIPTION = b"desc\x00\x00\x00\x00" + struct.pack(">L", 5) + b"test\x00" + bytes(78)
WHITE = xyz(0.9642, 1.0, 0.8249)
SWAPPED = icc_profile(
    b"RGB ",
    desc=DESCRIPTION,
    wtpt=WHITE,
    rXYZ=xyz(0.1431, 0.0606, 0.7141),  # the primary that sRGB calls blue
    gXYZ=xyz(0.3851, 0.7169, 0.0971),
    bXYZ=xyz(0.4361, 0.2225, 0.0139),  # the primary that sRGB calls red
    rTRC=gamma(2.2),
    gTRC=gamma(2.2),
    bTRC=gamma(2.2),
)
LINEAR_GREY = icc_profile(b"GRAY", desc=DESCRIPTION, wtpt=WHITE, kTRC=gamma(1.0))


class TestDepth:
    """Deep grey values are scaled, not cut off."""

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_16_bit_grey_is_scaled(self, kind: str):
        """1,000 of 65,535 is nearly black; Pillow alone makes it white."""
        image = PILImage.fromarray(np.array([[0, 1_000, 32_768, 65_535]], dtype=np.uint16))
        expected = [0, 4, 128, 255]
        assert grey_levels(image) == expected
        assert grey_levels(encode(image, kind)) == expected

    def test_16_bit_colours_are_scaled(self):
        """An RGB PNG of 16 bits, which Pillow cannot write."""
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        row = b"\x00" + struct.pack(">6H", 65_535, 1_000, 0, 32_768, 32_768, 32_768)
        data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(row)) + png_chunk(b"IEND", b"")
        rgb = open_image(data).rgb()
        assert rgb.getpixel((0, 0)) == pytest.approx((255, 4, 0), abs=1)
        assert rgb.getpixel((1, 0)) == pytest.approx((128, 128, 128), abs=1)

    @pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
    def test_16_bits_in_either_order_are_scaled(self, mode: str):
        """High byte first or last."""
        order = ">" if mode == "I;16B" else "<"
        image = PILImage.frombytes(mode, (3, 1), np.array([0, 32_768, 65_535]).astype(f"{order}u2").tobytes())
        assert grey_levels(image) == [0, 128, 255]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 100, 255], [0, 100, 255]),
            ([0, 1_000, 65_535], [0, 4, 255]),
            ([-100, 0, 100], [0, 128, 255]),
            ([0, 500_000, 1_000_000], [0, 128, 255]),
            ([70_000, 70_000], [0, 0]),
            ([-(2**31), 2**31 - 1], [0, 255]),
        ],
    )
    def test_32_bit_values_are_taken_for_the_narrowest_range_that_holds_them(
        self, values: list[int], expected: list[int]
    ):
        """8 bits, 16 bits, or from the lowest to the highest."""
        image = PILImage.fromarray(np.array([values], dtype=np.int32))
        assert grey_levels(image) == pytest.approx(expected, abs=1)
        assert grey_levels(encode(image, "TIFF")) == grey_levels(image)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.0, 0.5, 1.0], [0, 128, 255]),
            ([0.0, 100.0, 255.0], [0, 100, 255]),
            ([0.0, 1_000.0, 65_535.0], [0, 4, 255]),
            ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ],
    )
    def test_float_values_are_scaled_the_same_way(self, values: list[float], expected: list[int]):
        """And 0 to 1."""
        image = PILImage.fromarray(np.array([values], dtype=np.float32))
        assert grey_levels(image) == pytest.approx(expected, abs=1)
        assert grey_levels(encode(image, "TIFF")) == grey_levels(image)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_numbers_are_refused(self, value: float):
        """There is no level to show them as."""
        with pytest.raises(InvalidImageError, match="infinite or not numbers"):
            open_image(PILImage.fromarray(np.array([[0.5, value]], dtype=np.float32)))

    def test_one_bit_is_black_and_white(self):
        """The least depth there is."""
        image = PILImage.new("1", (2, 1))
        image.putpixel((1, 0), 1)
        assert grey_levels(image) == [0, 255]
        assert grey_levels(encode(image, "PNG")) == [0, 255]


class TestTransparency:
    """What is transparent is white, and hidden colours stay hidden."""

    @pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA", "P"])
    def test_transparent_pixels_are_white_whatever_colour_they_hide(self, mode: str):
        """Half transparent ones are mixed with white."""
        image = PILImage.new("RGBA", (3, 1))
        image.putdata([(80, 80, 80, 255), (80, 80, 80, 0), (0, 0, 0, 128)])
        if mode in {"La", "LA"}:
            image = image.convert("LA")
        elif mode in {"P", "PA"}:
            image = image.quantize(4)
        image = image if image.mode == mode else image.convert(mode)
        assert grey_levels(image) == pytest.approx([80, 255, 127], abs=1)

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
    def test_transparent_files_are_laid_on_white(self, kind: str):
        """All formats with an alpha channel."""
        image = SCENE.copy()
        image.putalpha(0)
        data = encode(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        assert mean_difference(open_image(data).rgb(), PILImage.new("RGB", (64, 48), "white")) == 0

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_a_transparent_colour_of_a_palette_is_white(self, kind: str):
        """One colour of many is transparent."""
        image = PILImage.new("P", (2, 1), 0)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putpixel((1, 0), 1)
        rgb = open_image(encode(image, kind, transparency=0)).rgb()
        assert rgb.getpixel((0, 0)) == (255, 255, 255)
        assert rgb.getpixel((1, 0)) == (0, 0, 255)

    def test_a_palette_with_many_transparencies_is_laid_on_white(self):
        """PNG gives each colour of a palette its own."""
        image = PILImage.new("P", (3, 1), 0)
        image.putpalette([80, 80, 80, 80, 80, 80, 0, 0, 0])
        image.putpixel((1, 0), 1)
        image.putpixel((2, 0), 2)
        assert grey_levels(encode(image, "PNG", transparency=b"\xff\x00\x80")) == pytest.approx([80, 255, 127], abs=1)

    @pytest.mark.parametrize(("mode", "colour"), [("RGB", (9, 8, 7)), ("L", 9)])
    def test_one_transparent_colour_of_a_png_is_white(self, mode: str, colour: object):
        """PNG may name one without an alpha channel."""
        image = PILImage.new(mode, (2, 1), colour)
        image.putpixel((1, 0), (0, 0, 0) if mode == "RGB" else 0)
        assert grey_levels(encode(image, "PNG", transparency=colour)) == [255, 0]


class TestColours:
    """Other colour spaces, with and without a profile."""

    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    def test_cmyk_becomes_rgb(self, kind: str):
        """Printers' files, also the inverted ones that Adobe's programs write as JPEG."""
        data = encode(SCENE.convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {}))
        assert mean_difference(open_image(data).rgb(), SCENE) < 4

    @pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "CMYK", "RGBX"])
    def test_other_spaces_become_rgb(self, mode: str):
        """Whatever mode a PIL image has."""
        assert mean_difference(open_image(SCENE.convert(mode)).rgb(), SCENE) < 4

    def test_lab_files_become_rgb(self):
        """TIFF holds them."""
        assert mean_difference(open_image(encode(SCENE.convert("LAB"), "TIFF")).rgb(), SCENE) < 4

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_profiles_are_converted_to_srgb(self, kind: str):
        """A profile that swaps red and blue makes a red picture blue; the same for a PIL image of the file."""
        data = encode(PILImage.new("RGB", (32, 32), (255, 0, 0)), kind, icc_profile=SWAPPED)
        for source in (data, PILImage.open(BytesIO(data))):
            red, green, blue = open_image(source).rgb().getpixel((16, 16))
            assert red < 30
            assert green < 60
            assert blue > 240

    @pytest.mark.parametrize("mode", ["P", "RGBA"])
    def test_profiles_of_palettes_and_transparent_files_are_converted(self, mode: str):
        """They hold RGB colours, too."""
        image = PILImage.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
        red, _, blue = open_image(encode(image, "PNG", icc_profile=SWAPPED)).rgb().getpixel((2, 2))
        assert red < 30
        assert blue > 240

    def test_profiles_of_grey_files_are_converted(self):
        """A quarter of the light is not a quarter of the level."""
        data = encode(PILImage.new("L", (4, 4), 64), "PNG", icc_profile=LINEAR_GREY)
        assert grey_levels(data) == pytest.approx([137] * 4, abs=2)

    def test_a_profile_of_one_bit_does_no_harm(self):
        """Black stays black and white stays white."""
        image = PILImage.new("1", (2, 1))
        image.putpixel((1, 0), 1)
        assert grey_levels(encode(image, "PNG", icc_profile=LINEAR_GREY)) == [0, 255]

    def test_a_profile_of_srgb_changes_nothing(self):
        """Not even by one level of rounding."""
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert mean_difference(open_image(encode(SCENE, "PNG", icc_profile=profile)).rgb(), SCENE) == 0

    @pytest.mark.parametrize(
        "profile", [b"garbage", SWAPPED[:200], LINEAR_GREY, SWAPPED.replace(b"RGB ", b"CMYK"), bytes(500)]
    )
    def test_a_broken_or_foreign_profile_is_ignored(self, profile: bytes):
        """Colours that are a little off are better than no answer."""
        assert mean_difference(open_image(encode(SCENE, "PNG", icc_profile=profile)).rgb(), SCENE) == 0
        cmyk = encode(SCENE.convert("CMYK"), "JPEG", quality=95, icc_profile=SWAPPED)
        assert mean_difference(open_image(cmyk).rgb(), SCENE) < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I", "F", "P", "PA"])
def test_grey_and_palette_images_keep_their_look(mode: str):
    """Every mode that Pillow makes from grey."""
    source = SCENE.convert("L")
    if mode in {"P", "PA"}:
        source = SCENE.quantize(8).convert(mode) if mode == "PA" else SCENE.quantize(8)
        assert mean_difference(open_image(source).rgb(), SCENE) < 2
    elif mode == "1":
        assert mean_difference(open_image(source.convert("1")).rgb(), source.convert("1").convert("RGB")) == 0
    else:
        assert mean_difference(open_image(source.convert(mode)).rgb(), GREY) == 0
