"""An opened image: its size, pixels at several scales, digest, and that nobody can change it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from pictures import encode, make_scene, mean_difference
from PIL import Image as PILImage

from vision_backends.errors import ImageTooLargeError, InvalidImageError
from vision_backends.images import ImageLimits, open_image

SCENE = make_scene()


class TestScale:
    """Large JPEGs are decoded no larger than asked for."""

    def test_the_size_is_that_of_the_whole_image_at_every_scale(self, photo_jpeg: bytes):
        """Boxes are given in its pixels."""
        image = open_image(photo_jpeg, min_side_px=100)
        assert (image.width, image.height) == (1600, 1200)
        assert image.rgb(min_side_px=100).size == (200, 150)
        assert (image.width, image.height) == (1600, 1200)

    @pytest.mark.parametrize("side", [1, 149, 150, 151, 224, 300, 301, 416, 600, 601, 1200, 5000])
    def test_the_shorter_side_is_long_enough_but_below_twice_of_that(self, photo_jpeg: bytes, side: int):
        """Scales are 1, 1/2, 1/4 and 1/8."""
        pixels = open_image(photo_jpeg, min_side_px=side).rgb(min_side_px=side)
        assert min(pixels.size) >= min(side, 1200)
        assert min(pixels.size) < 2 * side or min(pixels.size) in {150, 1200}

    def test_a_reduced_decode_shows_the_same_picture(self, photo_jpeg: bytes):
        """Up to what any good reduction differs by."""
        whole = open_image(photo_jpeg).rgb().resize((416, 416), PILImage.Resampling.BICUBIC)
        reduced = open_image(photo_jpeg, min_side_px=416).rgb(min_side_px=416)
        assert mean_difference(whole, reduced.resize((416, 416), PILImage.Resampling.BICUBIC)) < 1

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_grey_printed_and_turned_photos_are_reduced_the_same_way(self, mode: str, orientation: int):
        """Neither the mode nor the way the camera was held changes what is asked for."""
        exif = PILImage.Exif()
        exif[0x0112] = orientation
        scene = make_scene(800, 600)
        sensor = scene.transpose(PILImage.Transpose.ROTATE_90) if orientation == 6 else scene
        data = encode(sensor.convert(mode), "JPEG", quality=95, exif=exif)
        image = open_image(data, min_side_px=140)
        assert (image.width, image.height) == (800, 600)
        pixels = image.rgb(min_side_px=140)
        assert pixels.size == (200, 150)
        expected = scene.convert(mode).convert("RGB").reduce(4)
        assert mean_difference(pixels, expected) < 4

    def test_more_pixels_are_decoded_when_they_are_asked_for(self, photo_jpeg: bytes):
        """And kept: the next one to ask for fewer gets them as well."""
        image = open_image(photo_jpeg, min_side_px=100)
        assert image.rgb(min_side_px=150).size == (200, 150)
        assert image.rgb(min_side_px=151).size == (400, 300)
        assert image.rgb(min_side_px=100).size == (400, 300)
        assert image.rgb().size == (1600, 1200)
        assert mean_difference(image.rgb(), open_image(photo_jpeg).rgb()) == 0

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    def test_other_formats_are_kept_at_the_same_scales(self, kind: str):
        """Each pixel is then the mean of those that it stands for."""
        image = open_image(encode(SCENE, kind, **({"lossless": True} if kind == "WEBP" else {})), min_side_px=20)
        assert (image.width, image.height) == (64, 48)
        assert image.rgb(min_side_px=20).tobytes() == SCENE.reduce(2).tobytes()
        assert image.rgb().tobytes() == SCENE.tobytes()

    def test_a_picture_without_an_end_is_kept_whole(self):
        """It was decoded more than once, to see how much is missing."""
        image = open_image(encode(PILImage.effect_noise((64, 48), 50), "PNG")[:-40], min_side_px=4)
        assert "is missing" in image.notes[0]
        assert (image.width, image.height) == image.rgb(min_side_px=4).size == (64, 48)

    def test_many_threads_may_ask_simultaneously(self, photo_jpeg: bytes):
        """Each gets pixels of at least the size that it asked for."""
        image = open_image(photo_jpeg, min_side_px=100)
        sides = [100, 151, 301, 601, None] * 6

        def ask(side: int | None) -> bool:
            pixels = image.rgb(min_side_px=side)
            return min(pixels.size) >= (side or 1200) and len(image.digest) == 64

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, sides))


class TestIsolation:
    """What callers do to what they passed in or got out changes nothing."""

    def test_changing_the_pixels_that_were_handed_out_changes_nothing(self):
        """Everybody gets a copy."""
        image = open_image(encode(SCENE, "PNG"))
        image.rgb().paste((1, 2, 3), (0, 0, 64, 48))
        image.rgb().info["exif"] = b"x"
        assert mean_difference(image.rgb(), SCENE) == 0
        assert image.rgb().info == {}

    @pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
    def test_changing_a_pil_image_after_the_call_changes_nothing(self, mode: str):
        """Its pixels were copied."""
        source = SCENE.convert(mode)
        image = open_image(source)
        before, digest = image.rgb(), image.digest
        source.paste(0, (0, 0, 64, 48))
        assert mean_difference(image.rgb(), before) == 0
        assert image.digest == digest

    @pytest.mark.parametrize("channels", [0, 3, 4])
    def test_changing_an_array_after_the_call_changes_nothing(self, channels: int):
        """Its pixels were copied."""
        source = np.full((48, 64, channels) if channels else (48, 64), 200, dtype=np.uint8)
        image = open_image(source)
        before = image.rgb()
        source[:] = 7
        assert mean_difference(image.rgb(), before) == 0

    def test_no_metadata_come_along_with_the_pixels(self):
        """Neither EXIF nor comments nor profiles."""
        data = encode(SCENE, "JPEG", comment=b"canary", exif=PILImage.Exif().tobytes(), icc_profile=b"canary")
        for source in (data, PILImage.open(BytesIO(data))):
            assert open_image(source).rgb().info == {}

    def test_a_pil_image_is_not_changed(self):
        """It keeps its mode, its size and its EXIF."""
        exif = PILImage.Exif()
        exif[0x0112] = 6
        source = PILImage.open(BytesIO(encode(SCENE, "JPEG", exif=exif)))
        open_image(source)
        assert source.size == (64, 48)
        assert source.getexif()[0x0112] == 6


class TestDigest:
    """The content, for cache keys."""

    def test_the_digest_of_a_file_is_that_of_its_bytes(self):
        """At every scale, from a path or from bytes."""
        data = encode(SCENE, "JPEG")
        expected = hashlib.sha256(data).hexdigest()
        assert open_image(data).digest == expected
        assert open_image(data, min_side_px=10).digest == expected

    def test_the_digest_of_pixels_depends_on_each_of_them_and_on_the_shape(self):
        """Two arrays of the same bytes but another shape are two images."""
        array = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)
        other = array.copy()
        other[47, 63, 2] ^= 1
        sources = [array, other, array.reshape(64, 48, 3), array.reshape(24, 128, 3)]
        assert len({open_image(source).digest for source in sources}) == 4

    def test_the_same_pixels_have_the_same_digest(self):
        """As an array or as a PIL image."""
        assert open_image(SCENE).digest == open_image(np.asarray(SCENE)).digest

    def test_two_images_of_the_same_size_differ(self):
        """The content counts, not the shape."""
        red, blue = (encode(PILImage.new("RGB", (8, 8), colour), "PNG") for colour in ("red", "blue"))
        assert open_image(red).digest != open_image(blue).digest


class TestPilImages:
    """Images that are open already."""

    def test_a_closed_image_is_refused(self):
        """There is nothing to read any more."""
        source = PILImage.open(BytesIO(encode(SCENE, "PNG")))
        source.close()
        with pytest.raises(InvalidImageError, match="The PIL image"):
            open_image(source)

    def test_an_image_without_pixels_is_refused(self):
        """Pillow can make them."""
        with pytest.raises(InvalidImageError, match="0×5 pixels"):
            open_image(PILImage.new("RGB", (0, 5)))

    @pytest.mark.parametrize("key", ["exif", "icc_profile"])
    @pytest.mark.parametrize("value", [None, "text", 5, b"bytes"])
    def test_odd_metadata_do_not_fail_the_image(self, key: str, value: object):
        """Plugins and programs put all sorts of things there."""
        source = SCENE.copy()
        source.info[key] = value
        assert open_image(source).width == 64

    def test_the_frame_that_the_caller_chose_is_taken(self):
        """Whoever seeks in an animation means that picture."""
        other = PILImage.new("RGB", SCENE.size, "yellow")
        source = PILImage.open(BytesIO(encode(SCENE, "GIF", save_all=True, append_images=[other])))
        source.seek(1)
        assert mean_difference(open_image(source).rgb(), other) < 2


class TestArrays:
    """Arrays as image libraries make them."""

    def test_bytes_and_floats_are_accepted(self):
        """Grey, RGB and RGBA; 0 to 255 or 0 to 1."""
        rgb = np.asarray(SCENE)
        for kind in (np.float16, np.float32, np.float64):
            assert mean_difference(open_image((rgb / 255).astype(kind)).rgb(), SCENE) < 0.5
        assert mean_difference(open_image(rgb).rgb(), SCENE) == 0
        assert mean_difference(open_image(rgb[:, :, 0]).rgb(), PILImage.merge("RGB", [SCENE.getchannel(0)] * 3)) == 0
        clear = np.dstack([rgb, np.zeros((48, 64), dtype=np.uint8)])
        assert mean_difference(open_image(clear).rgb(), PILImage.new("RGB", (64, 48), "white")) == 0

    def test_views_that_are_not_contiguous_are_accepted(self):
        """Flipped, transposed, strided and read-only ones."""
        rgb = np.asarray(SCENE)
        bgr = np.ascontiguousarray(rgb[:, :, ::-1])
        assert mean_difference(open_image(bgr[:, :, ::-1]).rgb(), SCENE) == 0
        wide = np.repeat(np.repeat(rgb, 2, axis=0), 2, axis=1)
        assert mean_difference(open_image(wide[::2, ::2]).rgb(), SCENE) == 0
        turned = open_image(rgb.transpose(1, 0, 2))
        assert (turned.width, turned.height) == (48, 64)
        locked = rgb.copy()
        locked.flags.writeable = False
        assert mean_difference(open_image(locked).rgb(), SCENE) == 0
        assert mean_difference(open_image(np.asfortranarray(rgb)).rgb(), SCENE) == 0

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4, 4), dtype=np.int16),
            np.zeros((4, 4), dtype=np.int64),
            np.zeros((4, 4), dtype=bool),
            np.zeros((4, 4), dtype=np.uint16),
            np.zeros((4, 4), dtype=complex),
            np.zeros((4, 4), dtype=object),
            np.zeros((4, 4), dtype="U1"),
            np.zeros((4, 4, 2), dtype=np.uint8),
            np.zeros((4, 4, 1), dtype=np.uint8),
            np.zeros((3, 4, 4, 3), dtype=np.uint8),
            np.zeros((3, 40, 40), dtype=np.uint8),
            np.zeros((9,), dtype=np.uint8),
            np.zeros((), dtype=np.uint8),
            np.zeros((0, 4), dtype=np.uint8),
            np.zeros((4, 0, 3), dtype=np.uint8),
            np.full((4, 4), 1.5),
            np.full((4, 4), -0.5),
            np.full((4, 4), np.nan),
            np.full((4, 4), np.inf),
        ],
    )
    def test_anything_else_is_refused_with_what_is_accepted(self, array: np.ndarray):
        """The message names the type, the shape or the values."""
        with pytest.raises(
            InvalidImageError, match=r"array .*\. Accepted are uint8 arrays, or float arrays from 0 to 1"
        ):
            open_image(array)

    def test_the_limit_of_pixels_holds(self):
        """A view of one number may be huge and cost nothing, until it is copied."""
        huge = np.broadcast_to(np.uint8(0), (100_000, 100_000))
        with pytest.raises(ImageTooLargeError, match="100000×100000 pixels"):
            open_image(huge)
        with pytest.raises(ImageTooLargeError, match="4×4 pixels"):
            open_image(np.zeros((4, 4)), limits=ImageLimits(max_pixels=15))


def test_the_representation_names_the_size_and_the_file(tmp_path):
    """For logs and debuggers; never the content."""
    path = tmp_path / "a.png"
    path.write_bytes(encode(SCENE, "PNG"))
    assert repr(open_image(path)) == f"<Image 64×48 px, {path}>"
    assert repr(open_image(SCENE)) == "<Image 64×48 px>"


def test_importing_and_opening_load_no_more_than_needed(tmp_path):
    """Neither Pillow nor numpy to import, and no numpy to open a JPEG."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(SCENE, "JPEG"))
    program = f"""
import sys
from vision_backends.images import open_image
import vision_backends.drawing
print([name for name in ("PIL", "numpy") if name in sys.modules])
open_image({str(path)!r}).rgb()
print([name for name in ("PIL", "numpy") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "['PIL']"]


def test_a_reshaped_picture_is_returned_instead_of_a_copy():
    """The image's own pixels are handed out to nobody, not even where nothing was reshaped."""
    image = open_image(PILImage.new("RGB", (60, 40), "red"))
    assert image.rgb(reshaped=lambda pixels: pixels.reduce(2)).size == (30, 20)
    image.rgb(reshaped=lambda pixels: pixels).putpixel((0, 0), (0, 0, 0))
    assert image.rgb().getpixel((0, 0)) == (255, 0, 0)
