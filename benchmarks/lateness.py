"""Whether a played day was played as planned: how late calls were issued, and the server's troubles began.

A call's time is counted from the moment when it was due. What a busy machine holds back is then in it, though no
library and no server took it. This module decides how much of that is too much, and how it is said. It must not know
how a day is played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .records import Lateness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import FailoverResult

__all__ = ["MOST_LATE_S", "MOST_LATE_TURN_S", "could_not_keep", "measure_lateness", "tell_lateness"]

MOST_LATE_S = 0.03
"""By so much 99 of 100 calls may be late: a fifth of what a server takes to answer, about what the last rung takes."""

MOST_LATE_TURN_S = 0.1
"""By so much the server may be late: half the distance of two calls, which lie in the middle between its turns."""


def measure_lateness(calls_late_s: Sequence[float], *, turns_late_s: float) -> Lateness | None:
    """Return how late a day was; None where that is not known of its calls.

    Args:
        calls_late_s: How long after it was due each call was issued.
        turns_late_s: How long after it was due the server did what it was to do, at most.
    """
    if not calls_late_s:
        return None
    p50_s, p99_s = (max(0.0, float(each)) for each in np.percentile(calls_late_s, (50, 99)))
    return Lateness(p50_s=p50_s, p99_s=p99_s, max_s=max(0.0, *calls_late_s), turns_max_s=max(0.0, turns_late_s))


def could_not_keep(day: FailoverResult) -> bool:
    """Tell whether a day is known to have been played too late for its times to mean anything."""
    late = day.lateness
    return late is not None and (late.p99_s > MOST_LATE_S or late.turns_max_s > MOST_LATE_TURN_S)


def tell_lateness(day: FailoverResult) -> str:
    """Return in a sentence how late a day was, and what that means for its times."""
    late, who = day.lateness, f"{day.library} {day.version}"
    if late is None:
        return f"{who}: how late calls were issued was not measured."
    latest = f"the latest after {_ms(late.max_s)}"
    calls = f"99 of 100 calls were issued within {_ms(late.p99_s)} of when they were due, {latest}"
    server = f"the server changed within {_ms(late.turns_max_s)}"
    if not could_not_keep(day):
        return f"{who}: {calls}; {server}: the plan was kept."
    allowed = f"{_ms(MOST_LATE_S)} and {_ms(MOST_LATE_TURN_S)}"
    return (
        f"The machine could not keep the plan of the day of {who}: {calls}; {server}; allowed are {allowed}. "
        "The times of that day are not reliable: play it again on an idle machine."
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}\u00a0ms"
