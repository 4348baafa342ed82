"""A map of where text is likely → the rectangles around its lines.

The post-processing of differentiable binarisation (Liao et al. 2020, https://arxiv.org/abs/1911.08947) in numpy: the
map is cut at a threshold, what hangs together is one line, the narrowest rectangle around it is found at any slant, and
is let out, because the map shows lines shrunk. This module decides geometry only; it must not know any model, nor what
text is. Its time grows with the size of the map, whatever is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Indices = npt.NDArray[np.intp]
    Quad = list[tuple[float, float]]

__all__ = ["Region", "find_regions"]

MIN_PROBABILITY = 0.2
MIN_SCORE = 0.4
LET_OUT = 1.4
"""Of area by circumference: how far a rectangle is let out. These three are what the model was published with."""

MIN_SIDE_PX = 3.0
"""Of the shrunk line, in pixels of the map."""

MOST_REGIONS = 200
"""The largest; a page of small print has fewer."""

ANGLES = np.radians(np.arange(-45.0, 45.0, 1.5))
FINER_ANGLES = np.radians(np.arange(-1.5, 1.51, 0.25))


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One line of text.

    Attributes:
        quad: Its corners, from top left clockwise as far as it is upright.
        score: Mean probability in the shrunk rectangle.
    """

    quad: Quad
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Unbroken stretches of a mask's rows, in reading order; the arrays are parallel.

    Attributes:
        rows: Row of each.
        starts: Its first column.
        ends: The column after its last.
    """

    rows: Indices
    starts: Indices
    ends: Indices


def find_regions(probabilities: Floats, *, scale: tuple[float, float] = (1.0, 1.0)) -> list[Region]:
    """Return the lines of text, from top to bottom.

    Args:
        probabilities: That a pixel belongs to text, [H, W].
        scale: Pixels across and down, in which corners are wanted, for each pixel of the map.
    """
    runs = _runs(probabilities >= MIN_PROBABILITY)
    if not len(runs.rows):
        return []
    labels = _components(runs, width=probabilities.shape[1])
    weights = np.bincount(labels, weights=_sums(probabilities, runs))
    largest = np.argsort(-weights, kind="stable")[:MOST_REGIONS]
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.stack([largest, largest + 1]))
    regions = []
    for label, first, last in zip(largest, *bounds, strict=True):
        if weights[label] < MIN_SIDE_PX**2 * MIN_SCORE:
            break
        region = _region(runs, order[first:last], weight=float(weights[label]), scale=scale)
        if region is not None:
            regions.append(region)
    return sorted(regions, key=lambda region: region.quad[0][1])


def _runs(mask: npt.NDArray[np.bool_]) -> _Runs:
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=bool)
    padded[:, 1:-1] = mask
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    return _Runs(rows=rows[::2], starts=columns[::2], ends=columns[1::2])


def _sums(probabilities: Floats, runs: _Runs) -> Floats:
    """Return the sum over each run."""
    offsets = runs.rows * probabilities.shape[1]
    bounds = np.stack([offsets + runs.starts, offsets + runs.ends], axis=1).ravel()
    sums: Floats = np.add.reduceat(np.append(probabilities, np.float32(0)), bounds)[::2]
    return sums


def _components(runs: _Runs, *, width: int) -> Indices:
    """Return for each run the number of the first run that it hangs together with, diagonally as well."""
    stride = width + 1
    starts, ends = runs.rows * stride + runs.starts, runs.rows * stride + runs.ends
    first = np.searchsorted(ends, starts + stride, side="left")
    last = np.searchsorted(starts, ends + stride, side="right")
    counts = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(len(above)) - np.repeat(np.cumsum(counts) - counts, counts)
    below = np.repeat(first, counts) + offsets
    labels = np.arange(len(starts))
    while True:
        one, other = labels[above], labels[below]
        if np.array_equal(one, other):
            return labels
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(labels, further := labels[labels]):
            labels = further


def _region(runs: _Runs, members: Indices, *, weight: float, scale: tuple[float, float]) -> Region | None:
    """Return the rectangle around some runs, let out; None where that is too thin or too empty."""
    rows, begins = np.unique(runs.rows[members], return_index=True)  # members are in reading order
    lefts = runs.starts[members][begins]
    rights = runs.ends[members][np.append(begins[1:], len(members)) - 1]
    columns = np.concatenate([lefts, rights, lefts, rights])
    points = np.stack([columns, np.concatenate([rows, rows, rows + 1, rows + 1])], axis=1).astype(np.float64)
    angle = _narrowest(points, ANGLES)
    angle = _narrowest(points, angle + FINER_ANGLES)
    (left, right), (top, bottom) = _extents(points, np.array([angle]))[:, :, 0]
    width, height = right - left, bottom - top
    score = weight / (width * height)
    if min(width, height) < MIN_SIDE_PX or score < MIN_SCORE:
        return None
    out = width * height * LET_OUT / (2 * (width + height))
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    left, top, right, bottom = left - out, top - out, right + out, bottom + out
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    quad = [((u * along + v * across) * scale).tolist() for u, v in corners]
    return Region(quad=[(x, y) for x, y in quad], score=min(1.0, float(score)))


def _narrowest(points: npt.NDArray[np.float64], angles: npt.NDArray[np.float64]) -> float:
    """Return the slant at which the rectangle around the points is smallest."""
    (left, right), (top, bottom) = _extents(points, angles)
    return float(angles[np.argmin((right - left) * (bottom - top))])


def _extents(points: npt.NDArray[np.float64], angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return least and greatest position along and across each direction, [2, 2, angles]."""
    along = np.stack([np.cos(angles), np.sin(angles)])
    across = np.stack([-np.sin(angles), np.cos(angles)])
    positions = [np.einsum("pc,ca->pa", points, direction) for direction in (along, across)]
    return np.array([[each.min(axis=0), each.max(axis=0)] for each in positions])
