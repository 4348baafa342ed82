"""Geometry of boxes: fitting an image into a square and back, overlap, and dropping duplicates.

Boxes are float arrays [K, 4] of left, top, right, bottom. This module must not know any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["Letterbox", "overlaps", "suppress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterbox:
    """How an image was fitted, centred and undistorted but for rounding, into a square.

    Attributes:
        width: Width of the image in the square, in the square's pixels.
        height: Height likewise.
        left: Where the image begins, from the left.
        top: Where it begins, from the top.
    """

    width: int
    height: int
    left: int
    top: int

    @classmethod
    def fit(cls, width: int, height: int, *, side: int) -> Self:
        """Fit an image of ``width`` × ``height`` px into a square; neither side becomes less than 1 px."""
        scale = side / max(width, height)
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(
            width=inner_width,
            height=inner_height,
            left=(side - inner_width) // 2,
            top=(side - inner_height) // 2,
        )

    def undo(self, boxes: Floats, *, width: int, height: int) -> Floats:
        """Map boxes [K, 4] from the square to an image of ``width`` × ``height`` px, clipped to it."""
        scale = np.array([width / self.width, height / self.height] * 2, dtype=np.float32)
        shift = np.array([self.left, self.top] * 2, dtype=np.float32)
        limit = np.array([width, height] * 2, dtype=np.float32)
        mapped: Floats = np.clip((boxes - shift) * scale, 0, limit)
        return mapped


def overlaps(boxes: Floats) -> Floats:
    """Return the intersection over union of every pair of K boxes, [K, K]; empty boxes overlap nothing."""
    lower = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    upper = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.prod(np.clip(upper - lower, 0, None), axis=2)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    union = areas[:, None] + areas[None, :] - intersection
    ratios: Floats = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return ratios


def suppress(boxes: Floats, *, iou: float, classes: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that no better box makes redundant, in the order given.

    Greedy non-maximum suppression: a kept box drops every later one that overlaps it by more than ``iou``.

    Args:
        boxes: Array [K, 4], best first.
        iou: Intersection over union above which two boxes are one object.
        classes: Class of each box, [K]; boxes of different classes then leave each other alone.
    """
    redundant = overlaps(boxes) > iou
    if classes is not None:
        redundant &= classes[:, None] == classes[None, :]
    kept = np.ones(len(boxes), dtype=bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept[index + 1 :] &= ~redundant[index, index + 1 :]
    return np.flatnonzero(kept)
