"""An image about which several things are asked is read and decoded once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from pictures import encode, make_scene

from vision_backends import ImageTooLargeError, InvalidImageError, KeptImage, Router
from vision_backends.images import ImageLimits, open_image
from vision_backends.testing import FakeBackend


@pytest.fixture
def data():
    """A JPEG of 640 × 480."""
    return encode(make_scene(640, 480), "JPEG")


def sources(data, tmp_path):
    """Return the same picture in each way in which it can be passed."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    picture = open_image(data).rgb()
    return [path, str(path), data, BytesIO(data), picture, np.asarray(picture)]


def test_every_kind_of_image_can_be_kept(data, tmp_path):
    """The second opening gives the very same image, whatever it was made from, and as it would be without."""
    for source, fresh in zip(sources(data, tmp_path), sources(data, tmp_path), strict=True):
        kept, plain = KeptImage(source), open_image(fresh)
        image = open_image(kept)
        assert open_image(kept) is image
        assert (image.digest, image.width, image.height) == (plain.digest, plain.width, plain.height)


def test_what_is_kept_may_be_kept_once_more(data):
    """It is the same image."""
    kept = KeptImage(data)
    assert open_image(KeptImage(kept)) is open_image(kept)


def test_any_number_of_threads_may_open_it_first(data):
    """A file is read by one of them, and all get what is in it."""
    kept = KeptImage(BytesIO(data))
    with ThreadPoolExecutor(8) as pool:
        assert {image.digest for image in pool.map(open_image, [kept] * 32)} == {open_image(data).digest}


def test_more_pixels_are_decoded_when_they_are_needed(data):
    """A small answer first does not make a later one coarse."""
    kept = KeptImage(data)
    assert open_image(kept, min_side_px=60).rgb(min_side_px=60).height == 60
    assert open_image(kept).rgb().height == 480


def test_of_a_large_image_the_file_is_kept_and_not_the_pixels():
    """A folder of photos that are kept does not fill the memory; a file is read once all the same."""
    kept = KeptImage(BytesIO(encode(make_scene(1300, 900), "PNG")))
    assert open_image(kept) is not open_image(kept)
    assert kept.image is None
    assert kept.unread is None


def test_the_limits_of_each_opening_hold(data):
    """What was opened with wide limits is no way round narrower ones."""
    kept = KeptImage(data)
    open_image(kept)
    with pytest.raises(ImageTooLargeError):
        open_image(kept, limits=ImageLimits(max_pixels=640 * 480 - 1))
    with pytest.raises(ImageTooLargeError):
        open_image(kept, limits=ImageLimits(max_bytes=len(data) - 1))


def test_a_broken_image_is_refused_each_time(tmp_path):
    """The error is that of the image itself, and names it."""
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    kept = KeptImage(path)
    for _ in range(2):
        with pytest.raises(InvalidImageError, match=r"broken\.jpg"):
            open_image(kept)


def test_a_router_takes_a_kept_image_and_says_where_it_came_from(data, tmp_path):
    """Calls about one image, alone and in lists, find it open, and answers name its file."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    seen = []
    backend = FakeBackend()
    embed = backend.embed
    backend.embed = lambda images, request, **options: seen.extend(images) or embed(images, request, **options)
    kept = KeptImage(path)
    with Router([backend], caching=False) as router:
        assert router.describe(kept).source == str(path)
        path.unlink()
        one, (other,) = router.embed(kept), router.embed_many([kept])
        assert np.array_equal(one.vector, other.vector)
        assert router.ask([kept], prompt="What is this?").text
    assert seen[0] is seen[1]
