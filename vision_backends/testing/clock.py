"""A clock that only moves when it is told to.

This module decides nothing but what time it is; it is passed wherever a `vision_backends.clock.Clock` is wanted.
"""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """Time that stands still between `advance` and `sleep`; safe for many threads.

    Args:
        start: What `time` says at first, in seconds since 1970 UTC.
    """

    def __init__(self, *, start: float = 1_800_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = 0.0
        self._wall = start

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._monotonic

    def time(self) -> float:
        """Return the wall clock: where it started, plus what was advanced, plus its jumps."""
        return self._wall

    def sleep(self, seconds: float) -> None:
        """Advance by that many seconds and return at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks.

        Raises:
            ValueError: Time does not run backwards; `jump` moves the wall clock alone.
        """
        if seconds < 0:
            raise ValueError(f"Time does not run backwards by {-seconds} s.")
        with self._lock:
            self._monotonic += seconds
            self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or, with negative seconds, back, while no time passes."""
        with self._lock:
            self._wall += seconds
