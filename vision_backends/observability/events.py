"""Events: what happens in calls, as records for logs, metrics, alerts and spans.

This module decides the shape of events, how they read in the log (at debug level, as ``vision_backends.events``), and
that a failing listener never affects a call: all are called in one thread, in order, in the context variables of the
call. It must not know who listens.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.serialization import VersionedRecord
from vision_backends.traces import Attempt, Task  # noqa: TC001 — `read_record` looks annotations up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.health.budgets import Alert
    from vision_backends.health.policy import Transition

__all__ = ["AttemptEvent", "CallEvent", "Event", "Events"]

_log = logging.getLogger("vision_backends.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent(VersionedRecord):
    """One rung was asked, or skipped.

    Attributes:
        call_id: The call that it belongs to, as in the ledger.
        task: What was asked.
        attempt: How it ended.
    """

    call_id: str
    task: Task
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent(VersionedRecord):
    """A call of the router ended.

    Attributes:
        call_id: As in its attempts.
        task: What was asked.
        count: How many inputs it had.
        answered: How many of them were answered.
        degraded: How many of the answers were not those of the best rung that could have given one.
        at: When it ended, in seconds since 1970 UTC.
        elapsed_s: How long it took.

    Examples:
        >>> from vision_backends.observability.events import CallEvent
        >>> slow = []
        >>> unsubscribe = router.subscribe(lambda event: isinstance(event, CallEvent) and slow.append(event.elapsed_s))
        >>> _ = router.detect("rocket.jpg")
        >>> unsubscribe()
        >>> len(slow)
        1
    """

    call_id: str
    task: Task
    count: int
    answered: int
    degraded: int
    at: float
    elapsed_s: float


Event: TypeAlias = "AttemptEvent | CallEvent | Transition | Alert"
"""Attempts and calls as they end, gates as they move, and budgets as they are spent."""


DELIVERY_S = 1.0
"""The longest that a call waits for its listeners."""

_is_listener: ContextVar[bool] = ContextVar("called by a listener", default=False)


class Events:
    """Passes every event to every listener, in a thread of its own."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], object], ...] = ()
        self._lock = threading.Lock()
        self._thread = Pool("events", size=1)
        self._told = 0
        self._accepted = 0
        after_fork_in_child(self, Events._renew)

    def _renew(self) -> None:
        self._lock, self._told, self._accepted = threading.Lock(), 0, 0

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call a listener with every event from now on, until the returned function is called."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return unsubscribe

    @property
    def has_listeners(self) -> bool:
        """Whether there is a listener or the log is at debug level."""
        return bool(self._listeners) or _log.isEnabledFor(logging.DEBUG)

    def publish(self, event: Event) -> None:
        """Call every listener soon; one that raises is logged and still gets the next event."""
        if self.has_listeners:
            self.call_later(partial(self._tell, event, self._listeners))

    def call_later(self, callback: Callable[[], object]) -> None:
        """Call something in the listeners' thread, after what was published before."""
        with suppress(RuntimeError), self._lock:  # the router is closed
            self._thread.submit(partial(self._call, callback))
            self._accepted += 1

    async def delivered(self) -> None:
        """Return when all earlier events have been delivered, or after 1 s; immediately for a listener's own calls."""
        if self._told == self._accepted or _is_listener.get():
            return
        with suppress(TimeoutError, RuntimeError):
            async with SYSTEM_CLOCK.timeout_at(SYSTEM_CLOCK.monotonic() + DELIVERY_S):
                await self._thread.start(lambda: None)

    def wait_until_delivered(self) -> None:
        """Do as `delivered` in a thread that may block."""
        if self._told != self._accepted and not _is_listener.get():
            told = threading.Event()
            self.call_later(told.set)
            told.wait(DELIVERY_S)

    def close(self) -> None:
        """Stop delivering."""
        self._thread.close()

    def _call(self, callback: Callable[[], object]) -> None:
        _is_listener.set(True)
        try:
            callback()
        except Exception:  # noqa: BLE001 — a listener may raise anything
            _log.exception("A listener failed.")
        finally:
            with self._lock:
                self._told += 1

    @staticmethod
    def _tell(event: Event, listeners: Sequence[Callable[[Event], object]]) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            fields = _loggable(event)
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            extra = {f"vision_{name}": value for name, value in fields.items()}
            _log.debug("%s %s", type(event).__name__, told, extra=extra)
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 — a listener may raise anything
                _log.exception("A listener failed on %s.", type(event).__name__)


def _loggable(event: Event) -> dict[str, Any]:
    """Return the fields of an event, flat; without sentences, which may quote a prompt or a label."""
    fields = asdict(event)
    fields |= fields.pop("attempt", {})
    fields |= fields.pop("usage", {})
    return {name: value for name, value in fields.items() if value is not None and name not in {"message", "remedy"}}
