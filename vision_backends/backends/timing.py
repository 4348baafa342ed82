"""How a backend measures where the time of an answer goes.

This module decides how seconds are added up. It must not know what anybody does in them.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.types import Timing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from vision_backends.clock import Clock

__all__ = ["Stopwatch", "count", "measured"]

Part = Literal["decode", "queue", "model", "wire"]
"""A field of `Timing`, without its unit."""

P = TypeVar("P")


class Stopwatch:
    """Adds up where the time of one answer goes.

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
        """Count the time of the block, also of one that fails."""
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self.count(part, self._clock.monotonic() - started)

    def count(self, part: Part, seconds: float) -> None:
        """Add seconds that somebody else has measured."""
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    async def follow(self, pieces: AsyncGenerator[P, None], part: Part) -> AsyncGenerator[P, None]:
        """Yield what a generator yields, and count the time that it takes, without that of whoever takes the pieces."""
        async with aclosing(pieces):
            while True:
                with self.measure(part):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Count what is `measured` in this thread or task, and in the threads of pools, until the block ends."""
        before = _running.set(self)
        try:
            yield self
        finally:
            _running.reset(before)


_running: ContextVar[Stopwatch | None] = ContextVar("running stopwatch", default=None)


@contextmanager
def measured(part: Part) -> Iterator[None]:
    """Count the time of the block, or of the decorated function, on the running stopwatch, if there is one.

    A coroutine takes it as a block: decorated, it would be measured until it is made, not until it is done.
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
