"""The middle of some measured times, and their slow end.

This module decides how percentiles are taken: linearly between measurements, as numpy does. It must not know what was
timed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Percentiles", "percentiles"]


class Percentiles(NamedTuple):
    """Seconds that 50, 90 and 99 of a hundred calls do not exceed."""

    p50_s: float
    p90_s: float
    p99_s: float


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one time."""
    return Percentiles(*np.percentile(seconds, (50, 90, 99)).tolist())
