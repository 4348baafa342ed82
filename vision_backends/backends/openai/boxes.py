"""Boxes by strict JSON schema: what the model must write, and how that becomes detections.

This module decides which replies are boxes and how thousandths become pixels. It must not know how the reply
came. The scores are what the model says of itself, divided by 100: an order, not a calibrated probability.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidReplyError
from vision_backends.types import Detection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["read_boxes", "schema_for"]

SCALE = 1000
"""Coordinates go from 0 to this along either side; models are more exact with these than with pixels."""

OVERSHOOT = 50
"""How far a corner may lie outside, to be clamped; further out the model has not used this scale at all."""

NUMBERS = ("confidence", "x1", "y1", "x2", "y2")


def schema_for(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a list of boxes with these labels."""
    confidence, *corners = NUMBERS
    properties = {
        "label": {"type": "string", "enum": list(labels)},
        confidence: {"type": "integer", "minimum": 0, "maximum": 100},
        **{corner: {"type": "integer", "minimum": 0, "maximum": SCALE} for corner in corners},
    }
    box = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"objects": {"type": "array", "items": box}},
        "required": ["objects"],
        "additionalProperties": False,
    }


def read_boxes(
    text: str, *, labels: Sequence[str], categories: Mapping[str, int], width: int, height: int
) -> list[Detection]:
    """Return the detections that a reply holds, in pixels of an image of that size.

    Corners slightly outside of the image are clamped to it; a box without area is dropped.

    Raises:
        InvalidReplyError: The reply breaks the schema.
    """
    try:
        rows = json.loads(text)["objects"]
        boxes = [_read_row(row, labels) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidReplyError(
            f"The reply is not the list of boxes that was asked for ({type(error).__name__}: {error}).",
            code="schema_violation",
        ) from error
    return [
        Detection(label=label, score=score, xyxy=xyxy, category_id=categories.get(label))
        for label, score, (left, top, right, bottom) in boxes
        for xyxy in [(left * width / SCALE, top * height / SCALE, right * width / SCALE, bottom * height / SCALE)]
        if left < right and top < bottom
    ]


def _read_row(row: dict[str, Any], labels: Sequence[str]) -> tuple[str, float, tuple[int, ...]]:
    """Return label, score and the corners in thousandths, clamped to the image."""
    label = row["label"]
    if label not in labels:
        raise ValueError(f"{label!r:.50} is not one of the labels")
    values = [row[name] for name in NUMBERS]
    if not all(type(value) is int for value in values):
        raise ValueError(f"{values} are not all integers")
    confidence, x1, y1, x2, y2 = values
    corners = (x1, y1, x2, y2)
    if not 0 <= confidence <= 100 or not all(-OVERSHOOT <= each <= SCALE + OVERSHOOT for each in corners):
        raise ValueError(f"{values} are not in range")
    if x1 > x2 or y1 > y2:
        raise ValueError(f"the box {corners} is inside out")
    return label, confidence / 100, tuple(min(max(each, 0), SCALE) for each in corners)
