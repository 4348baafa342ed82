"""Charts of quality, time and throughput, one panel for each task.

This module decides what is drawn where. It must not know how figures are measured, nor how a chart stands on the
page. What was not measured is left out and named beneath the chart; a rung without quality stands in a lane below
the axis, never at 0.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.report.palette import INKS, PARTS
from benchmarks.report.svg import chart_style, embed_figure
from benchmarks.report.wording import join_words, shorten, show_figure, show_time, show_usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from benchmarks.records import LatencyResult
    from benchmarks.report.palette import Mark
    from benchmarks.report.standings import Group, Standing

__all__ = ["draw_loads", "draw_quality", "draw_shares", "draw_times", "price_area", "set_time_axis"]

_INCH = 72.0
_WIDTH = 360.0
_ROW = 44.0
"""Sizes in points, which are pixels on the page."""

_LETTERS = 26
"""Longest name of a rung in a chart."""

_SMALLEST, _LARGEST = 48.0, 620.0
"""Areas of marks in square points: of what is free, and of the dearest."""

INK, SOFT, PAPER, BAND = (INKS[name].light for name in ("ink", "soft", "paper", "band"))


def price_area(cost_usd: float | None, dearest_usd: float) -> float:
    """Return the area of a mark: it grows with the price, from what is free to the dearest on the page."""
    share = (cost_usd or 0.0) / dearest_usd if dearest_usd else 0.0
    return _SMALLEST + share * (_LARGEST - _SMALLEST)


def draw_quality(group: Group, marks: Mapping[str | None, Mark], *, dearest_usd: float, name: str) -> str | None:
    """Draw quality against time with price as size; None where no rung was timed."""
    timed = [each for each in group.standings if each.median_s]
    if not timed:
        return None
    metric = group.headline(timed)
    rated = [each for each in timed if metric is not None and metric in each.metrics]
    unrated = [each for each in timed if each not in rated]
    with chart_style():
        figure = Figure(figsize=(_WIDTH / _INCH, 300 / _INCH), layout="constrained")
        lanes = figure.subplots(
            2 if unrated and rated else 1,
            1,
            sharex=True,
            squeeze=False,
            height_ratios=[5, 1] if unrated and rated else [1],
        )[:, 0]
        if rated and metric is not None:
            _draw_rated(lanes[0], rated, marks, metric=metric, dearest_usd=dearest_usd)
        if unrated:
            _draw_unrated(lanes[-1], unrated, marks, dearest_usd=dearest_usd)
        set_time_axis(
            lanes[-1], [value for each in timed for value in (each.median_s, *(each.middle_s or ())) if value]
        )
        lanes[-1].set_xlabel("seconds a call, median → slower")
        told = [
            f"{each.label}: {f'{metric} {show_figure(each.metrics[metric].value)}' if metric and each in rated else 'quality not measured'}, "
            f"{show_time(each.median_s)}, {show_usd(each.cost_per_1000_usd)} per 1,000"
            for each in timed
        ]
        return embed_figure(figure, name=name, title=f"{group.task}: quality against time", description="; ".join(told))


def draw_times(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw every warm call, their middle, and the first calls of fresh processes beside them."""
    timed = [each for each in group.standings if each.latency and (each.latency.warm_s or each.latency.cold_s)]
    if not timed:
        return None
    chance = np.random.default_rng(0)
    with chart_style():
        figure = _row_figure(len(timed))
        axes = figure.subplots()
        for row, standing in enumerate(timed):
            if standing.latency:
                _draw_calls(axes, standing.latency, marks[standing.backend], row=row, chance=chance)
        _name_rows(axes, timed, marks)
        latencies = [each.latency for each in timed if each.latency]
        set_time_axis(axes, [value for each in latencies for value in (*each.warm_s, *each.cold_s)])
        told = [_tell_times(each) for each in timed]
        return embed_figure(figure, name=name, title=f"{group.task}: time of single calls", description="; ".join(told))


def draw_shares(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw which part of a warm call's time goes where; None where no rung's time was taken apart."""
    split = [(each, _parts_of(each)) for each in group.standings]
    known = [(each, parts) for each, parts in split if sum(parts.values()) > 0]
    if not known:
        return None
    with chart_style():
        figure = _row_figure(len(known))
        axes = figure.subplots()
        for row, (_, parts) in enumerate(known):
            left, total = 0.0, sum(parts.values())
            for part, seconds in parts.items():
                share = seconds / total
                axes.barh(
                    row, share, left=left, height=0.42, color=INKS[f"part-{part}"].light, edgecolor=PAPER, linewidth=1
                )
                left += share
            axes.annotate(
                show_time(total),
                (1, row),
                xytext=(0, 13),
                textcoords="offset points",
                ha="right",
                va="center",
                color=SOFT,
            )
        _name_rows(axes, [each for each, _ in known], marks)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))
        told = [
            f"{each.label}: {join_words(f'{part} {show_time(seconds)}' for part, seconds in parts.items())}"
            for each, parts in known
        ]
        return embed_figure(figure, name=name, title=f"{group.task}: where the time goes", description="; ".join(told))


def draw_loads(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw how many images a second come back at rising concurrency."""
    loaded = [
        each for each in group.standings if each.latency and any(load.images_per_s > 0 for load in each.latency.loads)
    ]
    if not loaded:
        return None
    with chart_style():
        figure = Figure(figsize=(_WIDTH / _INCH, 210 / _INCH), layout="constrained")
        axes = figure.subplots()
        sizes: set[int] = set()
        ends = []
        told = []
        for standing in loaded:
            loads = sorted(standing.latency.loads if standing.latency else (), key=lambda load: load.concurrency)
            loads = [load for load in loads if load.images_per_s > 0]
            mark = marks[standing.backend]
            x = [load.concurrency for load in loads]
            y = [load.images_per_s for load in loads]
            axes.plot(x, y, color=mark.ink.light, marker=mark.shape, markersize=6.5, linewidth=1.8)
            ends.append((x[-1], y[-1], standing))
            sizes.update(x)
            told.append(
                f"{standing.label}: {join_words(f'{show_figure(b)} at {a}' for a, b in zip(x, y, strict=True))}"
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.06, y=0.16)
        axes.set_xlabel("calls at once")
        axes.set_ylabel("images a second")
        _write_names(axes, ends, marks)
        return embed_figure(figure, name=name, title=f"{group.task}: throughput", description="; ".join(told))


def set_time_axis(axes: Axes, seconds: Sequence[float], *, vertical: bool = False) -> None:
    """Give an axis of times powers of ten as ticks, and room around what is drawn; 1-2-5 steps where it is short."""
    low, high = min(seconds) / 1.5, max(seconds) * 1.5
    steps = (1.0, 2.0, 5.0) if high / low < 60 else (1.0, 3.0) if high / low < 800 else (1.0,)
    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    (axes.set_ylim if vertical else axes.set_xlim)(low, high)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: show_time(value)))


def _draw_rated(
    axes: Axes, rated: Sequence[Standing], marks: Mapping[str | None, Mark], *, metric: str, dearest_usd: float
) -> None:
    """Draw each rung with the interval of its quality upright, and of its middle calls across."""
    ends = []
    higher = True
    for standing in rated:
        found, mark = standing.metrics[metric], marks[standing.backend]
        x, y = standing.median_s or 0.0, found.value or 0.0
        higher = found.higher_is_better
        if found.interval:
            axes.plot(
                [x, x], [found.interval.low, found.interval.high], color=mark.ink.light, linewidth=1.6, alpha=0.75
            )
        if standing.middle_s:
            axes.plot(standing.middle_s, [y, y], color=mark.ink.light, linewidth=1.6, alpha=0.75)
        _draw_mark(axes, x, y, standing, mark, dearest_usd=dearest_usd)
        ends.append((x, y, standing))
    axes.margins(y=0.22)
    low, high = axes.get_ylim()
    axes.set_ylim(*(max(low, 0.0) if min(y for _, y, _ in ends) >= 0 else low, high)[:: 1 if higher else -1])
    axes.set_ylabel(f"{shorten(metric, letters=_LETTERS)} → better")
    axes.locator_params(axis="y", nbins=5)
    _write_names(axes, ends, marks)


def _draw_unrated(
    axes: Axes, unrated: Sequence[Standing], marks: Mapping[str | None, Mark], *, dearest_usd: float
) -> None:
    """Draw rungs without a figure of quality in a lane of their own."""
    axes.set_facecolor(BAND)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    axes.set_ylabel("quality not\nmeasured")
    for standing in unrated:
        _draw_mark(axes, standing.median_s or 0.0, 0.0, standing, marks[standing.backend], dearest_usd=dearest_usd)
    _write_names(axes, [(each.median_s or 0.0, 0.0, each) for each in unrated], marks)


def _draw_mark(axes: Axes, x: float, y: float, standing: Standing, mark: Mark, *, dearest_usd: float) -> None:
    """Draw a mark as large as its price; hollow where the price is not known."""
    cost = standing.cost_per_1000_usd
    axes.scatter(
        [x],
        [y],
        s=price_area(cost, dearest_usd),
        marker=mark.shape,
        facecolor=mark.ink.light if cost is not None else PAPER,
        edgecolor=PAPER if cost is not None else mark.ink.light,
        linewidth=1.4,
        zorder=3,
        clip_on=False,
    )


def _write_names(axes: Axes, ends: Sequence[tuple[float, float, Standing]], marks: Mapping[str | None, Mark]) -> None:
    """Write each rung's name beside its point, to the side where there is room, and above one another."""
    gap = 13.0
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()  # sizes are known from here on
    box = axes.get_window_extent()
    placed: list[tuple[float, float]] = []
    for x, y, standing in sorted(ends, key=lambda end: end[1]):
        across, up = axes.transData.transform((x, y))
        is_right = (across - box.x0) > 0.6 * box.width
        shift = 0.0
        while any(abs(up + shift - other) < gap and abs(across - beside) < 0.4 * box.width for beside, other in placed):
            shift += gap / 2
        placed.append((across, up + shift))
        axes.annotate(
            shorten(standing.label, letters=_LETTERS),
            (x, y),
            xytext=(-11 if is_right else 11, 9 + shift),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="center",
            color=marks[standing.backend].ink.light,
            fontweight="bold",
            annotation_clip=False,
        )


def _row_figure(rows: int) -> Figure:
    return Figure(figsize=(_WIDTH / _INCH, (rows * _ROW + 42) / _INCH), layout="constrained")


def _name_rows(axes: Axes, standings: Sequence[Standing], marks: Mapping[str | None, Mark]) -> None:
    """Name each row above its left end, so that the whole width is left for what is drawn."""
    axes.set_ylim(len(standings) - 0.5, -0.72)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    for row, standing in enumerate(standings):
        axes.annotate(
            shorten(standing.label, letters=_LETTERS),
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(0, 15),
            textcoords="offset points",
            va="center",
            color=marks[standing.backend].ink.light,
            fontweight="bold",
        )


def _draw_calls(axes: Axes, result: LatencyResult, mark: Mark, *, row: int, chance: np.random.Generator) -> None:
    colour = mark.ink.light
    if result.warm_s:
        low, left, middle, right, high = np.percentile(result.warm_s, [10, 25, 50, 75, 90])
        spread = row + 0.08 + chance.uniform(-0.13, 0.13, len(result.warm_s))
        axes.scatter(result.warm_s, spread, s=7, marker="o", color=colour, alpha=0.32, linewidth=0)
        axes.plot([low, high], [row + 0.08] * 2, color=colour, linewidth=1.2)
        axes.plot([left, right], [row + 0.08] * 2, color=colour, linewidth=6, solid_capstyle="butt")
        axes.plot([middle] * 2, [row - 0.1, row + 0.26], color=INK, linewidth=2, zorder=4)
    if result.cold_s:
        axes.scatter(
            result.cold_s,
            [row + 0.08] * len(result.cold_s),
            s=34,
            marker="D",
            facecolor=PAPER,
            edgecolor=colour,
            linewidth=1.3,
            zorder=3,
        )


def _tell_times(standing: Standing) -> str:
    cold = standing.latency.cold_s if standing.latency else ()
    first = f", first answer {show_time(median(cold))}" if cold else ""
    return f"{standing.label}: warm {show_time(standing.median_s)}{first}"


def _parts_of(standing: Standing) -> dict[str, float]:
    """Return the known parts of a warm call's time in the order of its way."""
    if standing.latency is None:
        return {}
    split = standing.latency.split
    seconds = {part: getattr(split, f"{part}_s") for part in PARTS}
    return {part: max(0.0, value) for part, value in seconds.items() if value is not None}
