"""The text in an image, line by line, whichever models read it.

This module decides what is worth reading, how sure a reading must be, and when to stop. The text comes from an
untrusted image: it is cleaned and bounded, never interpreted. It must not know how text is worded in a description.
Importing it imports neither models nor numpy.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image as PILImage

    Box = tuple[float, float, float, float]
    Quad = list[tuple[float, float]]

__all__ = ["Ocr", "Reader", "Reading", "TextLine", "cleaned", "size", "straightened", "thickness"]

MOST_LINES = 40
"""Of more lines the tallest are read."""

MIN_LINE_PX = 6
MOST_CHARACTERS = 200
"""Of one line."""

MIN_LETTERS = 2
"""A single letter or digit is what shapes in photos are most often taken for."""

SEARCHING_S = 0.5
READING_S = 0.1
"""What finding the lines and reading one of them may take on a slow machine: with less time left, it is left out."""


class Ocr(Protocol):
    """Models that find and read lines of text; any thread may use them."""

    @property
    def name(self) -> str:
        """What a trace calls them."""

    @property
    def version(self) -> str:
        """What changes with the models."""

    @property
    def min_score(self) -> float:
        """From which score on a reading is sure."""

    @property
    def loaded(self) -> bool:
        """Whether the models are in memory."""

    def check(self) -> None:
        """Return if they can be loaded. Raises NotReadyError."""

    def window(self, image: PILImage.Image, *, small: PILImage.Image) -> Box | None:
        """Return the part of an image that is worth searching, in its pixels; None where nothing looks like text.

        Args:
            image: RGB pixels.
            small: The same on a smaller scale, for a first look.
        """

    def find(self, image: PILImage.Image) -> list[Quad]:
        """Return the corners of every line, in reading order, each from top left clockwise."""

    def read(self, line: PILImage.Image) -> tuple[str, float]:
        """Return what a picture of one line says, and how sure that is, in [0, 1]."""

    def close(self) -> None:
        """Free the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """One line of text.

    Attributes:
        string: What it says, cleaned, in the image's own language and writing.
        score: How sure the reading is, in [0, 1].
        xyxy: Its box in pixels of the upright image.
    """

    string: str
    score: float
    xyxy: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "string": self.string,
            "score": round(self.score, 4),
            "xyxy": [round(value, 1) for value in self.xyxy],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What could be read of an image.

    Attributes:
        lines: The lines that could be read with confidence, from top to bottom.
        complete: False when there were more lines than are read, or time was short.
    """

    lines: tuple[TextLine, ...] = ()
    complete: bool = True


class Reader:
    """Reads the text in images; any thread may use it.

    Args:
        ocr: The models.
    """

    def __init__(self, ocr: Ocr) -> None:
        self._ocr = ocr

    def window(self, image: PILImage.Image, *, small: PILImage.Image) -> Box | None:
        """Return the part of an image that is worth searching for text; None where a first look finds none.

        Args:
            image: RGB pixels.
            small: The same on a smaller scale, for a first look.
        """
        return self._ocr.window(image, small=small)

    def read(
        self, image: PILImage.Image, *, window: Box, width: int, height: int, left_s: Callable[[], float]
    ) -> Reading:
        """Return the text in a part of an image.

        Args:
            image: RGB pixels, at any scale.
            window: The part, in pixels of the upright image.
            width: Width of the upright image, which boxes refer to as well.
            height: Its height.
            left_s: Tells how much time is left.

        Raises:
            NotReadyError: The models are missing or cannot be loaded.
            UnavailableError: They failed.
        """
        if left_s() < SEARCHING_S:
            return Reading(complete=False)
        scale = (image.width / width, image.height / height)
        left, top, right, bottom = (round(side * by) for side, by in zip(window, scale * 2, strict=True))
        part = image.crop((left, top, max(left + 1, right), max(top + 1, bottom)))
        quads = self._ocr.find(part)
        chosen = _tallest(quads)
        lines = []
        complete = len(chosen) == sum(thickness(quad) >= MIN_LINE_PX for quad in quads)
        for quad in chosen:
            if left_s() < READING_S:
                complete = False
                break
            string, score = self._ocr.read(straightened(part, quad))
            string = cleaned(string)
            if score >= self._ocr.min_score and _is_text(string):
                corners = [((x + left) / scale[0], (y + top) / scale[1]) for x, y in quad]
                lines.append(TextLine(string=string, score=score, xyxy=_box(corners, width=width, height=height)))
        return Reading(lines=tuple(lines), complete=complete)


def cleaned(string: str) -> str:
    """Return a string without control and other invisible characters, on one line and at most 200 characters long."""
    visible = "".join(" " if unicodedata.category(char).startswith("C") else char for char in string)
    return " ".join(visible.split())[:MOST_CHARACTERS].rstrip()


def _is_text(string: str) -> bool:
    """Return whether a string has enough letters and digits to be more than shapes that look like some."""
    return sum(char.isalnum() for char in string) >= MIN_LETTERS


def _tallest(quads: Sequence[Quad]) -> list[Quad]:
    """Return the lines that are worth reading, in the order in which they came."""
    tall = sorted((thickness(quad) for quad in quads), reverse=True)[:MOST_LINES]
    least = max(MIN_LINE_PX, tall[-1]) if tall else 0
    return [quad for quad in quads if thickness(quad) >= least][:MOST_LINES]


def size(quad: Quad) -> tuple[float, float]:
    """Return width and height of a line, which may be slanted."""
    first, second, third, fourth = quad
    return (
        max(math.dist(first, second), math.dist(third, fourth)),
        max(math.dist(first, fourth), math.dist(second, third)),
    )


def thickness(quad: Quad) -> float:
    """Return the shorter side of a line, however it lies."""
    return min(size(quad))


def straightened(image: PILImage.Image, quad: Quad) -> PILImage.Image:
    """Return a line as a picture of its own; a vertical one is turned to run from left to right."""
    from PIL import Image

    width, height = (max(1, round(side)) for side in size(quad))
    corners = [value for index in (0, 3, 2, 1) for value in quad[index]]
    line = image.transform((width, height), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    return line.transpose(Image.Transpose.ROTATE_90) if height >= 1.5 * width else line


def _box(quad: Quad, *, width: int, height: int) -> tuple[float, float, float, float]:
    columns, rows = zip(*quad, strict=True)
    return max(0.0, min(columns)), max(0.0, min(rows)), min(float(width), max(columns)), min(float(height), max(rows))
