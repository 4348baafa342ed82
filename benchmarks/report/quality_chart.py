"""Quality against time, with the price as size: one panel for each task.

This module decides what stands where in it. It must not know how figures are measured. A rung whose quality was not
measured stands in a lane below the axis, never at 0; one whose price is not known is hollow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .axes import make_panel, set_time_axis, write_labels
from .palette import INKS
from .svg import chart_style, embed_figure
from .wording import shorten, show_figure, show_time, show_usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from .palette import Mark
    from .standings import Group, Standing

__all__ = ["draw_quality"]

_HEIGHT, _LANE_ROW_HEIGHT, _LANE_HEIGHT = 300.0, 30.0, 34.0
"""Points."""

_SMALLEST, _LARGEST = 80.0, 620.0
"""Areas of marks in square points: of what is free, and of the dearest."""

_METRIC_LETTERS = 30


def draw_quality(group: Group, marks: Mapping[str | None, Mark], *, dearest_usd: float, name: str) -> str | None:
    """Draw a task's panel; None where no rung was timed.

    Args:
        group: The task.
        marks: The mark of each rung.
        dearest_usd: What the dearest thousand answers on the page cost: they get the largest mark.
        name: Distinguishes the chart on the page.
    """
    timed = [each for each in group.standings if each.median_s]
    if not timed:
        return None
    metric = group.headline(timed)
    rated = [each for each in timed if metric is not None and metric in each.metrics]
    unrated = [each for each in timed if each not in rated]
    heights = [_HEIGHT] * bool(rated) + [_LANE_HEIGHT + _LANE_ROW_HEIGHT * len(unrated)] * bool(unrated)
    with chart_style():
        figure = make_panel(sum(heights))
        lanes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        set_time_axis(
            lanes[-1], max(value for each in timed for value in (each.median_s, *(each.middle_s or ())) if value)
        )
        lanes[-1].set_xlabel("time of a call, median → slower")
        if unrated:
            _draw_lane(lanes[-1], unrated, marks, dearest_usd=dearest_usd)
        if rated and metric is not None:
            _draw_field(lanes[0], rated, marks, metric=metric, dearest_usd=dearest_usd)
        told = "; ".join(_tell(each, metric if each in rated else None) for each in timed)
        return embed_figure(figure, name=name, title=f"{group.task}: quality against time", description=told)


def _draw_field(
    axes: Axes, rated: Sequence[Standing], marks: Mapping[str | None, Mark], *, metric: str, dearest_usd: float
) -> None:
    """Draw each rung with the interval of its quality upright, and its middle calls across."""
    points = []
    for standing in rated:
        found, colour = standing.metrics[metric], marks[standing.backend].ink.light
        x, y = standing.median_s or 0.0, found.value or 0.0
        if found.interval:
            axes.plot([x, x], [found.interval.low, found.interval.high], color=colour, linewidth=1.6, alpha=0.7)
        if standing.middle_s:
            axes.plot(standing.middle_s, [y, y], color=colour, linewidth=1.6, alpha=0.7)
        _draw_mark(axes, x, y, standing, marks[standing.backend], dearest_usd=dearest_usd)
        points.append((x, y, standing, _price(standing)))
    lowest, highest = axes.dataLim.y0, axes.dataLim.y1
    low = 0.0 if lowest >= 0 else lowest * 1.1
    high = min(highest * 1.1, 1.04) if highest <= 1 else highest * 1.1  # what is a share never exceeds 1
    high = high if high > low else low + 1.0
    higher_is_better = rated[0].metrics[metric].higher_is_better
    axes.set_ylim(*((low, high) if higher_is_better else (high, low)))
    axes.set_ylabel(f"{shorten(metric, letters=_METRIC_LETTERS)} → better")
    axes.locator_params(axis="y", nbins=5)
    write_labels(axes, points, marks)


def _draw_lane(
    axes: Axes, unrated: Sequence[Standing], marks: Mapping[str | None, Mark], *, dearest_usd: float
) -> None:
    """Draw rungs of which only the time is known, each in its row."""
    axes.set_facecolor(INKS["band"].light)
    axes.set_ylim(len(unrated) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_ylabel("quality not\nmeasured")
    for row, standing in enumerate(unrated):
        _draw_mark(axes, standing.median_s or 0.0, row, standing, marks[standing.backend], dearest_usd=dearest_usd)
    write_labels(axes, [(each.median_s or 0.0, row, each, "") for row, each in enumerate(unrated)], marks)


def _draw_mark(axes: Axes, x: float, y: float, standing: Standing, mark: Mark, *, dearest_usd: float) -> None:
    cost, paper, colour = standing.cost_per_1000_usd, INKS["paper"].light, mark.ink.light
    share = (cost or 0.0) / dearest_usd if dearest_usd else 0.0
    axes.scatter(
        [x],
        [y],
        s=_SMALLEST + share * (_LARGEST - _SMALLEST),
        marker=mark.shape,
        facecolor=paper if cost is None else colour,
        edgecolor=colour if cost is None else paper,
        linewidth=1.4,
        zorder=3,
        clip_on=False,
    )


def _price(standing: Standing) -> str:
    cost = standing.cost_per_1000_usd
    return "price not known" if cost is None else "free" if cost == 0 else show_usd(cost)


def _tell(standing: Standing, metric: str | None) -> str:
    quality = f"{metric} {show_figure(standing.metrics[metric].value)}" if metric else "quality not measured"
    return f"{standing.label}: {quality}, {show_time(standing.median_s)}, {_price(standing)}"
