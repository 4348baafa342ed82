"""Clocks, deadlines and stopwatches: everything that waits or measures receives a `Clock`.

This module decides where time comes from, how a deadline is divided, and how the time of an answer is added up. It must
not know what is done in that time. Tests pass ``vision_backends.testing.FakeClock``.
"""

from __future__ import annotations

import time
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

from vision_backends.errors import TimedOutError
from vision_backends.traces import Timing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from contextlib import AbstractAsyncContextManager

__all__ = [
    "LEAST_SHARE",
    "SYSTEM_CLOCK",
    "Clock",
    "Deadline",
    "Stopwatch",
    "SystemClock",
    "count",
    "measured",
    "pause",
]

Part = Literal["decode", "queue", "model", "wire"]
"""A field of `Timing`, without its unit."""

P = TypeVar("P")


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point, which never run backwards; for durations and deadlines."""
        ...

    def time(self) -> float:
        """Return seconds since 1970 UTC, which may jump; for what other processes or people read."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block for a number of seconds."""
        ...

    def timeout_at(self, at: float) -> AbstractAsyncContextManager[object]:
        """Return a context that cancels its block when `monotonic` reaches a time, and then raises TimeoutError.

        As `asyncio.timeout_at`, on the running event loop; every timer of the engine is one of these.
        """
        ...


class SystemClock:
    """The clock of the machine."""

    monotonic = staticmethod(time.monotonic)

    def sleep(self, seconds: float) -> None:
        """Block with `time.sleep`."""
        time.sleep(seconds)

    def timeout_at(self, at: float) -> AbstractAsyncContextManager[object]:
        """Return `asyncio.timeout_at`, for a time of `monotonic`."""
        import asyncio

        return asyncio.timeout(at - time.monotonic())

    time = staticmethod(time.time)


SYSTEM_CLOCK = SystemClock()
"""The default wherever a clock is taken; it has no state."""


async def pause(clock: Clock, seconds: float) -> None:
    """Wait for a number of seconds of a clock, on the running event loop."""
    import asyncio

    try:
        async with clock.timeout_at(clock.monotonic() + seconds):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return


LEAST_SHARE = 0.5
"""A rung is given at least this share of what is left, however long the rungs below it take: a certain but worse
answer is worth less than an even chance of a better one."""


class Deadline:
    """The point in time by which a call, or one rung in it, must be done.

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
        """Seconds left, never less than 0."""
        return max(0.0, self.at - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s == 0.0

    def left_s(self) -> float:
        """Return the seconds left.

        Raises:
            TimedOutError: There are none.
        """
        left_s = self.remaining_s
        if left_s == 0.0:
            raise TimedOutError("The deadline passed before the work was done.")
        return left_s

    def timeout(self) -> AbstractAsyncContextManager[object]:
        """Return a context that cancels its block when no time is left, and then raises TimeoutError."""
        return self._clock.timeout_at(self.at)

    def share(self, reserve_s: float = 0.0) -> float:
        """Return the seconds that one rung may take.

        Args:
            reserve_s: What the rungs below are known to need; kept back as long as the rung still gets half of
                the remaining time.
        """
        remaining_s = self.remaining_s
        return max(remaining_s - reserve_s, remaining_s * LEAST_SHARE)


class Stopwatch:
    """Adds up how the time of one answer was spent.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._seconds: dict[Part, float] = {}

    @property
    def timing(self) -> Timing:
        """What has been measured so far."""
        return Timing(**{f"{part}_s": seconds for part, seconds in self._seconds.items()})

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Count the time of the block, even if it fails."""
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self.count(part, self._clock.monotonic() - started)

    def count(self, part: Part, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    async def follow(self, pieces: AsyncGenerator[P, None], part: Part) -> AsyncGenerator[P, None]:
        """Yield what a generator yields, and count the time that it takes, without that of the consumer."""
        async with aclosing(pieces):
            while True:
                with self.measure(part):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Count what is `measured` in this thread or task, and in pool threads, until the block ends."""
        before = _running.set(self)
        try:
            yield self
        finally:
            _running.reset(before)


_running: ContextVar[Stopwatch | None] = ContextVar("running stopwatch", default=None)


@contextmanager
def measured(part: Part) -> Iterator[None]:
    """Count the time of the block, or of the decorated function, on the running stopwatch, if there is one.

    In a coroutine, use it as a block: as a decorator it would measure the creation of the coroutine, not its run.
    """
    watch = _running.get()
    if watch is None:
        yield
    else:
        with watch.measure(part):
            yield


def count(part: Part, seconds: float) -> None:
    """Add seconds that were measured elsewhere to the running stopwatch, if there is one."""
    watch = _running.get()
    if watch is not None:
        watch.count(part, seconds)
