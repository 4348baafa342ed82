"""Formats, orientation, and what people pass by mistake; every file is made here and really decoded."""

from __future__ import annotations

from io import BytesIO

import pytest
from pictures import FORMATS, encode, make_scene, mean_difference, with_jpeg_segment, with_png_chunk
from PIL import Image as PILImage

from vision_backends.errors import InvalidImageError
from vision_backends.images import open_image

SCENE = make_scene()


def orientation_tag(orientation: int) -> bytes:
    """Return an EXIF block that says how the camera was held."""
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


class TestFormats:
    """Each format that is open."""

    @pytest.mark.parametrize(("kind", "options"), FORMATS)
    def test_each_format_is_decoded(self, kind: str, options: dict):
        """The pixels are those that were encoded, within the format's own loss."""
        image = open_image(encode(SCENE, kind, **options))
        assert (image.width, image.height) == (64, 48)
        assert mean_difference(image.rgb(), SCENE) < 3

    @pytest.mark.parametrize(("kind", "options"), FORMATS)
    def test_what_follows_the_image_does_not_matter(self, kind: str, options: dict):
        """A file that is also an archive or a page is the image that it begins with."""
        polyglot = encode(SCENE, kind, **options) + b"PK\x03\x04<html><script>alert(1)</script>" * 50
        assert mean_difference(open_image(polyglot).rgb(), SCENE) < 3

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_of_an_animation_the_first_picture_is_taken(self, kind: str):
        """Later frames and pages do not show."""
        others = [PILImage.new("RGB", SCENE.size, colour) for colour in ("black", "yellow")]
        data = encode(SCENE, kind, save_all=True, append_images=others)
        assert mean_difference(open_image(data).rgb(), SCENE) < 3

    def test_of_an_animated_png_the_default_image_is_taken(self):
        """It need not be part of the animation."""
        others = [PILImage.new("RGB", SCENE.size, colour) for colour in ("black", "yellow")]
        data = encode(SCENE, "PNG", save_all=True, append_images=others, default_image=True)
        assert mean_difference(open_image(data).rgb(), SCENE) == 0

    def test_of_a_picture_pair_of_a_phone_the_first_is_taken(self):
        """MPO is JPEG with more pictures behind."""
        data = encode(SCENE, "MPO", save_all=True, append_images=[PILImage.new("RGB", SCENE.size)], quality=95)
        assert mean_difference(open_image(data).rgb(), SCENE) < 3

    @pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1), (7, 5)])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
    def test_odd_sizes_are_fine(self, kind: str, size: tuple[int, int]):
        """One pixel is an image, and so is one line."""
        image = open_image(encode(PILImage.new("RGB", size, "red"), kind), min_side_px=100)
        assert image.rgb().size == (image.width, image.height) == size


class TestOrientation:
    """Photos are upright, once."""

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_all_orientations_are_applied_once(self, kind: str, orientation: int):
        """However the camera was held, the picture is upright; the same for a PIL image of the file."""
        held = {
            2: PILImage.Transpose.FLIP_LEFT_RIGHT,
            3: PILImage.Transpose.ROTATE_180,
            4: PILImage.Transpose.FLIP_TOP_BOTTOM,
            5: PILImage.Transpose.TRANSPOSE,
            6: PILImage.Transpose.ROTATE_90,
            7: PILImage.Transpose.TRANSVERSE,
            8: PILImage.Transpose.ROTATE_270,
        }
        sensor = SCENE.transpose(held[orientation]) if orientation > 1 else SCENE
        data = encode(sensor, kind, quality=95, exif=orientation_tag(orientation))
        for source in (data, PILImage.open(BytesIO(data))):
            image = open_image(source)
            assert (image.width, image.height) == (64, 48)
            assert mean_difference(image.rgb(), SCENE) < 3

    @pytest.mark.parametrize(
        "exif",
        [
            b"",
            b"Exif\x00\x00",
            b"Exif\x00\x00garbage that is no directory",
            b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff",
            b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x02\x00\x63\x00\x00",
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x63\x00\x00",
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x0c\x00\x00\x00\x01\x00\x06\x00\x00",
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x87\x69\x00\x04\x00\x00\x00\x01\xff\xff\xff\xff",
            b"Exif\x00\x00XX*\x00\x08\x00\x00\x00\x00\x00",
            b"Exif\x00\x00II+\x00\x08\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(64),
            b"Exif\x00\x00II+\x00\x08\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00" + b"\xff" * 64,
        ],
    )
    def test_a_broken_block_does_not_fail_the_image(self, exif: bytes):
        """The picture is taken as it is, and nobody is warned."""
        jpeg = with_jpeg_segment(encode(SCENE, "JPEG", quality=95, subsampling=0), 0xE1, exif)
        png = with_png_chunk(encode(SCENE, "PNG"), b"eXIf", exif.removeprefix(b"Exif\x00\x00"))
        for data in (jpeg, png):
            assert mean_difference(open_image(data).rgb(), SCENE) < 3

    def test_an_orientation_before_the_broken_part_counts(self):
        """A block cut short behind it still says which way is up."""
        exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x01"
        image = open_image(with_jpeg_segment(encode(SCENE, "JPEG"), 0xE1, exif))
        assert (image.width, image.height) == (48, 64)

    def test_a_broken_block_of_an_avif_does_not_fail_the_image(self):
        """Pillow would read it while it opens the file."""
        exif = PILImage.Exif()
        exif[0x010E] = "a description that is long enough to be kept elsewhere"
        data = encode(SCENE, "AVIF", quality=95, exif=exif)
        broken = data.replace(b"\x01\x0e\x00\x02\x00\x00\x00", b"\x01\x0e\x00\x02\x0f\xff\xff")
        with pytest.warns(UserWarning, match=r"larger than file|Truncated"):
            PILImage.open(BytesIO(broken))
        assert mean_difference(open_image(broken).rgb(), SCENE) < 3


class TestNotAnImage:
    """What people pass by mistake."""

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"%PDF-1.7 ...", "a PDF"),
            (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
            (b"  <svg/>", "an SVG drawing"),
            (b"<!DOCTYPE html><html></html>", "an HTML page"),
            (b"This text was called photo.jpg by somebody.", "looks like text"),
            (b"PK\x03\x04\x14\x00\x00\x00", "a ZIP archive"),
            (b"8BPS\x00\x01", "a Photoshop document"),
            (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "a video"),
            (b"\xff\x0a\x00\x00", "a JPEG XL image"),
            (b"data:image/png;base64,AAAA", "a data URL, which must be passed as a string"),
            (b"\x00" * 100, "not in a supported format"),
            (b"\xff", "not in a supported format"),
        ],
    )
    def test_the_message_says_what_it_looks_like(self, data: bytes, words: str):
        """The remedy says what is accepted."""
        with pytest.raises(InvalidImageError, match=rf"The bytes object .*{words}.*\. Accepted are JPEG"):
            open_image(data)

    @pytest.mark.parametrize("brand", [b"heic", b"mif1"])
    def test_a_heic_without_its_plugin_names_the_plugin(self, brand: bytes, monkeypatch):
        """The photos of many phones need a package that is not there by default."""
        monkeypatch.setattr("vision_backends.images.decoding.HEIF_PLUGIN", "a_plugin_that_is_not_there")
        data = b"\x00\x00\x00\x18ftyp" + brand + b"\x00\x00\x00\x00heicmif1" + b"\x00" * 100
        with pytest.raises(
            InvalidImageError, match=r"HEIF.*cannot open.*pillow-heif.* -m pip install 'vision-backends\[heic\]'"
        ):
            open_image(data)

    def test_a_webp_of_an_unknown_kind_is_refused(self):
        """The container alone does not make an image."""
        with pytest.raises(InvalidImageError, match="is WEBP of a variant"):
            open_image(b"RIFF\x00\x00\x00\x00WEBPVP9 " + b"\x00" * 100)

    def test_formats_outside_the_list_stay_closed(self):
        """Pillow opens forty more, which nobody asked for."""
        for kind in ("PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "EPS", "DDS"):
            with pytest.raises(InvalidImageError, match=r"looks like|not in a supported format"):
                open_image(encode(SCENE, kind))
