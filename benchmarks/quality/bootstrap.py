"""95 % intervals by bootstrap over images: how much a figure would differ with other images of the same kind.

This module decides how images are drawn again, as the number of times that each appears in a sample. It must not know
what is computed from them.

The percentile bootstrap: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["draw", "interval_of", "interval_of_mean", "interval_of_ratio"]

LOW_PERCENT, HIGH_PERCENT = 2.5, 97.5

AT_ONCE = 4_000_000
"""Numbers in memory while samples are drawn."""


def draw(images: int, *, resamples: int, seed: int) -> npt.NDArray[Any]:
    """Return how often each image appears in each sample: whole numbers of shape [resamples, images].

    The same for one seed and number of images, so that rungs are compared on the same samples.
    """
    even = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, even, size=resamples)


def interval_of(
    figure: Callable[[npt.NDArray[Any]], Floats], *, images: int, resamples: int, seed: int, width: int = 0
) -> Interval | None:
    """Return the interval of any figure.

    Args:
        figure: From counts of shape [n, images] to n figures; not a number where a sample has none.
        images: How many there are; of fewer than two there is no interval.
        resamples: How many samples are drawn.
        seed: Of the samples.
        width: How many numbers the figure holds in memory for each sample, where that is more than the images.
    """
    if images < 2:
        return None
    counts = draw(images, resamples=resamples, seed=seed)
    step = max(1, AT_ONCE // max(images, width))
    figures = np.concatenate([figure(counts[start : start + step]) for start in range(0, resamples, step)])
    figures = figures[~np.isnan(figures)]
    if not figures.size:
        return None
    low, high = np.percentile(figures, [LOW_PERCENT, HIGH_PERCENT])
    return Interval(low=float(low), high=float(high))


def interval_of_mean(values: Floats, *, resamples: int, seed: int) -> Interval | None:
    """Return the interval of the mean of one value per image."""
    return interval_of_ratio(values, np.ones_like(values), resamples=resamples, seed=seed)


def interval_of_ratio(above: Floats, below: Floats, *, resamples: int, seed: int) -> Interval | None:
    """Return the interval of the sum of ``above`` by the sum of ``below``, each one value per image."""
    return interval_of(
        lambda counts: (counts @ above) / (counts @ below), images=len(above), resamples=resamples, seed=seed
    )
