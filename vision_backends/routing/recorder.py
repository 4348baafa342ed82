"""The record of every call: its attempts in the ledger, and events for whoever listens.

This module decides that nothing is forgotten, however a call ends. It must not know how answers come about.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vision_backends.observability.events import AttemptEvent, CallEvent
from vision_backends.routing.trace import is_degraded, ledger_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends.clock import Clock
    from vision_backends.observability.events import Events
    from vision_backends.routing.call import Item
    from vision_backends.storage.base import Ledger
    from vision_backends.types import Task

__all__ = ["Journal"]


class Journal:
    """Writes calls down.

    Args:
        ledger: Where they are written.
        events: Who is told.
        clock: Where time comes from.
    """

    def __init__(self, *, ledger: Ledger, events: Events, clock: Clock) -> None:
        self._ledger = ledger
        self._events = events
        self._clock = clock

    @contextmanager
    def call(self, task: Task, items: Sequence[Item]) -> Iterator[None]:
        """Write down what becomes of some items while the block runs, also when it is interrupted."""
        call_id = secrets.token_hex(8)
        started = self._clock.monotonic()
        try:
            yield
        finally:
            attempts = [attempt for item in items for attempt in item.attempts]
            self._ledger.record(ledger_rows(attempts, task=task, call_id=call_id))
            if self._events.has_listeners:
                self._tell(call_id, task, items, elapsed_s=self._clock.monotonic() - started)

    def _tell(self, call_id: str, task: Task, items: Sequence[Item], *, elapsed_s: float) -> None:
        for item in items:
            for attempt in item.attempts:
                self._events.publish(AttemptEvent(call_id=call_id, task=task, attempt=attempt))
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
