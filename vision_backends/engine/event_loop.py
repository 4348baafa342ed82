"""The event loop that all calls run on: one per process, in a thread of its own.

This module decides when the thread starts and ends, and how other threads and other loops wait for a coroutine on it.
It must not know what the coroutines do. The loop belongs to a process: a forked child starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.engine.pools import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["EventLoop", "engine_loop"]

T = TypeVar("T")

IDLE_S = 10.0
"""Seconds after which the thread ends when no router is left."""

CANCEL_S = 1.0
"""Seconds that a cancelled call is given to end: to close its socket, to book what it has cost."""


class EventLoop:
    """The loop of this process and its thread. Safe for many threads."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[_Call[Any]] = set()
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self.compute = Pool("compute", size=max(2, os.cpu_count() or 1))
        """Threads for decoding, scaling and encoding: as many as there are processors."""

    def attach(self) -> None:
        """Count somebody who may make calls; the thread stays as long as there is one."""
        with self._lock:
            self._users += 1

    def detach(self) -> None:
        """Count somebody less; harmless from any thread, finalizers included."""
        if self.pid != os.getpid():
            return
        self._users -= 1  # no lock: a finalizer may run while this very thread holds it
        loop = self._loop
        if self._users <= 0 and loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end_when_idle)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine returns, after waiting for it in this thread.

        Any exception that interrupts the wait (Ctrl-C) cancels the coroutine and is raised when that has ended, or
        after 1 s.

        Args:
            make: Makes the coroutine; called on the loop, in the caller's context variables.

        Raises:
            RuntimeError: The caller is on the loop's own thread, which would wait for itself for ever.
        """
        if self.runs_here():
            raise RuntimeError(
                "A synchronous call was made on the event loop of vision_backends, which would wait for itself: "
                "await an AsyncRouter there, or make the call in another thread."
            )
        outcomes: queue.SimpleQueue[_Outcome[T]] = queue.SimpleQueue()
        call = self._submit(make, outcomes.put)
        try:
            outcome = outcomes.get()
        except BaseException:
            call.cancel()
            with suppress(queue.Empty):
                outcomes.get(timeout=CANCEL_S)
            raise
        return outcome.unwrap()

    async def run_from_loop(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine returns, after awaiting it on the caller's own loop; hands a cancellation on."""
        if self.runs_here():
            return await make()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Outcome[T]] = loop.create_future()

        def deliver(outcome: _Outcome[T]) -> None:
            with suppress(RuntimeError):  # the caller's loop has been closed
                loop.call_soon_threadsafe(_set, future, outcome)

        call = self._submit(make, deliver)
        try:
            outcome = await future
        except BaseException:
            call.cancel()
            raise
        return outcome.unwrap()

    def start(self, make: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
        """Begin a coroutine that nobody waits for and return what cancels it, from any thread."""
        return self._submit(make, lambda _outcome: None).cancel

    @property
    def is_running(self) -> bool:
        """Whether the thread runs now."""
        return self._loop is not None

    def runs_here(self) -> bool:
        """Return whether the caller is on the loop's own thread."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call something on the loop soon, if it runs; never blocks."""
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:  # it has ended
            return False
        return True

    def stop(self) -> None:
        """Cancel what runs, give it a second, and end the thread; harmless twice."""
        if self.pid != os.getpid():
            return
        loop, ended = self._loop, self._ended
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
                ended.wait(2 * CANCEL_S)

    def _submit(self, make: Callable[[], Coroutine[Any, Any, T]], done: Callable[[_Outcome[T]], object]) -> _Call[T]:
        call = _Call(make, done)
        with self._lock:
            loop = self._running_loop()
            self._calls.add(call)
            call.loop = loop
            loop.call_soon_threadsafe(self._begin, call)
        return call

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, whose thread is started if need be; the caller holds the lock."""
        if self._loop is None:
            loop = asyncio.new_event_loop()
            self._ended = threading.Event()
            thread = threading.Thread(target=self._main, args=(loop, self._ended), name="vision-loop", daemon=True)
            try:
                thread.start()
            except BaseException:
                loop.close()
                raise
            self._loop, self._thread = loop, thread
        return self._loop

    def _begin(self, call: _Call[Any]) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        call.begin(self._calls.discard)

    def _main(self, loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            with self._lock:
                left, self._calls = self._calls, set()
                if self._loop is loop:
                    self._loop = self._thread = None
            try:
                _cancel_all(loop)
                for call in left:
                    call.fail(RuntimeError("The event loop has ended."))
            finally:
                asyncio.set_event_loop(None)
                loop.close()
                ended.set()

    def _end_when_idle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._idle is None and self._users <= 0:
            self._idle = loop.call_later(IDLE_S, self._end_if_idle, loop)

    def _end_if_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._idle = None
            if self._users <= 0 and not self._calls and self._loop is loop:
                self._loop = self._thread = None  # whoever comes from now on starts another
                loop.stop()


class _Outcome(Generic[T]):
    """What a coroutine has returned or raised."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: T | None, error: BaseException | None) -> None:
        self._result = result
        self._error = error

    def unwrap(self) -> T:
        if self._error is None:
            return self._result  # type: ignore[return-value]
        try:
            raise self._error
        finally:
            self._error = None  # its traceback refers to this frame: leave no circle behind


class _Call(Generic[T]):
    """A coroutine on the loop that somebody elsewhere waits for."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], done: Callable[[_Outcome[T]], object]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._make = make
        self._done: Callable[[_Outcome[T]], object] | None = done
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def begin(self, forget: Callable[[_Call[T]], object]) -> None:
        """Start the task; on the loop."""
        if self._cancelled:
            forget(self)
            self.fail(asyncio.CancelledError())
            return

        def forget_and_finish(task: asyncio.Task[T]) -> None:
            forget(self)
            self._finish(task)

        self._task = asyncio.get_running_loop().create_task(self._context.run(self._make), context=self._context)
        self._task.add_done_callback(forget_and_finish)

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        self._cancelled = True
        if self.loop is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._cancel_task)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error unless it has ended."""
        done, self._done = self._done, None
        if done is not None:
            done(_Outcome(None, error))

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        done, self._done = self._done, None
        self._task = None
        if task.cancelled():
            outcome: _Outcome[T] = _Outcome(None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            outcome = _Outcome(None, error)
        else:
            outcome = _Outcome(task.result(), None)
        if done is not None:
            done(outcome)


def _set(future: asyncio.Future[_Outcome[T]], outcome: _Outcome[T]) -> None:
    if not future.done():
        future.set_result(outcome)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left on a loop and let it end, within a second."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_S))
    loop.run_until_complete(loop.shutdown_asyncgens())


_lock = threading.Lock()
_engine: EventLoop | None = None
_of_parents: list[EventLoop] = []
"""Engines of the processes that this one was forked from: their loops share the parent's sockets and stay untouched."""


def engine_loop() -> EventLoop:
    """Return the event loop of this process, whose thread starts with the first call."""
    global _engine  # noqa: PLW0603 — one for the process
    engine = _engine
    if engine is not None and engine.pid == os.getpid():
        return engine
    with _lock:
        if _engine is None or _engine.pid != os.getpid():
            if _engine is None:
                atexit.register(_stop_at_exit)
                if hasattr(os, "register_at_fork"):
                    os.register_at_fork(after_in_child=_forget)
            _engine = EventLoop()
        return _engine


def _stop_at_exit() -> None:
    if _engine is not None:
        _engine.stop()


def _forget() -> None:
    """Start anew in a forked child, where neither the thread nor the state of its locks is what it was."""
    global _engine, _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _engine is not None:
        _of_parents.append(_engine)
        _engine = EventLoop()
