"""Files that are sent as they are: their compressed pixels, and not one byte of anything else."""

from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encode, make_scene, png_chunk, with_jpeg_segment, with_png_chunk
from PIL import Image as PILImage
from PIL import ImageCms
from test_image_modes import SWAPPED

from benchmarks.checks.image_mutations import mutate, seeds
from vision_backends.errors import CallerError
from vision_backends.images import ImageLimits, WireRule, open_image
from vision_backends.images.image import begin_opening

CANARY = b"canary-4f1c"
SCENE = make_scene(320, 240)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PHOTOS = sorted((Path(__file__).parents[2] / "benchmarks" / "photos").glob("*.jpg"))
IN_ADOBE_RGB = "rocket.jpg"

RULE = WireRule(fit=lambda width, height: (width, height), formats=frozenset({"JPEG", "PNG", "WEBP"}))


def half(width: int, height: int) -> tuple[int, int]:
    """Look at no more than 160 px."""
    scale = min(1.0, 160 / max(width, height))
    return round(width * scale), round(height * scale)


def pixels_of(data: bytes) -> np.ndarray[Any, Any]:
    """Return what another program sees."""
    return np.asarray(PILImage.open(BytesIO(data)).convert("RGB"))


def exif(orientation: int = 1, *, thumbnail: bytes = b"") -> bytes:
    """Return an EXIF block with a place and a description."""
    block = PILImage.Exif()
    block[0x0112] = orientation
    block[0x010E] = CANARY.decode()
    block[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 29: CANARY.decode()}
    return block.tobytes() + thumbnail


PASSED = {
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "jpeg full colour": ("JPEG", {"quality": 90, "subsampling": 0}),
    "jpeg restarts": ("JPEG", {"quality": 90, "restart_marker_blocks": 4}),
    "jpeg srgb": ("JPEG", {"quality": 90, "icc_profile": SRGB}),
    "png": ("PNG", {}),
    "png srgb": ("PNG", {"icc_profile": SRGB}),
    "webp": ("WEBP", {"quality": 90}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "webp metadata": ("WEBP", {"quality": 90, "exif": exif(), "xmp": CANARY, "icc_profile": SRGB}),
}


@pytest.mark.parametrize("name", PASSED)
def test_compressed_pixels_are_sent_as_they_are(name: str):
    """Nothing is lost a second time, and the size says that nothing was encoded anew."""
    kind, options = PASSED[name]
    data = encode(SCENE, kind, **options)
    sent = open_image(data).wire(RULE)
    assert sent.mime_type == f"image/{kind.lower()}"
    assert np.array_equal(pixels_of(sent.data), pixels_of(data))
    assert len(sent.data) <= len(data) + 18  # JFIF, where there was none
    assert CANARY not in sent.data


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_every_plain_kind_of_png_is_sent_as_it_is(mode: str):
    """Screenshots have an alpha that is opaque throughout."""
    data = encode(SCENE.convert(mode), "PNG")
    sent = open_image(data).wire(RULE)
    assert sent.data == data
    assert np.array_equal(pixels_of(sent.data), np.asarray(open_image(data).rgb()))


@pytest.mark.parametrize("path", [path for path in PHOTOS if path.name != IN_ADOBE_RGB], ids=lambda path: path.stem)
def test_a_real_photo_has_the_very_same_pixels_at_the_receiver(path: Path):
    """As the camera has compressed them."""
    data = path.read_bytes()
    sent = begin_opening(data, wire=RULE)
    image = sent.image(sent.decode_here())
    assert np.array_equal(pixels_of(image.wire(RULE).data), pixels_of(data))


def half_transparent() -> PILImage.Image:
    """Return a picture with one pixel that can be seen through."""
    image = SCENE.convert("RGBA")
    image.putpixel((5, 5), (1, 2, 3, 254))
    return image


def with_adobe(data: bytes, transform: int) -> bytes:
    """Return a JPEG of whose colours Adobe's marker says what they are."""
    return with_jpeg_segment(data, 0xEE, b"Adobe\x00\x64\x00\x00\x00\x00" + bytes([transform]))


def sixteen_bits() -> bytes:
    """Return a PNG of 16 bits."""
    return encode(PILImage.fromarray(np.linspace(0, 65_535, 64 * 48, dtype=np.uint16).reshape(48, 64)), "PNG")


ENCODED_ANEW = {
    "turned": lambda: encode(SCENE, "JPEG", exif=exif(6)),
    "print": lambda: encode(SCENE.convert("CMYK"), "JPEG"),
    "profile": lambda: encode(SCENE, "JPEG", icc_profile=SWAPPED),
    "png profile": lambda: encode(SCENE, "PNG", icc_profile=SWAPPED),
    "adobe rgb": lambda: with_adobe(encode(SCENE, "JPEG", quality=90), 0),
    "png transparent": lambda: encode(half_transparent(), "PNG"),
    "png colour key": lambda: encode(SCENE, "PNG", transparency=(200, 30, 30)),
    "png 16 bits": sixteen_bits,
    "webp alpha": lambda: encode(half_transparent(), "WEBP", lossless=True),
    "webp lossy alpha": lambda: encode(half_transparent(), "WEBP", quality=90),
    "webp animation": lambda: encode(SCENE, "WEBP", save_all=True, append_images=[SCENE.rotate(180)]),
    "without an end": lambda: encode(SCENE, "JPEG")[:-2],
    "cut": lambda: encode(SCENE, "PNG")[:-16],
    "gif": lambda: encode(SCENE, "GIF"),
    "bmp": lambda: encode(SCENE, "BMP"),
    "tiff": lambda: encode(SCENE, "TIFF"),
}


@pytest.mark.parametrize("name", ENCODED_ANEW)
def test_what_another_program_may_show_otherwise_is_encoded_anew(name: str):
    """The receiver sees what was checked here: upright, on white, in sRGB, the first picture, whole."""
    data = ENCODED_ANEW[name]()
    image = open_image(data)
    sent = image.wire(RULE).data
    assert sent != data
    assert sent == image.wire(WireRule(fit=RULE.fit)).data
    shown, ours = pixels_of(sent), np.asarray(image.rgb())
    assert shown.shape == ours.shape
    assert np.abs(shown.astype(float) - ours.astype(float)).mean() < 4
    assert CANARY not in sent


class TestRule:
    """What may be sent, and how large."""

    DATA = encode(SCENE, "JPEG", quality=90)

    def test_a_larger_file_is_scaled_unless_the_receiver_does_that(self):
        """Where it takes more than it looks at, and charges no more for it."""
        for scales, size in ((False, (160, 120)), (True, (320, 240))):
            sent = open_image(self.DATA).wire(WireRule(fit=half, formats=frozenset({"JPEG"}), scales=scales))
            assert PILImage.open(BytesIO(sent.data)).size == size

    def test_a_file_with_many_bytes_is_encoded_anew(self):
        """It would take longer to send."""
        rule = WireRule(fit=RULE.fit, formats=RULE.formats, max_bytes=len(self.DATA) - 1)
        assert open_image(self.DATA).wire(rule).data != open_image(self.DATA).wire(RULE).data

    def test_a_format_that_the_receiver_does_not_take_is_encoded_anew(self):
        """As WEBP by most servers that are no OpenAI."""
        rule = WireRule(fit=RULE.fit, formats=frozenset({"JPEG", "PNG"}))
        assert open_image(encode(SCENE, "WEBP")).wire(rule).mime_type in {"image/jpeg", "image/png"}

    def test_a_file_that_was_opened_to_be_sent_is_sent_as_any_other(self):
        """What is sent is made while it is opened, and kept until it was asked for; a rule of its own makes its own."""
        jpegs = frozenset({"JPEG"})
        for rule in (RULE, WireRule(fit=RULE.fit, formats=jpegs), WireRule(fit=RULE.fit, formats=jpegs, max_bytes=1)):
            opening = begin_opening(self.DATA, wire=RULE)
            image = opening.image(opening.decode_here())
            kept_bytes = image.memory_bytes
            sent = image.wire(rule)
            assert (sent == open_image(self.DATA).wire(RULE)) is (rule.max_bytes > 1)
            assert image.wire(rule) == sent
            if rule is RULE:
                assert image.memory_bytes == kept_bytes - len(sent.data)

    def test_an_image_without_a_file_is_encoded(self):
        """There is nothing to pass on."""
        assert PILImage.open(BytesIO(open_image(SCENE).wire(RULE).data)).size == SCENE.size

    @pytest.mark.parametrize(
        ("rule", "orientation", "decoded"),
        [
            (RULE, 1, (100, 75)),  # passed on: only checked
            (RULE, 6, (600, 800)),  # encoded anew at full size
            (WireRule(fit=half, formats=frozenset({"JPEG"})), 1, (200, 150)),
            (WireRule(fit=half, formats=frozenset({"JPEG"})), 6, (150, 200)),
        ],
    )
    def test_no_more_is_decoded_than_is_needed(self, rule: WireRule, orientation: int, decoded: tuple[int, int]):
        """At the smallest scale that is enough for what is sent."""
        data = encode(make_scene(800, 600), "JPEG", exif=exif(orientation))
        opening = begin_opening(data, wire=rule)
        found = opening.decode_here()
        assert found.pixels.size == decoded
        assert opening.image(found).rgb(min_side_px=240).size in {(400, 300), (300, 400), (600, 800)}

    def test_pixels_that_were_only_decoded_for_a_check_are_not_kept(self):
        """A thousand calls in flight hold the files; who asks for pixels gets them, as does another call later."""
        data = encode(make_scene(800, 600), "JPEG")
        opening = begin_opening(data, wire=RULE)
        image = opening.image(opening.decode_here())
        assert (image.decoded_pixels, image.wire(RULE).data) == (0, data)
        assert np.array_equal(np.asarray(image.rgb()), pixels_of(data))


def segments_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return the segments of a JPEG with their markers, read without this package; a scan has its data behind it."""
    assert data[:2] == b"\xff\xd8"
    found, at = [], 2
    while data[at : at + 2] != b"\xff\xd9":
        assert data[at] == 0xFF
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if marker == 0xDA:
            while not (data[end] == 0xFF and data[end + 1] not in {0, *range(0xD0, 0xD8)}):
                end += 1
        found.append((marker, data[at:end]))
        at = end
    assert at == len(data) - 2
    return found


def test_a_jpeg_has_nothing_but_tables_frame_and_scans():
    """Byte by byte: places, thumbnails, other pictures, comments, and whatever stands between, behind and around."""
    data = encode(SCENE, "JPEG", quality=90, progressive=True)
    plain = segments_of(open_image(data).wire(RULE).data)
    app = [
        (0xE0, b"JFXX\x00\x10" + CANARY),
        (0xE1, b"Exif\x00\x00" + exif(thumbnail=encode(SCENE, "JPEG") + CANARY)[6:]),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + CANARY),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + CANARY),
        (0xE2, b"MPF\x00" + CANARY),
        (0xED, b"Photoshop 3.0\x00" + CANARY),
        (0xEB, CANARY),
        (0xFE, CANARY),
    ]
    full = data
    for marker, body in app:
        full = with_jpeg_segment(full, marker, body)
    full = with_adobe(full, 1)
    scan = full.index(b"\xff\xda", full.index(b"\xff\xda") + 2)
    comment = b"\xff\xfe" + struct.pack(">H", len(CANARY) + 2) + CANARY
    full = full[:scan] + b"\xff" * 7 + comment + full[scan:] + CANARY + encode(SCENE, "JPEG") + CANARY
    assert full.count(CANARY) > 10
    sent = open_image(full).wire(RULE).data
    assert segments_of(sent) == plain
    assert {marker for marker, _ in plain} == {0xC2, 0xC4, 0xDA, 0xDB, 0xE0}
    assert dict(plain)[0xE0] == b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def test_a_png_has_nothing_but_header_palette_and_rows():
    """Not even in the compressed stream behind the last row."""
    data = encode(SCENE.convert("P"), "PNG")
    full = data
    texts = [
        (b"tEXt", b"Author\x00" + CANARY),
        (b"zTXt", b"Author\x00\x00" + zlib.compress(CANARY)),
        (b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + CANARY),
        (b"eXIf", exif()[6:]),
        (b"tIME", b"\x07\xea\x0b\x1c\x0c\x00\x00"),
        (b"acTL", struct.pack(">LL", 2, 0)),
        (b"gAMA", struct.pack(">L", 45_455)),
        (b"prVt", CANARY),
    ]
    for name, body in texts:
        full = with_png_chunk(full, name, body)
    full += CANARY
    assert open_image(full).wire(RULE).data == data
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    behind = data[: at - 4] + png_chunk(b"IDAT", data[at + 4 : at + 4 + length] + CANARY) + data[at + 8 + length :]
    assert np.array_equal(np.asarray(open_image(behind).rgb()), pixels_of(data))
    assert CANARY not in open_image(behind).wire(RULE).data


def test_a_webp_has_nothing_but_its_picture():
    """Neither a container nor what stands behind."""
    plain = encode(SCENE, "WEBP", quality=90)
    full = encode(SCENE, "WEBP", quality=90, exif=exif(), xmp=CANARY) + CANARY
    assert open_image(full).wire(RULE).data == plain


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [
        *((name, True) for name in ("jpeg", "jpeg progressive", "png palette", "webp")),
        *(
            (name, False)
            for name in ("jpeg cmyk", "mpo", "png", "png 16 bits", "apng", "webp lossless", "webp animated")
        ),
    ],
)
def test_whatever_is_passed_on_shows_what_was_checked(name: str, *, is_plain: bool):
    """Also of changed files: the receiver decodes the same pixels, or gets those that were encoded here."""
    data, chance, passed = seeds()[name], random.Random(name), 0  # noqa: S311
    limits = ImageLimits(max_pixels=250_000, max_bytes=200_000)
    for _ in range(60):
        changed = mutate(data, chance)
        try:
            image = open_image(changed, limits=limits)
        except CallerError:
            continue
        sent = image.wire(RULE).data
        if sent != image.wire(WireRule(fit=RULE.fit)).data:
            passed += 1
            assert np.array_equal(pixels_of(sent), np.asarray(image.rgb()))
    assert passed > 0 or not is_plain
