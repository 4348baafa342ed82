"""The record of every call: its attempts in the ledger, its answers in the cache, and events for its listeners.

This module decides that nothing is forgotten, however a call ends. It must not know how answers come about, nor where
and when what it records is written.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from vision_backends.engine.identifiers import Identifiers
from vision_backends.observability.events import AttemptEvent, CallEvent
from vision_backends.routing.logged import logged
from vision_backends.routing.trace import is_degraded, ledger_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.observability.call_log import CallLog
    from vision_backends.observability.events import Events
    from vision_backends.routing.call import Item
    from vision_backends.routing.standby import Standby
    from vision_backends.storage.guarded import GuardedStores
    from vision_backends.types import Attempt, Purpose, Task

__all__ = ["CallRecorder"]

T = TypeVar("T")

LATEST = 64
"""Keys that are remembered for a call that has looked up its answer just before it was kept."""


class CallRecorder:
    """Writes calls down. Safe for many threads.

    Args:
        stores: Where answers are kept and attempts are booked.
        events: Who is told.
        standby: Who makes the next rung ready at the first sign of trouble, if anybody does.
        clock: Where time comes from.

    Attributes:
        blocking: Whether answers may have to be waited for.
        log: Where it is written what was asked and said, if anywhere.
    """

    def __init__(self, stores: GuardedStores, *, events: Events, standby: Standby | None, clock: Clock) -> None:
        self._stores = stores
        self._answers = stores.answers
        self._ledger = stores.ledger
        self.blocking = stores.answers.blocking
        self._events = events
        self._standby = standby
        self.log: CallLog | None = None
        self._clock = clock
        self._identifiers = Identifiers()
        self._latest: deque[str] = deque(maxlen=LATEST)

    @contextmanager
    def call(self, request: Request, items: Sequence[Item]) -> Iterator[Callable[[Sequence[Item]], None]]:
        """Write down what becomes of some items while the block runs, also when it is interrupted.

        Yields:
            A function that writes down those that are settled already, so that a long list is written as it goes.
        """
        call_id, task = self._identifiers.new(), request.task
        started = self._clock.monotonic()
        written = dict.fromkeys(map(id, items), 0)

        def write(settled: Sequence[Item]) -> None:
            fresh = [item for item in settled if item.attempts[written[id(item)] :]]
            attempts = [attempt for item in fresh for attempt in item.attempts[written[id(item)] :]]
            for item in settled:
                written[id(item)] = len(item.attempts)
            if not fresh:
                return
            if self.log is not None:
                self._log_calls(fresh, request, call_id)
            fallen = [item for item in fresh if item.attempts[1:] and is_degraded(item)]
            degraded = [id(item.attempts[-1]) for item in fallen] if fallen else ()
            self.book(attempts, task=task, call_id=call_id, degraded=degraded)
            for attempt in attempts:
                if self._standby is not None:
                    self._standby.judge(attempt, task)
                if self._events.has_listeners:
                    self._events.publish(AttemptEvent(call_id=call_id, task=task, attempt=attempt))

        try:
            yield write
        finally:
            write(items)
            if self._events.has_listeners:
                self._tell(call_id, task, items, elapsed_s=self._clock.monotonic() - started)

    def book(
        self,
        attempts: Sequence[Attempt],
        *,
        task: Purpose,
        call_id: str | None = None,
        degraded: Container[int] = (),
    ) -> None:
        """Put attempts into the ledger, without those that say nothing; arguments as for `ledger_rows`."""
        rows = ledger_rows(attempts, task=task, call_id=call_id or self._identifiers.new(), degraded=degraded)
        if rows:
            self._ledger.record(rows)

    def keep(self, key: str, answer: bytes) -> None:
        """Put an answer into the cache."""
        self._latest.append(key)
        self._answers.put(key, answer)

    def was_just_kept(self, key: str) -> bool:
        """Return whether an answer was among the last that this process has kept; never blocks."""
        return key in self._latest

    def in_one_go(self, action: Callable[[], T]) -> T:
        """Return what something returns that reads the stores several times; may block."""
        return self._stores.in_one_go(action)

    def recall(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return those of some answers that are in the cache, by their keys; may block."""
        return self._answers.get_many(keys)

    def _log_calls(self, items: Sequence[Item], request: Request, call_id: str) -> None:
        """Have it written down what was asked and said, in the thread of the listeners."""
        if items and self.log is not None:
            at = self._clock.time()
            lines = [logged(item, request, call_id=call_id, at=at) for item in items]
            self._events.call_later(partial(self.log.append, lines))

    def _tell(self, call_id: str, task: Task, items: Sequence[Item], *, elapsed_s: float) -> None:
        self._events.publish(
            CallEvent(
                call_id=call_id,
                task=task,
                count=len(items),
                answered=sum(item.answer is not None for item in items),
                degraded=sum(is_degraded(item) for item in items),
                at=self._clock.time(),
                elapsed_s=elapsed_s,
            )
        )
