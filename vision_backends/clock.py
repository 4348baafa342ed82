"""Time as a dependency: everything that waits or measures is handed a `Clock`.

This module decides where time comes from and how a deadline is divided; tests pass
``vision_backends.testing.FakeClock``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from vision_backends.errors import TimedOutError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["LEAST_SHARE", "SYSTEM_CLOCK", "Clock", "Deadline", "SystemClock", "pause"]


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

    def timeout_at(self, at: float) -> AbstractAsyncContextManager[object]:
        """Return a context that cancels its block when `monotonic` reaches a time, and then raises TimeoutError.

        As `asyncio.timeout_at`, on the running event loop; every timer of the engine is one of these.
        """
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

    def timeout_at(self, at: float) -> AbstractAsyncContextManager[object]:
        """Return `asyncio.timeout_at`, for a time of `monotonic`."""
        import asyncio

        return asyncio.timeout(at - time.monotonic())


SYSTEM_CLOCK = SystemClock()
"""The one to pass where nothing else is wanted; it has no state."""


async def pause(clock: Clock, seconds: float) -> None:
    """Return after that many seconds of a clock, on the running event loop."""
    import asyncio

    try:
        async with clock.timeout_at(clock.monotonic() + seconds):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return


LEAST_SHARE = 0.5
"""A rung is given at least this part of what is left, however long the rungs below it take: a worse answer that
certainly comes is worth less than an even chance of the better one."""


class Deadline:
    """One point in time that a call, or one rung in it, has to keep.

    Args:
        clock: Where time comes from.
        timeout_s: Seconds from now.

    Attributes:
        at: The point in time, by the clock's `monotonic`.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self.at = clock.monotonic() + timeout_s

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, never less than 0."""
        return max(0.0, self.at - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s == 0.0

    def left_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimedOutError: None are.
        """
        left_s = self.remaining_s
        if left_s == 0.0:
            raise TimedOutError("The time was over before the work was done.")
        return left_s

    def timeout(self) -> AbstractAsyncContextManager[object]:
        """Return a context that cancels its block when no time is left, and then raises TimeoutError."""
        return self._clock.timeout_at(self.at)

    def share(self, reserve_s: float = 0.0) -> float:
        """Return the seconds that one rung may take.

        Args:
            reserve_s: What the rungs below are known to need; kept back as far as this leaves the rung half of
                the time that remains.
        """
        remaining_s = self.remaining_s
        return max(remaining_s - reserve_s, remaining_s * LEAST_SHARE)
