"""How many inputs of a list are open at the same time.

This module decides how large the windows are in which a list is opened, by number and by memory. It must not know how
an input is opened, nor what is asked about it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vision_backends.images import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from vision_backends.routing.call import Item

__all__ = ["WINDOW", "WINDOW_BYTES", "Windows"]

WINDOW = 32
WINDOW_BYTES = 80_000_000
"""Inputs of a list that are open at the same time, and the memory that they may take; while those are asked for, as
many are opened for the next turn."""


class Windows:
    """Opens the inputs of a list, a few at a time: as many as wanted, or as there is memory for.

    Args:
        items: The inputs.
        open_one: Opens one.
        size: How many are open at the same time, at most.
        at_once: How many are opened concurrently, beside the backend's work.
    """

    def __init__(
        self, items: Sequence[Item], open_one: Callable[[Item], Coroutine[Any, Any, None]], *, size: int, at_once: int
    ) -> None:
        self._coming = iter(items)
        self._open_one = open_one
        self._size = size
        self._at_once = at_once
        self._usual_bytes = 0.0

    async def open(self) -> list[Item]:
        """Return the next inputs, opened; none when there are no more."""
        window: list[Item] = []
        opening: set[asyncio.Task[None]] = set()
        try:
            while True:
                while len(opening) < self._at_once and len(window) < self._size and self._has_room(window):
                    item = next(self._coming, None)
                    if item is None:
                        break
                    window.append(item)
                    opening.add(asyncio.create_task(self._open_one(item)))
                if not opening:
                    return window
                opened, opening = await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
                for each in opened:
                    each.result()
        finally:
            for each in opening:
                each.cancel()

    def _has_room(self, window: Sequence[Item]) -> bool:
        """Return whether one more image would not be too much, judging by those that are open or have been."""
        sizes = [item.content.memory_bytes for item in window if isinstance(item.content, Image)]
        if sizes:
            self._usual_bytes = sum(sizes) / len(sizes)
        return not window or self._usual_bytes * (len(window) + 1) <= WINDOW_BYTES
