"""One model, many callers: what has arrived while the model was busy runs as one batch.

This module decides who is served next and with whom, how much may wait, and what a failure of one batch means for
those in it. It must not know what is computed. There is no artificial wait: a lone caller is served immediately.

A batch takes one input from each waiting caller in turn, so a long list delays others only by the batch that is running
and by its share of theirs. Callers await a future of their own event loop; one that is cancelled withdraws its inputs.
A model has one thread, which is started when there is work and ends after a while without any.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time as real_time
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from vision_backends.engine.threads import awaited_at_exit, ending_error, interpreter_ends
from vision_backends.errors import BackendError, OverloadedError, TimedOutError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from vision_backends.clock import Deadline

    Wanted = Callable[[], Sequence[bool]]
    Run = Callable[[Sequence[Any], Wanted], Sequence[Any]]

__all__ = ["Job", "MicroBatcher"]

SMOOTHING = 0.2
"""Weight of the newest batch in the moving averages of times."""

LONGEST_END_S = 5.0
"""How long the interpreter's exit waits for a batch."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """What one caller wants from the model; it belongs to the event loop on which it is made.

    Attributes:
        key: Jobs with equal keys can share a batch.
        run: Computes the results of a batch; is told which of its rows are still wanted.
        inputs: One per result.
        deadline: How long the caller waits; one for all jobs of a call.
        results: Filled in as batches end.
        queue_s: Seconds until its first input was taken.
        model_s: Seconds that the batches with its inputs took.
    """

    key: Hashable
    run: Run
    inputs: Sequence[Any]
    deadline: Deadline
    results: list[Any] = field(default_factory=list)
    queue_s: float | None = None
    model_s: float = 0.0
    next: int = 0
    unfinished: int = 0
    error: BackendError | None = None
    left: bool = False
    ended: bool = False
    since: float = 0.0
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not (self.left or self.ended or self.deadline.expired)


_Part = tuple[Job, int]


class MicroBatcher:
    """Batches the inputs of many callers for one model. Safe for many threads and event loops.

    Args:
        name: What to call the model in messages.
        max_batch: Most inputs per batch; halved for good when there is not enough memory for one.
        max_waiting: Most inputs that may wait; a caller that waits alone may have more.
        begin: Called first in the thread that runs the model.
        free: Called when memory has run out, to give back what can be given back.
        idle_s: Seconds without work after which the thread ends.
    """

    def __init__(
        self,
        name: str,
        *,
        max_batch: int,
        max_waiting: int,
        begin: Callable[[], None] = lambda: None,
        free: Callable[[], None] = lambda: None,
        idle_s: float = 60.0,
    ) -> None:
        self.max_batch = max_batch
        self._name = name
        self._max_waiting = max_waiting
        self._begin = begin
        self._free = free
        self._idle_s = idle_s
        self._condition = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._batch_s: float | None = None
        self._each_s: float | None = None
        self._cold = True
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many inputs wait."""
        with self._condition:
            return self._count()

    def submit(self, job: Job) -> Job:
        """Queue a job.

        Raises:
            OverloadedError: The queue is full, or too long for the job's deadline; or no thread could be started.
        """
        job.results = [None] * len(job.inputs)
        job.unfinished = len(job.inputs)
        job.since = real_time.monotonic()
        if not job.inputs:
            self._end(job)
            return job
        with self._condition:
            self._refuse_too_much(job)
            self._start_thread()
            self._jobs.append(job)
            self._condition.notify()
        return job

    async def collect(self, job: Job) -> list[Any]:
        """Wait for a submitted job, and return its results; a caller that is cancelled meanwhile leaves it.

        Raises:
            OverloadedError: Other calls kept the model busy all the time, or there was not enough memory.
            TimedOutError: It was started, but not finished in time.
            NotReadyError: Python is shutting down.
            BackendError: What the batch failed with.
        """
        try:
            async with job.deadline.timeout():
                await job.done
        except TimeoutError:
            if not job.ended:  # else its results came at the same moment
                raise self._late(job) from None
        finally:
            self.leave(job)
        if job.error is not None:
            raise job.error
        return job.results

    def leave(self, job: Job) -> None:
        """Withdraw what has not started of a job; a running batch is finished for the others in it."""
        with self._condition:
            job.left = True
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self) -> None:
        """Let the thread end as soon as nothing waits; calling it twice is harmless."""
        with self._condition:
            self._idle_s = 0.0
            self._condition.notify()

    def _count(self, *, but_of: Deadline | None = None) -> int:
        return sum(len(job.inputs) - job.next for job in self._jobs if job.deadline is not but_of)

    def _refuse_too_much(self, job: Job) -> None:
        waiting = self._count(but_of=job.deadline)
        if waiting and waiting + len(job.inputs) > self._max_waiting:
            counts = f"{waiting} inputs waiting, {len(job.inputs)} new, limit {self._max_waiting}"
            message = f"The queue of {self._name} is full: {counts}."
            raise OverloadedError(message, code="queue_full", retry_after_s=self._least_s(waiting))
        ahead = sum(min(len(each.inputs) - each.next, len(job.inputs)) for each in self._jobs)  # one each in turn
        wait_s, left_s = self._least_s(ahead), job.deadline.left_s()
        if wait_s > left_s:
            message = f"{self._name} is busy for at least {wait_s:.3g} s more, but only {left_s:.3g} s are left."
            raise OverloadedError(message, code="queue_full", retry_after_s=wait_s - left_s)

    def _least_s(self, inputs: int) -> float:
        """Return the least time in seconds that inputs will take, from batches that may have been larger or smaller.

        A batch has a cost of its own and a cost per input, in an unknown proportion. Counting full batches at their
        average time is too low for batches that are larger than average, and counting inputs is too low for smaller
        ones; the lower of the two is never too high.
        """
        if self._batch_s is None or self._each_s is None:
            return 0.0
        return min(math.ceil(inputs / self.max_batch) * self._batch_s, inputs * self._each_s)

    def _measure(self, elapsed_s: float, *, inputs: int) -> None:
        """Count a batch in the averages, except a thread's first, which includes work that was deferred until then."""
        if self._cold:
            return
        each_s = elapsed_s / inputs
        if self._batch_s is None or self._each_s is None:
            self._batch_s, self._each_s = elapsed_s, each_s
        self._batch_s += SMOOTHING * (elapsed_s - self._batch_s)
        self._each_s += SMOOTHING * (each_s - self._each_s)

    def _start_thread(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._serve, name=f"run {self._name}", daemon=True)
        try:
            thread.start()  # it waits for the condition, which the caller holds
        except RuntimeError as error:
            raise OverloadedError(f"No thread could be started: {error}.") from error
        self._thread = thread

    def _serve(self) -> None:
        """Run batch after batch, until there has been no work for a while."""
        parts: list[_Part] = []
        try:
            with awaited_at_exit(LONGEST_END_S):
                self._begin()
            self._cold = True
            while parts := self._next():
                with awaited_at_exit(LONGEST_END_S):
                    self._run(parts)
                    parts.clear()  # an idle thread holds no pixels
                self._cold = False
        except BaseException as error:  # noqa: BLE001 — raised in the callers that wait
            self._give_up(parts, error)

    def _next(self) -> list[_Part]:
        """Return the next batch as soon as there is one; an empty one if the thread should end."""
        with self._condition:
            if not self._jobs:
                self._condition.wait(self._idle_s)
            if not self._jobs:
                self._thread = None
                return []
            return self._take()

    def _take(self) -> list[_Part]:
        """Return the next batch: inputs with the key that has waited longest, one from each caller in turn."""
        now = real_time.monotonic()
        sharing = [job for job in self._jobs if job.key == self._jobs[0].key]
        parts: list[_Part] = []
        while sharing and len(parts) < self.max_batch:
            for job in sharing[: self.max_batch - len(parts)]:
                if job.queue_s is None:
                    job.queue_s = now - job.since
                parts.append((job, job.next))
                job.next += 1
            sharing = [job for job in sharing if job.next < len(job.inputs)]
        served = {id(job) for job, _ in parts}
        rest = [job for job in self._jobs if job.next < len(job.inputs)]
        self._jobs = deque(sorted(rest, key=lambda job: id(job) in served))  # stable: those served go to the back
        return parts

    def _run(self, parts: Sequence[_Part]) -> None:
        """Compute one batch and hand out its results; a failure is narrowed down to the callers that it concerns."""
        parts = self._still_wanted(parts)
        if not parts:
            return
        started = real_time.monotonic()
        failure: BackendError | None = None
        try:
            run = parts[0][0].run
            results = run([job.inputs[number] for job, number in parts], partial(self._wanted, parts))
            answered = list(zip(parts, results, strict=True))
        except BackendError as error:
            failure = error
        except BaseException as crash:  # noqa: BLE001 — raised in the callers that wait
            failure = UnavailableError(f"{self._name} crashed with {type(crash).__name__}: {crash}")
            failure.__cause__ = crash
        if failure is not None:  # not in the handler, where Python would still hold what the batch has computed
            _let_go(failure)
            self._retreat(parts, failure)
            return
        elapsed_s = real_time.monotonic() - started
        self._still_wanted(parts)  # a run ends unwanted rows early: those are not results
        self._measure(elapsed_s, inputs=len(parts))
        for job in {id(job): job for job, _ in parts}.values():
            job.model_s += elapsed_s
        for (job, number), result in answered:
            if not job.ended:
                job.results[number] = result
                self._finish(job, 1)

    def _wanted(self, parts: Sequence[_Part]) -> list[bool]:
        """Tell which rows are still wanted; none while Python is shutting down."""
        ending = interpreter_ends()
        return [job.wanted and not ending for job, _ in parts]

    def _still_wanted(self, parts: Sequence[_Part]) -> list[_Part]:
        """Return what of a batch is still wanted; fail the rest, or all of it while Python is shutting down."""
        ending = interpreter_ends()
        for job, _ in parts:
            if ending and not job.ended:
                self._fail(job, ending_error())
            elif not job.wanted and not job.ended:
                self._fail(job, TimedOutError(f"The deadline passed before {self._name} had finished."))
        return [part for part in parts if part[0].wanted]

    def _retreat(self, parts: Sequence[_Part], error: BackendError) -> None:
        """Try again in smaller pieces: halves if memory ran out, otherwise each caller alone."""
        if error.code == "out_of_memory" and len(parts) > 1:
            half = len(parts) // 2
            self.max_batch = min(self.max_batch, half)
            self._free()
            _log.warning(
                "There was not enough memory for a batch of %d inputs of %s; from now on it gets at most %d.",
                len(parts),
                self._name,
                self.max_batch,
            )
            pieces = [parts[:half], parts[half:]]
        else:
            jobs = {id(job): job for job, _ in parts}
            pieces = [[part for part in parts if part[0] is job] for job in jobs.values()]
            if len(pieces) == 1:
                self._fail(parts[0][0], error)
                return
        for piece in pieces:
            self._run(piece)

    def _give_up(self, parts: Sequence[_Part], error: BaseException) -> None:
        """Fail all waiting jobs; the next one gets a new thread."""
        with self._condition:
            self._thread = None
            for job in [*(job for job, _ in parts), *self._jobs]:
                if not job.ended:
                    self._fail(job, ending_error() if interpreter_ends() else self._not_begun(error))

    def _late(self, job: Job) -> BackendError:
        if job.queue_s is None:
            return OverloadedError(f"Other calls kept {self._name} busy until the deadline.", code="busy")
        return TimedOutError(f"The deadline passed before {self._name} had finished.")

    def _not_begun(self, error: BaseException) -> OverloadedError:
        failure = OverloadedError(f"{self._name} cannot run now: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure

    def _fail(self, job: Job, error: BackendError) -> None:
        self.leave(job)
        job.error = error
        self._end(job)

    def _finish(self, job: Job, count: int) -> None:
        job.unfinished -= count
        if job.unfinished == 0:
            self._end(job)

    def _end(self, job: Job) -> None:
        """Wake the caller on its own loop."""
        job.ended = True
        with suppress(RuntimeError):  # the loop has ended
            job.done.get_loop().call_soon_threadsafe(_wake, job.done)


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _let_go(failure: BaseException) -> None:
    """Clear the frames of an error and its causes, which hold the very memory that was not enough."""
    error: BaseException | None = failure
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
