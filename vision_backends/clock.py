"""Time as a dependency: everything that waits or measures is handed a `Clock`.

This module decides nothing but where time comes from; tests pass ``vision_backends.testing.FakeClock``.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point that never run backwards; for durations and deadlines."""
        ...

    def time(self) -> float:
        """Seconds since 1970 UTC, which may jump; for what other processes or people read."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        ...


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """Return `time.monotonic`."""
        return time.monotonic()

    def time(self) -> float:
        """Return `time.time`."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Return after `time.sleep`."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
"""The one to pass where nothing else is wanted; it has no state."""
