"""Named, bounded pools of threads for work that would block the event loop, and that can be left behind.

This module decides how many threads there are, when work is refused, and what becomes of a result that is not waited
for any more. It must not know what the work is. The threads are daemons: work that never ends holds up neither its
caller nor the end of the interpreter. They end when they were idle for a while, and a forked child starts with none.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.engine.threads import after_fork_in_child, callbacks_of, make_lock, make_queue, start_thread
from vision_backends.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pool"]

T = TypeVar("T")

SLOW_S = 0.05
"""Where no call has ended for so long, they wait for something else than the processor."""

_log = logging.getLogger(__name__)


class Pool:
    """Threads that take one job after the other. Safe for many threads.

    Args:
        name: How its threads are called.
        size: How many there are at most, those included that are stuck in work which was left behind.
        may_hang: Whether its work may never end. Where it always does, a job waits for threads that are still in work
            that was left behind, instead of being refused.
        idle_s: Seconds after which an idle thread ends, so that an owner that is never closed leaves nothing behind.
        eager: How many of them are started as soon as all others are busy, for work that is quick unless it waits for
            something: more would only contend for the processor, and are started once no call has ended for a moment.

    Attributes:
        stuck: How many threads are in work that was left behind.
    """

    def __init__(
        self, name: str, *, size: int, may_hang: bool = True, idle_s: float = 3.0, eager: int | None = None
    ) -> None:
        self._name = name
        self._may_hang = may_hang
        self._size = size
        self._idle_s = idle_s
        self._eager = size if eager is None else eager
        self._begin()
        after_fork_in_child(self, Pool._begin)  # neither the threads nor the state of their locks come along

    def _begin(self) -> None:
        self.stuck = 0
        self._lock = make_lock()
        self._jobs = make_queue()
        self._threads = 0
        self._unfinished = 0
        self._ended = 0
        self._watched_by: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._running: dict[_Awaited[Any], float] = {}

    def start(self, call: Callable[[], T], *, on_late: Callable[[T], object] | None = None) -> asyncio.Future[T]:
        """Begin a call in one of the threads and return its future on the running loop.

        The call sees the caller's context variables. Cancelling the future leaves the call behind: it is dropped if it
        has not begun, and otherwise goes on alone.

        Args:
            call: What to do.
            on_late: Given what the call returned after its future was cancelled, in one of the threads.

        Raises:
            OverloadedError: Every thread is stuck in work that was left behind, or none can be started.
            RuntimeError: The pool is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = _Awaited(call, on_late, self, future)
        self.put(job)
        if self._is_short():
            self._grow_if_slow(loop)
        future.add_done_callback(job.leave_behind_if_cancelled)
        return future

    def submit(self, call: Callable[[], object]) -> None:
        """Do something in one of the threads in the background; what it raises is logged. Errors as in `start`."""
        self.put(partial(contextvars.copy_context().run, call))

    def busy_for(self, seconds: float) -> int:
        """Return how many threads are in a call that began so long ago, or that was left behind."""
        with self._lock:
            latest = time.monotonic() - seconds
            return sum(job.state == "left" or began <= latest for job, began in self._running.items())

    def close(self) -> None:
        """Let idle threads end now and busy ones after their work; harmless twice."""
        with self._lock:
            self._is_closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def put(self, job: _Awaited[Any] | Callable[[], object]) -> None:
        """Have a thread do a job, after those that came before. Errors as in `start`."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"The pool {self._name!r} is closed.")
            if self._may_hang and self.stuck >= self._size:
                raise OverloadedError(
                    f"All {self._size} threads for {self._name} are in earlier calls that have not returned.",
                    remedy="Find out what they wait for: a dead connection, a blocked device.",
                )
            if self._unfinished >= self._threads < self._size and self._threads - self.stuck < self._eager:
                self._start_thread()
            self._unfinished += 1
            self._jobs.put(job)

    def begin(self, job: _Awaited[Any]) -> bool:
        """Note that a call begins; return whether it still should."""
        with self._lock:
            if job.state == "left":
                self._unfinished -= 1
                return False
            job.state = "running"
            self._running[job] = time.monotonic()
            return True

    def leave_behind(self, job: _Awaited[Any]) -> bool:
        """Note that a call is not waited for any more; return whether it has begun."""
        with self._lock:
            if job.state == "waiting":
                job.state = "left"
                return False
            if job.state == "running" and job in self._running:  # not what runs in the parent of a fork
                job.state = "left"
                self.stuck += 1
            return True

    def finish(self, job: _Awaited[Any]) -> bool:
        """Note that a call has ended; return whether it is waited for."""
        with self._lock:
            self._unfinished -= 1
            self._ended += 1
            del self._running[job]
            if job.state == "left":
                self.stuck -= 1
                return False
            job.state = "done"
            return True

    def _is_short(self) -> bool:
        return self._unfinished > self._threads and self._threads < self._size

    def _grow_if_slow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop start more threads whenever no call has ended for a moment, as long as calls wait for one."""
        if self._watched_by is None or self._watched_by.is_closed():
            self._watched_by = loop
            loop.call_later(SLOW_S, self._grow, loop, self._ended)

    def _grow(self, loop: asyncio.AbstractEventLoop, ended: int) -> None:
        with self._lock:
            self._watched_by = None
            if not self._is_short():
                return
            if ended == self._ended:
                with suppress(OverloadedError):  # those that are there go on
                    for _ in range(min(self._threads, self._size - self._threads)):
                        self._start_thread()
        self._grow_if_slow(loop)

    def _start_thread(self) -> None:
        self._threads += 1
        try:
            start_thread(self._work, name=f"vision-{self._name}")
        except OverloadedError:
            self._threads -= 1
            if self._threads <= self.stuck:  # none is left that could do it
                raise

    def _work(self) -> None:
        """Do one job after the other, until there was none for a while."""
        while (job := self._next()) is not None:
            if isinstance(job, _Awaited):
                job.run()
            else:
                try:
                    job()
                except BaseException:  # noqa: BLE001 — no caller is left to handle it
                    _log.exception("Work in the background failed.")
                with self._lock:
                    self._unfinished -= 1
            del job  # an idle thread keeps no pixels

    def _next(self) -> _Awaited[Any] | Callable[[], object] | None:
        job: _Awaited[Any] | Callable[[], object] | None = None
        with suppress(queue.Empty):
            job = self._jobs.get(timeout=self._idle_s)
        with self._lock:
            if job is None:
                with suppress(queue.Empty):
                    job = self._jobs.get_nowait()  # work that came in the very last moment
            if job is None:
                self._threads -= 1
            return job


class _Awaited(Generic[T]):
    """A call whose outcome a future on a loop waits for, until that is cancelled."""

    __slots__ = ("_call", "_callbacks", "_context", "_future", "_on_late", "_pool", "state")

    def __init__(
        self, call: Callable[[], T], on_late: Callable[[T], object] | None, pool: Pool, future: asyncio.Future[T]
    ) -> None:
        self._call: Callable[[], T] | None = call
        self._on_late = on_late
        self._pool = pool
        self._callbacks = callbacks_of(future.get_loop())
        self._future: asyncio.Future[T] | None = future
        self._context = contextvars.copy_context()
        self.state = "waiting"
        """waiting → running → done, or left from either; changed by the pool, under its lock."""

    def run(self) -> None:
        """Make the call and hand on how it ended; runs in a thread of the pool."""
        call = self._call
        if not self._pool.begin(self) or call is None:
            return
        result: Any = None
        error: BaseException | None = None
        try:
            try:
                result = self._context.run(call)
            except BaseException as caught:  # noqa: BLE001 — raised where it is waited for
                error = caught
            if self._pool.finish(self):
                with suppress(RuntimeError):  # the loop has ended
                    self._callbacks.call_soon(partial(self._deliver, result, error))
                    return
            self._deliver_late(result, error)
        finally:
            del error  # whose traceback refers to this frame

    def leave_behind_if_cancelled(self, future: asyncio.Future[T]) -> None:
        """Let the call go on alone if it is not waited for any more; runs on the loop."""
        if future.cancelled() and not self._pool.leave_behind(self):
            self._call = None  # it will not begin: let go of its pixels

    def _deliver(self, result: T, error: BaseException | None) -> None:
        future, self._future = self._future, None  # its error's traceback refers to this job: leave no circle behind
        if future is None or future.done():  # it was cancelled while the outcome was on its way
            late = partial(contextvars.Context().run, self._deliver_late, result, error)
            try:
                self._pool.put(late)
            except (OverloadedError, RuntimeError):  # no thread is left for it
                late()
        elif error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):  # which a future does not take
            future.set_exception(RuntimeError("A call ended with StopIteration."))
        else:
            future.set_exception(error)

    def _deliver_late(self, result: T, error: BaseException | None) -> None:
        """Hand on what is not waited for any more; trouble with it is logged, as no caller is left."""
        try:
            if error is not None:
                _log.debug("A call that was no longer waited for ended with %r.", error)
            elif self._on_late is not None:
                self._context.run(self._on_late, result)
        except Exception:  # noqa: BLE001 — no caller is left to handle it
            _log.exception("The late result of a call could not be handled.")
