"""A clock that only moves when it is told to.

This module decides nothing but what time it is; it is passed wherever a `vision_backends.clock.Clock` is wanted.
"""

from __future__ import annotations

import heapq
import threading
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

__all__ = ["FakeClock"]


class FakeClock:
    """Time that stands still between `advance` and `sleep`; safe for many threads.

    The timers of a router (deadlines, pauses, waiting, hedges) fire when `advance` passes them, the earliest first;
    nothing waits in real time.

    Args:
        start: What `time` says at first, in seconds since 1970 UTC.
    """

    def __init__(self, *, start: float = 1_800_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = 0.0
        self._wall = start
        self._timers: list[tuple[float, int, asyncio.AbstractEventLoop, asyncio.Timeout]] = []
        self._numbers = count()

    @property
    def pending(self) -> list[float]:
        """When the timers that run now are due, by `monotonic`, the earliest first."""
        with self._lock:
            return sorted(at for at, *_ in self._timers)

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
            due = []
            while self._timers and self._timers[0][0] <= self._monotonic:
                due.append(heapq.heappop(self._timers))
        for _at, _number, loop, timeout in due:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_fire, timeout)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or, with negative seconds, back, while no time passes."""
        with self._lock:
            self._wall += seconds

    @asynccontextmanager
    async def timeout_at(self, at: float) -> AsyncIterator[None]:
        """Cancel the block when `advance` passes a time, and then raise TimeoutError."""
        import asyncio

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as timeout:
            with self._lock:
                is_due = at <= self._monotonic
                timer = (at, next(self._numbers), loop, timeout)
                if not is_due:
                    heapq.heappush(self._timers, timer)
            if is_due:
                _fire(timeout)
            try:
                yield
            finally:
                with self._lock:
                    if timer in self._timers:
                        self._timers.remove(timer)
                        heapq.heapify(self._timers)


def _fire(timeout: asyncio.Timeout) -> None:
    import asyncio

    with suppress(RuntimeError):  # its block has ended
        timeout.reschedule(asyncio.get_running_loop().time())
