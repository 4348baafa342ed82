"""What has changed from one run to another: every figure that both hold, and whether the change means something.

This module decides which figures of two runs belong together and when a change counts. It must not know how it is
shown. Where both sides have an interval, a change counts if the intervals do not overlap; where one has none, that
is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from .cells import Cell, Column, Table
from .standings import median_interval
from .wording import (
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

    from ..records import Contestant, Interval, Run

__all__ = ["compare_runs"]

_RULE = "A change counts where the two 95 % intervals do not overlap; without intervals, that is not known."

_Key = tuple[str, str | None, str]
"""A rung and its task, or a library; the rung alone; and the figure's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """One figure of one run; ``source`` is the model or version that it belongs to."""

    value: float
    show: Callable[[float], str]
    source: str
    interval: Interval | None = None
    higher_is_better: bool = False


def compare_runs(runs: Sequence[Run]) -> list[Table]:
    """Return a table for each later run beside the first one, without runs that have no figure in common with it."""
    first, *others = (_list_figures(run) for run in runs)
    return [
        Table(
            caption=f"Run {number} beside run 1",
            columns=(
                Column("rung", is_number=False),
                Column("figure", is_number=False),
                *(Column(name) for name in ("run 1", f"run {number}", "change")),
                Column("does it count?", is_number=False),
            ),
            rows=tuple(_compare(key, first[key], figures[key]) for key in first if key in figures),
            notes=(_RULE,),
        )
        for number, figures in enumerate(others, start=2)
        if first.keys() & figures.keys()
    ]


def _list_figures(run: Run) -> dict[_Key, _Figure]:
    """Return all figures of a run: those of one rung and task stand together."""
    figures = dict([*_list_quality(run), *_list_times(run), *_list_days(run)])
    order = list(dict.fromkeys(who for who, _, _ in figures))
    return dict(sorted(figures.items(), key=lambda item: order.index(item[0][0])))


def _list_quality(run: Run) -> Iterator[tuple[_Key, _Figure]]:
    for result in run.quality:
        who = result.contestant
        for metric in () if who.random_weights else result.metrics:
            if metric.value is not None:
                name = f"{metric.name} on {result.dataset}, {result.images} images"
                yield (
                    _key(who, name),
                    _Figure(
                        value=metric.value,
                        show=show_figure,
                        interval=metric.interval,
                        higher_is_better=metric.higher_is_better,
                        source=_source(who),
                    ),
                )


def _list_times(run: Run) -> Iterator[tuple[_Key, _Figure]]:
    for result in run.latency:
        who = result.contestant
        source = _source(who)
        for name, samples in (("warm, median", result.warm_s), ("first answer, median", result.cold_s)):
            if samples:
                interval = median_interval(samples)
                yield _key(who, name), _Figure(value=median(samples), show=show_time, interval=interval, source=source)
        for load in result.loads:
            name, rate = f"images a second, {load.concurrency} callers", load.images_per_s
            yield _key(who, name), _Figure(value=rate, show=show_figure, higher_is_better=True, source=source)
        if result.memory_bytes is not None:
            yield _key(who, "peak memory"), _Figure(value=result.memory_bytes, show=show_bytes, source=source)
        if result.cost_per_1000_usd is not None:
            yield _key(who, "cost of 1,000"), _Figure(value=result.cost_per_1000_usd, show=show_usd, source=source)


def _list_days(run: Run) -> Iterator[tuple[_Key, _Figure]]:
    for day in run.failover:
        for phase in day.phases:
            where = f"“{phase.name}”, {phase.calls} calls"
            lost = phase.answered_by.get("nobody", 0)
            for name, value, show in (
                ("median", phase.p50_s, show_time),
                ("requests on the wire", phase.wire_requests, show_count),
                ("calls without an answer", lost, show_count),
            ):
                yield (day.library, None, f"{name}, {where}"), _Figure(value=value, show=show, source=day.version)


def _key(who: Contestant, name: str) -> _Key:
    return f"{who.backend}: {who.task}", who.backend, name


def _source(who: Contestant) -> str:
    return f"{who.model or 'unknown model'}{' with random weights' if who.random_weights else ''}"


def _compare(key: _Key, before: _Figure, after: _Figure) -> tuple[Cell, ...]:
    who, backend, name = key
    changed = f"{before.source} → {after.source}" if before.source != after.source else None
    return (
        Cell(who, changed, backend=backend),
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
