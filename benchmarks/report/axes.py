"""What charts have in common: sizes, axes of times, and where the names of rungs find room.

This module decides how axes are marked and labelled. It must not know what is drawn between them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from .palette import INKS
from .wording import shorten

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
    "set_time_axis",
    "write_labels",
]

_POINTS_PER_INCH = 72.0

_PANEL_WIDTH = 360.0

_ROW_HEIGHT = 46.0

_AXIS_HEIGHT = 40.0

_LINE_HEIGHT = 12.5

_LETTER_WIDTH = 6.4
"""Sizes in points, which are about pixels on the page."""

_LETTERS = 26
"""Longest name of a rung in a chart."""

_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
"""Ticks of one decade, from few to many."""

_MIN_TICKS = 3

ROW_SHIFT = 0.14
"""By how much of a row its marks stand below its middle: the name stands above them."""

SHORTEST_S = 1e-6
"""Seconds at which a logarithmic axis begins at the latest: a clock may say 0."""

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


def set_time_axis(axes: Axes, seconds: Sequence[float], *, vertical: bool = False) -> None:
    """Make an axis logarithmic in time, with room around what is drawn, and more ticks the shorter it is."""
    low, high = max(min(seconds), SHORTEST_S) / 1.5, max(*seconds, SHORTEST_S) * 1.5
    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    (axes.set_ylim if vertical else axes.set_xlim)(low, high)
    axis.set_major_locator(FixedLocator(_choose_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _show_tick(value)))


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return round numbers in a range: the fewest that are enough to read it."""
    ticks: list[float] = []
    for steps in _STEPS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= _MIN_TICKS:
            break
    return ticks


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


def _cost(box: Bbox, taken: Sequence[Bbox], field: Bbox) -> float:
    """Return how much of a place hides something: what is outside of the chart counts as well."""
    hidden = sum(_area(Bbox.intersection(box, other)) for other in taken)
    return hidden + 2 * (box.width * box.height - _area(Bbox.intersection(box, field)))


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else max(box.width, 2.0) * max(box.height, 2.0)  # lines have none


def _show_tick(seconds: float) -> str:
    """Return a round time without digits that say nothing."""
    return f"{seconds:g}\u00a0s" if seconds >= 0.9995 else f"{seconds * 1e3:g}\u00a0ms"
