"""What the tables hold: the answer in a few figures, then every measured figure, and published ones in a column apart.

This module decides which figures stand where, and which reason a missing one gets. It must not know how a table is
written, nor how figures are compared.
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..lateness import could_not_keep, tell_lateness
from .cells import Cell, Column, Table
from .standings import median_interval
from .wording import (
    RANDOM_WEIGHTS,
    UNKNOWN,
    join_words,
    shorten,
    show_bytes,
    show_count,
    show_figure,
    show_interval,
    show_time,
    show_usd,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..records import FailoverResult, LatencyResult, Load
    from .standings import Group, Standing

__all__ = [
    "summarize_days",
    "summarize_group",
    "tabulate_classes",
    "tabulate_days",
    "tabulate_quality",
    "tabulate_times",
]

_SHORT = 30
"""Letters of a reason that stands in the cell itself."""

_UNRELIABLE = "not reliable"

_MIN_FOR_P99 = 100
"""With fewer calls, the 99th percentile is the slowest one or close to it."""


def summarize_group(group: Group) -> Table:
    """Return a row for each rung with its headline figures, and beneath the table a sentence about each."""
    name = group.headline(group.standings)
    metric = next((each.metrics[name] for each in group.standings if name in each.metrics), None)
    better = "higher" if metric is None or metric.higher_is_better else "lower"
    reference = next((each for each in group.standings if each.metrics or each.median_s), None)
    return Table(
        caption=f"{group.task}{f' on {shorten(group.dataset)}' if group.dataset else ''}",
        columns=(
            Column("rung", is_number=False),
            Column(f"{name or 'quality'} (95\u00a0% interval), {better} is better"),
            Column("warm call (95\u00a0% interval)"),
            *(Column(each) for each in ("cost of 1,000", "answered")),
        ),
        rows=tuple(
            (
                _name(each),
                _metric_cell(each, name or ""),
                _median_cell(each),
                _price_cell(each),
                Cell(*_split_answers(each)),
            )
            for each in group.standings
        ),
        notes=tuple(_say(each, reference, name or "") for each in group.standings),
    )


def summarize_days(days: Sequence[FailoverResult]) -> Table:
    """Return a row for each library with the sums of its day."""
    return Table(
        caption="A day of trouble",
        columns=(
            Column("library", is_number=False),
            Column("answered"),
            Column("by", is_number=False),
            *(Column(name) for name in ("p99 in the worst phase", "requests to the upper server")),
            *([Column("calls were late by (p99)")] if any(day.lateness for day in days) else []),
        ),
        rows=tuple(
            (*_summarize_day(day), *([_lateness_cell(day)] if any(each.lateness for each in days) else []))
            for day in days
        ),
    )


def tabulate_quality(group: Group) -> Table:
    """Return a row for each rung with all of its figures of quality, and what others published of its model."""
    published = any(each.published for each in group.standings)
    names = _list_columns(group)
    return Table(
        caption=f"Quality: {group.task}{f' on {group.dataset}' if group.dataset else ''}",
        columns=(
            Column("rung", is_number=False),
            *(Column(name) for name in names),
            *(
                [Column("published by others, measured otherwise", is_number=False, is_published=True)]
                if published
                else []
            ),
        ),
        rows=tuple(
            (
                _name(each),
                *(_metric_cell(each, name) for name in names),
                *([_published_cell(each)] if published else []),
            )
            for each in group.standings
        ),
        notes=tuple(_metric_notes(group)),
    )


def tabulate_classes(group: Group) -> Table | None:
    """Return a row for each class of objects, with the headline figure of each rung; None where there is none."""
    name = group.headline(group.standings)
    found = {
        each.label: each.metrics[name].per_class or {} for each in group.standings if name and name in each.metrics
    }
    classes = sorted({label for figures in found.values() for label in figures})
    if not classes:
        return None
    return Table(
        caption=f"{name} by class",
        columns=(Column("class", is_number=False), *(Column(label) for label in found)),
        rows=tuple(
            (Cell(label), *(Cell(show_figure(figures.get(label))) for figures in found.values())) for label in classes
        ),
    )


def tabulate_times(group: Group) -> Table:
    """Return a row for each rung with all that was measured of its time and its memory."""
    timed = [each for each in group.standings if each.latency]
    sizes = sorted({load.concurrency for each in timed if each.latency for load in each.latency.loads})
    notes = [f"{each.label}: {each.latency.note}" for each in timed if each.latency and each.latency.note]
    return Table(
        caption=f"Time: {group.task}",
        columns=(
            Column("rung", is_number=False),
            *(Column(name) for name in ("first answer", "warm: median", "p90", "p99")),
            *(Column(f"images a second, {size} callers") for size in sizes),
            Column("peak memory"),
        ),
        rows=tuple(
            (
                _name(each),
                *_time_cells(each.latency),
                *_load_cells(each.latency, sizes),
                _memory_cell(each),
            )
            for each in timed
            if each.latency
        ),
        notes=tuple(notes),
    )


def tabulate_days(days: Sequence[FailoverResult]) -> Table:
    """Return a row for each library and phase of the played day."""
    return Table(
        caption="The played day",
        columns=(
            Column("phase", is_number=False),
            Column("library", is_number=False),
            Column("calls"),
            Column("answered by", is_number=False),
            *(Column(name) for name in ("median", "p90", "p99", "requests on the wire", "cost")),
        ),
        rows=tuple(
            (
                Cell(phase.name),
                Cell(f"{day.library} {day.version}"),
                Cell(show_count(phase.calls)),
                Cell(join_words(f"{name} {show_count(count)}" for name, count in phase.answered_by.items())),
                *(_phase_time(day, seconds) for seconds in (phase.p50_s, phase.p90_s, phase.p99_s)),
                Cell(show_count(phase.wire_requests)),
                Cell(show_usd(phase.cost_usd), "not known" if phase.cost_usd is None else None),
            )
            for name in dict.fromkeys(phase.name for day in days for phase in day.phases)
            for day in days
            for phase in day.phases
            if phase.name == name
        ),
        notes=(*(f"{day.library} {day.version}: {day.settings}" for day in days), *map(tell_lateness, days)),
    )


def _say(standing: Standing, reference: Standing | None, name: str) -> str:
    """Return a rung's figures in a sentence, each beside that of the rung that the others are a fallback for."""
    figures = zip(_list_headlines(standing, name), _list_headlines(reference or standing, name), strict=True)
    clauses = [
        f"{before}{mine}{'' if standing is reference or other == UNKNOWN else f' instead of {other}'}{after}"
        for (before, mine, after), (_, other, _) in figures
        if mine != UNKNOWN
    ]
    if standing.quality and standing.quality.declined:
        clauses.append(f"{_show_answers(standing)} answered")
    return f"{standing.label}: {', '.join(clauses) or 'not measured'}."


def _list_headlines(standing: Standing, name: str) -> list[tuple[str, str, str]]:
    metric = standing.metrics.get(name)
    return [
        (f"{name} ", show_figure(metric.value if metric else None), ""),
        ("", show_time(standing.median_s), " a call"),
        ("", show_usd(standing.cost_per_1000_usd), " for 1,000 images"),
    ]


def _summarize_day(day: FailoverResult) -> tuple[Cell, ...]:
    answers: Counter[str] = Counter()
    for phase in day.phases:
        answers.update(phase.answered_by)
    lost = answers.pop("nobody", 0)
    worst = max(day.phases, key=lambda phase: phase.p99_s, default=None)
    return (
        Cell(f"{day.library} {day.version}"),
        Cell(f"{show_count(answers.total())} of {show_count(answers.total() + lost)}"),
        Cell(join_words(f"{name} {show_count(count)}" for name, count in answers.items())),
        Cell(
            show_time(worst.p99_s),
            f"{worst.name}, {_UNRELIABLE}" if could_not_keep(day) else worst.name,
            tone="open" if could_not_keep(day) else None,
        )
        if worst
        else Cell(),
        Cell(show_count(sum(phase.wire_requests for phase in day.phases))),
    )


def _lateness_cell(day: FailoverResult) -> Cell:
    """Return how late calls were issued, and whether the machine kept the plan."""
    if day.lateness is None:
        return Cell(detail="not known")
    late = could_not_keep(day)
    return Cell(
        show_time(day.lateness.p99_s),
        "the machine could not keep the plan" if late else None,
        tone="worse" if late else None,
    )


def _phase_time(day: FailoverResult, seconds: float) -> Cell:
    """Return a time of the played day; one that holds the machine's own delays says so."""
    if could_not_keep(day):
        return Cell(show_time(seconds), _UNRELIABLE, tone="open")
    return Cell(show_time(seconds))


def _list_columns(group: Group) -> list[str]:
    """Return the metrics that anybody has a figure of; the first one where nobody has any."""
    names = [name for name in group.metric_names if any(name in each.metrics for each in group.standings)]
    return names or list(group.metric_names[:1])


def _name(standing: Standing) -> Cell:
    model = standing.model or "model unknown"
    return Cell(
        standing.label,
        f"{model} – random weights: {RANDOM_WEIGHTS}" if standing.random_weights else model,
        backend=standing.backend,
    )


def _metric_cell(standing: Standing, name: str) -> Cell:
    if name in standing.metrics:
        return Cell(show_figure(standing.metrics[name].value), show_interval(standing.metrics[name].interval))
    return Cell(detail=_missing_why(standing, name)[0])


def _missing_why(standing: Standing, name: str) -> tuple[str, str | None]:
    """Return why a figure is missing: in few words, and at length where there is more to say."""
    if standing.quality is None:
        return "only time was measured", None
    if not standing.has_quality:
        return "random weights" if standing.random_weights else "not asked", None
    if standing.answered_nothing:
        return "it answered none", None
    note = next((metric.note for metric in standing.quality.metrics if metric.name == name and metric.note), None)
    if note is None:
        return "not measured", None
    return (note, None) if len(note) <= _SHORT else ("see below", note)


def _show_answers(standing: Standing) -> str:
    """Return how many images a rung answered, and why not the others."""
    if standing.quality is None or not standing.quality.images:
        return UNKNOWN
    reasons = [f"{kind} {count}" for kind, count in standing.quality.declined.items()]
    text = f"{standing.quality.answered} of {standing.quality.images}"
    return f"{text} ({join_words(reasons)})" if reasons else text


def _split_answers(standing: Standing) -> tuple[str, str | None]:
    text, _, reasons = _show_answers(standing).partition(" (")
    return text, reasons.removesuffix(")") or ("not asked" if text == UNKNOWN else None)


def _median_cell(standing: Standing) -> Cell:
    if standing.median_s is None:
        return Cell(detail="not timed")
    interval = median_interval(standing.latency.warm_s) if standing.latency else None
    return Cell(show_time(standing.median_s), show_interval(interval, show_time) or "no interval")


def _price_cell(standing: Standing) -> Cell:
    cost = standing.cost_per_1000_usd
    return Cell(show_usd(cost), "not known" if cost is None else None)


def _published_cell(standing: Standing) -> Cell:
    if not standing.published:
        return Cell(detail="none known")
    return Cell("; ".join(f"{each.metric}: {each.value:g}, {each.source}" for each in standing.published))


def _metric_notes(group: Group) -> list[str]:
    """Return what computed the figures, what has to be known beside them, and at length why some are missing."""
    tools: dict[str, dict[str, None]] = {}
    notes: dict[tuple[str, str], list[tuple[str, str]]] = {}
    shown = _list_columns(group)
    lower: dict[str, None] = {}
    for standing in group.standings:
        for name in dict.fromkeys(metric.name for metric in (standing.quality.metrics if standing.quality else ())):
            metric = standing.metrics.get(name)
            short, long = _missing_why(standing, name)
            note = metric.note if metric else long or (None if name in shown else short)
            if metric:
                tools.setdefault(metric.implementation, {})[name] = None
                lower |= {} if metric.higher_is_better else {name: None}
            if note:
                notes.setdefault((note, "" if metric else f"{UNKNOWN} "), []).append((name, standing.label))
    better = f"Lower is better for {join_words(lower)}, higher for all others." if lower else "Higher is better."
    return [
        f"Beneath each figure: its 95\u00a0% confidence interval, by bootstrap over images. {better}",
        *(f"{join_words(names)} by {tool}." for tool, names in tools.items()),
        *(f"{dash}{_gather_places(places)}: {note.rstrip('.')}." for (note, dash), places in notes.items()),
    ]


def _gather_places(places: Iterable[tuple[str, str]]) -> str:
    """Return metrics with the rungs that a note is about: ``"mAP and mAP50 (openai and local)"``."""
    rungs: dict[str, list[str]] = {}
    for name, label in places:
        rungs.setdefault(name, []).append(label)
    names: dict[str, list[str]] = {}
    for name, labels in rungs.items():
        names.setdefault(join_words(labels), []).append(name)
    return "; ".join(f"{join_words(metrics)} ({labels})" for labels, metrics in names.items())


def _time_cells(result: LatencyResult) -> list[Cell]:
    cold, warm = result.cold_s, result.warm_s
    cells = [Cell(show_time(median(cold)), _spread(cold)) if cold else Cell(detail="not measured")]
    if not warm:
        return [*cells, *[Cell(detail="not measured")] * 3]
    interval = median_interval(warm)
    p90, p99 = (float(each) for each in np.percentile(warm, [90, 99]))
    detail = show_interval(interval, show_time) or f"{len(warm)} calls: no interval"
    return [
        *cells,
        Cell(show_time(median(warm)), detail),
        Cell(show_time(p90)),
        Cell(show_time(p99), None if len(warm) >= _MIN_FOR_P99 else f"of {len(warm)} calls"),
    ]


def _spread(samples: Sequence[float]) -> str | None:
    return (
        f"{show_time(min(samples))} to {show_time(max(samples))}, {len(samples)} processes"
        if len(samples) > 1
        else None
    )


def _load_cells(result: LatencyResult, sizes: Sequence[int]) -> list[Cell]:
    loads = {load.concurrency: load for load in result.loads}
    return [_load_cell(loads[size]) if size in loads else Cell(detail="not measured") for size in sizes]


def _load_cell(load: Load) -> Cell:
    failed = f", {show_count(load.failed)} of {show_count(load.calls)} failed" if load.failed else ""
    return Cell(show_figure(load.images_per_s), f"p90 {show_time(load.p90_s)}, p99 {show_time(load.p99_s)}{failed}")


def _memory_cell(standing: Standing) -> Cell:
    size = standing.latency.memory_bytes if standing.latency else None
    return Cell(show_bytes(size), "not measured" if size is None else None)
