"""Which results say nothing but that a rung was not there: they are left out, and told once in a sentence.

This module decides when a rung was not there: it has no key, is not installed, its model is not here, or it does not do
what was asked. One that was asked and failed, was too slow or had no quota was there, and its row says so. It must not
know how a sentence or a table is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .wording import join_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..records import Contestant, Example, LatencyResult, QualityResult, Run

__all__ = ["Absence", "leave_out_absent", "tell_absences"]

_NOT_THERE = frozenset({"authentication", "model_not_found", "not_ready", "not_supported"})
"""Kinds of errors that are the same for every image, and none of them a matter of how the rung works."""

_PREFIX = "Not measured: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A rung that has no figure for a task.

    Attributes:
        run: Number of the run.
        backend: The rung.
        task: The task.
        of: Whether it has none at all, or was only not timed.
        model: Who would have answered.
        reason: Why, in a sentence.
    """

    run: int
    backend: str
    task: str
    model: str | None
    of: Literal["there", "timed"]
    reason: str


def leave_out_absent(runs: Sequence[Run]) -> tuple[list[Run], tuple[Absence, ...]]:
    """Return runs without the results of rungs that were not there, and which those were."""
    timed = {_who(each.contestant) for run in runs for each in run.latency if _has_times(each)}
    kept, absences = [], []
    for number, run in enumerate(runs, start=1):
        quality = tuple(each for each in run.quality if _was_there(each, is_timed=_who(each.contestant) in timed))
        latency = tuple(each for each in run.latency if _has_times(each))
        found = list(_find_absences(run, number, [*quality, *latency]))
        examples = tuple(_without_absent(each, {absence.backend for absence in found}) for each in run.examples)
        kept.append(run.model_copy(update={"quality": quality, "latency": latency, "examples": examples}))
        absences += found
    return kept, tuple(absences)


def tell_absences(absences: Sequence[Absence], runs: Sequence[Run]) -> Iterator[str]:
    """Yield one sentence for each rung that was not there, whatever the number of tasks, runs and reasons.

    Args:
        absences: What was left out.
        runs: What is left.
    """
    for backend, of in dict.fromkeys((absence.backend, absence.of) for absence in absences):
        own = [absence for absence in absences if (absence.backend, absence.of) == (backend, of)]
        numbers = list(dict.fromkeys(absence.run for absence in own))
        remains = any(each.contestant.backend == backend for number in numbers for each in _results(runs[number - 1]))
        where = f" for {join_words(dict.fromkeys(absence.task for absence in own))}" if remains else ""
        when = "" if len(runs) == 1 else f"In {join_words(f'run {number}' for number in numbers)}, "
        yield f"{when}{backend} was not {of}{where}, and is left out: {_join_reasons(own)}."


def _join_reasons(absences: Sequence[Absence]) -> str:
    """Return each reason once; those that differ in nothing but the model are one."""
    named = dict.fromkeys(each.reason.rstrip(".") for each in absences)
    alike = dict.fromkeys(each.reason.rstrip(".").replace(each.model or "\0", "its model") for each in absences)
    return "; ".join(alike if len(alike) < len(named) else named)


def _results(run: Run) -> tuple[QualityResult | LatencyResult, ...]:
    return (*run.quality, *run.latency)


def _find_absences(run: Run, number: int, kept: Sequence[QualityResult | LatencyResult]) -> Iterator[Absence]:
    """Yield each rung and task that a run has only left-out results of, or no times where it was asked for them."""
    there = {_who(each.contestant) for each in kept}
    notes = {_who(each.contestant): each.note for each in run.latency if not _has_times(each)}
    models = {_who(each.contestant): each.contestant.model for each in _results(run)}
    for (backend, task), model in models.items():
        if (backend, task) in there and (backend, task) not in notes:
            continue
        reasons = [each.reason for each in run.quality if _who(each.contestant) == (backend, task)]
        told = (notes.get((backend, task)) or "").removeprefix(_PREFIX)
        yield Absence(
            run=number,
            backend=backend,
            task=task,
            model=model,
            of="timed" if (backend, task) in there else "there",
            reason=told or next(filter(None, reasons), None) or _guess_reason(run, backend, task),
        )


def _guess_reason(run: Run, backend: str, task: str) -> str:
    """Return the reason of a result that was written before results had one."""
    for each in run.quality:
        if _who(each.contestant) == (backend, task):
            notes = [metric.note for metric in each.metrics if metric.note]
            return join_words(each.declined) if each.declined else next(iter(notes), "it was not asked")
    return "it gave no answer"


def _was_there(result: QualityResult, *, is_timed: bool) -> bool:
    if result.images == 0:  # random weights have times, or nothing
        return is_timed
    return result.answered > 0 or not result.declined.keys() <= _NOT_THERE


def _has_times(result: LatencyResult) -> bool:
    return bool(result.warm_s or result.cold_s or result.loads)


def _who(contestant: Contestant) -> tuple[str, str]:
    return contestant.backend, contestant.task


def _without_absent(example: Example, backends: set[str]) -> Example:
    """Return an example without what rungs did not say that were not there."""
    answers = tuple(
        each
        for each in example.answers
        if each.backend not in backends or not each.declined or each.declined.partition(":")[0] not in _NOT_THERE
    )
    return example.model_copy(update={"answers": answers})
