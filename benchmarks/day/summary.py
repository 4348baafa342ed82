"""From single calls to the parts of the day.

This module decides which part a call belongs to: the one in which it was due. It must not know how calls were made.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..percentiles import percentiles
from ..records import CallPoint, Phase
from .scenario import NOBODY, cost_usd, who_said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenario import Scenario
    from .visit import Visit

__all__ = ["phases_of", "points_of"]


def points_of(visit: Visit, scenario: Scenario) -> tuple[CallPoint, ...]:
    """Return every call, in the order in which they were due."""
    return tuple(
        CallPoint(
            at_s=call["at_s"],
            phase=next(each.name for each in reversed(scenario.stretches) if call["at_s"] >= each.starts_s),
            backend=who_said(call["text"]) if "text" in call else None,
            elapsed_s=call["elapsed_s"],
            late_s=call["late_s"],
            error=call.get("error"),
        )
        for call in visit.calls
    )


def phases_of(visit: Visit, scenario: Scenario) -> Iterator[Phase]:
    """Yield the parts of the day in which there were calls."""
    points = points_of(visit, scenario)
    for stretch, wire_requests in zip(scenario.stretches, visit.wire_requests, strict=True):
        own = [point for point in points if point.phase == stretch.name]
        if not own:
            continue
        answered_by = dict(Counter(point.backend or NOBODY for point in own))
        times = percentiles([point.elapsed_s for point in own])
        yield Phase(
            name=stretch.name,
            starts_s=stretch.starts_s,
            ends_s=stretch.ends_s,
            calls=len(own),
            answered_by=answered_by,
            p50_s=times.p50_s,
            p90_s=times.p90_s,
            p99_s=times.p99_s,
            wire_requests=wire_requests,
            cost_usd=cost_usd(answered_by),
        )
