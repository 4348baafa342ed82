"""Example images with what each rung said: boxes as shapes over the picture, texts beside it.

This module decides which shapes and words stand for an answer. It must not know how they are laid out. Names of files,
captions, labels and answers are strangers' data; only a picture that is one is shown.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wording import shorten, show_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records import Answer, Box, Example

__all__ = ["Outline", "Picture", "Saying", "arrange_pictures"]

_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")
"""Formats that hold pixels and nothing else: SVG could load or run something."""

_MAX_CHIPS = 8
"""Boxes that get their label on the picture; the words beneath it name all."""

_CHIP_HEIGHT, _LETTER = 17.0, 7.4
"""Pixels of the thumbnail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One box with its label: left, top and sizes in pixels of the thumbnail; no chip where it has no room."""

    x: float
    y: float
    width: float
    height: float
    label: str
    chip_x: float = 0.0
    chip_y: float = 0.0
    chip_width: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """What one rung said about one image, over all tasks.

    Attributes:
        backend: The rung.
        models: Who answered.
        random_weights: Whether any of it is noise.
        texts: Its descriptions.
        outlines: Its boxes; None where it was not asked for any.
        found: The same in words.
        nearest: The images that it holds for the most alike.
        declined: Why it did not answer, where it did not.
        times: How long each answer took.
    """

    backend: str
    models: tuple[str, ...]
    random_weights: bool
    texts: tuple[str, ...]
    outlines: tuple[Outline, ...] | None
    found: str
    nearest: tuple[str, ...]
    declined: tuple[str, ...]
    times: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One example: ``source`` is None where the run file holds no picture."""

    name: str
    title: str
    credit: str | None
    source: str | None
    width: int
    height: int
    captions: tuple[str, ...]
    outlines: tuple[Outline, ...]
    found: str
    sayings: tuple[Saying, ...]


def arrange_pictures(examples: Sequence[Example]) -> list[Picture]:
    """Return what is to be shown of each example."""
    return [
        Picture(
            name=f"photo-{number}",
            title=example.image,
            credit=example.credit,
            source=example.thumbnail if _PICTURE.fullmatch(example.thumbnail) else None,
            width=max(1, example.width),
            height=max(1, example.height),
            captions=example.captions,
            outlines=_outline(example.boxes, example),
            found=_name_boxes(example.boxes),
            sayings=tuple(
                _merge([answer for answer in example.answers if answer.backend == backend], example)
                for backend in dict.fromkeys(answer.backend for answer in example.answers)
            ),
        )
        for number, example in enumerate(examples, start=1)
    ]


def _merge(answers: Sequence[Answer], example: Example) -> Saying:
    boxes = [box for answer in answers for box in answer.boxes or ()]
    was_asked = any(answer.boxes is not None for answer in answers)
    return Saying(
        backend=answers[0].backend,
        models=tuple(dict.fromkeys(answer.model for answer in answers if answer.model)),
        random_weights=any(answer.random_weights for answer in answers),
        texts=tuple(answer.text for answer in answers if answer.text),
        outlines=_outline(boxes, example) if was_asked else None,
        found=_name_boxes(boxes),
        nearest=tuple(name for answer in answers for name in answer.nearest or ()),
        declined=tuple(answer.declined for answer in answers if answer.declined),
        times=tuple(show_time(answer.elapsed_s) for answer in answers if answer.elapsed_s is not None),
    )


def _outline(boxes: Sequence[Box], example: Example) -> tuple[Outline, ...]:
    """Return boxes as shapes, the largest first, so that small ones stay in sight; the surest get a chip."""
    boxes = [box for box in boxes if all(map(math.isfinite, box.xyxy))]
    surest = sorted(boxes, key=lambda box: -(box.score if box.score is not None else 1.0))[:_MAX_CHIPS]
    taken: list[tuple[float, float, float]] = []
    shapes = []
    for box in sorted(boxes, key=lambda box: -abs((box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1]))):
        left, right = (min(max(value, 0.0), float(example.width)) for value in (box.xyxy[0], box.xyxy[2]))
        top, bottom = (min(max(value, 0.0), float(example.height)) for value in (box.xyxy[1], box.xyxy[3]))
        shape = {"x": left, "y": top, "width": max(0.0, right - left), "height": max(0.0, bottom - top)}
        label = shorten(_name_box(box), letters=24)
        wide = len(label) * _LETTER + 8
        chip_x = max(0.0, min(left, example.width - wide))
        heights = [top - _CHIP_HEIGHT, top, bottom - _CHIP_HEIGHT, bottom]
        free = [
            y
            for y in heights
            if 0 <= y <= example.height - _CHIP_HEIGHT and not any(_meets(chip_x, y, wide, chip) for chip in taken)
        ]
        if box in surest and free:
            taken.append((chip_x, free[0], wide))
            shapes.append(Outline(**shape, label=label, chip_x=chip_x, chip_y=free[0], chip_width=wide))
        else:
            shapes.append(Outline(**shape, label=label))
    return tuple(shapes)


def _meets(x: float, y: float, width: float, chip: tuple[float, float, float]) -> bool:
    other_x, other_y, other_width = chip
    return x < other_x + other_width and other_x < x + width and abs(y - other_y) < _CHIP_HEIGHT


def _name_box(box: Box) -> str:
    return box.label if box.score is None else f"{box.label} {box.score:.2f}"


def _name_boxes(boxes: Sequence[Box]) -> str:
    return " · ".join(_name_box(box) for box in sorted(boxes, key=lambda box: -(box.score or 1.0)))
