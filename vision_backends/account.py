"""The account of one input: what was tried for it, by whom, and how it ended.

This module decides what an outcome leaves behind: attempts, traces, rows of the ledger. It must not know why
or how a backend is asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from vision_backends.errors import NotSupportedError, SpaceUnavailableError
from vision_backends.health.policy import MAYBE_BILLED
from vision_backends.storage.base import LedgerRow
from vision_backends.types import FREE, Attempt, Description, Detections, Embedding, Timing, Trace, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Model
    from vision_backends.errors import BackendError, CallerError, VisionError
    from vision_backends.health.gates import Scope
    from vision_backends.images import Image, ImageSource
    from vision_backends.types import Outcome, Task

__all__ = ["Answer", "Item", "Rung", "complete", "is_degraded", "ledger_rows", "note", "settle"]

Answer = Description | Embedding | Detections


@dataclass(slots=True)
class Item:
    """One input on its way down: what was tried for it, and how it ended."""

    source: ImageSource | str
    content: Image | str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    answer: Answer | None = None
    revision: str | None = None
    error: CallerError | None = None
    elapsed_s: float = 0.0
    opening_s: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether nobody needs to be asked any more."""
        return self.answer is not None or self.error is not None

    @property
    def opened(self) -> Image | str:
        """The content, once it has been opened."""
        if self.content is None:
            raise AssertionError("An item is opened before it walks.")
        return self.content

    @property
    def digest(self) -> str:
        """Hash of the content, for the cache."""
        if isinstance(self.opened, str):
            return hashlib.sha256(self.opened.encode("utf-8", "surrogatepass")).hexdigest()
        return self.opened.digest

    def twin(self) -> Item:
        """Return the same opened input with an account of its own, for being asked about twice at once."""
        return Item(source=self.source, content=self.content, opening_s=self.opening_s)

    def adopt(self, *twins: Item) -> None:
        """Take over what was tried for twins, and how the last of them ended."""
        for twin in twins:
            self.attempts += twin.attempts
            self.answer, self.revision, self.error = twin.answer, twin.revision, twin.error

    def discard(self, reason: str) -> None:
        """Take back an answer that may not be used after all; what it cost stays on the account."""
        if self.answer is not None:
            *before, last = self.attempts
            kind = SpaceUnavailableError.kind
            self.attempts = [*before, replace(last, outcome="failed", error=kind, message=reason)]
            self.answer = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One backend as it stands for one request, before anybody is asked.

    Attributes:
        backend: The backend.
        scope: What a closed gate applies to.
        model: What would answer; None when the backend has no model for this.
        refusal: Why it cannot be asked, in its own words; None when it can. Closed gates come on top.
    """

    backend: Backend
    scope: Scope
    model: Model | None
    refusal: BackendError | None


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
    items: Iterable[Item], rung: Rung, outcome: Outcome, *, error: VisionError, at: float, elapsed_s: float = 0.0
) -> None:
    """Note on each item why this rung has not answered it."""
    asked = outcome == "failed" and not rung.backend.local
    attempt = Attempt(
        backend=rung.backend.name,
        outcome=outcome,
        model=rung.model.name if rung.model else None,
        error=error.kind,
        message=error.message,
        remedy=error.remedy,
        code=getattr(error, "code", None),
        status=getattr(error, "status", None),
        request_id=getattr(error, "request_id", None),
        at=at,
        elapsed_s=elapsed_s,
        usage=error.usage or (Usage() if asked and error.kind in MAYBE_BILLED else FREE),
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
        usage=reduce(add, (attempt.usage for attempt in item.attempts)),
        elapsed_s=item.elapsed_s,
        timing=None if last.outcome == "cached" else _with_opening(item.answer.trace.timing, item),
    )
    return replace(item.answer, trace=trace)


def _with_opening(timing: Timing | None, item: Item) -> Timing | None:
    """Return what a backend has measured; what it took to open the image before belongs to the decoding."""
    if timing is None or timing.decode_s is None:
        return timing
    return replace(timing, decode_s=item.opening_s + timing.decode_s)


def _because(attempt: Attempt) -> str:
    """Return on one line why an attempt was no answer."""
    return f"{attempt.backend}: {' '.join((attempt.message or attempt.outcome).split()).rstrip('.')}"


def _misses(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return why a better rung has not answered; one that cannot do it at all, or did at a second try, has."""
    *before, last = attempts
    return [
        attempt
        for attempt in before
        if attempt.backend != last.backend and attempt.error not in {None, NotSupportedError.kind}
    ]


def ledger_rows(attempts: Iterable[Attempt], *, task: Task, call_id: str) -> list[LedgerRow]:
    """Return the attempts of a call as they are booked, without rungs that could never have answered."""
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
        )
        for attempt in attempts
        if attempt.outcome != "skipped" or attempt.error != NotSupportedError.kind
    ]
