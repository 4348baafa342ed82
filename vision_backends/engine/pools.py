"""Named, bounded pools of threads for work that would block the event loop, and that can be left behind.

This module decides how many threads there are, when work is refused, and what becomes of a result that nobody waits
for any more. It must not know what the work is. The threads are daemons: work that never ends holds up neither its
caller nor the end of the interpreter. They end when they were idle for a while, and a forked child starts with none.
"""

from __future__ import annotations

import contextvars
import logging
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.errors import OverloadedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Pool"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Pool:
    """Threads that take one job after the other. Safe for many threads.

    Args:
        name: How its threads are called.
        size: How many there are at most, those included that are stuck in work which was left behind.
        idle_s: Seconds after which an idle thread ends, so that an owner that nobody closes leaves nothing behind.
    """

    def __init__(self, name: str, *, size: int, idle_s: float = 30.0) -> None:
        self._name = name
        self._size = size
        self._idle_s = idle_s
        self._crew = _Crew(name, size, idle_s)

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
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        crew = self._crew_of_process()
        job = _Job(call, on_late, crew, loop, future)
        crew.put(job)
        future.add_done_callback(job.on_done)
        return future

    def submit(self, call: Callable[[], object]) -> None:
        """Do something in one of the threads that nobody waits for; what it raises is logged. Errors as in `start`."""
        self._crew_of_process().put(_Job(call, None, None, None, None))

    @property
    def stuck(self) -> int:
        """How many threads are in work that was left behind."""
        return self._crew.stuck

    def close(self) -> None:
        """Let idle threads end now and busy ones after their work; harmless twice."""
        if self._crew.pid == os.getpid():
            self._crew.close()

    def _crew_of_process(self) -> _Crew:
        if self._crew.pid != os.getpid():  # neither the threads nor the state of their locks came along
            self._crew = _Crew(self._name, self._size, self._idle_s)
        return self._crew


class _Job(Generic[T]):
    """One call, and whether its outcome is still waited for."""

    __slots__ = ("_call", "_claim", "_context", "_crew", "_future", "_loop", "_on_late", "begun")

    def __init__(
        self,
        call: Callable[[], T],
        on_late: Callable[[T], object] | None,
        crew: _Crew | None,
        loop: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[T] | None,
    ) -> None:
        self._call = call
        self._on_late = on_late
        self._crew = crew
        self._loop = loop
        self._future = future
        self._context = contextvars.copy_context()
        self._claim = threading.Lock()  # taken by whoever decides what becomes of the outcome
        self.begun = False

    def run(self) -> None:
        """Make the call and hand on how it ended; runs in a thread of the pool."""
        if self._claim.locked():  # left behind before it began
            return
        self.begun = True
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._context.run(self._call)
        except BaseException as caught:  # noqa: BLE001 — raised again where it is waited for
            error = caught
        if self._loop is None:
            if error is not None:
                _log.error("Work in the background failed.", exc_info=error)
        elif self._claim.acquire(blocking=False):
            try:
                self._loop.call_soon_threadsafe(self._deliver, result, error)
            except RuntimeError:  # the loop has ended
                self._deliver_late(result, error)
        else:
            if self._crew is not None:
                self._crew.come_back()
            self._deliver_late(result, error)

    def on_done(self, future: asyncio.Future[T]) -> None:
        """Leave the call behind if nobody waits for it any more; runs on the loop."""
        if future.cancelled() and self._claim.acquire(blocking=False) and self.begun and self._crew is not None:
            self._crew.leave_behind()

    def _deliver(self, result: T, error: BaseException | None) -> None:
        future, self._future = self._future, None
        if future is None:
            return
        if future.done():  # it was cancelled while the outcome was on its way
            if self._crew is not None and error is None and self._on_late is not None:
                self._crew.put(_Job(lambda: self._deliver_late(result, None), None, None, None, None))
        elif error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):  # which a future does not take
            future.set_exception(RuntimeError("A call ended with StopIteration."))
        else:
            future.set_exception(error)

    def _deliver_late(self, result: T, error: BaseException | None) -> None:
        """Hand on what nobody waits for any more; trouble with it is logged, for there is nobody to tell."""
        try:
            if error is None and self._on_late is not None:
                self._context.run(self._on_late, result)
        except Exception as trouble:  # noqa: BLE001 — nobody is left who could handle it
            error = trouble
        if error is not None:
            _log.debug("A call that was no longer waited for ended with %r.", error)


class _Crew:
    """The threads of one process."""

    def __init__(self, name: str, size: int, idle_s: float) -> None:
        self.pid = os.getpid()
        self.stuck = 0
        self._name = name
        self._size = size
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def put(self, job: _Job[Any]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"The pool {self._name!r} is closed.")
            if self.stuck >= self._size:
                raise OverloadedError(
                    f"{self.stuck} earlier calls have not returned yet.",
                    remedy="Find out what they wait for: a dead connection, a blocked device.",
                )
            if self._idle <= self._jobs.qsize() and self._threads < self._size:
                self._start_thread()
            self._jobs.put(job)

    def leave_behind(self) -> None:
        with self._lock:
            self.stuck += 1

    def come_back(self) -> None:
        with self._lock:
            self.stuck -= 1

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"vision-{self._name}", daemon=True)
        self._threads += 1
        try:
            thread.start()
        except RuntimeError as error:
            self._threads -= 1
            if self._threads == 0:
                raise OverloadedError(f"The system starts no more threads: {error}.") from error

    def _work(self) -> None:
        """Do one job after the other, until there was none for a while."""
        while (job := self._next()) is not None:
            job.run()
            del job  # an idle thread keeps nobody's pixels

    def _next(self) -> _Job[Any] | None:
        with self._lock:
            self._idle += 1
        try:
            job = self._jobs.get(timeout=self._idle_s)
        except queue.Empty:
            job = None
        with self._lock:
            self._idle -= 1
            if job is None:
                if not self._closed and self._jobs.qsize():  # work came in the very last moment
                    return self._jobs.get()
                self._threads -= 1
        return job
