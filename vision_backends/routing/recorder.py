"""The record of every call: its attempts in the ledger, its answers in the cache, and events for its listeners.

This module decides that nothing is forgotten, however a call ends: stores that may block are written in a thread, for
many calls in one go, and what is on its way there is found as if it had arrived. It must not know how answers come
about.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.errors import OverloadedError
from vision_backends.observability.events import AttemptEvent, CallEvent
from vision_backends.routing.trace import is_degraded, ledger_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vision_backends.clock import Clock
    from vision_backends.observability.events import Events
    from vision_backends.routing.call import Item
    from vision_backends.routing.standby import Standby
    from vision_backends.storage.base import Answers, Ledger, LedgerRow
    from vision_backends.types import Attempt, Task

__all__ = ["CallRecorder"]

LATEST = 64
"""Keys that are remembered for a call that has looked up its answer just before it was kept."""

WRITE_S = 1.0
"""A call does not wait any longer for a store that is locked or slow."""


class CallRecorder:
    """Writes calls down. Safe for many threads.

    Args:
        answers: Where answers are kept.
        ledger: Where attempts are booked.
        events: Who is told.
        standby: Who makes the next rung ready at the first sign of trouble, if anybody does.
        clock: Where time comes from.

    Attributes:
        blocking: Whether one of the stores may block.
    """

    def __init__(
        self, *, answers: Answers, ledger: Ledger, events: Events, standby: Standby | None, clock: Clock
    ) -> None:
        self._cache = answers
        self._ledger = ledger
        self.blocking = answers.blocking or ledger.blocking
        self._events = events
        self._standby = standby
        self._clock = clock
        self._pool = Pool("recorder", size=1)
        self._latest: deque[str] = deque(maxlen=LATEST)
        self._begin()
        after_fork_in_child(self, CallRecorder._begin)  # what is on its way is the parent's to write

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._answers: dict[str, bytes] = {}
        self._rows: list[LedgerRow] = []
        self._is_due = False

    @contextmanager
    def call(self, task: Task, items: Sequence[Item]) -> Iterator[Callable[[Sequence[Item]], None]]:
        """Write down what becomes of some items while the block runs, also when it is interrupted.

        Yields:
            A function that writes down those that are settled already, so that a long list is written as it goes.
        """
        call_id = secrets.token_hex(8)
        started = self._clock.monotonic()
        written = dict.fromkeys(map(id, items), 0)

        def write(settled: Sequence[Item]) -> None:
            attempts = [attempt for item in settled for attempt in item.attempts[written[id(item)] :]]
            for item in settled:
                written[id(item)] = len(item.attempts)
            self.book(attempts, task=task, call_id=call_id)
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

    def book(self, attempts: Sequence[Attempt], *, task: Task, call_id: str | None = None) -> None:
        """Put attempts into the ledger, without those that say nothing."""
        rows = ledger_rows(attempts, task=task, call_id=call_id or secrets.token_hex(8))
        if rows:
            self._write({}, rows)

    def keep(self, key: str, answer: bytes) -> None:
        """Put an answer into the cache."""
        self._latest.append(key)
        self._write({key: answer}, [])

    def was_just_kept(self, key: str) -> bool:
        """Return whether an answer was among the last that this process has kept; never blocks."""
        return key in self._latest

    def recall(self, key: str) -> bytes | None:
        """Return an answer that is in the cache or on its way there; may block."""
        return self._answers.get(key) or self._cache.get(key)

    def flush(self) -> None:
        """Return when all that has been recorded is written; may block."""
        with self._writing:
            with self._lock:
                self._is_due = False  # what comes from now on needs another flush
                answers, rows, self._rows = self._answers.copy(), self._rows, []
            if rows:
                self._ledger.record(rows)
            for key, answer in answers.items():
                self._cache.put(key, answer)
            with self._lock:
                for key, answer in answers.items():
                    if self._answers.get(key) is answer:
                        del self._answers[key]

    async def written(self) -> None:
        """Return when all that has been recorded is written, so that it outlives the process; or after 1 s."""
        if self._answers or self._rows or self._writing.locked():
            with suppress(TimeoutError, RuntimeError, OverloadedError):
                async with SYSTEM_CLOCK.timeout_at(SYSTEM_CLOCK.monotonic() + WRITE_S):
                    await self._pool.start(self.flush)

    def close(self) -> None:
        """Write what is left; harmless twice."""
        self.flush()
        self._pool.close()

    def _write(self, answers: dict[str, bytes], rows: Sequence[LedgerRow]) -> None:
        with self._lock:
            is_first, self._is_due = not self._is_due, True
            self._answers |= answers
            self._rows += rows
        if not self.blocking:
            self.flush()
        elif is_first:
            try:
                self._pool.submit(self.flush)
            except (RuntimeError, OSError):  # closed meanwhile
                self.flush()

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
