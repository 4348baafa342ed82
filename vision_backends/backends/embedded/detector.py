"""NanoDet: an image → labelled boxes.

This module decides how pixels become the model's input and how its outputs become boxes. It must not know what
the boxes are used for. Source of the arithmetic: https://github.com/RangiLyu/nanodet, Apache-2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vision_backends.backends.embedded.box_geometry import Letterbox, suppress
from vision_backends.backends.timing import measured
from vision_backends.types import Detection

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.session import OnnxModel

    Floats = npt.NDArray[np.float32]

__all__ = ["DEFAULT_MIN_SCORE", "INPUT_PX", "Detector"]

INPUT_PX = 416

DEFAULT_MIN_SCORE = 0.5

MEAN_BGR = (103.53, 116.28, 123.675)
STD_BGR = (57.375, 57.12, 58.395)

STRIDES = (8, 16, 32)
BINS = 11
"""A side's length is a distribution over 0 … 10 strides."""

SAME_OBJECT_IOU = 0.6
"""The model's own setting."""

SAME_PLACE_IOU = 0.75
"""Above this, two classes name one object: a car that is also called a truck."""

MOST_CANDIDATES = 1000
MOST_OBJECTS = 100
"""COCO's own limit of detections per image."""


class Detector:
    """Finds objects of 80 classes.

    Args:
        model: NanoDet-g as ``models/convert`` makes it.
        categories: Class names in the order of the model's scores, each with COCO's category id.
    """

    def __init__(self, model: OnnxModel, *, categories: Mapping[str, int]) -> None:
        self._model = model
        self._categories = tuple(categories.items())
        self._centres, self._strides = _grid()

    def detect(
        self, image: PILImage.Image, *, width: int, height: int, min_score: float = DEFAULT_MIN_SCORE
    ) -> list[Detection]:
        """Return the objects of an image, best first.

        Args:
            image: RGB pixels, at any scale.
            width: Width of the upright image that the boxes are to refer to.
            height: Its height.
            min_score: Lowest score to report.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        letterbox = Letterbox.fit(*image.size, side=INPUT_PX)
        scores, sides = self._model.run(["scores", "sides"], _normalised(image, letterbox))
        boxes, found, classes = self._decode(scores[0], sides[0], min_score=min_score)
        boxes = letterbox.undo(boxes, width=width, height=height)
        kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        kept = kept[suppress(boxes[kept], iou=SAME_OBJECT_IOU, classes=classes[kept])]
        kept = kept[suppress(boxes[kept], iou=SAME_PLACE_IOU)][:MOST_OBJECTS]
        return [self._detection(boxes[index], found[index], classes[index]) for index in kept]

    def _decode(
        self, scores: Floats, sides: Floats, *, min_score: float
    ) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
        """Return boxes [K, 4] in pixels of the square, scores [K] and classes [K], best first.

        Args:
            scores: [80, points].
            sides: [44, points]: left, top, right, bottom, each a distribution over `BINS` bins.
            min_score: Lowest score to report.
        """
        classes, points = np.nonzero(scores >= min_score)
        found = scores[classes, points]
        order = np.argsort(-found, kind="stable")[:MOST_CANDIDATES]
        classes, points, found = classes[order], points[order], found[order]
        logits = sides[:, points].reshape(4, BINS, -1)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        lengths = np.einsum("sbk,b->ks", weights, np.arange(BINS, dtype=np.float32))
        lengths *= self._strides[points, None] / weights.sum(axis=1).T
        centres = self._centres[points]
        return np.hstack([centres - lengths[:, :2], centres + lengths[:, 2:]]), found, classes

    def _detection(self, box: Floats, score: np.float32, number: np.intp) -> Detection:
        label, category = self._categories[number]
        x1, y1, x2, y2 = box.tolist()
        return Detection(label=label, score=float(score), xyxy=(x1, y1, x2, y2), category_id=category)


def _grid() -> tuple[Floats, Floats]:
    """Return the centre [points, 2] and the stride [points] of every point, in the order of the outputs."""
    centres, strides = [], []
    for stride in STRIDES:
        cells = INPUT_PX // stride
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        centres.append((np.stack([columns, rows], axis=1) + 0.5) * stride)
        strides.append(np.full(cells * cells, stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


@measured("decode")
def _normalised(image: PILImage.Image, letterbox: Letterbox) -> Floats:
    """Return the model's input [1, 3, 416, 416]: blue, green, red on black."""
    from PIL import Image

    size = (letterbox.width, letterbox.height)
    fitted = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    square = Image.new("RGB", (INPUT_PX, INPUT_PX))
    square.paste(fitted, (letterbox.left, letterbox.top))
    pixels = np.asarray(square)
    planes = np.empty((1, 3, INPUT_PX, INPUT_PX), dtype=np.float32)
    for plane, (mean, std) in enumerate(zip(MEAN_BGR, STD_BGR, strict=True)):
        np.multiply(pixels[..., 2 - plane], np.float32(1 / std), out=planes[0, plane])
        planes[0, plane] -= np.float32(mean / std)
    return planes
