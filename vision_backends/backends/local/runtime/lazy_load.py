"""Loading something once for many callers: in a thread of its own, while they wait or are told how far it has got.

This module decides when something is loaded and what callers are told meanwhile. It must not know what is loaded.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from traceback import clear_frames
from typing import TYPE_CHECKING, Generic, TypeVar

from vision_backends.backends.local.hub.progress import Progress
from vision_backends.errors import BackendError, NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.clock import Clock, Deadline

__all__ = ["NOT_LOADED", "Slot", "again"]

RETRY_AFTER_S = 300.0
"""How long a failed load is not retried; `Slot.close` forgets the failure."""

NOT_LOADED = "not loaded"

T = TypeVar("T")


def _running() -> Future[None]:
    """Return a future that no waiter can cancel for the others."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True, kw_only=True)
class _Load(Generic[T]):
    background: bool
    progress: Progress = field(default_factory=Progress)
    done: Future[None] = field(default_factory=_running)
    value: T | None = None
    error: BackendError | None = None

    def outcome(self) -> T:
        """Return what was loaded, or raise why it was not."""
        if self.value is None:
            raise again(self.error) from self.error
        return self.value


class Slot(Generic[T]):
    """Holds one loaded thing, and is the only way to it.

    Args:
        name: What to call it in messages.
        load: Loads it, and reports how far it has got; raises a `BackendError` if it cannot.
        clock: Where time comes from.
    """

    def __init__(self, name: str, load: Callable[[Progress], T], *, clock: Clock) -> None:
        self._name = name
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: _Load[T] | None = None
        self._loads = 0
        self._value: T | None = None
        self._failure: tuple[BackendError, float] | None = None

    @property
    def value(self) -> T | None:
        """What is loaded, or None."""
        return self._value

    @property
    def touched(self) -> bool:
        """Whether anything is loaded or being loaded, even if `close` has given up that load."""
        return self._value is not None or self._loads > 0

    @property
    def state(self) -> str:
        """One line for people: that it is loaded, how far it has got, or why it failed."""
        load, failure = self._under_way, self._failure
        if self._value is not None:
            return "loaded"
        if load is not None:
            return str(load.progress)
        return f"failed: {failure[0].message}" if failure else NOT_LOADED

    def check(self) -> None:
        """Return unless it is being loaded in the background, or loading it failed recently.

        Raises:
            NotReadyError: It is not loaded yet; says how far it has got.
            BackendError: What the load failed with.
        """
        with self._lock:
            load = self._under_way
            if self._value is None and load is not None and load.background:
                raise NotReadyError(f"{self._name} is {load.progress}.", code="loading")
            self._raise_failure()

    def start(self) -> None:
        """Start loading in the background, unless it is loaded or being loaded.

        Raises:
            OverloadedError: No thread could be started.
            BackendError: What the load failed with.
        """
        with self._lock:
            if self._value is None and self._under_way is None:
                self._raise_failure()
                self._begin(background=True)

    async def get(self, deadline: Deadline) -> T:
        """Return what is loaded; load it if need be, once however many callers ask.

        Raises:
            NotReadyError: It was not loaded in time, and the load continues.
            OverloadedError: No thread could be started.
            BackendError: What the load failed with.
        """
        timeout_s, load = deadline.remaining_s, self._joined()
        try:
            async with deadline.timeout():
                await asyncio.wrap_future(load.done)
        except TimeoutError:
            message = f"{self._name} was still {load.progress} after {timeout_s:.3g} s."
            raise NotReadyError(message, code="loading", retry_after_s=1.0) from None
        return load.outcome()

    def wait(self) -> T:
        """Return what is loaded, after waiting for it in this thread however long it takes; errors as in `get`."""
        load = self._joined()
        load.done.result()
        return load.outcome()

    def close(self) -> None:
        """Forget what is loaded, what is being loaded and what has failed."""
        with self._lock:
            self._value, self._under_way, self._failure = None, None, None

    def after_fork(self) -> None:
        """Make it usable in a forked child, where the loading thread does not exist."""
        self._lock = threading.Lock()
        self._under_way, self._loads = None, 0

    def _joined(self) -> _Load[T]:
        """Return the load that is under way or has ended; start one if there is none."""
        with self._lock:
            if self._value is not None:
                ended = _Load(background=False, value=self._value)
                ended.done.set_result(None)
                return ended
            if self._under_way is None:
                self._raise_failure()
                return self._begin(background=False)
            return self._under_way

    def _begin(self, *, background: bool) -> _Load[T]:
        load: _Load[T] = _Load(background=background)
        thread = threading.Thread(target=self._run, args=(load,), name=f"load {self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise OverloadedError(f"No thread could be started: {error}.") from error
        self._loads += 1
        self._under_way = load  # the thread waits for the lock, which the caller holds, before it looks
        return load

    def _run(self, load: _Load[T]) -> None:
        try:
            load.value = self._load(load.progress)
        except BackendError as error:
            load.error = error
        except BaseException as error:  # noqa: BLE001 — raised in the callers that wait
            load.error = NotReadyError(f"{self._name} could not be loaded: {type(error).__name__}: {error}")
            load.error.__cause__ = error
        if load.error is not None:
            clear_frames((load.error.__cause__ or load.error).__traceback__)  # which hold what was loaded already
        with self._lock:
            self._loads -= 1
            if self._under_way is load:  # it was not closed meanwhile
                self._under_way, self._value = None, load.value
                if load.error is not None:
                    wait_s = load.error.retry_after_s or RETRY_AFTER_S
                    self._failure = (load.error, self._clock.monotonic() + wait_s)
        load.done.set_result(None)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            error, until = self._failure
            left_s = until - self._clock.monotonic()
            if left_s > 0:
                raise again(error, left_s) from error
            self._failure = None


def again(error: BackendError | None, retry_after_s: float | None = None) -> BackendError:
    """Return a copy of an error: one that many threads raise would collect all their tracebacks."""
    if error is None:
        return NotReadyError("Nothing was loaded.")
    return type(error)(
        error.message, remedy=error.remedy, backend=error.backend, code=error.code, retry_after_s=retry_after_s
    )
