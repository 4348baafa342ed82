"""Making backends ready in the background: once however many ask, and never in anybody's way.

This module decides when a warm-up runs and what is remembered of it. It must not know why one is wanted, nor what a
backend does to become ready.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vision_backends.backends.requests import shape_of
from vision_backends.backends.rung_names import tell_rung
from vision_backends.errors import BackendError, NotReadyError
from vision_backends.reports import WarmUp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock

__all__ = ["Job", "WarmUps"]

RETRY_AFTER_S = 30.0
"""A backend that could not be made ready is not tried again for this long, however often it is passed by."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """One warm-up, under way or ended.

    Attributes:
        backend: Who is made ready.
        request: For what.
        began: When, by the monotonic clock.
        ended: When, and what it failed with if it did; pending while it runs.
    """

    backend: Backend
    request: Request
    began: float
    ended: Future[tuple[float, BackendError | None]] = field(default_factory=Future)

    def report(self) -> WarmUp:
        """Return how it stands now."""
        task, name = self.request.task, self.backend.name
        if not self.ended.done():
            return WarmUp(backend=name, task=task, state="warming")
        at, error = self.ended.result()
        if error is None:
            return WarmUp(backend=name, task=task, state="ready", elapsed_s=at - self.began)
        return WarmUp(
            backend=name,
            task=task,
            state="not_ready",
            error=error.kind,
            reason=error.message,
            remedy=error.remedy,
            elapsed_s=at - self.began,
        )


class WarmUps:
    """Runs warm-ups, each in a daemon thread of its own that ends with it. Safe for many threads.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._jobs: dict[tuple[int, tuple[str, ...]], Job] = {}

    def begin(self, backend: Backend, request: Request) -> Job:
        """Return the warm-up of a backend that is under way, or a new one."""
        return self._begin(backend, request, patience_s=0.0)

    def begin_unless_tried(self, backend: Backend, request: Request) -> Job:
        """Do as `begin`, but leave alone a backend that could not be made ready a moment ago."""
        return self._begin(backend, request, patience_s=RETRY_AFTER_S)

    @staticmethod
    def wait(jobs: Iterable[Job], *, timeout_s: float) -> None:
        """Return when all of them have ended, or after the timeout; they go on anyway."""
        wait([job.ended for job in jobs], timeout=min(timeout_s, threading.TIMEOUT_MAX))

    def close(self) -> None:
        """Begin no more; what runs goes on alone, for a load cannot be broken off."""
        self._closed = True

    def _begin(self, backend: Backend, request: Request, *, patience_s: float) -> Job:
        key, now = (id(backend), shape_of(request)), self._clock.monotonic()
        with self._lock:
            if self._pid != os.getpid():  # the threads of the parent do not exist in a forked child
                self._pid, self._jobs = os.getpid(), {}
            job = self._jobs.get(key)
            if job is not None and (not job.ended.done() or self._failed_within(job, patience_s, now)):
                return job
            job = Job(backend=backend, request=request, began=now)
            if self._closed:
                job.ended.set_result((now, NotReadyError("The router is closed.")))
                return job
            self._jobs[key] = job
        try:
            threading.Thread(target=self._run, args=(job,), name=f"warm up {backend.name}", daemon=True).start()
        except RuntimeError as error:
            job.ended.set_result((now, NotReadyError(f"The system starts no more threads: {error}.")))
        return job

    def _run(self, job: Job) -> None:
        error: BackendError | None = None
        try:
            job.backend.warm_up(job.request)
        except BackendError as refusal:
            tell_rung(refusal, job.backend)
            error = refusal
        except BaseException as crash:  # noqa: BLE001 — those who wait have to hear of it
            _log.exception("The %s backend crashed while it was made ready.", job.backend.name)
            error = NotReadyError(f"The warm-up crashed with {type(crash).__name__}: {crash}")
        # Not the message: it may quote a label or a language that a user has asked for.
        outcome = "ready" if error is None else f"not ready ({error.code or error.kind})"
        _log.info("%s is %s for %s.", job.backend.name, outcome, job.request.task)
        job.ended.set_result((self._clock.monotonic(), error))

    @staticmethod
    def _failed_within(job: Job, seconds: float, now: float) -> bool:
        at, error = job.ended.result()
        return error is not None and now - at < seconds
