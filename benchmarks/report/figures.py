"""Every figure of a run by who it belongs to, with the conditions under which it was measured.

This module decides which figures of a run can stand beside those of another, and which of them matter most. It must not
know what they are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from .conditions import day_conditions, machine_of, photos_of, punctuality_of, server_of
from .standings import median_interval, rank_metric
from .wording import show_bytes, show_count, show_figure, show_time, show_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..records import Contestant, FailoverResult, Interval, LatencyResult, QualityResult, Run
    from .conditions import Condition

__all__ = ["Figure", "Key", "list_figures"]


class Key(NamedTuple):
    """What a figure is.

    Attributes:
        who: A rung and its task, or a library.
        backend: The rung alone; None for a library.
        topic: What it is about: quality, times, memory, cost or the played day.
        name: What it is called.
        size: How many callers there were at once; 0 where that is no matter.
    """

    who: str
    backend: str | None
    topic: str
    name: str
    size: int = 0

    @property
    def spoken(self) -> str:
        """Who it is about, within a sentence."""
        return self.who if self.backend is None else self.who.replace(f"{self.backend}: ", f"{self.backend} at ", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of one run.

    Attributes:
        value: The figure.
        show: How such a figure reads.
        source: The model or version that it belongs to.
        conditions: What has to be the same for another figure to be compared with it: all of them, in order.
        interval: Of 95 % confidence.
        higher_is_better: Direction.
        is_headline: Whether it belongs to the few that matter most.
    """

    value: float
    show: Callable[[float], str]
    source: str
    conditions: tuple[Condition, ...]
    interval: Interval | None = None
    higher_is_better: bool = False
    is_headline: bool = False

    @property
    def shown(self) -> str:
        """The figure as it reads."""
        return self.show(self.value)


def list_figures(run: Run) -> dict[Key, Figure]:
    """Return all figures of a run: those of one rung and task stand together."""
    figures: dict[Key, Figure] = {}
    for result in run.quality:
        figures |= dict(_list_quality(result, run))
    for timed in run.latency:
        figures |= dict(_list_times(timed, run))
    for day in run.failover:
        figures |= dict(_list_day(day, run))
    order = list(dict.fromkeys(key.who for key in figures))
    return dict(sorted(figures.items(), key=lambda item: order.index(item[0].who)))


def _list_quality(result: QualityResult, run: Run) -> Iterator[tuple[Key, Figure]]:
    who = result.contestant
    known = [] if who.random_weights else [metric for metric in result.metrics if metric.value is not None]
    best = min(known, key=lambda metric: rank_metric(who.task, metric.name), default=None)
    for metric in known:
        yield (
            _key(who, "quality", metric.name),
            Figure(
                value=metric.value or 0.0,
                show=show_figure,
                interval=metric.interval,
                higher_is_better=metric.higher_is_better,
                source=_source(who),
                conditions=(*photos_of(run, result), *server_of(run, who)),
                is_headline=metric is best,
            ),
        )


def _list_times(result: LatencyResult, run: Run) -> Iterator[tuple[Key, Figure]]:
    who = result.contestant
    source, photos, server = _source(who), photos_of(run), server_of(run, who)
    timing = (*machine_of(run), *photos, *server)
    for name, samples in (("warm call, median", result.warm_s), ("first answer, median", result.cold_s)):
        if samples:
            figure = Figure(
                value=median(samples),
                show=show_time,
                interval=median_interval(samples),
                source=source,
                conditions=timing,
                is_headline=True,
            )
            yield _key(who, "times", name), figure
    for load in result.loads:
        callers = f"{load.concurrency} caller{'' if load.concurrency == 1 else 's'}"
        figure = Figure(
            value=load.images_per_s,
            show=show_figure,
            higher_is_better=True,
            source=source,
            conditions=timing,
            is_headline=load.concurrency > 1,
        )
        yield _key(who, "times", f"images a second, {callers}", size=load.concurrency), figure
    if result.memory_bytes is not None:
        memory = Figure(value=result.memory_bytes, show=show_bytes, source=source, conditions=machine_of(run))
        yield _key(who, "memory", "peak memory"), memory
    if result.cost_per_1000_usd is not None:
        cost = result.cost_per_1000_usd
        yield (
            _key(who, "cost", "cost of 1,000"),
            Figure(value=cost, show=show_usd, source=source, conditions=(*photos, *server), is_headline=True),
        )


def _list_day(day: FailoverResult, run: Run) -> Iterator[tuple[Key, Figure]]:
    counting, timing = day_conditions(day), (*machine_of(run), *day_conditions(day), *punctuality_of(day))
    lost = {phase.name: phase.answered_by.get("nobody", 0) for phase in day.phases}
    sums = (
        ("calls without an answer", sum(lost.values())),
        ("requests to the upper server", sum(phase.wire_requests for phase in day.phases)),
    )
    setup = day.settings.partition(";")[0]  # what follows depends on the length of the day
    who = f"{day.library}, {setup}" if setup else day.library
    for name, total in sums:
        key = Key(who, None, "the played day", f"day: {name}")
        yield key, Figure(value=total, show=show_count, source=day.version, conditions=counting, is_headline=True)
    for phase in day.phases:
        where = f"“{phase.name}”"
        for topic, name, value, show, conditions in (
            ("times of the played day", "median", phase.p50_s, show_time, timing),
            ("the played day", "requests to the upper server", phase.wire_requests, show_count, counting),
            ("the played day", "calls without an answer", lost[phase.name], show_count, counting),
        ):
            key = Key(who, None, topic, f"day: {name}, {where}")
            yield key, Figure(value=value, show=show, source=day.version, conditions=conditions)


def _key(who: Contestant, topic: str, name: str, *, size: int = 0) -> Key:
    return Key(f"{who.backend}: {who.task}", who.backend, topic, name, size)


def _source(who: Contestant) -> str:
    return f"{who.model or 'unknown model'}{' with random weights' if who.random_weights else ''}"
