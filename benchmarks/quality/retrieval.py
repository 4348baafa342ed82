"""How well embeddings find what belongs together: Recall@1, 5 and 10.

Text and image, for rungs that embed texts: each caption looks for its image among all images (text→image), and each
image for one of its captions among all captions (image→text), as in the literature since Karpathy and Fei-Fei, 2015.

Image and image, for every rung, since not all have a text tower: the upper left quarter of each image looks for the
lower right quarter among those of all images, and the other way round. The two share neither a pixel nor an edge, so
that nothing is found by its pixels or by lines that go on: what they share is the scene.

Recall falls with the number of images to choose from, which is in the note; where there are no more than places, there
is no figure, since it could only be 1. A tie counts against the rung.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..records import Metric
from .bootstrap import interval_of_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Matrix = npt.NDArray[Any]

__all__ = ["quarters_metrics", "ranks", "text_metrics", "without_texts"]

PLACES = (1, 5, 10)

IMPLEMENTATION = "exact search by cosine, numpy " + np.__version__

DIRECTIONS = ("image→text", "text→image")


class Search(NamedTuple):
    """What came of looking for things in one direction.

    Attributes:
        direction: Such as ``"text→image"``.
        found: For each query how many wrong things stand before the first right one.
        owner: For each query the place of the image that it belongs to.
        choices: How many things there were to choose from.
        note: All this for a reader.
    """

    direction: str
    found: npt.NDArray[np.intp]
    owner: npt.NDArray[np.intp]
    choices: int
    note: str


def text_metrics(images: Matrix, captions: Sequence[Matrix], *, resamples: int, seed: int) -> list[Metric]:
    """Return the recall between images and their captions.

    Args:
        images: Vectors of length 1, [N, D].
        captions: For each image those of its captions, [n, D] with n at least 1.
        resamples: Bootstrap samples.
        seed: Of the samples.
    """
    owner = np.repeat(np.arange(len(images)), [len(each) for each in captions])
    similar = images @ np.concatenate(captions).T
    own = owner[None, :] == np.arange(len(images))[:, None]
    note = f"{len(images)} images, {len(owner)} captions to choose from"
    sampling: dict[str, int] = {"resamples": resamples, "seed": seed}
    i2t = Search("image→text", ranks(similar, own), np.arange(len(images)), len(owner), note)
    t2i = Search("text→image", ranks(similar.T, own.T), owner, len(images), note)
    return [*_recalls(i2t, **sampling), *_recalls(t2i, **sampling)]


def quarters_metrics(first: Matrix, second: Matrix, *, resamples: int, seed: int) -> list[Metric]:
    """Return how often one quarter of an image finds the opposite one, both ways together.

    Args:
        first: Vectors of the upper left quarters, [N, D].
        second: Vectors of the lower right quarters, [N, D].
        resamples: Bootstrap samples.
        seed: Of the samples.
    """
    own = np.eye(len(first), dtype=bool)
    similar = first @ second.T
    found = np.concatenate([ranks(similar, own), ranks(similar.T, own)])
    owner = np.tile(np.arange(len(first)), 2)
    note = f"a quarter of an image looks for the opposite one among {len(first)}"
    return _recalls(Search("image↔image", found, owner, len(first), note), resamples=resamples, seed=seed)


def without_texts(reason: str) -> list[Metric]:
    """Return the figures of a rung that embeds no texts: none, and why."""
    return [
        Metric(name=f"R@{place} {direction}", value=None, implementation=IMPLEMENTATION, note=reason)
        for direction in DIRECTIONS
        for place in PLACES
    ]


def ranks(similar: Matrix, own: Matrix) -> npt.NDArray[np.intp]:
    """Return for each row how many wrong columns stand before the best right one.

    Args:
        similar: How alike row and column are, [n, m].
        own: Which columns are right, booleans [n, m].
    """
    best = np.where(own, similar, -np.inf).max(axis=1, keepdims=True)
    before: npt.NDArray[np.intp] = np.count_nonzero((similar >= best) & ~own, axis=1)
    return before


def _recalls(search: Search, *, resamples: int, seed: int) -> list[Metric]:
    """Return the recall at each place, with intervals over the images that the queries belong to."""
    metrics = []
    queries = np.bincount(search.owner).astype(np.float64)
    for place in PLACES:
        name = f"R@{place} {search.direction}"
        if place >= search.choices:
            note = f"{search.note}: at {place} places nothing can be missed"
            metrics.append(Metric(name=name, value=None, implementation=IMPLEMENTATION, note=note))
            continue
        hits = np.bincount(search.owner, weights=search.found < place).astype(np.float64)
        metrics.append(
            Metric(
                name=name,
                value=float(hits.sum() / queries.sum()),
                interval=interval_of_ratio(hits, queries, resamples=resamples, seed=seed),
                implementation=IMPLEMENTATION,
                note=search.note,
            )
        )
    return metrics
