"""Pictures that the tests of images are made from."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

FORMATS = [
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    ("PNG", {}),
    ("WEBP", {"quality": 95}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"big_tiff": True}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_deflate", "tiffinfo": {317: 2}}),
    ("TIFF", {"compression": "jpeg", "quality": 95}),
    ("AVIF", {"quality": 95}),
]


def make_scene(width: int = 64, height: int = 48) -> PILImage.Image:
    """Return a picture that no turn or mirror maps to itself: red, green, blue and white quarters."""
    image = PILImage.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    middle, centre = width // 2, height // 2
    draw.rectangle((0, 0, middle - 1, centre - 1), fill=(200, 30, 30))
    draw.rectangle((middle, 0, width, centre - 1), fill=(30, 160, 30))
    draw.rectangle((0, centre, middle - 1, height), fill=(30, 30, 200))
    return image


def encode(image: PILImage.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as a file of some format."""
    buffer = BytesIO()
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in options["append_images"]]
    image.copy().save(buffer, kind, **options)  # a copy, since Pillow notes an encoder's settings on its image
    return buffer.getvalue()


def mean_difference(first: PILImage.Image, second: PILImage.Image) -> float:
    """Return the mean absolute difference of two pictures, over pixels and channels."""
    assert first.size == second.size
    assert first.mode == second.mode == "RGB"
    return float(np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean())


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_png_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    """Return a PNG file with one more chunk after its header."""
    return data[:33] + png_chunk(name, body) + data[33:]


def with_jpeg_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """Return a JPEG file with one more segment at its beginning."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]
