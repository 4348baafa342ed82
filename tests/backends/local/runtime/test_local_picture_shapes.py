"""Pictures of extreme shapes reach processors as ordinary ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from vision_backends.backends.local.runtime.picture_shapes import LEAST_SIDE_PX, MOST_ASPECT, fitted


def picture(width, height):
    """Return a picture with some structure."""
    pixels = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PILImage.fromarray(pixels)


@given(st.integers(4, 300), st.integers(4, 300), st.booleans())
def test_ordinary_pictures_are_left_as_they_are(width, height, crops):
    """Answers stay those of the model's own processor."""
    made = PILImage.new("RGB", (width, height))
    if max(width, height) <= (4 if crops else MOST_ASPECT) * min(width, height):
        assert fitted(made, crops=crops) is made


@given(st.integers(1, 20_000), st.integers(1, 12), st.booleans(), st.booleans())
def test_no_shape_is_extreme_afterwards(long, short, crops, upright):
    """Neither too thin for a processor, nor many times the pixels."""
    size = (short, long) if upright else (long, short)
    width, height = fitted(PILImage.new("RGB", size), crops=crops).size
    assert max(width, height) <= MOST_ASPECT * min(width, height)
    assert min(width, height) >= LEAST_SIDE_PX
    assert width * height <= max(64, 16 * long * short, 8192 * 83)


def test_of_a_long_picture_the_middle_is_kept_where_only_that_is_looked_at():
    """The crop is that of the whole picture, scaled."""
    made = picture(4_000, 8)
    middle = fitted(made, crops=True)
    assert middle.size == (32, 8)
    assert np.array_equal(np.asarray(middle), np.asarray(made)[:, 1984:2016])


@pytest.mark.parametrize("size", [(6_000, 4_000), (40_000, 6)])
def test_a_picture_that_will_be_padded_is_made_small_before(size):
    """A square of its longer side would take gigabytes."""
    assert max(fitted(PILImage.new("RGB", size), pads=True).size) == 2048


@pytest.mark.parametrize(
    ("size", "input_px", "expected"),
    [
        ((7000, 5700), 224, (2334, 1900)),
        ((7000, 5700), None, (2334, 1900)),
        ((7000, 5700), 2048, (3500, 2850)),
        ((4000, 3500), 12_845_056, (4000, 3500)),
        ((7000, 5700), 12_845_056, (3500, 2850)),
        ((15_000, 1000), 640, (15_000, 1000)),
        ((40_000, 1000), 640, (20_000, 500)),
        ((4000, 2000), 224, (4000, 2000)),
    ],
)
def test_a_very_large_picture_is_reduced_but_not_below_what_the_model_sees(size, input_px, expected):
    """A processor keeps several copies of it; only the largest ones lose what the model might have seen."""
    assert fitted(PILImage.new("L", size), input_px=input_px).size == expected


def test_a_reduced_picture_shows_the_same():
    """Each of its pixels is the average of a square."""
    small = picture(1200, 1000)
    large = small.resize((3600, 3000), PILImage.Resampling.NEAREST)
    seen, expected = (np.asarray(each.resize((12, 10)), float) for each in (fitted(large, input_px=64), small))
    assert np.abs(seen - expected).max() <= 2
