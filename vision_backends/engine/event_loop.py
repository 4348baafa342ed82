"""The event loop that all calls run on: one per process, in a thread of its own.

This module decides when the thread starts and ends, and how other threads and other loops wait for a coroutine on it.
It must not know what the coroutines do. The loop belongs to a process: a forked child starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.engine.cancellation import wait_for_end
from vision_backends.engine.machine_limits import processors
from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import (
    Mailbox,
    Outcome,
    callbacks_of,
    make_event_loop,
    make_lock,
    start_thread,
    thread_id,
)
from vision_backends.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["EventLoop", "engine_loop"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

IDLE_S = 10.0
"""Seconds after which the thread ends when no router is left."""

CANCEL_S = 1.0
"""Seconds that a cancelled call is given to end: to close its socket, to book what it has cost."""


class EventLoop:
    """The loop of this process and its thread. Safe for many threads.

    Args:
        idle_s: Seconds after which the thread ends when nothing is attached and nothing runs.

    Attributes:
        pid: The process that it belongs to.
        compute: Threads for decoding, scaling and encoding: as many as there are processors.
    """

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self.pid = os.getpid()
        self.compute = Pool("compute", size=max(2, processors()), may_hang=False)
        self._idle_s = idle_s
        self._lock = make_lock()
        self._users: list[None] = []  # its length counts, since changing it takes no lock
        self._thread: _LoopThread | None = None

    def attach(self) -> None:
        """Count one more that may make calls; the thread stays as long as there is one."""
        self._users.append(None)

    def detach(self) -> None:
        """Count one less; takes no lock, so that finalizers may call it anywhere."""
        with suppress(IndexError):
            self._users.pop()
        thread = self._thread
        if thread is not None and self.pid == os.getpid():
            thread.call_soon(thread.rest)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine returns, after waiting for it in this thread.

        Any exception that interrupts the wait (Ctrl-C) cancels the coroutine and is raised when that has ended, or
        after 1 s.

        Args:
            make: Makes the coroutine; called on the loop, in the caller's context variables.

        Raises:
            OverloadedError: The loop's thread could not be started.
            RuntimeError: The caller is on the loop's own thread, which would wait for itself for ever; or Python shuts
                down.
        """
        return self.begin(make).wait()

    def begin(self, make: Callable[[], Coroutine[Any, Any, T]]) -> Running[T]:
        """Begin a coroutine, to be waited for in this thread later; arguments and errors as for `run`."""
        if self.runs_here():
            raise RuntimeError(
                "A synchronous call was made on the event loop of vision_backends, which would wait for itself: "
                "await an AsyncRouter there, or make the call in another thread."
            )
        running: Running[T] = Running(make)
        try:
            self._submit(running.call)
        except BaseException:
            running.cancel()
            raise
        return running

    async def run_from_loop(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine returns, after awaiting it on the caller's own loop.

        A cancellation is handed on, and raised when the coroutine has ended, or after 1 s. Errors as in `run`.
        """
        if self.runs_here():
            return await make()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome[T]] = loop.create_future()
        callbacks = callbacks_of(loop)

        def deliver(outcome: Outcome[T]) -> None:
            with suppress(RuntimeError):  # the caller's loop has been closed
                callbacks.call_soon(partial(_set, future, outcome))

        call = _Call(make, deliver)
        self._submit(call)
        try:
            await wait_for_end(future)
        except BaseException as error:
            call.cancel()
            if isinstance(error, asyncio.CancelledError):
                await asyncio.wait([future], timeout=CANCEL_S)
            raise
        return future.result().unwrap()

    def start(self, make: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
        """Begin a coroutine in the background and return what cancels it, from any thread.

        What it raises is logged. Errors as in `run`.
        """
        call = _Call(make, _log_failure)
        self._submit(call)
        return call.cancel

    @property
    def is_running(self) -> bool:
        """Whether the thread runs now."""
        return self._thread is not None and self.pid == os.getpid()

    def runs_here(self) -> bool:
        """Return whether the caller is on the loop's own thread."""
        thread = self._thread
        return thread is not None and thread.ident == thread_id()

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call something on the loop soon and return True, or return False if it does not run; never blocks."""
        thread = self._thread
        return thread is not None and self.pid == os.getpid() and thread.call_soon(callback)

    def stop(self) -> None:
        """Fail the calls that wait, cancel what runs, give it a second, and end the thread; harmless twice."""
        if self.pid != os.getpid():
            return
        is_here = self.runs_here()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread.call_soon(thread.end) and not is_here:
            thread.wait(2 * CANCEL_S)

    def _submit(self, call: _Call[Any]) -> None:
        if self.pid != os.getpid():
            raise RuntimeError(
                f"This event loop belongs to process {self.pid}: ask engine_loop() for that of this one."
            )
        with self._lock:
            if self._thread is None:
                self._thread = _LoopThread(self._idle_after_s, self._let_go)
            self._thread.take(call)

    def _idle_after_s(self) -> float | None:
        """Return the seconds after which an idle thread ends; None as long as something is attached."""
        return None if self._users else self._idle_s

    def _let_go(self, thread: _LoopThread, *, if_idle: bool) -> bool:
        """Have the next call start another thread, and return whether that is so."""
        with self._lock:
            if if_idle and (self._users or thread.calls):
                return False
            if self._thread is thread:
                self._thread = None
            return True


class _LoopThread:
    """One loop, the thread that runs it, and the calls on it."""

    def __init__(self, idle_after_s: Callable[[], float | None], let_go: Callable[..., bool]) -> None:
        self.calls: set[_Call[Any]] = set()
        self.ident: int | None = None
        self._idle_after_s = idle_after_s
        self._let_go = let_go
        self._is_ending = False
        self._rests = False
        self._runs = make_lock()  # held until the thread ends
        self._runs.acquire()
        try:
            self._loop = make_event_loop()
        except OSError as error:
            raise OverloadedError(f"No event loop could be made: {error}.") from error
        self._callbacks = callbacks_of(self._loop)
        try:
            start_thread(self._main, name="vision-loop")
        except OverloadedError:
            self._loop.close()
            raise
        except BaseException:  # interrupted: it may have started
            self.call_soon(self.end)
            raise

    def take(self, call: _Call[Any]) -> None:
        """Begin a call soon; under the lock of the engine, so that no call comes after the end."""
        call.thread = self
        self.calls.add(call)
        self._callbacks.call_soon(call.begin)

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call something on the loop soon and return True, or return False if it has ended."""
        try:
            self._callbacks.call_soon(callback)
        except RuntimeError:
            return False
        return True

    def forget(self, call: _Call[Any]) -> None:
        """Note that a call has ended."""
        self.calls.discard(call)
        self.rest()

    def rest(self) -> None:
        """End in a while, if nothing is left to do."""
        idle_s = self._idle_after_s()
        if not self._rests and idle_s is not None and not self.calls:
            self._rests = True
            self._loop.call_later(idle_s, self._end_if_idle)

    def end(self) -> None:
        """End now."""
        self._is_ending = True
        self._loop.stop()

    def wait(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._runs.acquire(timeout=timeout_s):
            self._runs.release()

    def _end_if_idle(self) -> None:
        self._rests = False
        if asyncio.all_tasks(self._loop):  # work that no call waits for
            self.rest()
        elif self._let_go(self, if_idle=True):
            self.end()

    def _main(self) -> None:
        self.ident = thread_id()
        try:
            while not self._is_ending:
                with suppress(KeyboardInterrupt, SystemExit):  # raised in a task, which has kept it for its caller
                    self._loop.run_forever()
        finally:
            self._let_go(self, if_idle=False)
            try:
                for call in list(self.calls):
                    call.fail(RuntimeError("Python is shutting down; the call was cancelled."))
                with suppress(KeyboardInterrupt, SystemExit):
                    self._loop.run_until_complete(_wind_up())
            finally:
                self._loop.close()
                self._runs.release()


class Running(Generic[T]):
    """A coroutine on the loop, as a thread sees it that will wait for it."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._mailbox: Mailbox[Outcome[T]] = Mailbox()
        self.call = _Call(make, self._mailbox.put)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.call.is_done

    def wait(self) -> T:
        """Return what the coroutine returns; once, and as `EventLoop.run`."""
        try:
            outcome = self._mailbox.get()
        except BaseException:
            self.cancel()
            raise
        return outcome.unwrap()

    def cancel(self) -> None:
        """Cancel the coroutine, and wait for its end, for 1 s at most."""
        if self.call.cancel():
            with suppress(TimeoutError):
                self._mailbox.get(CANCEL_S)


class _Call(Generic[T]):
    """A coroutine for the loop, and whom to tell how it ended."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], done: Callable[[Outcome[T]], object]) -> None:
        self.thread: _LoopThread | None = None
        self._make = make
        self._context = contextvars.copy_context()  # the caller's
        self._done: Callable[[Outcome[T]], object] | None = done
        self._task: asyncio.Task[Outcome[T]] | None = None

    @property
    def is_done(self) -> bool:
        """Whether its end was told."""
        return self._done is None

    def begin(self) -> None:
        """Start the task, unless the call has failed; on the loop."""
        if self._done is not None:
            name = getattr(self._make, "__qualname__", None)
            self._task = asyncio.get_running_loop().create_task(
                _outcome_of(self._make), name=name, context=self._context
            )
            self._task.add_done_callback(self._finish)

    def cancel(self) -> bool:
        """Cancel the task, from any thread; return whether its end will be told."""
        return self.thread is not None and self.thread.call_soon(self._cancel_task)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error, unless it has ended; on the loop."""
        self._tell(Outcome(None, error))

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self.fail(asyncio.CancelledError())

    def _finish(self, task: asyncio.Task[Outcome[T]]) -> None:
        self._task = None
        self._tell(Outcome(None, asyncio.CancelledError()) if task.cancelled() else task.result())

    def _tell(self, outcome: Outcome[T]) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(outcome)
        if self.thread is not None:
            self.thread.forget(self)


async def _outcome_of(make: Callable[[], Coroutine[Any, Any, T]]) -> Outcome[T]:
    """Return how a coroutine ended, whatever it raised: an exit would end the loop."""
    try:
        return Outcome(await make(), None)
    except BaseException as error:  # noqa: BLE001 — raised where it is waited for
        return Outcome(None, error)


def _set(future: asyncio.Future[Outcome[T]], outcome: Outcome[T]) -> None:
    if not future.done():
        future.set_result(outcome)


def _log_failure(outcome: Outcome[Any]) -> None:
    try:
        outcome.unwrap()
    except asyncio.CancelledError:
        pass
    except BaseException:  # noqa: BLE001 — no caller is left to handle it
        _log.exception("Work in the background failed.")


async def _wind_up() -> None:
    """Cancel what is left on the loop and let it end, within a second."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + CANCEL_S
    while (tasks := asyncio.all_tasks() - {asyncio.current_task()}) and loop.time() < ends:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=ends - loop.time())
    closing = loop.create_task(loop.shutdown_asyncgens())
    await asyncio.wait([closing], timeout=CANCEL_S / 2)


_engines: dict[int, EventLoop] = {}
"""By process. Those of the processes that this one was forked from share their sockets with them and stay untouched."""


def engine_loop() -> EventLoop:
    """Return the event loop of this process, whose thread starts with the first call."""
    pid = os.getpid()
    engine = _engines.get(pid)
    if engine is None:
        engine = _engines.setdefault(pid, EventLoop())
        atexit.register(engine.stop)
    return engine
