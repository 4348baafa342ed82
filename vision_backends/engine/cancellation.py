"""How calls are cancelled, and how those of one owner end when it is closed: they get a second first.

This module decides that order, and how a cancellation says why. It must not know what the calls do; each books what it
has cost when it is cancelled.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.errors import BackendError, CallCancelledError, ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from vision_backends.engine.event_loop import EventLoop

__all__ = ["RunningCalls", "reason_of", "wait_for_end"]

GRACE_S = 1.0
"""How long running calls are given to end by themselves, and again after they were cancelled."""


class RunningCalls:
    """The calls that run now.

    Args:
        name: Whose they are, for the message to a call that comes too late.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def check(self) -> None:
        """Return if new calls may begin.

        Raises:
            ClosedError: The owner is closed.
        """
        if self._is_closed:
            raise ClosedError(f"The {self._name} is closed.", remedy="Ask before it is closed, or make a new one.")

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count the current task while the block runs.

        Raises:
            ClosedError: The owner is closed, or was closed before the block had ended.
        """
        self.check()
        if self._process != os.getpid():  # the parent's tasks do not run here
            self._process, self._tasks = os.getpid(), set()
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("A call is a task.")
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            raise ClosedError(
                f"The {self._name} was closed before this call had its answer.", remedy="Close it after the last call."
            ) from None
        finally:
            self._tasks.discard(task)
            self._ended.discard(task)

    def close(self, engine: EventLoop, then: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Refuse new calls, end those that run, and do something last on the loop, if that runs at all."""
        is_first, self._is_closed = not self._is_closed, True
        if is_first and engine.is_running:
            engine.run(lambda: self._end(then))

    async def _end(self, then: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if self._process == os.getpid():
            await self._wait()
            self._ended |= self._tasks
            for task in self._ended:
                task.cancel()
            await self._wait()
        with suppress(TimeoutError):
            async with SYSTEM_CLOCK.timeout_at(SYSTEM_CLOCK.monotonic() + GRACE_S):
                await then()

    async def _wait(self) -> None:
        if self._tasks:
            with suppress(TimeoutError):
                async with SYSTEM_CLOCK.timeout_at(SYSTEM_CLOCK.monotonic() + GRACE_S):
                    await asyncio.wait(self._tasks)


async def wait_for_end(future: asyncio.Future[Any]) -> None:
    """Return when a future is done, however it ends; cancelling the caller leaves it alone."""
    if future.done():
        return
    waiter = future.get_loop().create_future()

    def wake(_done: asyncio.Future[Any]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)


def reason_of(cancelled: asyncio.CancelledError) -> BackendError:
    """Return why a caller was cancelled, if that was said with the cancellation."""
    if cancelled.args and isinstance(cancelled.args[0], BackendError):
        return cancelled.args[0]
    return CallCancelledError("The call was cancelled; no other caller waited for the answer.")
