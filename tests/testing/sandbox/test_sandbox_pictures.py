"""Images as they arrive: what is accepted, and what it costs."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import openai
import pytest
from PIL import Image

from vision_backends.testing.sandbox import image_tokens
from vision_backends.testing.sandbox.pictures import Album


@pytest.mark.parametrize(
    ("size", "detail", "tokens"),
    [
        ((4000, 4000), "low", 85),
        ((512, 512), "high", 255),
        ((513, 512), "high", 425),
        ((1024, 1024), "high", 765),
        ((2048, 4096), "high", 1105),
        ((4096, 2048), "auto", 1105),
        ((1, 1), "auto", 255),
    ],
)
def test_image_tokens_follow_the_tile_rule(size, detail, tokens):
    """The examples of the documentation, and the edges of a tile."""
    assert image_tokens(*size, detail=detail) == tokens


def _png_header(side):
    """Return a PNG that says how large it is, and nothing more."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"")


def _flawed_images():
    truncated = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(truncated, "PNG")
    bmp, still, moving = io.BytesIO(), Image.new("RGB", (4, 4), "red"), io.BytesIO()
    still.save(bmp, "BMP")
    still.save(moving, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])

    def url(data):
        return "data:image/png;base64," + base64.b64encode(data).decode()

    return {
        "https://example.com/cat.png": "invalid_image_url",
        "data:image/png,plain": "invalid_base64_image",
        "data:image/png;base64,@@@": "invalid_base64_image",
        "data:image/png;base64,": "empty_image_file",
        url(b"not an image"): "invalid_image_format",
        url(bmp.getvalue()): "invalid_image_format",
        url(moving.getvalue()): "invalid_image_format",
        url(_png_header(8_000)): "image_too_large",
        url(_png_header(20_000)): "image_too_large",
        url(truncated.getvalue()[:1500]): "image_parse_error",
    }


@pytest.mark.parametrize(("url", "code"), _flawed_images().items(), ids=lambda value: value[:30])
def test_what_is_no_image_is_refused_with_its_code(call, url, code):
    """The image is decoded for real, in both APIs."""
    with pytest.raises(openai.BadRequestError) as caught:
        call.chat([{"type": "image_url", "image_url": {"url": url}}])
    assert caught.value.code == code
    with pytest.raises(openai.BadRequestError) as caught:
        call.responses([{"role": "user", "content": [{"type": "input_image", "image_url": url}]}])
    assert caught.value.code == code


def test_an_image_that_was_forgotten_is_decoded_again(data_url):
    """The album keeps the last 256."""
    album = Album()
    for blue in [*range(256), 300]:
        album.picture(data_url(size=(1, 1), colour=(0, blue // 256, blue % 256)))
    assert album.picture(data_url(size=(1, 1), colour=(0, 0, 0))).colour == "#000000"


def test_images_are_known_by_their_bytes_not_by_their_type(call, server, image_part):
    """A wrong MIME type is no obstacle."""
    call.chat([image_part(kind="JPEG", mime="image/.jpg")])
    assert server.requests[0].pictures[0].format == "JPEG"
