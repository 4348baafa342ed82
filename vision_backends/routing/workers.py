"""How long a rung may take, and what keeps it to that.

This module decides how a deadline is divided, and that nobody waits beyond it: a backend runs in a thread of its
own, and is left alone there when its time is up. It must not know what the calls do.
"""

from __future__ import annotations

import contextvars
import logging
import os
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.errors import OverloadedError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.clock import Clock

__all__ = ["Workers"]

T = TypeVar("T")


GRACE_S = 0.1
"""An answer that is there this soon after its time is still taken: it has been paid for."""

_log = logging.getLogger(__name__)


class Workers:
    """Threads in which calls run, so that whoever waits for them can stop waiting.

    The threads are daemons: a call that never ends holds up neither its caller nor the end of the interpreter.
    They are used again, since handing work to a waiting thread takes a fraction of starting one, and end when
    they were idle for a while. After a fork the child begins with none.

    Args:
        max_stuck: How many calls may be running beyond their time before new ones are refused.
        idle_s: Seconds after which an idle thread ends, so that a router that nobody closes leaves nothing behind.
        clock: Decides whether an answer is late. Waiting itself takes real time, whatever the clock: with a fake
            one, an answer is late when the clock was moved beyond its time.
    """

    def __init__(self, *, max_stuck: int = 64, idle_s: float = 30.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._max_stuck = max_stuck
        self._clock = clock
        self._idle_s = idle_s
        self._crew = _Crew(idle_s)

    def run_within(self, call: Callable[[], T], timeout_s: float, *, on_late: Callable[[T], object] | None = None) -> T:
        """Return what a call returns, or raise what it raises, if that happens in time.

        The call sees the caller's context variables. When its time is up, or the caller is interrupted, it goes
        on alone.

        Args:
            call: What to do.
            timeout_s: Seconds that it may take.
            on_late: Is given what the call returned after nobody waited for it any more, in the call's thread.

        Raises:
            TimedOutError: It took too long.
            OverloadedError: Too many earlier calls are stuck.
            RuntimeError: The workers are closed.
        """
        if self._crew.pid != os.getpid():
            self._crew = _Crew(self._idle_s)
        crew = self._crew
        if crew.stuck >= self._max_stuck:
            raise OverloadedError(
                f"{crew.stuck} earlier calls have not come back yet.",
                remedy="Look for what they wait for: a dead connection, a blocked device.",
            )
        job = _Job(call, on_late)
        started = self._clock.monotonic()
        crew.start(job)
        try:
            outcome = job.outcome.get(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
        except queue.Empty:
            if crew.abandon(job):
                raise _late(timeout_s) from None
            outcome = job.outcome.get()  # it came in the very last moment
        except BaseException:  # the caller is interrupted
            if not crew.abandon(job):
                job.deliver_late(job.finished)  # which may have been taken from the queue already, and lost
            raise
        if outcome.error is None and self._clock.monotonic() - started > timeout_s + GRACE_S:
            job.deliver_late(outcome)
            raise _late(timeout_s)
        return outcome.unwrap()

    def run_here(self, call: Callable[[], T], timeout_s: float, *, on_late: Callable[[T], object] | None = None) -> T:
        """Do as `run_within` in the caller's own thread, for a call that is known to end in time by itself.

        It saves handing the call to a thread and back, some 50 µs. Should it take longer all the same, its answer
        counts as late.

        Raises:
            TimedOutError: It took too long.
        """
        started = self._clock.monotonic()
        result = call()
        if self._clock.monotonic() - started > timeout_s + GRACE_S:
            if on_late is not None:
                on_late(result)
            raise _late(timeout_s)
        return result

    def close(self) -> None:
        """Let idle threads end now and busy ones after their call; calling it twice is harmless."""
        self._crew.close()


class _Outcome(Generic[T]):
    """What a call has returned or raised."""

    __slots__ = ("_result", "error")

    def __init__(self, call: Callable[[], T]) -> None:
        self.error: BaseException | None = None
        try:
            self._result = call()
        except BaseException as error:  # noqa: BLE001 — it is raised again, in the caller's thread
            self.error = error

    def unwrap(self) -> T:
        if self.error is None:
            return self._result
        try:
            raise self.error
        finally:
            self.error = None  # its traceback refers to this frame: leave no circle behind


class _Job(Generic[T]):
    """One call, and whether its outcome is still waited for."""

    __slots__ = ("_call", "_claim", "_context", "_on_late", "finished", "outcome")

    finished: _Outcome[T]

    def __init__(self, call: Callable[[], T], on_late: Callable[[T], object] | None) -> None:
        self.outcome: queue.SimpleQueue[_Outcome[T]] = queue.SimpleQueue()
        self._call = call
        self._on_late = on_late
        self._context = contextvars.copy_context()
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Return True to the first who asks: the worker that delivers, or the caller who gives up."""
        return self._claim.acquire(blocking=False)

    def run(self) -> _Outcome[T]:
        self.finished = _Outcome(partial(self._context.run, self._call))
        return self.finished

    def deliver_late(self, outcome: _Outcome[T]) -> None:
        """Hand on what nobody waits for any more; trouble with it is logged, for there is nobody to tell."""
        try:
            result = outcome.unwrap()
            if self._on_late is not None:
                self._context.run(self._on_late, result)
        except Exception as error:  # noqa: BLE001 — nobody is left who could handle it
            _log.debug("A call that was no longer waited for ended with %r.", error)


class _Crew:
    """The threads of one process, and who of them is idle."""

    def __init__(self, idle_s: float) -> None:
        self.pid = os.getpid()
        self.stuck = 0
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: list[_Inbox] = []
        self._closed = False

    def start(self, job: _Job[Any]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("The workers are closed.")
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(inbox,), name="vision-worker", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise OverloadedError(f"The system starts no more threads: {error}.") from error
        inbox.put(job)

    def abandon(self, job: _Job[Any]) -> bool:
        """Stop waiting for a job; return False when its outcome is already on the way."""
        with self._lock:
            if not job.claim():
                return False
            self.stuck += 1
            return True

    def close(self) -> None:
        if self.pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            for inbox in self._idle:
                inbox.put(None)
            self._idle.clear()

    def _work(self, inbox: _Inbox) -> None:
        """Do one job after the other, until there was none for a while."""
        while (job := self._next(inbox)) is not None:
            outcome = job.run()
            if job.claim():
                working = self._rest(inbox, was_stuck=False)
                job.outcome.put(outcome)
            else:
                job.deliver_late(outcome)
                working = self._rest(inbox, was_stuck=True)
            del job, outcome  # an idle thread keeps nobody's pixels
            if not working:
                return

    def _next(self, inbox: _Inbox) -> _Job[Any] | None:
        try:
            return inbox.get(timeout=self._idle_s)
        except queue.Empty:
            with self._lock:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    return None
        return inbox.get()  # work was assigned in the very last moment

    def _rest(self, inbox: _Inbox, *, was_stuck: bool) -> bool:
        """Go idle; return False when there will be no more work."""
        with self._lock:
            self.stuck -= was_stuck
            if not self._closed:
                self._idle.append(inbox)
            return not self._closed


_Inbox = queue.SimpleQueue[_Job[Any] | None]


def _late(timeout_s: float) -> TimedOutError:
    return TimedOutError(f"No answer within {timeout_s:.3g} s.")
