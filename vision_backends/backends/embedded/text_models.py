"""The small reader's two models: PP-OCRv6 tiny turns an image into lines of text, and a line into characters.

This module decides how pixels become the models' inputs and what their outputs mean. It must not know which lines are
worth reading, nor how sure a reading must be. Sources of the arithmetic, both Apache-2.0:
https://github.com/PaddlePaddle/PaddleOCR and https://github.com/RapidAI/RapidOCR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vision_backends.backends.embedded.text_regions import find_regions
from vision_backends.clock import measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.session import OnnxModel
    from vision_backends.backends.embedded.text_regions import Region

    Floats = npt.NDArray[np.float32]

__all__ = ["TextDetector", "TextRecogniser"]

STRIDE_PX = 32
"""Sides of the detector's input are multiples of it."""

DETECTOR_MEAN = (0.485, 0.456, 0.406)
DETECTOR_STD = (0.229, 0.224, 0.225)
"""Of blue, green and red, in that order: the model was trained on the order in which OpenCV reads."""

STRIP_PIXELS = 640 * 256
"""The detector takes about 190 bytes a pixel while it runs; larger images go through it in strips."""

OVERLAP_PX = 64
"""Of two strips: more than a line that is found in either is high."""

LINE_PX = 48
"""Height of the recogniser's input."""

NARROWEST_PX = 320
WIDEST_PX = 1600
"""A longer line is squeezed; that is a line of more than a hundred characters."""

BLANK = 0
"""The class between two characters; those of the list follow, and then the space."""


class TextDetector:
    """Finds lines of text.

    Args:
        model: The detector of PP-OCRv6 tiny as published.
    """

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    def find(self, image: PILImage.Image, *, longest_px: float, of: tuple[int, int] | None = None) -> list[Region]:
        """Return the lines of an image, from top to bottom.

        Args:
            image: RGB pixels, at any scale.
            longest_px: Longer side of what the model sees.
            of: Width and height of the image in pixels of which lines are given; by default as ``image`` has them.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        from PIL import Image

        scale = longest_px / max(image.size)
        width, height = (max(1, round(side * scale / STRIDE_PX)) * STRIDE_PX for side in image.size)
        with measured("decode"):
            seen = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        rows = max(3 * OVERLAP_PX, STRIP_PIXELS // width // STRIDE_PX * STRIDE_PX)
        likely = np.empty((height, width), dtype=np.float32)
        top = 0
        while True:
            bottom = min(top + rows, height)
            (found,) = self._model.run(None, _blue_green_red(seen.crop((0, top, width, bottom))))
            inner = top + OVERLAP_PX // 2 if top else 0
            likely[inner:bottom] = found[0, 0, inner - top :]
            if bottom == height:
                break
            top = bottom - OVERLAP_PX
        across, down = image.size if of is None else of
        return find_regions(likely, scale=(across / width, down / height))


class TextRecogniser:
    """Reads one line.

    Args:
        model: The recogniser of PP-OCRv6 tiny as published.
        characters: What its classes mean, without the blank and the space.
    """

    def __init__(self, model: OnnxModel, *, characters: Sequence[str]) -> None:
        self._model = model
        self._characters = ("", *characters, " ")

    def read(self, line: PILImage.Image) -> tuple[str, float]:
        """Return what a picture of one line says, and how sure that is: the mean of its characters' probabilities.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        (probabilities,) = self._model.run(None, _line(line))
        best = probabilities[0].argmax(axis=1)
        changes = np.flatnonzero((best != BLANK) & np.append(True, best[1:] != best[:-1]))
        if not len(changes):
            return "", 0.0
        string = "".join(self._characters[number] for number in best[changes])
        return string, float(probabilities[0, changes, best[changes]].mean())


@measured("decode")
def _blue_green_red(image: PILImage.Image) -> Floats:
    """Return the detector's input [1, 3, H, W]."""
    planes = np.empty((1, 3, image.height, image.width), dtype=np.float32)
    for plane, band, mean, std in zip(planes[0], reversed(image.split()), DETECTOR_MEAN, DETECTOR_STD, strict=True):
        np.multiply(np.asarray(band), np.float32(1 / 255 / std), out=plane)
        np.subtract(plane, np.float32(mean / std), out=plane)
    return planes


@measured("decode")
def _line(image: PILImage.Image) -> Floats:
    """Return the recogniser's input [1, 3, 48, W], blue, green, red, with grey after the line's end."""
    from PIL import Image

    width = min(max(1, round(image.width * LINE_PX / image.height)), WIDEST_PX)
    scaled = image.resize((width, LINE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    planes = np.zeros((1, 3, LINE_PX, max(width, NARROWEST_PX)), dtype=np.float32)
    for plane, band in zip(planes[0, :, :, :width], reversed(scaled.split()), strict=True):
        np.multiply(np.asarray(band), np.float32(1 / 127.5), out=plane)
        np.subtract(plane, np.float32(1), out=plane)
    return planes
