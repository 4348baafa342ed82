"""Some of what was found, and more of it: parts keep what is known of the whole image."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends import Attempt, Detection, Detections, ImageLabel, InvalidRequestError, Trace, Usage

TRACE = Trace(backend="one", model="m", usage=Usage(input_tokens=1, output_tokens=2, cost_usd=0.5), elapsed_s=1.0)


def box(label, score):
    """Return one object."""
    return Detection(label=label, score=score, xyxy=(1, 2, 1 + 10 * score, 12))


FOUND = Detections(
    items=(box("cat", 0.9), box("dog", 0.6), box("cat", 0.3)),
    width=100,
    height=50,
    image_labels=(ImageLabel(label="garden", score=0.8), ImageLabel(label="night", score=0.2)),
    source="a.jpg",
    trace=TRACE,
)


@given(st.slices(3))
def test_a_slice_is_the_detections_of_these_objects(part):
    """As a tuple's would be, best first, with all that is known of the image."""
    chosen = FOUND[part]
    assert sorted(chosen, key=lambda item: -item.score) == list(chosen)
    assert set(chosen) == set(FOUND.items[part])
    assert dataclasses.replace(chosen, items=FOUND.items) == FOUND


@pytest.mark.parametrize(
    "mask",
    [
        [True, False, True],
        (True, False, True),
        np.array([True, False, True]),
        FOUND.labels == "cat",
        (FOUND.scores > 0.7) | (FOUND.scores < 0.5),
        [np.bool_(True), np.bool_(False), np.bool_(True)],
        [0, 2],
        np.array([0, -1]),
        [np.int64(2), 0],
    ],
)
def test_a_mask_or_places_pick_objects(mask):
    """As with numpy's arrays and supervision's detections."""
    assert list(FOUND[mask]) == [FOUND[0], FOUND[2]]
    assert FOUND[mask].image_labels == FOUND.image_labels


@pytest.mark.parametrize("index", [0, -3, np.int64(0)])
def test_a_place_is_one_object(index):
    """That has not changed."""
    assert FOUND[index] is FOUND.items[0]


@pytest.mark.parametrize("index", [[], np.array([], dtype=bool), [False] * 3])
def test_nothing_picked_is_empty(index):
    """An empty list is neither a mask of the wrong length nor all of them."""
    assert len(FOUND[index]) == 0
    assert FOUND[index].image_labels == FOUND.image_labels


@pytest.mark.parametrize("index", [3, -4, [0, 3], [True, False], np.array([True] * 4)])
def test_an_index_that_is_out_of_range_is_an_index_error(index):
    """So that loops over places end as they do with lists."""
    with pytest.raises(IndexError):
        FOUND[index]


@pytest.mark.parametrize("index", ["cat", ["cat"], None, 1.0, [0.5], True, [True, 1, 0], np.array([[True]]), {0}])
def test_what_is_no_index_is_refused(index):
    """A label is not one: there is `filter` for that."""
    with pytest.raises(InvalidRequestError, match="is not an index of detections") as caught:
        FOUND[index]
    assert "filter" in caught.value.remedy


@pytest.mark.parametrize(
    ("wish", "boxes", "labels"),
    [
        ({}, ["cat", "dog", "cat"], ["garden", "night"]),
        ({"labels": "cat"}, ["cat", "cat"], []),
        ({"labels": ["dog", "garden"]}, ["dog"], ["garden"]),
        ({"labels": []}, [], []),
        ({"min_score": 0.5}, ["cat", "dog"], ["garden"]),
        ({"max_score": 0.5}, ["cat"], ["night"]),
        ({"labels": ["cat", "night"], "min_score": 0.3}, ["cat", "cat"], []),
        ({"min_area_px": 55}, ["cat", "dog"], ["garden", "night"]),
    ],
)
def test_a_filter_holds_for_boxes_and_labels_of_the_image(wish, boxes, labels):
    """A label that was filtered out is not left behind as one of the whole image."""
    kept = FOUND.filter(**wish)
    assert [item.label for item in kept] == boxes
    assert [item.label for item in kept.image_labels] == labels
    assert (kept.source, kept.trace) == (FOUND.source, FOUND.trace)


@pytest.mark.parametrize("wish", [{"labels": 5}, {"labels": ["cat", 5]}, {"min_score": "0.5"}, {"min_area_px": None}])
def test_a_filter_of_no_meaning_is_refused(wish):
    """It would silently keep nothing, or all."""
    with pytest.raises(InvalidRequestError):
        FOUND.filter(**wish)


@given(st.integers(-3, 3))
def test_the_parts_of_an_answer_make_the_answer(cut):
    """They are of one call, so that its cost counts once."""
    assert FOUND[:cut] + FOUND[cut:] == FOUND


def test_answers_of_two_rungs_are_one_with_the_account_of_both():
    """What both cost is added up, and one degraded answer makes it degraded."""
    attempt = Attempt(backend="two", outcome="answered")
    other = dataclasses.replace(
        FOUND[:0] + FOUND[1:2],
        source=None,
        image_labels=(ImageLabel(label="garden", score=0.9), ImageLabel(label="cat", score=0.4)),
        trace=Trace(backend="two", model="m", degraded=True, reason="one: down", attempts=(attempt,), usage=Usage()),
    )
    both = Detections.merge([FOUND, other])
    assert [item.label for item in both] == ["cat", "dog", "dog", "cat"]
    assert [(known.label, known.score) for known in both.image_labels] == [("garden", 0.9), ("night", 0.2)]
    assert both.source == "a.jpg"
    assert (both.trace.backend, both.trace.model, both.trace.reason) == ("one + two", "m", "one: down")
    assert both.trace.degraded
    assert both.trace.attempts == (attempt,)
    assert both.trace.usage == Usage()
    assert both.trace.elapsed_s == 1.0


@pytest.mark.parametrize("change", [{"width": 101}, {"source": "b.jpg"}])
def test_detections_of_different_images_are_not_merged(change):
    """Their boxes are in different pixels."""
    with pytest.raises(InvalidRequestError, match="different images"):
        FOUND + dataclasses.replace(FOUND, **change)


@pytest.mark.parametrize("parts", [[], [FOUND, "cat"], ["cat"], 5])
def test_only_detections_are_merged(parts):
    """And at least one of them."""
    with pytest.raises(InvalidRequestError):
        Detections.merge(parts)


def test_arrays_have_a_row_for_each_object():
    """Even for none."""
    assert (FOUND.xyxy.shape, FOUND[:0].xyxy.shape) == ((3, 4), (0, 4))
    assert FOUND.labels.tolist() == ["cat", "dog", "cat"]
    assert FOUND.scores.tolist() == pytest.approx([0.9, 0.6, 0.3])
