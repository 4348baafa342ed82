"""The reader in the wheel: a cheap first look tells whether anything looks like text, and only then it is searched.

This module decides at which scale the two small models look, and what is too unlike a line of text to be worth a second
look. It must not know how a line is cleaned, chosen or worded.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from vision_backends.backends.embedded.reading import size, straightened, thickness
from vision_backends.backends.model_cards import asset

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.reading import Box, Quad
    from vision_backends.backends.embedded.session import OnnxModel
    from vision_backends.backends.embedded.text_models import TextDetector, TextRecogniser

__all__ = ["SmallOcr"]

LOOK_SCALE = 0.32
"""At which the first look sees an image: letters of 20 px are 6 px high then, and lines of them are still lines."""

LOOK_PIXELS = (256 * 192, 416 * 352)
"""How many pixels it sees at least, and at most."""

SEARCHED_PX = 1024
"""Longer side at which lines are searched, at most."""

MOST_ENLARGED = 1.5

LIKELY_SCORE = 0.5
"""Of a line in the first look."""

LINE_ASPECT = 3.0
LINE_SHARE = 0.4
"""A line is long, or low beside the image's shorter side: the detector takes what fills an image for one."""

MOST_TRIED = 3
TRIED_SCORE = 0.5
TRIED_LETTERS = 2
"""The detector takes much for text, from animals to window frames. So its likeliest lines are read at once, in the
pixels that are there: an image in which none of them makes sense is searched no further."""


class SmallOcr:
    """PP-OCRv6 tiny.

    Args:
        detector: Its detector's file.
        recogniser: Its recogniser's file.
        version: What changes with the two.
    """

    name: ClassVar[str] = "pp-ocrv6-tiny"
    min_score: ClassVar[float] = 0.9

    def __init__(self, *, detector: OnnxModel, recogniser: OnnxModel, version: str) -> None:
        self.version = version
        self._models = detector, recogniser

    @property
    def loaded(self) -> bool:
        """Whether any of the two models is in memory."""
        return any(model.loaded for model in self._models)

    def check(self) -> None:
        """Return if the files are there. Raises NotReadyError."""
        for model in self._models:
            model.check()

    def window(self, image: PILImage.Image, *, small: PILImage.Image) -> Box | None:
        """Return the part of an image with all that looks like text, and some room around it.

        Args:
            image: RGB pixels.
            small: The same on a smaller scale, for a first look.
        """
        pixels = image.width * image.height
        scale = math.sqrt(min(max(LOOK_SCALE**2 * pixels, LOOK_PIXELS[0]), LOOK_PIXELS[1]) / pixels)
        regions = self._detector.find(small, longest_px=scale * max(image.size), of=image.size)
        lines = (region for region in regions if region.score >= LIKELY_SCORE and _is_line(region.quad, image))
        likely = sorted(lines, key=lambda region: -region.score)
        if not any(self._makes_sense(image, region.quad) for region in likely[:MOST_TRIED]):
            return None
        columns, rows = zip(*(corner for region in likely for corner in region.quad), strict=True)
        across, down = (max(columns) - min(columns)) / 2, (max(rows) - min(rows)) / 2
        room = max(thickness(region.quad) for region in likely)
        return (
            max(0.0, min(columns) - across - room),
            max(0.0, min(rows) - down - room),
            min(float(image.width), max(columns) + across + room),
            min(float(image.height), max(rows) + down + room),
        )

    def find(self, image: PILImage.Image) -> list[Quad]:
        """Return the corners of every line, from top to bottom, each from top left clockwise."""
        longest_px = min(SEARCHED_PX, MOST_ENLARGED * max(image.size))
        return [region.quad for region in self._detector.find(image, longest_px=longest_px)]

    def read(self, line: PILImage.Image) -> tuple[str, float]:
        """Return what a picture of one line says, and how sure that is."""
        return self._recogniser.read(line)

    def close(self) -> None:
        """Free the memory; the next reading loads again."""
        for model in self._models:
            model.close()

    def _makes_sense(self, image: PILImage.Image, quad: Quad) -> bool:
        string, score = self.read(straightened(image, quad))
        return score >= TRIED_SCORE and sum(char.isalnum() for char in string) >= TRIED_LETTERS

    @cached_property
    def _detector(self) -> TextDetector:
        from vision_backends.backends.embedded.text_models import TextDetector

        return TextDetector(self._models[0])

    @cached_property
    def _recogniser(self) -> TextRecogniser:
        from vision_backends.backends.embedded.text_models import TextRecogniser

        characters = asset("pp-ocrv6-characters.txt").read_text(encoding="utf-8").removesuffix("\n")
        return TextRecogniser(self._models[1], characters=characters.split("\n"))


def _is_line(quad: Quad, image: PILImage.Image) -> bool:
    height, width = sorted(size(quad))
    return width >= LINE_ASPECT * height or height <= LINE_SHARE * min(image.size)
