"""Geometry: letterboxes can be undone, overlaps are ratios, and suppression keeps what it should."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.embedded.box_geometry import Letterbox, overlaps, suppress

SIDE = 416
sizes = st.integers(min_value=1, max_value=20_000)


@st.composite
def box_lists(draw, most=12):
    """Draw [K, 4] boxes with integer corners, some of them equal, some empty."""
    corner = st.integers(min_value=0, max_value=12)
    rows = draw(st.lists(st.tuples(corner, corner, corner, corner), max_size=most))
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 4)
    return np.hstack([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])])


@given(width=sizes, height=sizes)
def test_a_letterbox_lies_centred_inside_the_square(width, height):
    """The image fills the square in one direction, is inside it in the other, and is centred to a pixel."""
    box = Letterbox.fit(width, height, side=SIDE)
    assert max(box.width, box.height) == SIDE
    assert min(box.width, box.height) >= 1
    for start, length in ((box.left, box.width), (box.top, box.height)):
        assert start >= 0
        assert abs(start - (SIDE - length - start)) <= 1


@given(width=sizes, height=sizes)
def test_a_letterbox_keeps_the_proportions(width, height):
    """Each side is scaled by the same factor, up to half a pixel of rounding and the least side of one pixel."""
    box = Letterbox.fit(width, height, side=SIDE)
    scale = SIDE / max(width, height)
    assert abs(box.width - max(1, width * scale)) <= 0.5
    assert abs(box.height - max(1, height * scale)) <= 0.5


@given(width=sizes, height=sizes, corners=st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_undoing_a_letterbox_gives_the_original_box(width, height, corners):
    """A box that is mapped into the square and back is where it was, to a thousandth of the image."""
    box = Letterbox.fit(width, height, side=SIDE)
    into = np.array([box.width, box.height] * 2), np.array([box.left, box.top] * 2)
    mapped = (np.array([corners]) * into[0] + into[1]).astype(np.float32)
    back = box.undo(mapped, width=width, height=height) / np.array([width, height] * 2)
    assert np.allclose(back, [corners], rtol=0, atol=1e-3)


@given(width=sizes, height=sizes, boxes=st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 4), max_size=5))
def test_an_undone_box_never_leaves_the_image(width, height, boxes):
    """Whatever the model says, corners end up inside the image."""
    box = Letterbox.fit(width, height, side=SIDE)
    back = box.undo(np.array(boxes, dtype=np.float32).reshape(-1, 4), width=width, height=height)
    assert (back >= 0).all()
    assert (back <= np.array([width, height] * 2)).all()


@given(boxes=box_lists())
def test_overlap_is_a_symmetric_ratio(boxes):
    """Intersection over union is symmetric, in [0, 1], 1 with itself, and 0 for empty boxes."""
    ratios = overlaps(boxes)
    full = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    assert np.array_equal(ratios, ratios.T)
    assert (ratios >= 0).all()
    assert (ratios <= 1).all()
    assert np.array_equal(ratios.diagonal(), full.astype(np.float32))
    assert not ratios[~full].any()


def test_overlap_of_known_boxes():
    """Two squares of 2 × 2 that share a quarter overlap by 1 / 7."""
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3]], dtype=np.float32)
    assert np.isclose(overlaps(boxes)[0, 1], 1 / 7)


@given(boxes=box_lists(), iou=st.sampled_from([0.0, 0.3, 0.6, 0.9]), data=st.data())
def test_suppression_drops_exactly_what_a_better_box_covers(boxes, iou, data):
    """No two kept boxes of a class overlap by more than the limit, and each dropped one has a kept, better rival."""
    numbers = st.lists(st.integers(0, 2), min_size=len(boxes), max_size=len(boxes))
    classes = np.array(data.draw(numbers), dtype=np.intp)
    kept = suppress(boxes, iou=iou, classes=classes).tolist()
    rivals = (overlaps(boxes) > iou) & (classes[:, None] == classes[None, :])
    assert kept == sorted(kept)
    assert not any(rivals[a, b] for a in kept for b in kept if a < b)
    for index in set(range(len(boxes))) - set(kept):
        assert any(rivals[better, index] for better in kept if better < index)


def test_without_classes_everything_competes():
    """The same box under two classes survives a class-wise pass and not one across classes."""
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4]], dtype=np.float32)
    assert suppress(boxes, iou=0.6, classes=np.array([2, 7])).tolist() == [0, 1]
    assert suppress(boxes, iou=0.6).tolist() == [0]
