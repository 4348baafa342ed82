"""Where the time goes: single calls, the parts of a call, and throughput, one panel for each task.

This module decides what is drawn of it. It must not know how times are measured. What was not measured is left out;
where nothing was, there is no chart.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from .axes import ROW_SHIFT, make_panel, make_rows, set_count_axis, set_time_axis, write_end_labels
from .palette import INKS, PARTS
from .svg import chart_style, embed_figure
from .wording import join_words, show_figure, show_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from ..records import Load
    from .palette import Mark
    from .standings import Group, Standing

__all__ = ["draw_loads", "draw_shares", "draw_starts", "draw_times"]

_LOADS_HEIGHT = 220.0
"""Points."""

_TICK_ROOM = 0.06
"""How much of an axis one of its ticks takes, with its number."""


def draw_times(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw every warm call, and their middle."""
    timed = [(each, each.latency.warm_s) for each in group.standings if each.latency and each.latency.warm_s]
    if not timed:
        return None
    chance = np.random.default_rng(0)
    with chart_style():
        figure, axes = make_rows([each for each, _ in timed], marks)
        axes.grid(visible=False, axis="y")
        for row, (standing, warm_s) in enumerate(timed):
            _draw_calls(axes, warm_s, marks[standing.backend], y=row + ROW_SHIFT, chance=chance)
        set_time_axis(axes, max(value for _, warm_s in timed for value in warm_s))
        axes.set_xlabel("time of a call")
        told = "; ".join(f"{each.label}: warm median {show_time(median(warm_s))}" for each, warm_s in timed)
        return embed_figure(figure, name=name, title=f"{group.task}: time of single calls", description=told)


def draw_starts(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw how long fresh processes take to their first answer: a bar to the median, and a mark for each of them."""
    timed = [(each, each.latency.cold_s) for each in group.standings if each.latency and each.latency.cold_s]
    if not timed:
        return None
    with chart_style():
        figure, axes = make_rows([each for each, _ in timed], marks)
        axes.grid(visible=False, axis="y")
        for row, (standing, cold_s) in enumerate(timed):
            y, colour, paper = row + ROW_SHIFT, marks[standing.backend].ink.light, INKS["paper"].light
            axes.barh(y, median(cold_s), height=0.3, color=colour, alpha=0.35, linewidth=0)
            y_all = [y] * len(cold_s)
            axes.scatter(cold_s, y_all, s=30, marker="D", facecolor=paper, edgecolor=colour, linewidth=1.3, zorder=3)
        set_time_axis(axes, max(value for _, cold_s in timed for value in cold_s))
        axes.set_xlabel("time until the first answer")
        told = "; ".join(f"{each.label}: first answer {show_time(median(cold_s))}" for each, cold_s in timed)
        return embed_figure(figure, name=name, title=f"{group.task}: first answers", description=told)


def draw_shares(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw which share of a warm call goes where, with the sum of all known parts at the end."""
    split = [(each, _parts_of(each)) for each in group.standings]
    known = [(each, parts) for each, parts in split if sum(parts.values()) > 0]
    if not known:
        return None
    with chart_style():
        figure, axes = make_rows([each for each, _ in known], marks)
        axes.grid(visible=False)
        for row, (_, parts) in enumerate(known):
            left, total = 0.0, sum(parts.values())
            for part, seconds in parts.items():
                ink, edge, share = INKS[f"part-{part}"].light, INKS["paper"].light, seconds / total
                axes.barh(row + ROW_SHIFT, share, left=left, height=0.36, color=ink, edgecolor=edge, linewidth=1)
                left += share
            axes.annotate(
                show_time(total),
                (1, row),
                xytext=(0, 13),
                textcoords="offset points",
                ha="right",
                va="center",
                color=INKS["soft"].light,
            )
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f}\u00a0%"))
        told = "; ".join(
            f"{each.label}: {join_words(f'{part} {show_time(seconds)}' for part, seconds in parts.items())}"
            for each, parts in known
        )
        return embed_figure(figure, name=name, title=f"{group.task}: where the time goes", description=told)


def draw_loads(group: Group, marks: Mapping[str | None, Mark], *, name: str) -> str | None:
    """Draw how many images a second come back at rising concurrency."""
    loaded = [(each, _loads_of(each)) for each in group.standings if _loads_of(each)]
    if not loaded:
        return None
    with chart_style():
        figure = make_panel(_LOADS_HEIGHT)
        axes = figure.subplots()
        for standing, loads in loaded:
            mark = marks[standing.backend]
            x, y = [load.concurrency for load in loads], [load.images_per_s for load in loads]
            axes.plot(x, y, color=mark.ink.light, marker=mark.shape, markersize=6.5, linewidth=1.8)
        every = [load for _, loads in loaded for load in loads]
        sizes, highest = sorted({load.concurrency for load in every}), max(load.images_per_s for load in every)
        _mark_load_axes(axes, sizes, highest=highest)
        write_end_labels(axes, [(loads[-1].images_per_s, each) for each, loads in loaded], marks)
        told = "; ".join(
            f"{each.label}: "
            f"{join_words(f'{show_figure(load.images_per_s)} with {load.concurrency} callers' for load in loads)}"
            for each, loads in loaded
        )
        return embed_figure(figure, name=name, title=f"{group.task}: images a second", description=told)


def _draw_calls(axes: Axes, warm_s: Sequence[float], mark: Mark, *, y: float, chance: np.random.Generator) -> None:
    colour = mark.ink.light
    low, left, middle, right, high = np.percentile(warm_s, [10, 25, 50, 75, 90])
    spread = y + chance.uniform(-0.13, 0.13, len(warm_s))
    axes.scatter(warm_s, spread, s=7, marker="o", color=colour, alpha=0.35, linewidth=0)
    axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
    axes.plot([left, right], [y, y], color=colour, linewidth=6, solid_capstyle="butt")
    axes.plot([middle, middle], [y - 0.17, y + 0.17], color=INKS["ink"].light, linewidth=2, zorder=4)


def _mark_load_axes(axes: Axes, sizes: list[int], *, highest: float) -> None:
    """Begin both axes at 0; every number of callers has a tick that has room for it, the largest first."""
    ticks: list[int] = []
    for size in (*reversed(sizes), 0):
        if all(other - size >= _TICK_ROOM * sizes[-1] for other in ticks):
            ticks.append(size)
    axes.set_xlim(0, sizes[-1] * 1.04)
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    set_count_axis(axes, highest)
    axes.set_xlabel("concurrent callers")
    axes.set_ylabel("images a second")


def _parts_of(standing: Standing) -> dict[str, float]:
    """Return the known parts of a warm call's time in the order of its way."""
    split = standing.latency and standing.latency.split
    seconds = {part: getattr(split, f"{part}_s", None) for part in PARTS}
    return {part: max(0.0, value) for part, value in seconds.items() if value is not None}


def _loads_of(standing: Standing) -> list[Load]:
    loads = standing.latency.loads if standing.latency else ()
    return sorted((load for load in loads if load.images_per_s > 0), key=lambda load: load.concurrency)
