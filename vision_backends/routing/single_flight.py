"""One task asks a backend, however many callers want the answer.

This module decides how long such a task lives: it belongs to no caller, goes on as long as a caller waits for it, and
ends with the last of them. It must not know what is asked, nor where answers are kept.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.engine.cancellation import reason_of, wait_for_end
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.errors import TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError, VisionError
    from vision_backends.routing.call import Item

__all__ = ["Flight", "SingleFlight"]


class Flight:
    """One task, and who waits for it.

    Args:
        items: The accounts on which the task notes what it has tried; no caller's own.
        run: What it does; returns what the attempt has failed with, if it did.

    Attributes:
        items: As given.
        until: The latest deadline of those who wait, by the clock's `monotonic`.
        left_because: Why the last of them has stopped waiting, once that is so.
    """

    def __init__(self, items: Sequence[Item], run: Callable[[Flight], Coroutine[Any, Any, VisionError | None]]) -> None:
        self.items = items
        self.until = 0.0
        self.left_because: BackendError | None = None
        self._waiting = 0
        self._is_taken = False
        self.task = asyncio.get_running_loop().create_task(run(self))

    def take(self) -> bool:
        """Return True to the first who asks: what the task has cost is its to book, the others have it for nothing."""
        is_first, self._is_taken = not self._is_taken, True
        return is_first

    async def wait(self, clock: Clock, until: float) -> bool:
        """Wait for the end of the task; return False if the time was over before that.

        A cancellation may say why, with a `BackendError` as its message.

        Raises:
            CancelledError: The caller was cancelled; the task has ended, unless another caller waits for it.
        """
        self.until = max(self.until, until)
        self._waiting += 1
        try:
            async with clock.timeout_at(until):
                await wait_for_end(self.task)
        except TimeoutError:
            return await self._leave(TimedOutError("No answer came in time."))
        except asyncio.CancelledError as cancelled:
            await self._leave(reason_of(cancelled))
            raise
        self._waiting -= 1
        return True

    async def _leave(self, because: BackendError) -> bool:
        """Stop waiting; the last one ends the task. Return whether it has ended."""
        self._waiting -= 1
        if self._waiting == 0 and not self.task.done():
            self.left_because = because
            self.task.cancel()
            await wait_for_end(self.task)
        return self.task.done()


class SingleFlight:
    """The flights that identical calls may join."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        after_fork_in_child(self, lambda own: own._flights.clear())  # noqa: SLF001 — its own

    def join(
        self, key: str | None, items: Sequence[Item], run: Callable[[Flight], Coroutine[Any, Any, VisionError | None]]
    ) -> Flight:
        """Return the flight of a key that is under way, or a new one for some items; None is never shared."""
        flight = None if key is None else self._flights.get(key)
        if flight is None or flight.task.done() or flight.left_because is not None:
            flight = Flight([item.twin() for item in items], run)
            if key is not None:
                self._flights[key] = flight
                flight.task.add_done_callback(partial(self._forget, key, flight))
        return flight

    def is_under_way(self, key: str) -> bool:
        """Return whether there is a flight of a key."""
        return key in self._flights

    def _forget(self, key: str, flight: Flight, _task: object) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
