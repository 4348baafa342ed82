"""What charts have in common: sizes, axes of times, and where the names of rungs find room.

This module decides how axes are marked and labelled. It must not know what is drawn between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.report.palette import INKS
from benchmarks.report.wording import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from benchmarks.report.palette import Mark
    from benchmarks.report.standings import Standing

__all__ = ["ROW_SHIFT", "Label", "make_panel", "make_rows", "set_time_axis", "write_labels"]

_POINTS_PER_INCH = 72.0

_PANEL_WIDTH = 360.0

_ROW_HEIGHT = 46.0

_AXIS_HEIGHT = 40.0

_LINE_HEIGHT = 13.0
"""Sizes in points, which are about pixels on the page."""

_LETTERS = 26
"""Longest name of a rung in a chart."""

ROW_SHIFT = 0.14
"""By how much of a row its marks stand below its middle: the name stands above them."""

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
    low, high = min(seconds) / 1.5, max(seconds) * 1.5
    steps = (1.0, 2.0, 5.0) if high / low < 60 else (1.0, 3.0) if high / low < 800 else (1.0,)
    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    (axes.set_ylim if vertical else axes.set_xlim)(low, high)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _show_tick(value)))


def write_labels(axes: Axes, labels: Sequence[Label], marks: Mapping[str | None, Mark]) -> None:
    """Write each rung's name beside its point: to the side where there is room, and above those already written.

    All limits have to be set before.
    """
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()  # sizes are known from here on
    box = axes.get_window_extent()
    taken: list[tuple[float, float]] = []
    for x, y, standing, detail in sorted(labels, key=lambda label: label[1]):
        across, up = axes.transData.transform((x, y))
        is_right = across - box.x0 > 0.6 * box.width
        height = _LINE_HEIGHT * (2 if detail else 1)
        shift = 9.0
        while any(
            abs(up + shift - other) < height and abs(across - beside) < 0.45 * box.width for beside, other in taken
        ):
            shift += _LINE_HEIGHT / 2
        taken.append((across, up + shift))
        name = shorten(standing.label, letters=_LETTERS)
        colour = marks[standing.backend].ink.light
        lines = ((name, 0.0, colour, "bold"), (detail, _LINE_HEIGHT, INKS["soft"].light, "normal"))
        for text, drop, ink, weight in lines:
            axes.annotate(
                text,
                (x, y),
                xytext=(-12 if is_right else 12, shift - drop),
                textcoords="offset points",
                ha="right" if is_right else "left",
                va="center",
                color=ink,
                fontweight=weight,
                annotation_clip=False,
            )


def _show_tick(seconds: float) -> str:
    """Return a round time without digits that say nothing."""
    return f"{seconds:g}\u00a0s" if seconds >= 0.9995 else f"{seconds * 1e3:g}\u00a0ms"
