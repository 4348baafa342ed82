"""A clock that moves only when a test advances it.

Pass it wherever a `vision_backends.clock.Clock` is expected. This module must not know what waits for its timers.
"""

from __future__ import annotations

import heapq
import math
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
    nothing waits in real time. A test that advances the clock during a call in another thread first waits until the
    call has set its timer::

        call = pool.submit(router.describe, image)
        clock.wait_for_timer(within_s=5)
        clock.advance(5)
        call.result()

    Args:
        start: What `time` says at first, in seconds since 1970 UTC.

    Examples:
        >>> from vision_backends.testing import FakeClock
        >>> clock = FakeClock()
        >>> before = clock.monotonic()
        >>> clock.advance(60)
        >>> clock.monotonic() - before
        60.0
    """

    def __init__(self, *, start: float = 1_800_000_000.0) -> None:
        self._changed = threading.Condition()
        self._monotonic = 0.0
        self._wall = start
        self._timers: list[tuple[float, int, asyncio.AbstractEventLoop, asyncio.Timeout]] = []
        self._numbers = count()

    @property
    def pending(self) -> list[float]:
        """When the running timers are due, by `monotonic`, the earliest first."""
        with self._changed:
            return sorted(at for at, *_ in self._timers)

    def wait_for_timer(self, *, within_s: float = math.inf, count: int = 1, timeout_s: float = 5.0) -> None:
        """Wait, in real time, until timers are running that an advance would fire.

        Args:
            within_s: Only timers that are due within this many seconds of this clock; a call has several.
            count: How many of them.
            timeout_s: Seconds of real time to wait.

        Raises:
            TimeoutError: There were fewer.
        """

        def are_pending() -> bool:
            return sum(at <= self._monotonic + within_s for at, *_ in self._timers) >= count

        with self._changed:
            if not self._changed.wait_for(are_pending, timeout_s):
                due_s = sorted(at - self._monotonic for at, *_ in self._timers)
                wanted = f"{count} timers due within {within_s:g} s"
                raise TimeoutError(f"Fewer than {wanted} after waiting {timeout_s:g} s, only in {due_s} s.")

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._monotonic

    def time(self) -> float:
        """Return the wall clock: where it started, plus what was advanced, plus its jumps."""
        return self._wall

    def sleep(self, seconds: float) -> None:
        """Advance by that many seconds and return immediately."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks.

        Raises:
            ValueError: The seconds are negative; `jump` moves the wall clock alone.
        """
        if seconds < 0:
            raise ValueError(f"Time cannot run backwards by {-seconds} s; jump() sets the wall clock alone.")
        with self._changed:
            self._monotonic += seconds
            self._wall += seconds
            due = []
            while self._timers and self._timers[0][0] <= self._monotonic:
                due.append(heapq.heappop(self._timers))
        for _at, _number, loop, timeout in due:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_fire, timeout)

    def jump(self, seconds: float) -> None:
        """Move the wall clock forwards or, with negative seconds, back, while no time passes."""
        with self._changed:
            self._wall += seconds

    @asynccontextmanager
    async def timeout_at(self, at: float) -> AsyncIterator[None]:
        """Cancel the block when `advance` passes a time, then raise TimeoutError."""
        import asyncio

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as timeout:
            with self._changed:
                is_due = at <= self._monotonic
                timer = (at, next(self._numbers), loop, timeout)
                if not is_due:
                    heapq.heappush(self._timers, timer)
                    self._changed.notify_all()
            if is_due:
                _fire(timeout)
            try:
                yield
            finally:
                with self._changed:
                    if timer in self._timers:
                        self._timers.remove(timer)
                        heapq.heapify(self._timers)


def _fire(timeout: asyncio.Timeout) -> None:
    import asyncio

    with suppress(RuntimeError):  # its block has ended
        timeout.reschedule(asyncio.get_running_loop().time())
