"""One rung's turn: cache, gate, backend, in this order, and what is noted of each.

This module decides what every outcome of one attempt means. It must not know which rung comes next, any concrete
backend, or how images are decoded.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, TypeVar

from vision_backends.errors import (
    BackendError,
    CallerError,
    InvalidReplyError,
    NotReadyError,
    TimedOutError,
    UnavailableError,
    VisionError,
)
from vision_backends.routing.call import Answer, Item, Rung, Turn
from vision_backends.routing.retries import SHORT_PAUSE_S
from vision_backends.routing.trace import ledger_rows, note, settle
from vision_backends.routing.wait_queue import Lines
from vision_backends.storage.cache_codec import decode, encode
from vision_backends.storage.cache_keys import cache_key
from vision_backends.types import Description, Detections, Embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.health.admission import AdmissionControl, Permit, Scope
    from vision_backends.routing.warm_up import WarmUps
    from vision_backends.routing.workers import Workers
    from vision_backends.storage.base import Answers, Ledger
    from vision_backends.types import Outcome, Task, Usage

__all__ = ["Attempts"]

ANSWER_TYPES: dict[Task, type[Answer]] = {
    "describe": Description,
    "embed": Embedding,
    "embed_text": Embedding,
    "detect": Detections,
}

LONGEST_NAP_S = 5.0
"""How long a patient call sleeps before it looks at a blocked gate again."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Attempts:
    """Makes single attempts. Safe for many threads.

    Args:
        health: The gates that every rung stands behind.
        workers: Threads in which backends are called, so that a deadline holds whatever they do.
        warm_ups: Makes a rung ready that had to be passed by.
        answers: Where answers are kept.
        ledger: Where late answers are booked.
        caching: Whether they are.
        clock: Where time comes from.
    """

    def __init__(
        self,
        *,
        health: AdmissionControl,
        workers: Workers,
        warm_ups: WarmUps,
        answers: Answers,
        ledger: Ledger,
        caching: bool,
        clock: Clock,
    ) -> None:
        self._health = health
        self._workers = workers
        self._warm_ups = warm_ups
        self._answers = answers
        self._ledger = ledger
        self._caching = caching
        self._lines: Lines[Scope] = Lines()
        self.clock = clock

    def expected_s(self, rung: Rung, request: Request, *, percent: float = 90.0) -> float:
        """Return the seconds that so many percent of a rung's calls are known or expected to take."""
        return self._health.expected_s(rung.scope, rung.backend.expected_s(request), percent=percent)

    def blocked(self, rung: Rung) -> BackendError | None:
        """Return why a rung would not be asked now, or None when it would."""
        return rung.refusal or self._health.peek(rung.scope)

    def flight_key(self, turn: Turn, items: Sequence[Item]) -> str | None:
        """Return what identifies a call that others may be making as well; None where answers are not shared."""
        return _key(turn, items[0]) if self._caching and len(items) == 1 else None

    def recall(self, turn: Turn, items: Sequence[Item]) -> list[Item]:
        """Settle the items that this rung has answered before; return those that nobody has."""
        pending = [item for item in items if not item.settled]
        if not self._caching or turn.rung.model is None:
            return pending
        for item in pending:
            kept = self._answers.get(_key(turn, item))
            answer = None if kept is None else decode(kept)
            if isinstance(answer, ANSWER_TYPES[turn.call.request.task]):
                settle(item, turn.rung, answer, "cached", at=self.clock.time())
        left = [item for item in pending if not item.settled]
        turn.call.tick(len(pending) - len(left))
        return left

    def make(self, turn: Turn, items: Sequence[Item]) -> BackendError | None:
        """Put one call to a backend; settle its items, or note on them why not.

        Returns:
            What it failed with; None when it answered, was not asked, or the fault was the caller's.
        """
        rung, request = turn.rung, turn.call.request
        permit = self.admit(turn, items)
        if permit is None:
            return None
        started = self.clock.monotonic()
        try:
            answers = self._call(turn, items, permit)
        except CallerError as error:
            permit.released(usage=error.usage)
            self._blame(turn, items, error)
        except BackendError as error:
            elapsed_s = self.clock.monotonic() - started
            permit.failed(error, elapsed_s=elapsed_s, usage=error.usage)
            self.note(items, turn, "failed", error, elapsed_s=elapsed_s)
            return error
        except BaseException:
            permit.released()
            raise
        else:
            elapsed_s = self.clock.monotonic() - started
            permit.succeeded(usage=_usage(answers), elapsed_s=elapsed_s, limits=rung.backend.rate_limits(request))
            for item, answer in zip(items, answers, strict=True):
                self.settle(item, turn, answer, elapsed_s=elapsed_s)
            turn.call.tick(len(items))
        return None

    def admit(self, turn: Turn, items: Sequence[Item]) -> Permit | None:
        """Return the permission to ask, or None after noting why there is none."""
        if turn.timeout_s(items) <= 0:
            self.note(items, turn, "skipped", TimedOutError("No time was left of the deadline."))
            return None
        try:
            if turn.call.patience_s is None or turn.rung.backend.local:
                return self._enter(turn, items)
            return self._wait_and_enter(turn, items, turn.call.patience_s)
        except BackendError as closed:
            self.note(items, turn, "skipped", closed)
            return None

    def _enter(self, turn: Turn, items: Sequence[Item]) -> Permit:
        backend = turn.rung.backend
        estimate = backend.estimate(turn.call.request, [item.opened for item in items])  # type: ignore[arg-type]
        return self._health.admit(turn.rung.scope, timeout_s=turn.timeout_s(items), estimate=estimate)

    def _wait_and_enter(self, turn: Turn, items: Sequence[Item], patience_s: float) -> Permit:
        """Enter when the gate lets somebody in, in the order in which the waiting have come."""
        ends = self.clock.monotonic() + patience_s
        with self._lines.stand(turn.rung.scope, timeout_s=patience_s) as is_next:
            while True:
                try:
                    return self._enter(turn, items)
                except BackendError as closed:
                    # Not longer than a moment at once: somebody may have topped up and reset the gate.
                    pause_s = min(closed.retry_after_s or SHORT_PAUSE_S, LONGEST_NAP_S)
                    if not is_next or self.clock.monotonic() + pause_s > ends:
                        raise
                self.clock.sleep(pause_s)

    def settle(self, item: Item, turn: Turn, answer: Answer, *, elapsed_s: float) -> None:
        """Give an item a fresh answer, and keep it for the next time."""
        self._keep(turn, item, answer)
        settle(item, turn.rung, answer, "answered", at=self.clock.time(), elapsed_s=elapsed_s)

    def _blame(self, turn: Turn, items: Sequence[Item], error: CallerError) -> None:
        """Let the one item that is at fault fail; the others of its batch are asked for again, each alone."""
        if len(items) > 1:
            for item in items:
                self.make(turn, [item])
            return
        self.note(items, turn, "failed", error)
        items[0].error = error
        turn.call.tick(1)

    def _call(self, turn: Turn, items: Sequence[Item], permit: Permit) -> Sequence[Answer]:
        request, timeout_s = turn.call.request, turn.timeout_s(items)
        method = getattr(turn.rung.backend, request.task)
        inputs = [item.opened for item in items]

        def ask() -> Sequence[Answer]:
            return _verified(method(inputs, request, timeout_s=timeout_s), turn.rung, request, len(inputs))

        def keep_late(answers: Sequence[Answer]) -> None:
            """An answer that came too late was paid for all the same: the next call shall have it."""
            late = [Item(source=item.source, content=each) for item, each in zip(items, inputs, strict=True)]
            for item, answer in zip(late, answers, strict=True):
                self.settle(item, turn, answer, elapsed_s=timeout_s)
            permit.corrected(_usage(answers))
            self.book_late(turn, late)

        return self.run(turn, ask, timeout_s, on_late=keep_late)

    def run(
        self, turn: Turn, ask: Callable[[], T], timeout_s: float, *, on_late: Callable[[T], object] | None = None
    ) -> T:
        """Return what a backend answers in time; a bug in it counts as an outage.

        Raises:
            BackendError: It did not answer.
            CallerError: The request is at fault.
        """
        run = self._workers.run_here if turn.rung.backend.punctual else self._workers.run_within
        try:
            return run(ask, timeout_s, on_late=on_late)
        except (BackendError, CallerError):
            raise
        except Exception as crash:
            _log.exception("The %s backend crashed; the next rung is asked.", turn.rung.backend.name)
            raise UnavailableError(
                f"The backend crashed with {type(crash).__name__}: {crash}",
                remedy="This is a bug in the backend; the log has its traceback.",
                code=type(crash).__name__,
            ) from crash

    def book_late(self, turn: Turn, items: Sequence[Item]) -> None:
        """Write down what answers have cost that nobody waited for any more, beside the attempt without them."""
        late = [
            replace(item.attempts[-1], outcome="failed", error="timed_out", code="came_late")
            for item in items
            if item.answer is not None
        ]
        self._ledger.record(ledger_rows(late, task=turn.call.request.task, call_id=secrets.token_hex(8)))

    def pass_by(self, items: Sequence[Item], turn: Turn, refusal: BackendError) -> None:
        """Note why a rung is not asked; one that is not ready is made so for the next time, if it can be."""
        self.note(items, turn, "skipped", refusal)
        if isinstance(refusal, NotReadyError):
            self._warm_ups.begin_unless_tried(turn.rung.backend, turn.call.request)

    def note(
        self, items: Sequence[Item], turn: Turn, outcome: Outcome, error: VisionError, *, elapsed_s: float = 0.0
    ) -> None:
        """Note on each item why this rung has not answered it."""
        note(items, turn.rung, outcome, error=error, at=self.clock.time(), elapsed_s=elapsed_s)

    def _keep(self, turn: Turn, item: Item, answer: Answer) -> None:
        if not self._caching:
            return
        try:
            kept = encode(answer)
        except (TypeError, ValueError) as error:
            _log.warning("An answer of %s cannot be cached, as it is no plain JSON: %s", turn.rung.backend.name, error)
        else:
            self._answers.put(_key(turn, item), kept)


def _usage(answers: Sequence[Answer]) -> Usage:
    return reduce(add, (answer.trace.usage for answer in answers))


def _verified(answers: Sequence[Answer], rung: Rung, request: Request, count: int) -> Sequence[Answer]:
    """Return the answers if they are what the contract promises; a backend is not trusted blindly."""
    kind = ANSWER_TYPES[request.task]
    if len(answers) != count or not all(isinstance(answer, kind) for answer in answers):
        raise InvalidReplyError(f"The backend returned something else than {count} {kind.__name__} records.")
    space = rung.model.space if rung.model else None
    for answer in answers:
        if isinstance(answer, Embedding) and answer.space != space:
            raise InvalidReplyError(f"It announced the space {space!r} and returned {answer.space!r}.")
    return answers


def _key(turn: Turn, item: Item) -> str:
    request, model = turn.call.request, turn.rung.model
    options = asdict(request)
    options.pop("space", None)  # the model's space is the one that counts
    return cache_key(
        task=request.task,
        content=item.digest,
        backend=turn.rung.backend.name,
        model={} if model is None else asdict(model),
        options=options,
    )
