"""The records that callers receive: what makes one valid, and how it leaves the package."""

import copy
import dataclasses
import json
import math
import pickle
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from vision_backends import (
    FREE,
    TASKS,
    Attempt,
    Description,
    Detection,
    Detections,
    Embedding,
    ImageLabel,
    InvalidRequestError,
    SpaceMismatchError,
    Timing,
    Trace,
    Usage,
)

TRACE = Trace(
    backend="embedded",
    model="nanodet",
    revision="1",
    degraded=True,
    reason="openai: The account has no quota left.",
    attempts=(
        Attempt(backend="openai", outcome="failed", error="quota_exhausted", usage=Usage()),
        Attempt(backend="embedded", outcome="answered", elapsed_s=0.02),
    ),
    usage=Usage(),
    elapsed_s=0.5,
    timing=Timing(decode_s=0.01, model_s=0.02),
)


def unit(*values, space="toy", trace=TRACE):
    """Return the embedding in the direction of some numbers."""
    vector = np.array(values, dtype=float)
    return Embedding(vector=vector / np.linalg.norm(vector), space=space, trace=trace)


def detection(score=0.5, xyxy=(1, 2, 30, 40), label="cat", category_id=17):
    """Return one object."""
    return Detection(label=label, score=score, xyxy=xyxy, category_id=category_id)


def detections(*items, width=100, height=50):
    """Return what was found in an image of 100×50."""
    return Detections(items=items, width=width, height=height, trace=TRACE)


RECORDS = [
    Usage(input_tokens=3, output_tokens=None, cost_usd=0.25),
    TRACE.attempts[0],
    TRACE.timing,
    TRACE,
    Description(text="A cat.", language="en", evidence={"objects": [{"label": "cat"}]}, trace=TRACE),
    unit(3, 4),
    detection(),
    detections(detection()),
    ImageLabel(label="a scooter", score=0.5),
    dataclasses.replace(detections(), image_labels=(ImageLabel(label="a scooter", score=0.5),)),
]


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan")])
def test_a_label_of_an_image_has_a_score_in_its_range(score):
    """As a box has."""
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        ImageLabel(label="a scooter", score=score)


def test_labels_of_an_image_come_by_falling_score():
    """They are no boxes: the sequence holds only what has a place."""
    labels = (ImageLabel(label="swan", score=0.5), ImageLabel(label="rocket", score=np.float32(0.75)))
    found = dataclasses.replace(detections(detection()), image_labels=labels)
    assert [known.label for known in found.image_labels] == ["rocket", "swan"]
    assert len(found) == 1
    assert json.loads(json.dumps(found.to_dict()))["image_labels"][0] == {"label": "rocket", "score": 0.75}
    assert found.to_coco(image_id=1) == detections(detection()).to_coco(image_id=1)


def repickled(record):
    """Return what another process would receive."""
    return pickle.loads(pickle.dumps(record))  # noqa: S301 — our own bytes


def named(record):
    """Return what a parameter is called in the names of tests."""
    return type(record).__name__


@pytest.mark.parametrize("record", RECORDS, ids=named)
def test_records_are_frozen_slotted_and_keyword_only(record):
    """A record is a fact: nobody changes it, adds to it or mistakes the order of its fields."""
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, getattr(record, name))
    assert not hasattr(record, "__dict__")
    with pytest.raises(TypeError, match="positional"):
        type(record)(getattr(record, name))


@pytest.mark.parametrize("record", RECORDS, ids=named)
def test_every_record_is_json(record):
    """`to_dict` keeps every field, in values that any JSON library can write."""
    told = record.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert {spec.name for spec in dataclasses.fields(record)} <= set(told)


@pytest.mark.parametrize("record", RECORDS, ids=named)
@pytest.mark.parametrize("again", [repickled, copy.copy, copy.deepcopy])
def test_a_copy_equals_its_original(record, again):
    """Records cross process boundaries whole."""
    assert again(record) == record


def test_timing_travels_with_a_trace_and_plays_no_part_in_its_equality():
    """Two equal answers never take equally long; what is unknown of the time is null in JSON."""
    assert repickled(TRACE).timing == TRACE.timing
    assert dataclasses.replace(TRACE, timing=None) == TRACE
    assert dataclasses.replace(TRACE, elapsed_s=0.7) != TRACE
    assert TRACE.to_dict()["timing"] == {"decode_s": 0.01, "queue_s": None, "model_s": 0.02, "wire_s": None}


def test_unknown_usage_is_null_in_json():
    """None means unknown, and stays apart from 0."""
    assert Usage().to_dict() == {"input_tokens": None, "output_tokens": None, "cost_usd": None}
    assert FREE.to_dict() == {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}


def test_usages_add_up():
    """Tokens stay whole numbers and money stays money."""
    total = Usage(input_tokens=3, output_tokens=2, cost_usd=0.25) + Usage(input_tokens=4, output_tokens=0, cost_usd=0.5)
    assert total == Usage(input_tokens=7, output_tokens=2, cost_usd=0.75)
    assert isinstance(total.input_tokens, int)


@given(
    st.lists(
        st.builds(
            Usage,
            input_tokens=st.none() | st.integers(0, 9),
            output_tokens=st.none() | st.integers(0, 9),
            cost_usd=st.none() | st.sampled_from([0.0, 0.25, 2.0]),
        ),
        min_size=2,
        max_size=4,
    )
)
def test_what_is_unknown_once_is_unknown_in_the_sum(usages):
    """An unknown part never counts as 0, in whichever order the parts are added."""
    total = sum(usages[1:], start=usages[0])
    assert total == sum(usages[-2::-1], start=usages[-1])
    for field in dataclasses.fields(Usage):
        parts = [getattr(usage, field.name) for usage in usages]
        assert getattr(total, field.name) == (None if None in parts else sum(parts))


def test_tasks_are_the_four_methods_of_a_backend():
    """The router finds a backend's method by the name of the task."""
    assert TASKS == ("describe", "embed", "embed_text", "detect")


def test_a_description_prints_as_its_text():
    """`print(router.describe(...))` is all that a script needs."""
    assert str(Description(text="Ein Hund.", language="de")) == "Ein Hund."


def test_evidence_of_any_mapping_becomes_json():
    """A backend may protect its evidence from being written to."""
    evidence = MappingProxyType({"colours": ("red", MappingProxyType({"share": 0.5}))})
    told = Description(text="Red.", evidence=evidence).to_dict()
    assert told["evidence"] == {"colours": ["red", {"share": 0.5}]}


def test_a_vector_is_float32_and_belongs_to_its_record_alone():
    """Writing to the array that it was made from changes nothing."""
    source = np.array([0.6, 0.8])
    embedding = Embedding(vector=source, space="toy")
    source[0] = 9.0
    assert embedding.vector.dtype == np.float32
    assert embedding.vector.tolist() == pytest.approx([0.6, 0.8])
    assert embedding.dimension == 2


@pytest.mark.parametrize("again", [lambda record: record, repickled, copy.deepcopy])
def test_a_vector_is_read_only(again):
    """Nobody can change it in place, in a copy neither."""
    vector = again(unit(3, 4)).vector
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1.0


def test_a_vector_cannot_be_made_writable():
    """So it may be shared."""
    with pytest.raises(ValueError, match="WRITEABLE"):
        unit(3, 4).vector.flags.writeable = True


def test_a_record_that_is_made_from_another_shares_its_vector():
    """A vector takes up to 16 kB, and an answer is made anew with each thing that is found out about it."""
    embedding = unit(3, 4)
    assert dataclasses.replace(embedding, source="photo.jpg").vector is embedding.vector


def test_a_small_part_of_a_large_buffer_is_copied():
    """A vector does not keep all the others of its batch in memory."""
    rows = np.frombuffer(np.eye(4, dtype=np.float32).tobytes(), dtype=np.float32).reshape(4, 4)
    vector = Embedding(vector=rows[1], space="toy").vector
    assert vector.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert not np.shares_memory(vector, rows)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (np.zeros((2, 2)), r"shape \[D\], not \(2, 2\)"),
        (np.zeros(0), r"shape \[D\], not \(0,\)"),
        (np.float32(1.0), r"not \(\)"),
        (np.zeros(3), "length 1, not 0"),
        (np.array([1.0, 0.1]), "length 1, not 1.005"),
        (np.array([np.nan, 0.0]), "length 1, not nan"),
        (np.array([np.inf, 0.0]), "length 1, not inf"),
    ],
)
def test_an_embedding_is_one_finite_vector_of_length_one(vector, says):
    """Anything else would make similarities that mean nothing."""
    with pytest.raises(ValueError, match=says):
        Embedding(vector=vector, space="toy")


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
)
def test_similarity_is_the_cosine(first, second):
    """It is symmetric, lies in [-1, 1] and is the cosine of the angle."""
    if math.hypot(*first) < 1e-3 or math.hypot(*second) < 1e-3:
        return
    one, other = unit(*first), unit(*second)
    cosine = float(np.dot(first, second))
    assert one.similarity(other) == other.similarity(one)
    assert -1.0 <= one.similarity(other) <= 1.0
    assert one.similarity(other) == pytest.approx(cosine / math.hypot(*first) / math.hypot(*second), abs=1e-5)


def test_a_vector_within_tolerance_is_no_more_similar_to_itself_than_one():
    """Lengths may be off by rounding, similarities may not leave their range."""
    embedding = Embedding(vector=np.array([1.0009, 0.0]), space="toy")
    opposite = Embedding(vector=np.array([-1.0009, 0.0]), space="toy")
    assert embedding.similarity(embedding) == 1.0
    assert embedding.similarity(opposite) == -1.0


def test_vectors_of_two_spaces_are_not_compared():
    """The numbers would mean nothing (promise 3)."""
    with pytest.raises(SpaceMismatchError, match="'clip@1' and 'clip@2' cannot be compared") as caught:
        unit(1, 0, space="clip@1").similarity(unit(1, 0, space="clip@2"))
    assert "space=" in caught.value.remedy


@pytest.mark.parametrize(
    "other",
    [
        unit(1, 0, space="another"),
        unit(0, 1),
        unit(1, 0, 0),
        unit(1),
        unit(1, 0, trace=Trace()),
        "a text",
    ],
)
def test_an_embedding_differs_from_one_with_another_vector_space_or_trace(other):
    """Equality never raises, whatever the shapes."""
    assert unit(1, 0) != other
    assert unit(1, 0) == unit(2, 0)


def test_an_embedding_is_not_hashable():
    """It holds an array."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(unit(1, 0))


def test_numpy_takes_an_embedding_for_an_array():
    """`np.asarray` shares the read-only memory, `np.array` copies it and `dtype` is honoured."""
    embedding = unit(3, 4)
    shared, copied = np.asarray(embedding), np.array(embedding)
    assert np.shares_memory(shared, embedding.vector)
    assert not np.shares_memory(copied, embedding.vector)
    copied[0] = 0.0
    assert embedding.vector[0] == pytest.approx(0.6)
    assert np.asarray(embedding, dtype=np.float64).dtype == np.float64
    assert np.stack([embedding, embedding]).shape == (2, 2)


def test_numpy_is_told_when_a_copy_cannot_be_avoided():
    """With ``copy=False`` numpy wants an error rather than a hidden copy."""
    assert np.array(unit(3, 4), copy=False).dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        np.array(unit(3, 4), dtype=np.float64, copy=False)


def test_an_embedding_in_json_says_its_space_and_length():
    """A program that reads the file can check what it compares."""
    told = unit(3, 4).to_dict()
    assert told["vector"] == pytest.approx([0.6, 0.8])
    assert (told["space"], told["dimension"]) == ("toy", 2)


@pytest.mark.parametrize(
    "xyxy",
    [
        (30, 2, 1, 40),
        (1, 40, 30, 2),
        (1, 2, 1, 40),
        (1, 2, 30, 2),
        (1, 2, math.inf, 40),
        (math.nan, 2, 30, 40),
        (-math.inf, 2, 30, 40),
    ],
)
def test_a_box_has_an_area(xyxy):
    """Empty, inverted and endless boxes are refused."""
    with pytest.raises(ValueError, match="x1 < x2 and y1 < y2"):
        detection(xyxy=xyxy)


@pytest.mark.parametrize("xyxy", [(1, 2, 3), (1, 2, 3, 4, 5)])
def test_a_box_has_four_sides(xyxy):
    """Other shapes are refused."""
    with pytest.raises(ValueError, match="unpack"):
        detection(xyxy=xyxy)


@pytest.mark.parametrize("score", [-0.01, 1.01, math.nan])
def test_a_score_lies_between_0_and_1(score):
    """Percentages and logits are refused."""
    with pytest.raises(ValueError, match=r"is not in \[0, 1\]"):
        detection(score=score)


def test_a_detection_made_of_numpys_numbers_is_json():
    """Backends compute with numpy, records leave it behind."""
    item = detection(score=np.float32(0.5), xyxy=np.array([1, 2, 3, 4], dtype=np.float32))
    assert item.xyxy == (1.0, 2.0, 3.0, 4.0)
    assert json.loads(json.dumps(item.to_dict()))["score"] == 0.5
    assert hash(item) == hash(detection(score=0.5, xyxy=(1, 2, 3, 4)))


def test_the_area_of_a_box_is_in_square_pixels():
    """Width times height."""
    assert detection(xyxy=(1, 2, 31, 42)).area_px == 1200.0


boxes = st.tuples(st.floats(0, 99), st.floats(0, 49), st.floats(0.5, 100), st.floats(0.5, 50)).filter(
    lambda box: box[0] < box[2] and box[1] < box[3]
)
items = st.lists(st.builds(detection, score=st.floats(0, 1), xyxy=boxes), max_size=6)


@given(items)
def test_detections_come_best_score_first(found):
    """They iterate, count and index like a tuple, sorted by falling score; equals keep their order."""
    result = detections(*found)
    assert list(result) == sorted(found, key=lambda item: -item.score)
    assert len(result) == len(found)
    assert [result[index] for index in range(len(found))] == list(result)


@given(items)
def test_coco_rows_have_the_same_boxes_as_corner_and_size(found):
    """A row's corner and size give the box back."""
    result = detections(*found)
    rows = json.loads(json.dumps(result.to_coco(image_id=7)))
    assert len(rows) == len(found)
    for row, item in zip(rows, result, strict=True):
        x, y, width, height = row["bbox"]
        assert (x, y, x + width, y + height) == pytest.approx(item.xyxy)
        assert width * height == pytest.approx(item.area_px)
        assert (row["image_id"], row["category_id"], row["score"]) == (7, 17, item.score)


@pytest.mark.parametrize("xyxy", [(-1, 2, 30, 40), (1, -2, 30, 40), (1, 2, 100.5, 40), (1, 2, 30, 51)])
def test_a_box_stays_inside_its_image(xyxy):
    """Pixels outside the image do not exist."""
    with pytest.raises(ValueError, match="reaches outside an image of 100×50 px"):
        detections(detection(xyxy=xyxy))


def test_a_box_may_fill_its_image():
    """The edges of the image are inside."""
    assert len(detections(detection(xyxy=(0, 0, 100, 50)))) == 1


def test_coco_rows_use_the_categories_that_the_caller_names():
    """Labels of an open vocabulary get the caller's ids, of which 0 is one."""
    found = detections(detection(label="scooter", category_id=None))
    assert found.to_coco(image_id=1, categories={"scooter": 0})[0]["category_id"] == 0


@pytest.mark.parametrize("categories", [None, {"bicycle": 2}])
def test_a_label_without_a_category_is_the_callers_error(categories):
    """No id is made up."""
    with pytest.raises(InvalidRequestError, match="'scooter' has no COCO category") as caught:
        detections(detection(label="scooter", category_id=None)).to_coco(image_id=1, categories=categories)
    assert "categories=" in caught.value.remedy


@pytest.mark.parametrize("classes", [["scooter"], ["kite", "scooter", "kite"], "kite"])
def test_a_label_that_is_none_of_the_classes_is_the_callers_error(classes):
    """No id is made up."""
    found = detections(detection(label="kite", category_id=None))
    with pytest.raises(InvalidRequestError, match=r"none of the classes|twice|single str"):
        found.to_supervision(classes=classes)


@pytest.mark.parametrize("scale", [1, 3])
def test_boxes_are_drawn_in_the_scale_of_the_picture(scale):
    """The picture may be smaller or larger than the image that was looked at."""
    picture = PILImage.new("RGB", (200 * scale, 200 * scale), "grey")
    found = detections(detection(xyxy=(50, 100, 150, 190)), width=200, height=200)
    drawn = found.draw(picture)
    left, top, right, bottom = box_of_changes(picture, drawn)
    assert drawn.size == picture.size
    assert picture.getcolors() == [((200 * scale) ** 2, (128, 128, 128))]
    assert (left / scale, right / scale, bottom / scale) == pytest.approx((50, 150, 190), abs=4)
    assert 0 < top / scale <= 104


def box_of_changes(before, after):
    """Return the box around all pixels that differ."""
    from PIL import ImageChops

    return ImageChops.difference(before, after).getbbox()
