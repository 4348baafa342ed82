"""From what is in the run file to the result of one rung in one task.

This module decides which figures stand for many calls. It must not ask anybody anything.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from ..records import LatencyResult, Split
from .cold import cold_answers
from .load import loads_of
from .stage import CAPTION_WORDS, SERVICE_S
from .warm import warm_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..run_file import RunFile
    from .stage import Stage
    from .subjects import Sample, Subject

__all__ = ["split_of", "summed_up"]

PARTS = ("decode_s", "queue_s", "model_s", "wire_s")


def summed_up(subject: Subject, stage: Stage, run_file: RunFile) -> LatencyResult:
    """Return what was measured of a rung; a note says what a reader has to know beside it."""
    samples, failures = warm_samples(stage.plan, run_file, subject)
    cold = cold_answers(stage.plan, run_file, subject)
    memory_bytes = [each["memory_bytes"] for each in cold if each["memory_bytes"] is not None]
    return LatencyResult(
        contestant=subject.contestant,
        cold_s=tuple(each["elapsed_s"] for each in cold),
        warm_s=tuple(sample.elapsed_s for sample in samples),
        split=split_of(samples),
        loads=loads_of(stage.plan, run_file, subject),
        memory_bytes=max(memory_bytes, default=None),
        cost_per_1000_usd=None if stage.sandboxed and subject.name == "openai" else _cost_usd(samples),
        note=_note(subject, stage, failures, measured=bool(samples)),
    )


def split_of(samples: Sequence[Sample]) -> Split:
    """Return the median of each part of the time, and of what is left of each call."""
    timings = [(sample, sample.timing) for sample in samples if sample.timing is not None]
    medians = {
        part: median(known)
        for part in PARTS
        if (known := [seconds for _, timing in timings if (seconds := timing[part]) is not None])
    }
    rests = [sample.elapsed_s - sum(timing[part] or 0.0 for part in PARTS) for sample, timing in timings]
    return Split(**medians, other_s=max(0.0, median(rests)) if medians else None)


def _cost_usd(samples: Sequence[Sample]) -> float | None:
    """Return what a thousand answers cost; None where one of them has no price."""
    known = [sample.usd for sample in samples if sample.usd is not None]
    return 1000 * fmean(known) if known and len(known) == len(samples) else None


def _note(subject: Subject, stage: Stage, failures: Sequence[str], *, measured: bool) -> str | None:
    notes = []
    if subject.declined is not None:
        notes.append(f"{'Measured no further' if measured else 'Not measured'}: {subject.declined}")
    elif stage.sandboxed and subject.name == "openai":
        talk, vector = SERVICE_S.values()
        notes.append(
            "Measured against a server on this machine that takes as long as a hosted model is assumed to take "
            f"(median {talk:g} s for an answer in words, {vector:g} s for a vector); costs nothing."
        )
    if subject.contestant.random_weights:
        notes.append("Random weights of the true size: its time is real, its quality is not measured.")
        if subject.task == "describe":
            notes.append(f"Captions are cut at {CAPTION_WORDS} words (20 tokens), about where real ones end.")
    if failures:
        notes.append(f"{len(failures)} of {stage.plan.rounds} warm calls failed, the last one: {failures[-1]}")
    return " ".join(notes) or None
