"""What has changed from one run to another: every figure that both hold, and whether the change means something.

This module decides which figures of two runs belong together and when a change counts. It must not know how it is
shown. Where both sides have an interval, a change counts if the intervals do not overlap; where one has none, nobody
can say.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.report.cells import Cell, Column, Table
from benchmarks.report.standings import median_interval
from benchmarks.report.wording import (
    show_bytes,
    show_count,
    show_figure,
    show_interval,
    show_share,
    show_time,
    show_usd,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.records import Contestant, Interval, Run

__all__ = ["compare_runs"]

_NO_WEIGHTS = "random weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """One figure of one run, with whatever is needed to set another beside it."""

    value: float
    show: Callable[[float], str]
    interval: Interval | None = None
    higher_is_better: bool = False
    model: str | None = None


def compare_runs(runs: Sequence[Run]) -> list[Table]:
    """Return a table for each later run, beside the first one; none where they have no figure in common."""
    first, *others = (dict(_list_figures(run)) for run in runs)
    return [
        Table(
            caption=f"Run {number} beside run 1",
            columns=(
                Column("rung", is_number=False),
                Column("figure", is_number=False),
                Column("run 1"),
                Column(f"run {number}"),
                Column("change"),
                Column("does it count?", is_number=False),
            ),
            rows=tuple(_compare(key, first[key], figures[key]) for key in first if key in figures),
            notes=(
                "A change counts where the two 95 % intervals do not overlap. "
                "Of figures without an interval nobody can say.",
            ),
        )
        for number, figures in enumerate(others, start=2)
        if first.keys() & figures.keys()
    ]


Key = tuple[str, str | None, str]
"""The rung or library and its task, its backend, and the figure's name."""


def _list_figures(run: Run) -> Iterator[tuple[Key, _Figure]]:
    """Yield all figures of a run."""
    for quality in run.quality:
        who = quality.contestant
        for metric in () if who.random_weights else quality.metrics:
            if metric.value is not None:
                name = f"{metric.name} on {quality.dataset}, {quality.images} images"
                yield (
                    _key(who, name),
                    _Figure(
                        value=metric.value,
                        show=show_figure,
                        interval=metric.interval,
                        higher_is_better=metric.higher_is_better,
                        model=who.model,
                    ),
                )
    for timed in run.latency:
        who = timed.contestant
        if timed.warm_s:
            interval = median_interval(timed.warm_s)
            yield (
                _key(who, "warm median"),
                _Figure(value=median(timed.warm_s), show=show_time, interval=interval, model=who.model),
            )
        if timed.cold_s:
            interval = median_interval(timed.cold_s)
            yield (
                _key(who, "first answer, median"),
                _Figure(value=median(timed.cold_s), show=show_time, interval=interval, model=who.model),
            )
        for load in timed.loads:
            yield (
                _key(who, f"images a second, {load.concurrency} at once"),
                _Figure(value=load.images_per_s, show=show_figure, higher_is_better=True, model=who.model),
            )
        if timed.memory_bytes is not None:
            yield _key(who, "peak memory"), _Figure(value=timed.memory_bytes, show=_bytes, model=who.model)
        if timed.cost_per_1000_usd is not None:
            yield _key(who, "cost of 1,000"), _Figure(value=timed.cost_per_1000_usd, show=show_usd, model=who.model)
    for day in run.failover:
        for phase in day.phases:
            where = f"“{phase.name}”, {phase.calls} calls"
            yield (day.library, None, f"median, {where}"), _Figure(value=phase.p50_s, show=show_time, model=day.version)
            yield (
                (day.library, None, f"requests on the wire, {where}"),
                _Figure(value=phase.wire_requests, show=show_count, model=day.version),
            )


def _key(who: Contestant, name: str) -> Key:
    return f"{who.backend}: {who.task}", who.backend, name


def _bytes(size: float) -> str:
    return show_bytes(round(size))


def _compare(key: Key, before: _Figure, after: _Figure) -> tuple[Cell, ...]:
    who, backend, name = key
    models = [figure.model or "unknown" for figure in (before, after)]
    return (
        Cell(who, f"{models[0]} → {models[1]}" if models[0] != models[1] else None, backend=backend),
        Cell(name),
        _show(before),
        _show(after),
        Cell(_change(before, after)),
        _verdict(before, after),
    )


def _show(figure: _Figure) -> Cell:
    return Cell(figure.show(figure.value), show_interval(figure.interval, figure.show))


def _change(before: _Figure, after: _Figure) -> str:
    delta = after.value - before.value
    if delta == 0:
        return "none"
    sign = "+" if delta > 0 else "−"
    share = f" ({sign}{show_share(abs(delta / before.value))})" if before.value else ""
    return f"{sign}{before.show(abs(delta))}{share}"


def _verdict(before: _Figure, after: _Figure) -> Cell:
    if after.value == before.value:
        return Cell("= equal")
    first, second = before.interval, after.interval
    if first is None or second is None:
        return Cell("? no interval", tone="open")
    if first.low <= second.high and second.low <= first.high:
        return Cell("≈ no: the intervals overlap", tone="open")
    if (after.value > before.value) == after.higher_is_better:
        return Cell("▲ yes: better", tone="better")
    return Cell("▼ yes: worse", tone="worse")
