"""Applying a function to many items in the engine's threads for computing: decoding, scaling, reading results.

This module decides how many items of one caller are worked on simultaneously and when others have their turn. It must
not know what is computed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.engine.event_loop import engine_loop
from vision_backends.engine.threads import awaited_at_exit
from vision_backends.errors import OverloadedError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.clock import Deadline

__all__ = ["ParallelMap", "compute"]

THREADS = 2
"""Most threads for one caller: torch and Pillow release the GIL, and other callers need threads, too."""

SLICE_S = 0.01
"""Seconds after which a thread lets other callers have their turn; the current item is finished first."""

LONGEST_END_S = 5.0
"""How long the interpreter's exit waits for an item, which may be in native code."""

T = TypeVar("T")
R = TypeVar("R")


class ParallelMap(Generic[T, R]):
    """Calls a function for each item; starts when it is created, on the running event loop.

    Args:
        function: Called in threads, for several items simultaneously.
        items: What to call it with.
        deadline: When to stop.
    """

    def __init__(self, function: Callable[[T], R], items: Sequence[T], *, deadline: Deadline) -> None:
        self._seconds: list[float] = []
        self._function = function
        self._deadline = deadline
        self._todo = deque(enumerate(items))
        self._results: list[Any] = [None] * len(items)
        self._error: BaseException | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = max(1, min(THREADS, len(items)))
        for _ in range(self._running):
            self._go_on()

    @property
    def seconds(self) -> float:
        """What all the calls took together."""
        return sum(self._seconds)

    async def results(self) -> list[R]:
        """Return what the function returned for each item, in order.

        Raises:
            TimedOutError: The deadline passed before the last item was done.
            OverloadedError: No thread is free.
            NotReadyError: Python is shutting down.
        """
        try:
            async with self._deadline.timeout():
                await self._done
        except TimeoutError:
            raise TimedOutError("The deadline passed before the input was prepared or the result read.") from None
        finally:
            self.cancel()
        error, self._error = self._error, None
        if error is None:
            return self._results
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame: leave no cycle behind

    def cancel(self) -> None:
        """Start no further item; harmless if all are done."""
        self._todo.clear()

    def _go_on(self, _finished: object = None) -> None:
        """Queue for a thread as long as there is work; on the loop.

        The job's future is never cancelled: the pool would count its thread as stuck, and refuse others meanwhile.
        """
        if self._todo:
            try:
                engine_loop().compute.start(self._work).add_done_callback(self._go_on)
            except OverloadedError as error:
                self._fail(error)
            else:
                return
        self._running -= 1
        if self._running == 0 and not self._done.done():
            self._done.set_result(None)

    def _work(self) -> None:
        """Work on one item after another for a while; in a thread."""
        started = time.monotonic()
        try:
            with awaited_at_exit(LONGEST_END_S):
                while time.monotonic() < started + SLICE_S and (task := self._take()) is not None:
                    number, item = task
                    self._deadline.left_s()
                    self._results[number] = self._function(item)
        except BaseException as error:  # noqa: BLE001 — raised again where it is waited for
            self._fail(error)
        self._seconds.append(time.monotonic() - started)

    def _take(self) -> tuple[int, T] | None:
        try:
            return self._todo.popleft()
        except IndexError:
            return None

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._todo.clear()


async def compute(call: Callable[[], R], *, deadline: Deadline) -> R:
    """Make a call in a thread of the engine and return its result. Errors as in `ParallelMap.results`."""
    (result,) = await ParallelMap(lambda _: call(), [None], deadline=deadline).results()
    return result
