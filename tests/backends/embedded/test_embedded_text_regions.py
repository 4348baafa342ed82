"""Lines are found on a map at any slant, whatever the map looks like, in bounded time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import ImageDraw

from vision_backends.backends.embedded.text_regions import MOST_REGIONS, _components, _runs, find_regions


def bars(*corners, size=(320, 240)):
    """A map with filled quadrilaterals."""
    picture = PILImage.new("L", size)
    for each in corners:
        ImageDraw.Draw(picture).polygon(each, fill=255)
    return np.asarray(picture, dtype=np.float32) / 255


def slanted(degrees, *, width=160, height=16, middle=(160, 120)):
    """The corners of a bar around a point."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    halves = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    return [(middle[0] + x * cos - y * sin, middle[1] + x * sin + y * cos) for x, y in halves]


@pytest.mark.parametrize("degrees", [0, 2, -5, 12, -30, 44])
def test_a_bar_is_found_at_any_slant(degrees):
    """Its corners are let out by area times 1.4 by circumference, from top left clockwise."""
    (region,) = find_regions(bars(slanted(degrees)))
    out = 160 * 16 * 1.4 / (2 * (160 + 16))
    expected = slanted(degrees, width=160 + 2 * out, height=16 + 2 * out)
    assert region.score > 0.9
    for corner, other in zip(region.quad, expected, strict=True):
        assert math.dist(corner, other) < 5


def test_bars_come_from_top_to_bottom_in_the_scale_asked_for():
    """The map is smaller than the image."""
    found = find_regions(bars(slanted(0, middle=(160, 200)), slanted(0, middle=(160, 40))), scale=(2.0, 3.0))
    tops = [region.quad[0] for region in found]
    assert all(abs(x / 2 - 70) < 2 for x, _ in tops)
    assert tops[0][1] < tops[1][1]
    assert abs(tops[1][1] - 3 * (200 - 8 - 10)) < 9


def test_faint_and_tiny_spots_are_nothing():
    """Neither is much of the map above a low threshold, nor a thin line."""
    assert find_regions(np.full((64, 64), 0.15, dtype=np.float32)) == []
    assert find_regions(bars([(10, 10), (11, 10), (11, 11), (10, 11)])) == []
    assert find_regions(bars([(10, 10), (200, 10), (200, 11), (10, 11)])) == []
    faint = np.zeros((64, 64), dtype=np.float32)
    faint[20:40, 10:50] = 0.3
    assert find_regions(faint) == []


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
@settings(max_examples=60)
def test_what_touches_is_one_component(height, width, seed, share):
    """As a search from pixel to pixel finds them, diagonals included."""
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = _runs(mask)
    labels = _components(runs, width=width)
    painted = np.full(mask.shape, -1)
    for row, start, end, label in zip(runs.rows, runs.starts, runs.ends, labels, strict=True):
        painted[row, start:end] = label
    assert ((painted >= 0) == mask).all()
    expected = np.full(mask.shape, -1)
    for number, (row, column) in enumerate(np.argwhere(mask)):
        if expected[row, column] >= 0:
            continue
        waiting = [(row, column)]
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < height and 0 <= x < width and mask[y, x] and expected[y, x] < 0:
                expected[y, x] = number
                waiting += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    pairs = set(zip(painted[mask].tolist(), expected[mask].tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def checkered(height, width):
    """Every second pixel, which all hang together by their corners."""
    return (np.add.outer(np.arange(height), np.arange(width)) % 2).astype(np.float32)


def comb(height, width):
    """A spine with very many teeth."""
    teeth = np.zeros((height, width), dtype=np.float32)
    teeth[:, ::2] = 1
    teeth[0] = 1
    return teeth


def dots(height, width):
    """Very many small spots."""
    spots = np.zeros((height, width), dtype=np.float32)
    for row in range(5):
        for column in range(5):
            spots[row::8, column::8] = 1
    return spots


@pytest.mark.parametrize("make", [checkered, comb, dots])
def test_hostile_maps_take_bounded_time(make):
    """The largest map that is ever searched, filled with what is worst; seconds of this thread's own work."""
    started = time.thread_time()
    found = find_regions(make(960, 1280))
    assert time.thread_time() - started < 5
    assert len(found) <= MOST_REGIONS
