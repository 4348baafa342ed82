"""Boxes: the schema, its violations, and the way from thousandths to pixels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.openai.prompts import read_boxes, schema_for
from vision_backends.errors import InvalidReplyError
from vision_backends.types import Detections

LABELS = ("cat", "a red scooter")
CORNER = st.integers(-50, 1050)


def row(**changes):
    """Return one box as the model writes it."""
    return {"label": "cat", "confidence": 90, "x1": 100, "y1": 200, "x2": 300, "y2": 400, **changes}


def read(*rows, width=640, height=480):
    """Read boxes of an image."""
    text = json.dumps({"objects": list(rows)})
    return read_boxes(text, labels=LABELS, categories={"cat": 17}, width=width, height=height)


def test_thousandths_become_pixels_of_the_image():
    """Each side is 1000 long, whatever its shape."""
    (found,) = read(row())
    assert found.xyxy == pytest.approx((64, 96, 192, 192))
    assert (found.label, found.score, found.category_id) == ("cat", 0.9, 17)


def test_a_label_that_is_not_of_coco_has_no_category():
    """None is unknown."""
    assert read(row(label="a red scooter"))[0].category_id is None


@given(st.lists(st.tuples(CORNER, CORNER, CORNER, CORNER), max_size=5), st.integers(1, 5000), st.integers(1, 5000))
def test_every_box_lies_inside_of_the_image(corners, width, height):
    """Slight overshoot is clamped, and what has no area is dropped."""
    rows = [row(x1=min(a, c), y1=min(b, d), x2=max(a, c), y2=max(b, d)) for a, b, c, d in corners]
    found = read(*rows, width=width, height=height)
    assert len(Detections(items=tuple(found), width=width, height=height)) == len(found) <= len(rows)


def test_an_empty_list_is_an_answer():
    """There may be nothing to find."""
    assert read() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "dog"},
        {"label": 5},
        {"confidence": 101},
        {"confidence": -1},
        {"confidence": 0.9},
        {"x1": "100"},
        {"x1": True},
        {"x1": None},
        {"x2": 1920},
        {"y1": -200},
        {"x1": 301},
        {"y2": 100},
    ],
)
def test_a_row_that_breaks_the_schema_is_an_invalid_reply(changes):
    """Pixels instead of thousandths, boxes inside out and foreign labels are not guessed at."""
    with pytest.raises(InvalidReplyError):
        read(row(**changes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two cats",
        "```json\n{}\n```",
        "{}",
        "[]",
        '{"objects": 3}',
        '{"objects": [3]}',
        '{"objects": [{}]}',
        "[" * 9999,
    ],
)
def test_what_is_no_list_of_boxes_is_an_invalid_reply(text):
    """The next rung is asked."""
    with pytest.raises(InvalidReplyError) as caught:
        read_boxes(text, labels=LABELS, categories={}, width=10, height=10)
    assert caught.value.code == "schema_violation"


def test_the_schema_is_strict():
    """Every object is closed and every property required, as OpenAI's strict mode wants it."""
    schema = schema_for(LABELS)
    item = schema["properties"]["objects"]["items"]
    for closed in (schema, item):
        assert closed["additionalProperties"] is False
        assert set(closed["required"]) == set(closed["properties"])
    assert item["properties"]["label"]["enum"] == list(LABELS)
