"""Files without an end, and with a little missing there: what browsers show is seen, and what is cut off is said."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from pictures import encode, mean_difference
from PIL import Image as PILImage

from vision_backends import Router
from vision_backends.errors import InvalidImageError
from vision_backends.images import open_image
from vision_backends.testing import FakeBackend

PHOTO = PILImage.effect_noise((320, 240), 80).resize((32, 24)).resize((320, 240)).convert("RGB")

ENDS = {
    "JPEG": ({"quality": 90}, 2),
    "JPEG in full colour resolution": ({"quality": 90, "subsampling": 0}, 2),
    "JPEG, progressive": ({"quality": 90, "progressive": True}, 2),
    "JPEG, grey": ({"quality": 90}, 2),
    "PNG": ({}, 12),
    "PNG without its checksum": ({}, 16),
    "GIF": ({}, 1),
    "WEBP": ({"quality": 90}, 1),
}


def file_of(name: str) -> bytes:
    """Return the photo as a whole file."""
    kind = name.partition(",")[0].split()[0]
    return encode(PHOTO.convert("L") if name.endswith("grey") else PHOTO, kind, **ENDS[name][0])


@pytest.mark.parametrize("name", ENDS)
def test_a_missing_end_marker_changes_nothing(name: str):
    """Every pixel is there, so that there is nothing to say."""
    data = file_of(name)
    whole, cut = open_image(data), open_image(data[: -ENDS[name][1]])
    assert mean_difference(whole.rgb(), cut.rgb()) == 0
    assert (whole.notes, cut.notes) == ((), ())


@pytest.mark.parametrize("min_side_px", [None, 60])
def test_a_jpeg_without_an_end_is_read_at_any_scale(min_side_px: int | None):
    """Whatever the backend asks for."""
    image = open_image(file_of("JPEG")[:-2], min_side_px=min_side_px)
    assert (image.width, image.height) == (320, 240)
    assert image.rgb().size == (320, 240)


def test_a_pil_image_whose_file_has_no_end_is_seen_as_well():
    """Pillow itself would refuse to load it; a large part that is missing is an error here too."""
    data = file_of("JPEG")
    assert mean_difference(open_image(PILImage.open(BytesIO(data[:-2]))).rgb(), open_image(data).rgb()) == 0
    with pytest.raises(InvalidImageError, match=r"The PIL image is damaged or cut short: about \d+% of it is missing"):
        open_image(PILImage.open(BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize(
    ("kind", "options", "share"),
    [
        ("JPEG", {"quality": 90}, 0.01),
        ("JPEG", {"quality": 90, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"}, 0.01),
        ("PNG", {}, 0.02),
        ("GIF", {}, 0.02),
        ("GIF", {"interlace": 0, "transparency": 3}, 0.02),
        ("BMP", {}, 0.02),
        ("TIFF", {}, 0.02),
    ],
)
def test_a_little_that_is_missing_at_the_end_is_noted(kind: str, options: dict, share: float):
    """The rest is seen as it is; an answer about it says so."""
    data = encode(PHOTO, kind, **options)
    whole, cut = open_image(data), open_image(data[: int(len(data) * (1 - share))])
    assert mean_difference(whole.rgb(), cut.rgb()) < 5
    (note,) = cut.notes
    assert note.startswith("The bytes object is cut short: ")
    with Router([FakeBackend()]) as router:
        assert router.describe(data[: int(len(data) * (1 - share))]).trace.notes == (note,)
        assert router.describe(data).trace.notes == ()


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 90}), ("PNG", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {})]
)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_much_that_is_missing_is_an_error_that_says_how_much(kind: str, options: dict, share: float):
    """A model would describe the grey as a part of the picture."""
    data = encode(PHOTO, kind, **options)
    with pytest.raises(InvalidImageError, match=r"cut short: about \d+% of it is missing\. Fetch or save it again"):
        open_image(data[: int(len(data) * (1 - share))])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_that_was_ended_too_early_is_cut_short(orientation: int):
    """A tool has put the end marker behind the upper half, and decoders silently paint the lower one grey."""
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    data = encode(PHOTO, "JPEG", quality=90, exif=exif)
    with pytest.raises(InvalidImageError, match=r"about [3-7]\d% of it is missing"):
        open_image(data[: len(data) // 2] + b"\xff\xd9")


def test_a_plain_border_is_not_taken_for_a_missing_end():
    """A scanned page is white at its end."""
    page = PHOTO.copy()
    page.paste("white", (0, 120, 320, 240))
    assert open_image(encode(page, "JPEG", quality=90)).notes == ()


def test_a_progressive_jpeg_without_its_fine_scans_is_cut_short():
    """Its first scans alone are a blur."""
    data = encode(PHOTO, "JPEG", quality=90, progressive=True)
    with pytest.raises(InvalidImageError, match="damaged or cut short"):
        open_image(data[: len(data) // 2])


def bmp_with_alpha(*, alpha: int, core: int = 108) -> bytes:
    """Return the photo as a BMP of 32 bits whose header names an alpha channel, as GDI and clipboards write it."""
    pixels = PHOTO.convert("RGBA")
    pixels.putalpha(alpha)
    body = pixels.tobytes("raw", "BGRA")
    header = struct.pack("<IiiHHIIiiII", core, 320, -240, 1, 32, 3, len(body), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = header.ljust(core, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


class TestUnusedAlpha:
    """An alpha channel that is zero throughout."""

    @pytest.mark.parametrize("core", [56, 108, 124])
    @pytest.mark.parametrize("alpha", [0, 255])
    def test_a_bmp_shows_its_colours(self, core: int, alpha: int):
        """Programs leave the fourth byte at zero; browsers show such files as if it were full."""
        image = open_image(bmp_with_alpha(alpha=alpha, core=core))
        assert mean_difference(image.rgb(), PHOTO) == 0
        assert image.notes == ()

    def test_a_bmp_that_pillow_has_opened_does_too(self, tmp_path):
        """The same picture is the same whoever opens it."""
        path = tmp_path / "screenshot.bmp"
        path.write_bytes(bmp_with_alpha(alpha=0))
        with PILImage.open(path) as opened:
            assert mean_difference(open_image(opened).rgb(), PHOTO) == 0

    def test_alpha_that_is_used_is_honoured(self):
        """Half transparent is half white."""
        half = open_image(bmp_with_alpha(alpha=128)).rgb()
        assert mean_difference(half, PILImage.blend(PHOTO, PILImage.new("RGB", PHOTO.size, "white"), 127 / 255)) < 2

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "AVIF", "array", "PIL"])
    def test_elsewhere_an_empty_image_is_said_to_be_one(self, kind: str):
        """What is hidden stays hidden; whoever is told of a white page knows why."""
        hidden = PHOTO.copy()
        hidden.putalpha(0)
        pixels = {"array": np.asarray(hidden), "PIL": hidden}
        image = open_image(pixels[kind] if kind in pixels else encode(hidden, kind))
        assert mean_difference(image.rgb(), PILImage.new("RGB", PHOTO.size, "white")) == 0
        (note,) = image.notes
        assert "wholly transparent" in note
        assert "pass its colours alone" in note


def test_a_single_colour_says_nothing_of_transparency():
    """A black picture is not an empty one."""
    assert open_image(PILImage.new("RGBA", (8, 8), (0, 0, 0, 255))).notes == ()
