"""The answer in plain sentences: how much worse, how much slower and how much cheaper each fallback is.

This module decides what follows from the figures and how it is said. It must not know how a page is laid out. Two
figures differ only where their intervals do not overlap; what was not measured is said to be unknown, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wording import (
    UNKNOWN,
    join_words,
    shorten,
    show_count,
    show_factor,
    show_figure,
    show_share,
    show_time,
    show_usd,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records import FailoverResult, Metric, Run
    from .standings import Group, Standing

__all__ = ["Piece", "Sentence", "Verdict", "judge_day", "judge_group", "list_warnings", "show_declined"]

_SAME = 0.05
"""Times and prices that differ by less are called the same: medians of a busy machine move as much by themselves."""

_MANY = 10
"""Differences of as many times the other figure are told in times, not in per cent."""

RANDOM_WEIGHTS = "time is real, quality is not measured"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some words of a sentence; strong where the answer is in them, with a backend where they name one."""

    text: str
    strong: bool = False
    backend: str | None = None


Sentence = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one task.

    Attributes:
        title: The task, and the data set.
        reference: What the others are compared with.
        sentences: One for each fallback.
    """

    title: str
    reference: Sentence
    sentences: tuple[Sentence, ...]


def judge_group(group: Group) -> Verdict:
    """Return how each rung compares with the first one that answered."""
    able = [each for each in group.standings if not each.answered_nothing and (each.metrics or each.median_s)]
    top = able[0] if able else None
    dataset = f" on {shorten(group.dataset)}" if group.dataset else ""
    return Verdict(
        title=f"{group.task}{dataset}",
        reference=_introduce(group, top),
        sentences=tuple(
            _judge(group, standing, top) if top and standing in able else _excuse(standing)
            for standing in group.standings
            if standing is not top
        ),
    )


def judge_day(result: FailoverResult) -> Sentence:
    """Return how one library came through the played day."""
    calls = sum(phase.calls for phase in result.phases)
    answers: dict[str, int] = {}
    for phase in result.phases:
        for name, count in phase.answered_by.items():
            answers[name] = answers.get(name, 0) + count
    lost = answers.pop("nobody", 0)
    by = [f"{name} {show_share(count / calls)}" for name, count in answers.items() if count]
    worst = max(result.phases, key=lambda phase: phase.p99_s, default=None)
    wire = sum(phase.wire_requests for phase in result.phases)
    return (
        Piece(result.library, strong=True),
        Piece(" answered "),
        Piece(
            f"all {show_count(calls)}" if not lost else f"{show_count(calls - lost)} of {show_count(calls)}",
            strong=True,
        ),
        Piece(f" calls of the played day{f' ({join_words(by)})' if by else ''} with "),
        Piece(f"{show_count(wire)} requests", strong=True),
        Piece(" to the upper server"),
        Piece(
            f"; 99 of 100 calls took at most {show_time(worst.p99_s)} even in its worst part, “{worst.name}”."
            if worst
            else "."
        ),
    )


def list_warnings(runs: Sequence[Run], groups: Sequence[Group]) -> list[str]:
    """Return what a reader has to know before any figure: what is not real, not finished or not alike."""
    found = []
    random = dict.fromkeys(each.label for group in groups for each in group.standings if each.random_weights)
    if random:
        found.append(f"Random weights: {join_words(random)}; {RANDOM_WEIGHTS}.")
    for number, run in enumerate(runs, start=1):
        name = "The run" if len(runs) == 1 else f"Run {number}"
        if run.stopped:
            found.append(f"{name} ended early: {run.stopped.rstrip('.')}.")
        elif run.finished_at is None:
            found.append(f"{name} is not finished: its figures cover what was done so far.")
    if len({(run.machine.processor, run.machine.cores, run.machine.accelerators) for run in runs}) > 1:
        found.append("The runs come from different machines: times of one cannot be compared with those of another.")
    found += [f"{clause}." for clause in _list_sandboxes(runs)]
    sizes = {each.quality.images for group in groups for each in group.standings if each.quality and each.has_quality}
    if sizes and min(sizes) < 100:
        found.append(
            f"Quality comes from {min(sizes)} images: small differences mean nothing, which the intervals show."
        )
    return found


def _list_sandboxes(runs: Sequence[Run]) -> list[str]:
    """Name runs that asked the sandbox, whose answers are made up."""
    numbers = [
        f"run {number}"
        for number, run in enumerate(runs, start=1)
        if isinstance(options := run.settings.get("options"), dict) and options.get("sandbox")
    ]
    if not numbers:
        return []
    where = "The" if len(runs) == 1 else f"In {join_words(numbers)}, the"
    return [f"{where} upper rung was the sandbox: its answers are made up, its times lack the network"]


def show_declined(standing: Standing) -> str:
    """Return how many images a rung answered, and why not the others."""
    if standing.quality is None or not standing.quality.images:
        return UNKNOWN
    reasons = [f"{kind} {count}" for kind, count in standing.quality.declined.items()]
    text = f"{standing.quality.answered} of {standing.quality.images}"
    return f"{text} ({join_words(reasons)})" if reasons else text


def _introduce(group: Group, top: Standing | None) -> Sentence:
    if top is None:
        return (Piece("No rung answered, so that nothing can be compared."),)
    name = group.headline([top])
    facts = [
        f"{name} {show_figure(top.metrics[name].value)}" if name else "quality not measured",
        f"{show_time(top.median_s)} a call" if top.median_s is not None else "time not measured",
        _price(top),
    ]
    model = f" ({shorten(top.model)})" if top.model and top.label == top.backend else ""
    start = "Beside " if len(group.standings) > 1 else "Only "
    return (Piece(start), Piece(top.label, backend=top.backend), Piece(f"{model}: {', '.join(facts)}."))


def _excuse(standing: Standing) -> Sentence:
    """Say why a rung is not compared."""
    name = Piece(standing.label, backend=standing.backend)
    if standing.answered_nothing:
        return (name, Piece(" answered "), Piece(show_declined(standing), strong=True), Piece("."))
    why = f" (random weights: {RANDOM_WEIGHTS})" if standing.random_weights else ""
    return (name, Piece(" was "), Piece("not measured", strong=True), Piece(f"{why}."))


def _judge(group: Group, standing: Standing, top: Standing) -> Sentence:
    return (
        Piece(standing.label, backend=standing.backend),
        Piece(" is "),
        *_judge_quality(group, standing, top),
        Piece(", "),
        *_judge_time(standing, top),
        Piece(" and "),
        *_judge_price(standing, top),
        Piece(
            "."
            if not standing.quality or not standing.quality.declined
            else f"; it answered {show_declined(standing)}."
        ),
    )


def _judge_quality(group: Group, standing: Standing, top: Standing) -> Sentence:
    unmeasured = [each for each in (standing, top) if not each.has_quality]
    name = group.headline([standing, top])
    if unmeasured or name is None or name not in standing.metrics or name not in top.metrics:
        random = [each.label for each in unmeasured if each.random_weights]
        reason = f"random weights in {join_words(random)}" if random else "no metric was measured for both"
        return (Piece("not comparable in quality", strong=True), Piece(f" ({reason})"))
    if standing.quality and top.quality and standing.quality.images != top.quality.images:
        return (Piece("not comparable in quality", strong=True), Piece(" (asked about other images)"))
    mine, other = standing.metrics[name], top.metrics[name]
    figures = f"{name} {show_figure(mine.value)} instead of {show_figure(other.value)}"
    overlap = _overlap(mine, other)
    if mine.value == other.value:
        return (Piece("as good", strong=True), Piece(f" ({figures})"))
    why = {True: "; the intervals overlap", False: "; the intervals do not overlap", None: "; without intervals"}[
        overlap
    ]
    lead = f"{'perhaps ' if overlap else ''}{_compare_values(mine, other)}"
    return (Piece(lead, strong=True), Piece(f" ({figures}{why})"))


def _compare_values(mine: Metric, other: Metric) -> str:
    """Return by which part of the other figure one is worse or better."""
    value, base = mine.value or 0.0, other.value or 0.0
    gain = (value - base) * (1 if mine.higher_is_better else -1)
    direction = "better" if gain > 0 else "worse"
    if base == 0:
        return f"{show_figure(abs(gain))} points {direction}"
    share = abs(gain / base)
    return f"{show_share(share) if share < _MANY else show_factor(share)} {direction}"


def _overlap(mine: Metric, other: Metric) -> bool | None:
    """Tell whether two intervals have values in common; None where one is unknown."""
    first, second = mine.interval, other.interval
    if first is None or second is None:
        return None
    return first.low <= second.high and second.low <= first.high


def _judge_time(standing: Standing, top: Standing) -> Sentence:
    mine, other = standing.median_s, top.median_s
    if not mine or not other:
        return (Piece("not comparable in time", strong=True), Piece(" (not timed)"))
    figures = f" ({show_time(mine)} instead of {show_time(other)})"
    if abs(mine - other) < _SAME * other:
        return (Piece("as fast", strong=True), Piece(figures))
    lead = f"{show_factor(mine / other)} as slow" if mine > other else f"{show_factor(other / mine)} as fast"
    return (Piece(lead, strong=True), Piece(figures))


def _judge_price(standing: Standing, top: Standing) -> Sentence:
    mine, other = standing.cost_per_1000_usd, top.cost_per_1000_usd
    if mine is None or other is None:
        return (Piece("not comparable in price", strong=True), Piece(" (a price is not known)"))
    figures = f" (instead of {_price(top)})" if mine == 0 else f" ({_price(standing)} instead of {_price(top)})"
    if mine == 0 or other == 0:
        if mine == other:
            return (Piece("free", strong=True), Piece(f", like {top.label}"))
        return (Piece("free" if mine == 0 else "not free", strong=True), Piece(figures))
    if abs(mine - other) < _SAME * other:
        return (Piece("as expensive", strong=True), Piece(figures))
    if mine < other:
        return (Piece(f"{show_share(1 - mine / other)} cheaper", strong=True), Piece(figures))
    return (Piece(f"{show_factor(mine / other)} as expensive", strong=True), Piece(figures))


def _price(standing: Standing) -> str:
    cost = standing.cost_per_1000_usd
    if cost is None:
        return "price not known"
    return "no charge" if cost == 0 else f"{show_usd(cost)} per 1,000 images"
