"""The two models: NanoDet turns an image into labelled boxes, EfficientNet-Lite0 into class probabilities or a vector.

This module decides how pixels become the models' inputs and what their outputs mean. It must not know what boxes and
classes are used for. Images go through one by one: on a CPU a batch gains 5 % and takes 9 MB for each image. Sources of
the arithmetic, both Apache-2.0: https://github.com/RangiLyu/nanodet and https://github.com/tensorflow/tpu
(efficientnet/lite).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vision_backends.clock import measured
from vision_backends.types import Detection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.session import OnnxModel

    Floats = npt.NDArray[np.float32]
    Box = tuple[float, float, float, float]

__all__ = ["Classifier", "Detector", "Look", "suppress"]

DETECTOR_PX = 416
"""Longer side of what the detector sees."""

DEFAULT_MIN_SCORE = 0.5

DETECTOR_MEAN_BGR = (103.53, 116.28, 123.675)
DETECTOR_STD_BGR = (57.375, 57.12, 58.395)

STRIDES = (8, 16, 32)
BINS = 11
"""A side's length is a distribution over 0 … 10 strides."""

SAME_OBJECT_IOU = 0.6
"""The model's own setting."""

SAME_PLACE_IOU = 0.75
"""Above this, two classes name one object: a car that is also called a truck."""

MOST_GRIDS = 32
"""Shapes of inputs of which the points are kept: most photos have one of four."""

MOST_CANDIDATES = 1000
MOST_OBJECTS = 100
"""COCO's own limit of detections per image."""

CLASSIFIER_PX = 224
CLASSIFIER_MEAN = 127.0
CLASSIFIER_SCALE = 1 / 128.0


class Detector:
    """Finds objects of 80 classes.

    Args:
        model: NanoDet-g as ``models/convert`` makes it.
        categories: Class names in the order of the model's scores, each with COCO's category id.
    """

    def __init__(self, model: OnnxModel, *, categories: Mapping[str, int]) -> None:
        self._model = model
        self._categories = tuple(categories.items())
        self._grid = lru_cache(maxsize=MOST_GRIDS)(_grid)

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
        planes, (left, top, inner_width, inner_height) = _letterboxed(image)
        scores, sides = self._model.run(["scores", "sides"], planes)
        centres, strides = self._grid(*planes.shape[2:])
        classes, points, found = _candidates(scores[0], min_score=min_score)
        boxes = _boxes(sides[0][:, points], centres=centres[points], strides=strides[points])
        scale = np.array([width / inner_width, height / inner_height] * 2, dtype=np.float32)
        shift = np.array([left, top] * 2, dtype=np.float32)
        boxes = np.clip((boxes - shift) * scale, 0, np.array([width, height] * 2, dtype=np.float32))
        kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        kept = kept[suppress(boxes[kept], iou=SAME_OBJECT_IOU, classes=classes[kept])]
        kept = kept[suppress(boxes[kept], iou=SAME_PLACE_IOU)][:MOST_OBJECTS]
        objects = []
        for index in kept:
            label, category = self._categories[classes[index]]
            x1, y1, x2, y2 = boxes[index].tolist()
            score = float(found[index])
            objects.append(Detection(label=label, score=score, xyxy=(x1, y1, x2, y2), category_id=category))
        return objects


class Look(NamedTuple):
    """What the classifier gives about an image as a whole.

    Attributes:
        vector: Its features, L2-normalised, [1280].
        probabilities: That of every class, as from `Classifier.classify`, [1000].
    """

    vector: Floats
    probabilities: Floats


class Classifier:
    """Names what fills an image or a part of it, and turns images into vectors.

    Args:
        model: EfficientNet-Lite0 as ``models/convert`` makes it.
        names: The 1000 class names in the order of the model's outputs; equal names are one class.
    """

    def __init__(self, model: OnnxModel, *, names: Sequence[str]) -> None:
        self._model = model
        first = {name: index for index, name in reversed(list(enumerate(names)))}
        self._twins = [(first[name], index) for index, name in enumerate(names) if first[name] != index]

    def classify(self, image: PILImage.Image, *, box: Box) -> Floats:
        """Return the probability of every class for a part of an image, [1000].

        Of classes with equal names the first one has the probability of all of them, the others have 0.

        Args:
            image: RGB pixels.
            box: The part, in pixels of ``image``; it is stretched to the model's square.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        (logits,) = self._model.run(["logits"], _stretched(image, box))
        return self._probabilities(logits[0])

    def look(self, image: PILImage.Image) -> Look:
        """Return all that one run gives about an image, all of it stretched to a square.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        features, logits = self._model.run(["features", "logits"], _stretched(image, (0, 0, *image.size)))
        vector: Floats = features[0] / np.linalg.norm(features[0])
        return Look(vector=vector, probabilities=self._probabilities(logits[0]))

    def _probabilities(self, logits: Floats) -> Floats:
        probabilities: Floats = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        for first, twin in self._twins:
            probabilities[first] += probabilities[twin]
            probabilities[twin] = 0
        return probabilities


def suppress(boxes: Floats, *, iou: float, classes: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that no better box makes redundant, in the order given.

    Greedy non-maximum suppression: a kept box drops every later one that overlaps it by more than ``iou``. Empty boxes
    overlap nothing.

    Args:
        boxes: Left, top, right and bottom, [K, 4], best first.
        iou: Intersection over union above which two boxes are one object.
        classes: Class of each box, [K]; boxes of different classes then leave each other alone.
    """
    lower = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    upper = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.prod(np.clip(upper - lower, 0, None), axis=2)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    union = areas[:, None] + areas[None, :] - intersection
    redundant = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0) > iou
    if classes is not None:
        redundant &= classes[:, None] == classes[None, :]
    kept = np.ones(len(boxes), dtype=bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept[index + 1 :] &= ~redundant[index, index + 1 :]
    return np.flatnonzero(kept)


def _candidates(scores: Floats, *, min_score: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return classes, points and scores [K] of what may be an object, best first; ``scores`` is [80, points]."""
    classes, points = np.divmod(np.flatnonzero(scores >= min_score), scores.shape[1])
    found = scores[classes, points]
    order = np.argsort(-found, kind="stable")[:MOST_CANDIDATES]
    return classes[order], points[order], found[order]


def _boxes(sides: Floats, *, centres: Floats, strides: Floats) -> Floats:
    """Return boxes [K, 4] in pixels of the model's input.

    Args:
        sides: [44, K]: left, top, right, bottom, each a distribution over `BINS` bins.
        centres: Where each box was found, [K, 2].
        strides: What each counts its lengths in, [K].
    """
    logits = sides.reshape(4, BINS, -1)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    lengths = np.einsum("sbk,b->ks", weights, np.arange(BINS, dtype=np.float32))
    lengths *= strides[:, None] / weights.sum(axis=1).T
    return np.hstack([centres - lengths[:, :2], centres + lengths[:, 2:]])


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Return the centre [points, 2] and the stride [points] of every point, in the order of NanoDet's outputs."""
    centres, strides = [], []
    for stride in STRIDES:
        cells = height // stride * (width // stride)
        rows, columns = np.divmod(np.arange(cells), width // stride)
        centres.append((np.stack([columns, rows], axis=1) + 0.5) * stride)
        strides.append(np.full(cells, stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


@measured("decode")
def _letterboxed(image: PILImage.Image) -> tuple[Floats, tuple[int, int, int, int]]:
    """Return NanoDet's input [1, 3, H, W], blue, green, red, and left, top, width and height of the image in it.

    The image lies centred on black, undistorted but for rounding; neither side becomes less than 1 px. There is no more
    black than the model's strides ask for: on the rest of a square it would work in vain, and see edges.
    """
    from PIL import Image

    scale = DETECTOR_PX / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    columns, rows = (math.ceil(side / STRIDES[-1]) * STRIDES[-1] for side in (width, height))
    left, top = (columns - width) // 2, (rows - height) // 2
    seen = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if (columns, rows) != seen.size:
        padded = Image.new("RGB", (columns, rows))
        padded.paste(seen, (left, top))
        seen = padded
    planes = np.empty((1, 3, rows, columns), dtype=np.float32)
    for plane, band, mean, std in zip(
        planes[0], reversed(seen.split()), DETECTOR_MEAN_BGR, DETECTOR_STD_BGR, strict=True
    ):
        np.multiply(np.asarray(band), np.float32(1 / std), out=plane)
        np.subtract(plane, np.float32(mean / std), out=plane)
    return planes, (left, top, width, height)


@measured("decode")
def _stretched(image: PILImage.Image, box: Box) -> Floats:
    """Return EfficientNet's input [1, 3, 224, 224]: red, green, blue."""
    from PIL import Image

    size = (CLASSIFIER_PX, CLASSIFIER_PX)
    square = image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    planes = np.empty((1, 3, *size), dtype=np.float32)
    for plane, band in zip(planes[0], square.split(), strict=True):
        np.subtract(np.asarray(band), np.float32(CLASSIFIER_MEAN), out=plane)
    planes *= np.float32(CLASSIFIER_SCALE)
    return planes
