"""How many inputs of a list are open at the same time.

This module decides in which portions a list is opened and when the next one is, by number and by memory. It must not
know how an input is opened, nor what is asked about it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence

    from vision_backends.routing.call import Item

__all__ = ["MOST_OPEN", "OPEN_BYTES", "WINDOW", "Windows"]

WINDOW = 16
"""Inputs that are opened and asked about together."""

MOST_OPEN = 64
"""Inputs of a list that are open at the same time, more where a backend takes more."""

OPEN_BYTES = 160_000_000
"""Memory that they may take."""


class Windows:
    """Opens the inputs of a list, a few at a time, while there is room for more.

    Args:
        items: The inputs.
        open_one: Opens one.
        size: How many a window has, where memory allows.
        most: How many may be open.
        at_once: How many are opened concurrently, beside the backend's work.
    """

    def __init__(
        self,
        items: Sequence[Item],
        open_one: Callable[[Item], Coroutine[Any, Any, None]],
        *,
        size: int,
        most: int,
        at_once: int,
    ) -> None:
        self._coming = iter(items)
        self._open_one = open_one
        self._size = size
        self._most = most
        self._at_once = at_once
        self._open: list[Item] = []
        self._open_bytes = 0
        self._usual_bytes = 0
        self._has_more = True
        self._changed = asyncio.Event()

    async def take(
        self, take: Callable[[list[Item]], Coroutine[Any, Any, bool]], *, in_order: bool, stops: bool
    ) -> bool:
        """Have window after window taken, the next one being opened meanwhile.

        Args:
            take: What is done with an opened window; returns whether all of it is settled.
            in_order: Whether each begins when the one before has ended.
            stops: Whether none begins after one that is not settled; only in order.

        Returns:
            Whether all are settled.
        """
        is_settled = True

        async def taken(window: list[Item]) -> bool:
            nonlocal is_settled
            try:
                said = await take(window)
                is_settled = is_settled and said
                return said
            finally:
                self._end(window)

        async with asyncio.TaskGroup() as group, aclosing(self._each()) as windows:
            async for window in windows:
                task = group.create_task(taken(window))
                if in_order and not await task and stops:
                    break
        return is_settled

    async def _each(self) -> AsyncGenerator[list[Item], None]:
        """Yield window after window, opened, until there are no more inputs."""
        following = asyncio.create_task(self._next())
        try:
            while window := await following:
                following = asyncio.create_task(self._next())
                yield window
        finally:
            following.cancel()

    def _end(self, window: Sequence[Item]) -> None:
        """Note that the inputs of a window are needed no more."""
        gone = set(map(id, window))
        self._recount(item for item in self._open if id(item) not in gone)
        self._changed.set()

    async def _next(self) -> list[Item]:
        """Return the next inputs, opened; none when there are no more."""
        window: list[Item] = []
        while True:
            opening = [asyncio.create_task(self._open_into(window)) for _ in range(self._at_once)]
            try:
                await asyncio.gather(*opening)
            finally:
                for each in opening:
                    each.cancel()
            if window or not self._has_more:
                return window
            self._changed.clear()
            await self._changed.wait()

    async def _open_into(self, window: list[Item]) -> None:
        """Open one input after the other, as long as a window takes more and there is room."""
        while self._has_more and len(window) < self._size and self._has_room():
            item = next(self._coming, None)
            if item is None:
                self._has_more = False
                return
            window.append(item)
            self._open.append(item)
            taken_bytes = self._usual_bytes
            self._open_bytes += taken_bytes
            await self._open_one(item)
            self._usual_bytes = item.opened_bytes or self._usual_bytes
            self._open_bytes += self._usual_bytes - taken_bytes

    def _has_room(self) -> bool:
        """Return whether one more input would not be too much; what is settled takes no room any more."""
        if not self._fits():
            self._recount(item for item in self._open if not item.settled)
        return self._fits()

    def _fits(self) -> bool:
        has_room = len(self._open) < self._most and self._open_bytes + self._usual_bytes <= OPEN_BYTES
        return has_room or not self._open

    def _recount(self, still_open: Iterable[Item]) -> None:
        self._open = list(still_open)
        self._open_bytes = sum(item.opened_bytes or self._usual_bytes for item in self._open)
