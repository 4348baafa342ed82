"""Everything that is written to one store, in order, in one thread behind the calls.

This module decides when something is written, that what could not be is tried again until it can, and how long anybody
waits for that. It must not know what is written.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import Mailbox, after_fork_in_child, make_lock, make_queue
from vision_backends.errors import OverloadedError
from vision_backends.storage.base import StoreClosedError, StoreError
from vision_backends.storage.bounded import RETRY_S, Outage, is_over, waited_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Job", "Writer"]

BUGS = 3
"""Times that something is tried which fails otherwise than for want of the store."""

CLOSE_S = 2.0
"""How long the end waits for what is still to be written."""

SLOW = "Another process may hold its lock, or its disk may hang."

_log = logging.getLogger(__name__)


class Job:
    """Something that is to be written.

    Args:
        write: Writes it; raises OSError where it has to be tried again.
        what: What it is, in the plural, for the message that it was lost; empty for a mark that writes nothing.
        counts: Tells how many of which things it is; by default one of these.
        lasts: Whether it is kept until it could be written; otherwise it is tried once, and given up if nobody waits.
        on_lost: Called when it was tried and is not tried any more; in the writer's thread.
    """

    __slots__ = ("_awaited_by", "_counts", "_is_told", "error", "lasts", "on_lost", "state", "what", "write")

    def __init__(
        self,
        write: Callable[[], object],
        *,
        what: str = "",
        counts: Callable[[], Mapping[str, int]] | None = None,
        lasts: bool = True,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.write = write
        self.what = what
        self.lasts = lasts
        self.on_lost = on_lost
        self._is_told = False
        self._awaited_by: list[Callable[[], object]] | None = None
        self.state: Literal["waiting", "running", "done", "given up"] = "waiting"
        self.error: BaseException | None = None
        self._counts = counts

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of which things it writes."""
        return {self.what: 1} if self._counts is None else self._counts()

    def when_ended(self, told: Callable[[], object]) -> bool:
        """Have something called at its end, or return False where that was told; under the writer's lock, as `tell`."""
        if self._is_told:
            return False
        if self._awaited_by is None:
            self._awaited_by = []
        self._awaited_by.append(told)
        return True

    def tell(self) -> None:
        """Have whoever waits for it go on."""
        awaited_by, self._awaited_by, self._is_told = self._awaited_by, None, True
        for told in awaited_by or ():
            told()


class Writer:
    """Writes to one store. Safe for many threads.

    Args:
        what: What is written, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pool = Pool("recorder", size=1, may_hang=False)
        self._begin()
        after_fork_in_child(self, Writer._begin)  # what is on its way is the parent's to write

    def _begin(self) -> None:
        self._lock = make_lock()
        self._jobs: deque[Job] = deque()
        self._outage = Outage(self._what)
        self._wake: Any = make_queue()
        self._is_running = False
        self._is_closing = False

    @property
    def trouble(self) -> StoreError | None:
        """Why nothing can be written now; None when it can."""
        return self._outage.error

    @property
    def is_away(self) -> bool:
        """Whether nothing can be written now, and something is tried already or has just failed."""
        outage = self._outage
        return outage.error is not None and (bool(self._jobs) or SYSTEM_CLOCK.monotonic() < outage.retry_at)

    @property
    def is_idle(self) -> bool:
        """Whether everything is written."""
        return not self._jobs

    def put(self, job: Job, *, starts: bool = True) -> None:
        """Have something written, after what came before; nothing is when the writer was closed.

        Args:
            job: What.
            starts: Whether that is soon, or only with what comes next.
        """
        with self._lock:
            if self._is_closing:
                job.state = "given up"
                return
            self._jobs.append(job)
        if starts:
            self.start()

    def start(self) -> None:
        """Have the thread work, if it does not."""
        with self._lock:
            is_first, self._is_running = not self._is_running, True
        if is_first:
            try:
                self._pool.submit(self._work)
            except (OverloadedError, RuntimeError):  # no thread is left, or the interpreter ends
                self._work(is_here=True)

    def wait(self, job: Job, *, is_probe: bool = False) -> bool:
        """Return whether something is written in the time that the call has; an error of its own is raised.

        Nobody waits for a store that is away, unless to find out.
        """
        is_done = self._ends(job, is_probe=is_probe)
        if is_done and job.error is not None:
            raise job.error
        return is_done

    def _ends(self, job: Job, *, is_probe: bool = False) -> bool:
        """Return whether something has ended in the time that the call has."""
        told: Mailbox[None] = Mailbox()
        with self._lock:
            waits = job.state in {"waiting", "running"} and job.when_ended(partial(told.put, None))
        if waits and not is_over() and (is_probe or self._outage.error is None):
            try:
                waited_for(told)
            except TimeoutError:
                if job.state != "done":
                    self.slow()
        return job.state == "done"

    def withdraw(self, job: Job) -> bool:
        """Return whether something will not be written; it may be under way already."""
        with self._lock:
            if job.state == "waiting":
                job.state = "given up"
            return job.state == "given up"

    def written(self) -> bool:
        """Return whether everything that was put so far is written, in the time that the call has."""
        with self._lock:
            last = self._jobs[-1] if self._jobs else None
        if last is None:
            return True
        if self._outage.error is not None:
            return False
        self.start()
        return self._ends(last)

    def when_written(self, told: Callable[[], object]) -> bool:
        """Have something called, in any thread, when everything that was put so far is written.

        Returns:
            False where it is, or cannot be now: nothing is called then.
        """
        with self._lock:
            waits = bool(self._jobs) and self._outage.error is None and self._jobs[-1].when_ended(told)
        if waits:
            self.start()
        return waits

    def slow(self) -> None:
        """Note that somebody has waited for something for as long as a call may."""
        with self._lock:
            self._outage.begin(StoreError("The store has not written in time.", remedy=SLOW), is_slow=True)

    def close(self) -> Counter[str]:
        """Wait for what is still to be written, for 2 s at most, and return what was lost."""
        mark = Job(lambda: None)
        told: Mailbox[None] = Mailbox()
        with self._lock:
            self._is_closing = True
            mark.when_ended(partial(told.put, None))
            if self._jobs:
                self._jobs.append(mark)
        self._wake.put(None)
        if mark in self._jobs:
            self.start()
            ends = SYSTEM_CLOCK.monotonic() + CLOSE_S
            while mark.state == "waiting" and self._is_running and SYSTEM_CLOCK.monotonic() < ends:
                try:
                    told.get(0.05)
                except TimeoutError:
                    continue
        with self._lock:
            lost: Counter[str] = Counter()
            for job in self._jobs:
                if job.what and job.lasts and job.state != "done":
                    lost.update(job.counts)
            self._jobs.clear()
        self._pool.close()
        return +lost

    def _work(self, *, is_here: bool = False) -> None:
        """Write one thing after the other; in the thread of the pool, or here, where nothing is tried twice."""
        failures = 0
        while (job := self._next()) is not None:
            try:
                job.write()
            except Exception as error:  # noqa: BLE001 — a store may raise anything
                failures += 1
                is_over = not job.lasts or isinstance(error, StoreClosedError)
                is_bug = not isinstance(error, OSError) and failures >= BUGS
                if is_bug and not is_over:
                    _log.exception("Something could not be written to the store, and is given up.")
                if not self._failed(job, error, gives_up=is_over or is_bug, is_last=is_here):
                    return
            else:
                failures = 0
                self._done(job)

    def _next(self) -> Job | None:
        """Return what is to be written next, or None if nothing is left."""
        with self._lock:
            while self._jobs and self._jobs[0].state == "given up":
                self._jobs.popleft().tell()
            if not self._jobs:
                self._is_running = False
                return None
            self._jobs[0].state = "running"
            return self._jobs[0]

    def _done(self, job: Job, error: Exception | None = None) -> None:
        with self._lock:
            if error is None and job.what:
                self._outage.end()
            job.state, job.error = "done", error
            if self._jobs and self._jobs[0] is job:
                self._jobs.popleft()
            job.tell()

    def _failed(self, job: Job, error: Exception, *, gives_up: bool, is_last: bool) -> bool:
        """Note a failure, and wait before the next attempt; return whether there is one."""
        with self._lock:
            trouble = self._outage.begin(error)
            for waiting in () if gives_up else self._jobs:
                waiting.tell()  # who waits for it, or for what comes after it, need not
        if gives_up:
            job.on_lost()
            self._done(job, trouble)
            return True
        if is_last or self._is_closing:
            with self._lock:
                self._is_running = False
            return False
        with suppress(Empty):
            self._wake.get(timeout=RETRY_S)
        return True
