"""From inputs that come one by one to answers in their order.

This module decides how many inputs are under way at the same time. It must not know how one is answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vision_backends.engine.event_loop import engine_loop
from vision_backends.routing.windows import OPEN_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable

    from vision_backends.engine.event_loop import Running

__all__ = ["Room", "answer_each", "answer_each_async"]

S = TypeVar("S")
T = TypeVar("T")


@dataclass(slots=True)
class Room:
    """How many inputs may be under way.

    Attributes:
        most: As many as the backends can work at, at most.
        usual_bytes: How much memory an opened input takes, as the last did; 0 before the first.
    """

    most: int
    usual_bytes: int = 0

    @property
    def places(self) -> int:
        """Their number now; few before it is known how large they are."""
        if not self.usual_bytes:
            return min(2, self.most)
        return max(1, min(self.most, OPEN_BYTES // self.usual_bytes))


def answer_each(
    sources: Iterable[S], make: Callable[[S], Callable[[], Coroutine[Any, Any, T]]], room: Room
) -> Generator[T, None, None]:
    """Yield the answers in the order of their inputs, which are taken in the caller's thread when there is room.

    Leaving it cancels what is under way.
    """
    running: deque[Running[T]] = deque()
    coming = iter(sources)
    is_over = False
    try:
        while True:
            while not is_over and len(running) < room.places and not (running and running[0].is_done):
                try:
                    source = next(coming)
                except StopIteration:
                    is_over = True
                else:
                    running.append(engine_loop().begin(make(source)))
            if not running:
                return
            yield running.popleft().wait()
    finally:
        for each in running:
            each.cancel()


async def answer_each_async(
    sources: Iterable[S] | AsyncIterable[S], make: Callable[[S], Callable[[], Coroutine[Any, Any, T]]], room: Room
) -> AsyncGenerator[T, None]:
    """Do as `answer_each`, on the caller's own event loop."""
    running: deque[asyncio.Task[T]] = deque()
    coming = sources.__aiter__() if isinstance(sources, AsyncIterable) else _from_iterable(sources)
    is_over = False
    try:
        while True:
            while not is_over and len(running) < room.places and not (running and running[0].done()):
                try:
                    source = await anext(coming)
                except StopAsyncIteration:
                    is_over = True
                else:
                    running.append(asyncio.create_task(engine_loop().run_from_loop(make(source))))
            if not running:
                return
            yield await running.popleft()
    finally:
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)


async def _from_iterable(sources: Iterable[S]) -> AsyncIterator[S]:
    for source in sources:
        yield source
