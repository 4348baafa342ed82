"""What charts have in common: sizes, axes of times, and where the names of rungs find room.

This module decides how axes are marked and labelled. It must not know what is drawn between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from .palette import INKS
from .wording import shorten, show_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from .palette import Mark
    from .standings import Standing

__all__ = [
    "ROW_SHIFT",
    "SHORTEST_S",
    "Label",
    "make_panel",
    "make_rows",
    "set_count_axis",
    "set_time_axis",
    "write_end_labels",
    "write_labels",
]

_POINTS_PER_INCH = 72.0

_PANEL_WIDTH = 360.0

_ROW_HEIGHT = 46.0

_AXIS_HEIGHT = 40.0

_LINE_HEIGHT = 12.5

_LETTER_WIDTH = 6.4
"""Sizes in points, which are about pixels on the page."""

_LETTERS, _END_LETTERS = 26, 14
"""Longest name of a rung in a chart, and beside one."""

_STEPS = (1, 2, 2.5, 5, 10)
"""Distances between ticks, within a power of ten."""

_MAX_TICKS = 5

_SECONDS_FROM_S = 0.9995
"""An axis that goes further is in seconds, not in milliseconds."""

ROW_SHIFT = 0.14
"""By how much of a row its marks stand below its middle: the name stands above them."""

SHORTEST_S = 1e-6
"""Seconds that an axis shows at least: a clock may say 0."""

Label = tuple[float, float, "Standing", str]
"""Where a rung's point is, whose it is, and what stands beneath its name."""


def make_panel(height: float) -> Figure:
    """Return an empty chart as wide as a phone."""
    return Figure(figsize=(_PANEL_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), layout="constrained")


def make_rows(standings: Sequence[Standing], marks: Mapping[str | None, Mark]) -> tuple[Figure, Axes]:
    """Return a chart with a named row for each rung: row 0 is the topmost."""
    figure = make_panel(len(standings) * _ROW_HEIGHT + _AXIS_HEIGHT)
    axes = figure.subplots()
    axes.set_ylim(len(standings) - 0.55, -0.6)
    axes.set_yticks([])
    for row, standing in enumerate(standings):
        axes.annotate(
            shorten(standing.label, letters=_LETTERS),
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(0, 13),
            textcoords="offset points",
            va="center",
            color=marks[standing.backend].ink.light,
            fontweight="bold",
        )
    return figure, axes


def set_time_axis(axes: Axes, longest_s: float, *, vertical: bool = False, is_exact: bool = False) -> None:
    """Make an axis one of time that begins at 0, with round ticks in one unit.

    Args:
        axes: Where.
        longest_s: The longest time that is drawn.
        vertical: Whether it is the upright axis.
        is_exact: Whether it ends there; else it ends at a tick.
    """
    axis = axes.yaxis if vertical else axes.xaxis
    ticks = _choose_ticks(max(longest_s, SHORTEST_S))
    (axes.set_ylim if vertical else axes.set_xlim)(0.0, max(longest_s, SHORTEST_S) if is_exact else ticks[-1])
    axis.set_major_locator(FixedLocator([tick for tick in ticks if not is_exact or tick <= longest_s]))
    axis.set_minor_locator(NullLocator())
    in_seconds = longest_s >= _SECONDS_FROM_S
    axis.set_major_formatter(FuncFormatter(lambda value, _: _show_tick(value, in_seconds=in_seconds)))


def set_count_axis(axes: Axes, highest: float) -> None:
    """Make the upright axis one of a figure that begins at 0, with round ticks."""
    ticks = _choose_ticks(highest or 1.0)
    axes.set_ylim(0.0, ticks[-1])
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else show_count(value)))


def _choose_ticks(highest: float) -> list[float]:
    """Return round numbers from 0 to the first one that is not less than what is drawn, with a little room."""
    found = MaxNLocator(nbins=_MAX_TICKS, steps=_STEPS).tick_values(0.0, highest * 1.02)
    return [float(tick) for tick in found if tick >= 0]


def write_labels(axes: Axes, labels: Sequence[Label], marks: Mapping[str | None, Mark]) -> None:
    """Write each rung's name beside its point, where it hides no line, no mark and no other name, if it can.

    All limits have to be set before.
    """
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()  # sizes are known from here on
    scale = axes.figure.dpi / _POINTS_PER_INCH
    field = axes.get_window_extent()
    taken = [line.get_window_extent() for line in axes.lines]
    taken += [
        Bbox.from_extents(x - 13, y - 13, x + 13, y + 13)
        for x, y in axes.transData.transform([label[:2] for label in labels])
    ]
    for x, y, standing, detail in labels:
        name = shorten(standing.label, letters=_LETTERS)
        across, up = axes.transData.transform((x, y))
        width = max(len(name), len(detail)) * _LETTER_WIDTH * scale
        height = _LINE_HEIGHT * (2 if detail else 1) * scale
        places = [
            (
                Bbox.from_bounds(
                    across + (gap if ha == "left" else -gap - width), up + rise - height / 2, width, height
                ),
                ha,
                gap,
                rise,
            )
            for gap in (14 * scale, 22 * scale)
            for rise in (0.0, 10.0 * scale, -10.0 * scale, 18 * scale, -18 * scale)
            for ha in ("left", "right")
        ]
        box, ha, gap, rise = min(places, key=lambda place: _cost(place[0], taken, field))
        taken.append(box)
        lines = [(name, marks[standing.backend].ink.light, "bold")]
        lines += [(detail, INKS["soft"].light, "normal")] if detail else []
        for line, (text, ink, weight) in enumerate(lines):
            drop = (line - (len(lines) - 1) / 2) * _LINE_HEIGHT
            axes.annotate(
                text,
                (x, y),
                xytext=((gap if ha == "left" else -gap) / scale, rise / scale - drop),
                textcoords="offset points",
                ha=ha,
                va="center_baseline",
                color=ink,
                fontweight=weight,
                annotation_clip=False,
            )


def write_end_labels(axes: Axes, ends: Sequence[tuple[float, Standing]], marks: Mapping[str | None, Mark]) -> None:
    """Write each rung's name to the right of the chart, beside the end of its line, or as near as the others let it.

    All limits have to be set before.
    """
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()  # sizes are known from here on
    height = axes.get_window_extent().height / axes.figure.dpi * _POINTS_PER_INCH
    low, high = axes.get_ylim()
    at = -_LINE_HEIGHT
    for y, standing in sorted(ends, key=lambda end: end[0]):
        own = (y - low) / (high - low) * height
        at = max(own, at + _LINE_HEIGHT)
        axes.annotate(
            shorten(standing.label, letters=_END_LETTERS),
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, at - own),
            textcoords="offset points",
            va="center_baseline",
            color=marks[standing.backend].ink.light,
            fontweight="bold",
            annotation_clip=False,
        )


def _cost(box: Bbox, taken: Sequence[Bbox], field: Bbox) -> float:
    """Return how much of a place hides something: what is outside of the chart counts as well."""
    hidden = sum(_area(Bbox.intersection(box, other)) for other in taken)
    return hidden + 2 * (box.width * box.height - _area(Bbox.intersection(box, field)))


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else max(box.width, 2.0) * max(box.height, 2.0)  # lines have none


def _show_tick(seconds: float, *, in_seconds: bool) -> str:
    """Return a round time without digits that say nothing."""
    if seconds == 0:
        return "0"
    return f"{seconds:,g}\u00a0s" if in_seconds else f"{seconds * 1e3:,g}\u00a0ms"
