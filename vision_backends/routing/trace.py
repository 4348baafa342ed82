"""The account of one input: what was tried for it, by whom, and how it ended.

This module decides what an outcome leaves behind: attempts, traces, rows of the ledger. It must not know why
or how a backend is asked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from vision_backends.backends.rung_names import tell_rung
from vision_backends.errors import last_of_each
from vision_backends.health.policy import MAYBE_BILLED
from vision_backends.storage.base import LedgerRow
from vision_backends.types import FREE, Attempt, Reply, Timing, Trace, Usage

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from vision_backends.errors import VisionError
    from vision_backends.routing.call import Answer, Item, Rung
    from vision_backends.types import Outcome, Purpose

__all__ = ["ESTIMATED", "complete", "is_degraded", "ledger_rows", "note", "settle"]


ESTIMATED = "estimated"
"""Code of an attempt that was given up, whose usage is what it was estimated to take at most."""


def settle(item: Item, rung: Rung, answer: Answer, outcome: Outcome, *, at: float, elapsed_s: float = 0.0) -> None:
    """Give an item its answer, and note who gave it."""
    model = rung.model
    item.answer = answer
    item.revision = answer.trace.revision or (model.revision if model else None)
    item.attempts.append(
        Attempt(
            backend=rung.backend.name,
            outcome=outcome,
            model=answer.trace.model or (model.name if model else None),
            at=at,
            elapsed_s=elapsed_s,
            usage=FREE if outcome == "cached" else answer.trace.usage,
        )
    )


def note(
    items: Iterable[Item],
    rung: Rung,
    outcome: Outcome,
    *,
    error: VisionError,
    at: float,
    elapsed_s: float = 0.0,
    usage: Usage | None = None,
) -> None:
    """Note on each item why this rung has not answered it.

    Args:
        items: The inputs.
        rung: Who was asked, or passed over.
        outcome: Which of the two.
        error: Why.
        at: When, in seconds since 1970 UTC.
        elapsed_s: How long it took.
        usage: What it is estimated to have consumed, where the error does not say; the attempt's code is then
            ``"estimated"``. By default nothing, or unknown where a server may have charged.
    """
    tell_rung(error, rung.backend)
    asked = outcome == "failed" and not rung.backend.local
    attempt = Attempt(
        backend=rung.backend.name,
        outcome=outcome,
        model=rung.model.name if rung.model else None,
        error=error.kind,
        message=error.message,
        remedy=error.remedy,
        code=getattr(error, "code", None) or (ESTIMATED if usage not in {None, FREE} else None),
        status=getattr(error, "status", None),
        request_id=getattr(error, "request_id", None),
        retry_after_s=getattr(error, "retry_after_s", None),
        at=at,
        elapsed_s=elapsed_s,
        usage=error.usage or usage or (Usage() if asked and error.kind in MAYBE_BILLED else FREE),
    )
    for item in items:
        item.attempts.append(attempt)


def is_degraded(item: Item) -> bool:
    """Return whether an item has an answer that a better rung should have given."""
    return item.answer is not None and bool(_misses(item.attempts))


def complete(item: Item) -> Answer | None:
    """Return an item's answer with its whole trace, or None when it has none."""
    if item.answer is None:
        return None
    last = item.attempts[-1]
    missed = [_because(attempt) for attempt in _misses(item.attempts)]
    trace = Trace(
        backend=last.backend,
        model=last.model,
        revision=item.revision,
        degraded=bool(missed),
        reason="; ".join(missed) or None,
        cached=last.outcome == "cached",
        attempts=tuple(item.attempts),
        usage=reduce(add, [attempt.usage for attempt in item.attempts]),
        elapsed_s=item.elapsed_s,
        flawed_boxes=item.answer.trace.flawed_boxes,
        notes=(*item.notes, *item.answer.trace.notes),
        timing=None if last.outcome == "cached" else _with_opening(item.answer.trace.timing, item),
    )
    if isinstance(item.answer, Reply):
        return replace(item.answer, trace=trace, sources=item.names)
    return replace(item.answer, trace=trace, source=item.names[0] if item.names else None)


def _with_opening(timing: Timing | None, item: Item) -> Timing | None:
    """Return what a backend has measured; what it took to open the image before belongs to the decoding."""
    if timing is None or timing.decode_s is None:
        return timing
    return replace(timing, decode_s=item.opening_s + timing.decode_s)


def _because(attempt: Attempt) -> str:
    """Return on one line why an attempt was no answer."""
    return f"{attempt.backend}: {' '.join((attempt.message or attempt.outcome).split()).rstrip('.')}"


def _misses(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return why better rungs have not answered: the last attempt of each that should have."""
    *before, last = attempts
    return last_of_each([each for each in before if each.backend != last.backend and each.is_miss])


def ledger_rows(
    attempts: Iterable[Attempt], *, task: Purpose, call_id: str, degraded: Container[int] = ()
) -> list[LedgerRow]:
    """Return the attempts of a call as they are booked, without rungs that could never have answered.

    Args:
        attempts: What was tried, for one input after the other.
        task: What for.
        call_id: The call's.
        degraded: The identities of those that have answered in place of a better rung.
    """
    return [
        LedgerRow(
            at=attempt.at,
            call_id=call_id,
            task=task,
            backend=attempt.backend,
            outcome=attempt.outcome,
            model=attempt.model,
            error=attempt.error,
            code=attempt.code,
            request_id=attempt.request_id,
            elapsed_s=attempt.elapsed_s,
            input_tokens=attempt.usage.input_tokens,
            output_tokens=attempt.usage.output_tokens,
            cost_usd=attempt.usage.cost_usd,
            degraded=None if attempt.error is not None else id(attempt) in degraded,
        )
        for attempt in attempts
        if attempt.is_miss or attempt.error is None
    ]
