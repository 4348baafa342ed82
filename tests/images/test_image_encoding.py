"""What leaves the machine: pixels, in a format that suits them, and nothing else."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import pytest
from pictures import encode, make_scene, mean_difference
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont, PngImagePlugin

from vision_backends.images import encode_for_wire, open_image

CANARY = b"canary-4f1c"


def decode(data: bytes) -> PILImage.Image:
    """Return the pixels of a file, without going through this package."""
    return PILImage.open(BytesIO(data)).convert("RGB")


def make_page(width: int = 600, height: int = 400) -> PILImage.Image:
    """Return what a screenshot looks like: text on a plain ground."""
    page = PILImage.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for line in range(0, height, 24):
        draw.text(
            (10, line), "The quick brown fox jumps over it. " * 2, fill=(20, 20, 90), font=ImageFont.load_default(16)
        )
    return page


def files_with_canaries() -> dict[str, bytes]:
    """Return files that carry the canary wherever their format has room for it."""
    text = CANARY.decode()
    exif = PILImage.Exif()
    exif[0x010E] = text
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 29: text}
    xmp = f"<x:xmpmeta>{text}</x:xmpmeta>".encode()
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    info.add_itxt("XML:com.adobe.xmp", text)
    info.add_text("Author", text, zip=True)
    scene = make_scene()
    common = {"exif": exif, "icc_profile": CANARY}
    return {
        "JPEG": encode(scene, "JPEG", comment=CANARY, xmp=xmp, **common),
        "PNG": encode(scene, "PNG", pnginfo=info, **common),
        "WEBP": encode(scene, "WEBP", xmp=xmp, **common),
        "AVIF": encode(scene, "AVIF", xmp=xmp, **common),
        "GIF": encode(scene, "GIF", comment=CANARY),
        "TIFF": encode(scene, "TIFF", tiffinfo={270: text}, icc_profile=CANARY),
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_no_metadata_leave_the_machine(kind: str):
    """Neither EXIF, GPS, XMP, comments, texts nor profiles, of a file or of a PIL image."""
    data = files_with_canaries()[kind]
    assert CANARY in data  # it was there
    for pixels in (open_image(data).rgb(), PILImage.open(BytesIO(data)).convert("RGB")):
        for size in ((64, 48), (400, 300)):
            sent = encode_for_wire(pixels.resize(size)).data
            assert CANARY not in sent
            reread = PILImage.open(BytesIO(sent))
            reread.load()
            assert not reread.getexif()
            assert not {"exif", "icc_profile", "comment", "xmp", "Comment"} & set(reread.info)


def test_a_photo_becomes_a_jpeg_that_looks_the_same(photo_jpeg: bytes):
    """Several times smaller than without loss."""
    pixels = open_image(photo_jpeg).rgb()
    sent = encode_for_wire(pixels)
    assert sent.mime_type == "image/jpeg"
    assert sent.data.startswith(b"\xff\xd8\xff")
    assert len(sent.data) < len(encode(pixels, "PNG")) / 3
    assert mean_difference(decode(sent.data), pixels) < 6


def test_a_screenshot_becomes_a_png_without_loss():
    """Letters stay sharp, and it is smaller than a JPEG."""
    page = make_page()
    sent = encode_for_wire(page)
    assert sent.mime_type == "image/png"
    assert mean_difference(decode(sent.data), page) == 0
    assert len(sent.data) < len(encode(page, "JPEG", quality=88))


def test_a_photo_on_a_plain_ground_becomes_whatever_is_smaller(photo_jpeg: bytes):
    """Much of it is plain, but what is not decides; colours then keep their full resolution."""
    plain = PILImage.new("RGB", (1600, 1200), "white")
    plain.paste(open_image(photo_jpeg).rgb().resize((800, 600)), (400, 300))
    sent = encode_for_wire(plain)
    assert sent.mime_type == "image/jpeg"
    assert PILImage.open(BytesIO(sent.data)).layer[0][1:3] == (1, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 70_000)])
def test_odd_sizes_can_be_sent(size: tuple[int, int]):
    """Even those for which JPEG has no room."""
    pixels = PILImage.effect_noise(size, 80).convert("RGB")
    assert decode(encode_for_wire(pixels).data).size == size


def test_the_image_itself_is_not_changed():
    """Its metadata stay with the caller."""
    scene = make_scene()
    scene.info["comment"] = CANARY
    encode_for_wire(scene)
    assert scene.info["comment"] == CANARY


def test_the_data_url_holds_the_bytes():
    """As servers take it, and as this package reads it."""
    sent = encode_for_wire(make_page())
    header, _, payload = sent.data_url.partition(",")
    assert header == "data:image/png;base64"
    assert base64.b64decode(payload) == sent.data
    assert mean_difference(open_image(sent.data_url).rgb(), make_page()) == 0
    assert "data=" not in repr(sent)


@pytest.mark.parametrize("name", ["cat.jpg", "temple.jpg", "raccoon.jpg"])
def test_real_photos_become_jpegs_without_visible_loss(name: str):
    """No more than a few levels on average."""
    photo = open_image(Path(__file__).parents[2] / "benchmarks" / "photos" / name).rgb()
    sent = encode_for_wire(photo)
    assert sent.mime_type == "image/jpeg"
    assert mean_difference(decode(sent.data), photo) < 4
