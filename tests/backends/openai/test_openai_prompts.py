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


def read_text(text, width=640, height=480):
    """Read the boxes of a reply."""
    return read_boxes(text, labels=LABELS, categories={"cat": 17}, width=width, height=height)


def read(*rows, width=640, height=480):
    """Read boxes of an image."""
    return read_text(json.dumps({"objects": list(rows)}), width, height).found


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
        {"label": None},
        {"confidence": 101},
        {"confidence": -1},
        {"confidence": 10**400},
        {"confidence": float("nan")},
        {"x1": "100"},
        {"x1": True},
        {"x1": None},
        {"x1": float("inf")},
        {"x2": 1920},
        {"y1": -200},
        {"x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.9},
    ],
)
def test_a_box_that_cannot_be_used_is_left_out_and_counted(changes):
    """The others were paid for; nothing is guessed. Alone, it is no answer."""
    boxes = read_text(json.dumps({"objects": [row(), row(**changes), row(label="a red scooter")]}))
    assert [box.label for box in boxes.found] == ["cat", "a red scooter"]
    assert boxes.flawed == 1
    with pytest.raises(InvalidReplyError) as caught:
        read(row(**changes))
    assert caught.value.code == "schema_violation"


@pytest.mark.parametrize("stranger", [3, None, "cat", [], {}])
def test_a_row_that_is_no_box_is_left_out_and_counted(stranger):
    """Whatever it is."""
    boxes = read_text(json.dumps({"objects": [stranger, row()]}))
    assert (len(boxes.found), boxes.flawed) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "score", "corners"),
    [
        ({"x1": 300, "x2": 100}, 0.9, (64, 96, 192, 192)),
        ({"y1": 400, "y2": 200}, 0.9, (64, 96, 192, 192)),
        ({"x1": -20, "y2": 1020}, 0.9, (0, 96, 192, 480)),
        ({"confidence": 0.25}, 0.25, (64, 96, 192, 192)),
    ],
)
def test_a_box_whose_meaning_is_plain_is_mended_and_counted(changes, score, corners):
    """Inside out, slightly beyond the edge, or with a share for a percentage."""
    boxes = read_text(json.dumps({"objects": [row(**changes), row()]}))
    assert boxes.found[0].xyxy == pytest.approx(corners)
    assert boxes.found[0].score == score
    assert (len(boxes.found), boxes.flawed) == (2, 1)


def test_whole_numbers_may_be_written_as_fractions():
    """Some servers know only one kind of number."""
    boxes = read_text(json.dumps({"objects": [row(confidence=90.0, x1=100.0, y1=200.5)]}))
    assert boxes.found[0].score == 0.9
    assert boxes.flawed == 0


def test_a_reply_in_pixels_is_no_reply_in_thousandths():
    """Where most boxes lie beyond the edge, the others are not believed either."""
    pixels = row(x1=1200, y1=300, x2=1900, y2=900)
    with pytest.raises(InvalidReplyError, match="outside of the image"):
        read(row(), pixels, pixels)


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Cat", "cat"),
        (" CAT ", "cat"),
        ("a cat", "cat"),
        ("cats", "cat"),
        ("A Red  Scooter", "a red scooter"),
        ("dog", None),
    ],
)
def test_labels_are_meant_in_whatever_spelling(said, label):
    """The answer has the label as it was asked for."""
    assert [box.label for box in read(row(), row(label=said))][1:] == ([] if label is None else [label])


def test_two_labels_may_differ_in_capitals_only():
    """Then the one that was written is meant."""
    text = json.dumps({"objects": [row(label="Cat"), row(label="cat")]})
    boxes = read_boxes(text, labels=("cat", "Cat"), categories={}, width=10, height=10)
    assert [box.label for box in boxes.found] == ["Cat", "cat"]


@pytest.mark.parametrize(
    "form",
    [
        '{{"objects": [{row}]}}',
        "[{row}]",
        "{row}",
        "```json\n[{row}]\n```",
        "A cat:\n```\n{row}```",
        '```\n{{"objects": [{row}]}}\n```',
        'Here are the boxes [of one cat]: {{"objects": [{row}]}}. Anything else?',
        'First {{"objects": []}}, but looking again: {{"objects": [{row}]}}',
        "It is in {{curly}} brackets: [{row}]",
        "Here it is: [{row}] (see [1])",
    ],
)
def test_boxes_are_found_wherever_they_stand(form):
    """In a code block, in a sentence, without the name of the list."""
    (found,) = read_text(form.format(row=json.dumps(row()))).found
    assert found.label == "cat"


@pytest.mark.parametrize("text", ["[]", '{"objects": []}', '```json\n{"objects": []}\n```'])
def test_an_empty_list_has_no_boxes(text):
    """There may be nothing to find."""
    assert read_text(text) == ([], 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two cats",
        "```json\n{}\n```",
        "{}",
        "3",
        '{"objects": 3}',
        '{"objects": [3]}',
        '{"objects": [{}]}',
        "[" * 9999,
        "{" * 9999,
        "[ " * 9999,
        '{"objects": [' + json.dumps(row()),
        '```json\n{"objects": [' + json.dumps(row()) + "\n```",
    ],
)
def test_what_is_no_list_of_boxes_is_an_invalid_reply(text):
    """The next rung is asked."""
    with pytest.raises(InvalidReplyError) as caught:
        read_text(text)
    assert caught.value.code == "schema_violation"


def test_the_schema_is_strict():
    """Every object is closed and every property required, as OpenAI's strict mode wants it."""
    schema = schema_for(LABELS)
    item = schema["properties"]["objects"]["items"]
    for closed in (schema, item):
        assert closed["additionalProperties"] is False
        assert set(closed["required"]) == set(closed["properties"])
    assert item["properties"]["label"]["enum"] == list(LABELS)
    numbers = {name: (rule["minimum"], rule["maximum"]) for name, rule in item["properties"].items() if name != "label"}
    assert numbers == {"confidence": (0, 100), **dict.fromkeys(("x1", "y1", "x2", "y2"), (0, 1000))}
