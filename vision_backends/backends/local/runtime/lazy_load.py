"""Loading once what many threads want: in a thread of its own, while callers wait or are told how far it is.

This module decides when something is loaded and what callers hear meanwhile. It must not know what is loaded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.shutdown import wait_for
from vision_backends.errors import BackendError, NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.clock import Clock

__all__ = ["NOT_LOADED", "Slot"]

RETRY_AFTER_S = 300.0
"""How long a failed load is not tried again; `Slot.close` forgets it."""

NOT_LOADED = "not loaded"

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class _Job(Generic[T]):
    background: bool
    progress: Progress = field(default_factory=Progress)
    done: threading.Event = field(default_factory=threading.Event)
    value: T | None = None
    error: BackendError | None = None


class Slot(Generic[T]):
    """Room for one loaded thing, and the only way to it.

    Args:
        name: How to call it in messages.
        load: Loads it, and reports how far it is; raises a `BackendError` when it cannot.
        clock: Where time comes from.
    """

    def __init__(self, name: str, load: Callable[[Progress], T], *, clock: Clock) -> None:
        self._name = name
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._job: _Job[T] | None = None
        self._loads = 0
        self._value: T | None = None
        self._failure: tuple[BackendError, float] | None = None

    @property
    def value(self) -> T | None:
        """What is loaded, or None."""
        return self._value

    @property
    def touched(self) -> bool:
        """Whether anything is loaded or being loaded, be it for nobody since `close`."""
        return self._value is not None or self._loads > 0

    @property
    def state(self) -> str:
        """One line for people: what is loaded, how far it is, or why it failed."""
        job, failure = self._job, self._failure
        if self._value is not None:
            return "loaded"
        if job is not None:
            return str(job.progress)
        return f"failed: {failure[0].message}" if failure else NOT_LOADED

    def check(self) -> None:
        """Return unless it is being loaded in the background, or has failed not long ago.

        Raises:
            NotReadyError: It is not there yet; says how far it is.
            BackendError: What the load failed with.
        """
        with self._lock:
            job = self._job
            if self._value is None and job is not None and job.background:
                raise NotReadyError(f"{self._name} is {job.progress}.", code="loading")
            self._raise_failure()

    def start(self) -> None:
        """Begin to load in the background, unless that has been done.

        Raises:
            OverloadedError: The system starts no more threads.
            BackendError: What the load failed with.
        """
        with self._lock:
            if self._value is None and self._job is None:
                self._raise_failure()
                self._begin(background=True)

    def get(self, *, timeout_s: float) -> T:
        """Return what is loaded; load it if need be, once however many threads ask.

        Raises:
            NotReadyError: It was not loaded in time, and the load goes on; or the interpreter ends.
            OverloadedError: The system starts no more threads.
            BackendError: What the load failed with.
        """
        with self._lock:
            if self._value is not None:
                return self._value
            job = self._job
            if job is None:
                self._raise_failure()
                job = self._begin(background=False)
        if not wait_for(job.done, timeout_s=timeout_s):
            message = f"{self._name} was still {job.progress} after {timeout_s:.3g} s."
            raise NotReadyError(message, code="loading", retry_after_s=1.0)
        if job.value is None:
            raise _again(job.error) from job.error
        return job.value

    def close(self) -> None:
        """Forget what is loaded, what is being loaded and what has failed."""
        with self._lock:
            self._value, self._job, self._failure = None, None, None

    def after_fork(self) -> None:
        """Make it usable in a forked child, where the loading thread does not exist."""
        self._lock = threading.Lock()
        self._job, self._loads = None, 0

    def _begin(self, *, background: bool) -> _Job[T]:
        job: _Job[T] = _Job(background=background)
        thread = threading.Thread(target=self._run, args=(job,), name=f"load {self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise OverloadedError(f"The system starts no more threads: {error}.") from error
        self._loads += 1
        self._job = job  # the thread waits for the lock, which the caller holds, before it looks
        return job

    def _run(self, job: _Job[T]) -> None:
        try:
            job.value = self._load(job.progress)
        except BackendError as error:
            job.error = error
        except BaseException as error:  # noqa: BLE001 — whoever waits has to hear of it
            job.error = NotReadyError(f"{self._name} cannot be loaded: {type(error).__name__}: {error}")
            job.error.__cause__ = error
        with self._lock:
            self._loads -= 1
            if self._job is job:  # nobody has closed it meanwhile
                self._job, self._value = None, job.value
                if job.error is not None:
                    wait_s = job.error.retry_after_s or RETRY_AFTER_S
                    self._failure = (job.error, self._clock.monotonic() + wait_s)
        job.done.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            error, until = self._failure
            left_s = until - self._clock.monotonic()
            if left_s > 0:
                raise _again(error, left_s) from error
            self._failure = None


def _again(error: BackendError | None, retry_after_s: float | None = None) -> BackendError:
    """Return the same error anew: one that many threads raise would collect all their tracebacks."""
    if error is None:
        return NotReadyError("Nothing was loaded.")
    return type(error)(
        error.message, remedy=error.remedy, backend=error.backend, code=error.code, retry_after_s=retry_after_s
    )
