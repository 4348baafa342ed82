"""The played day as a time line: every call of one library, who answered it and how long it took.

This module decides how a day is drawn. It must not know who else played it; whoever calls it passes the limits that
all lanes share, so that they can be compared by eye.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .axes import set_time_axis
from .palette import INKS
from .svg import chart_style, embed_figure
from .wording import join_words, shorten, show_count, show_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from ..records import CallPoint, FailoverResult
    from .palette import Mark

__all__ = ["NARROW", "WIDE", "draw_day"]

_HEIGHT = 190.0
"""Points, which are pixels on the page."""

WIDE, NARROW = 1060.0, 360.0
"""Widths, likewise: of a desk's screen, and of a phone's."""

_LETTER = 6.4
"""Points that one letter takes, about."""

_MAX_POINTS = 1500
"""Calls drawn in one lane: more only make the file larger, not the picture clearer."""

_BAND, _INK, _SOFT = (INKS[name].light for name in ("band", "ink", "soft"))


def draw_day(
    day: FailoverResult, marks: Mapping[str | None, Mark], *, width: float, longest_s: float, name: str
) -> str | None:
    """Draw a day; None where no call of it was kept.

    Args:
        day: What one library did.
        marks: The mark of each backend; None for nobody.
        width: `WIDE` or `NARROW`.
        longest_s: The longest call of all lanes.
        name: Distinguishes the chart on the page.
    """
    if not day.calls:
        return None
    with chart_style():
        figure = Figure(figsize=(width / 72, _HEIGHT / 72), layout="constrained")
        axes = figure.subplots()
        ends = max([phase.ends_s for phase in day.phases] + [call.at_s for call in day.calls])
        _shade_phases(axes, day, letters_per_s=(width - 90) / _LETTER / max(ends, 1e-3))
        for backend, calls in _group_calls(day.calls).items():
            mark = marks[backend]
            axes.scatter(
                [call.at_s for call in calls],
                [call.elapsed_s for call in calls],
                s=34 if backend is None else 15,
                marker=mark.shape,
                color=mark.ink.light,
                alpha=0.9 if backend is None else 0.6,
                linewidth=0,
                zorder=4 if backend is None else 3,
            )
        axes.grid(visible=False, axis="x")
        set_time_axis(axes, longest_s, vertical=True)
        set_time_axis(axes, ends, is_exact=True)
        axes.set_xlabel("since the day began")
        axes.set_ylabel("time of a call")
        return embed_figure(figure, name=name, title=f"The day of {day.library}", description=_tell(day))


def _shade_phases(axes: Axes, day: FailoverResult, *, letters_per_s: float) -> None:
    """Shade every other phase, and write over each what it was and what it cost the upper server."""
    for place, phase in enumerate(day.phases):
        if place % 2 == 0:
            axes.axvspan(phase.starts_s, phase.ends_s, color=_BAND, linewidth=0, zorder=0)
        letters = int((phase.ends_s - phase.starts_s) * letters_per_s)
        count = show_count(phase.wire_requests)
        words = f"{count} request{'' if phase.wire_requests == 1 else 's'}"
        requests = words if len(words) <= letters else count
        for text, height, ink, weight in ((phase.name, 17, _INK, "bold"), (requests, 5, _SOFT, "normal")):
            if letters >= 3:
                axes.annotate(
                    shorten(text, letters=letters),
                    ((phase.starts_s + phase.ends_s) / 2, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(0, height),
                    textcoords="offset points",
                    ha="center",
                    color=ink,
                    fontweight=weight,
                )


def _group_calls(calls: Sequence[CallPoint]) -> dict[str | None, list[CallPoint]]:
    """Return calls by who answered; answered ones thinned out evenly where there are many, failed ones all."""
    step = -(-len(calls) // _MAX_POINTS)
    grouped: dict[str | None, list[CallPoint]] = {}
    for place, call in enumerate(calls):
        if call.backend is None or place % step == 0:
            grouped.setdefault(call.backend, []).append(call)
    return grouped


def _tell(day: FailoverResult) -> str:
    return "; ".join(
        f"{phase.name}: {phase.calls} calls, answered by "
        f"{join_words(f'{name} {count}' for name, count in phase.answered_by.items())}, "
        f"median {show_time(phase.p50_s)}, {phase.wire_requests} requests"
        for phase in day.phases
    )
