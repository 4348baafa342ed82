"""Time as a dependency: everything that waits or measures is handed a `Clock`.

This module decides nothing but where time comes from; tests pass ``vision_backends.testing.FakeClock``.
"""

from __future__ import annotations

import time
from typing import Protocol

from vision_backends.errors import TimedOutError

__all__ = ["LEAST_SHARE", "SYSTEM_CLOCK", "Clock", "Countdown", "Deadline", "SystemClock"]


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


LEAST_SHARE = 0.5
"""A rung is given at least this part of what is left, however long the rungs below it take: a worse answer that
certainly comes is worth less than an even chance of the better one."""


class Deadline:
    """One point in time that a whole call has to keep.

    Args:
        clock: Where time comes from.
        timeout_s: Seconds from now.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._at = clock.monotonic() + timeout_s

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, never less than 0."""
        return max(0.0, self._at - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s == 0.0

    def share(self, reserve_s: float = 0.0) -> float:
        """Return the seconds that one rung may take.

        Args:
            reserve_s: What the rungs below are known to need; kept back as far as this leaves the rung half of
                the time that remains.
        """
        remaining_s = self.remaining_s
        return max(remaining_s - reserve_s, remaining_s * LEAST_SHARE)


class Countdown:
    """The time that one call has.

    Args:
        timeout_s: How much that is.
        clock: Where time comes from.
    """

    def __init__(self, timeout_s: float, *, clock: Clock) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + timeout_s

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._clock.monotonic() >= self._ends

    def left_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimedOutError: None are.
        """
        left_s = self._ends - self._clock.monotonic()
        if left_s <= 0:
            raise TimedOutError("The time was over before the model had done its work.")
        return left_s
