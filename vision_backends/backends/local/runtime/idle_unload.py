"""Dropping models that have not been used for a while.

This module decides when to check; each model itself says whether it is idle. It must not know what a model is.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Droppable", "IdleWatch"]

LEAST_PAUSE_S = 0.05
"""Between two checks, in case a clock runs slower than the timer."""


class Droppable(Protocol):
    """What is watched."""

    def drop_if_idle(self, idle_s: float) -> float | None:
        """Drop it if it has not been used for that long; return the seconds until then, None if it is not loaded."""
        ...


class IdleWatch:
    """Checks models when the next of them may have become idle; a timer runs only while something is loaded.

    Args:
        models: What to check.
        idle_s: Seconds without use after which a model is dropped.
        on_dropped: Called after a check that has dropped something.
    """

    def __init__(self, models: Sequence[Droppable], *, idle_s: float, on_dropped: Callable[[], object]) -> None:
        self._models = models
        self._idle_s = idle_s
        self._on_dropped = on_dropped
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._stops = 0

    def start(self) -> None:
        """Start watching, until nothing is loaded any more; harmless while it is watching."""
        if self._timer is None:
            self._arm(self._idle_s, stops=self._stops)

    def look(self) -> float | None:
        """Drop what is idle; return the seconds until the next check, None if nothing is loaded."""
        waits_s = [model.drop_if_idle(self._idle_s) for model in self._models]
        if 0.0 in waits_s:
            self._on_dropped()
        return min((wait_s for wait_s in waits_s if wait_s), default=None)

    def stop(self) -> None:
        """Stop watching, until `start`."""
        with self._lock:
            self._stops += 1
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def after_fork(self) -> None:
        """Start afresh in a forked child, where the timer does not exist."""
        self._lock, self._timer = threading.Lock(), None

    def _arm(self, wait_s: float, *, stops: int) -> None:
        with self._lock:
            if self._timer is None and self._stops == stops:  # it was not stopped meanwhile
                self._timer = threading.Timer(max(wait_s, LEAST_PAUSE_S), self._ring)
                self._timer.name, self._timer.daemon = "drop idle models", True
                self._timer.start()

    def _ring(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # it was stopped at the last moment
            self._timer, stops = None, self._stops
        wait_s = self.look()
        if wait_s is not None:
            self._arm(wait_s, stops=stops)
