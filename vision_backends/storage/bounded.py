"""How long anybody waits for a store: 50 ms in all for a call, whatever the store does, and then not at all for a time.

This module decides what a call may wait, when a store counts as away, and when it is tried again: it is the circuit
breaker of stores. It must not know what is read. Threads in which a store hangs are left behind.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, TypeVar

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import Mailbox, Outcome, after_fork_in_child, make_lock, start_thread
from vision_backends.errors import OverloadedError
from vision_backends.storage.base import StoreClosedError, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "PATIENT_S",
    "RETRY_S",
    "Outage",
    "Reader",
    "StoreTime",
    "bounded",
    "is_over",
    "shared_store_time",
    "store_time",
    "until_done",
    "waited_for",
]

T = TypeVar("T")

CALL_S = 0.05
"""What a call may wait for its stores, for each of its inputs."""

PATIENT_S = 2.0
"""What is waited where no image does: for the state, the ledger or a reset that somebody wants to see."""

SLICE_S = 0.005
"""Waiting is counted in slices: on a machine that is busy with other things each takes longer, and the store, which has
to wait for the processor as well, is not taken for one in trouble."""

RETRY_S = 0.5
"""After an error a store is left alone for so long."""

STUCK_S = 30.0
"""A question that was not answered for so long may never be: another thread tries."""

WARN_S = 1.0
"""Who does not answer for so long is in trouble, rather than slow for a moment."""

READERS = 4
"""Threads that read one store, those included that it has not let go yet."""

_log = logging.getLogger(__name__)


class StoreTime:
    """What is left of the time that a call may wait for its stores; may be used up in any thread."""

    __slots__ = ("left_s",)

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    @classmethod
    def of_call(cls) -> StoreTime | None:
        """Return that of the call that runs here; None where there is none."""
        return _store_time.get()

    @property
    def is_short(self) -> bool:
        """Whether much less is left than a call has: it is in a hurry, or has waited before."""
        return self.left_s < CALL_S / 2


_store_time: ContextVar[StoreTime | None] = ContextVar("time for stores", default=None)


@contextmanager
def store_time(*, inputs: int = 1, at_most_s: float | None = None, anew: bool = False) -> Iterator[None]:
    """Limit what is waited for stores in the block, and in all tasks and pool threads that it begins.

    Within another such block, that one's time counts.

    Args:
        inputs: For how many the call is.
        at_most_s: What it has for everything.
        anew: Whether its own time counts within another such block as well: the call has waited for something else.
    """
    if not anew and _store_time.get() is not None:
        yield
        return
    seconds = CALL_S * max(1, inputs)
    before = _store_time.set(StoreTime(seconds if at_most_s is None else min(seconds, at_most_s / 2)))
    try:
        yield
    finally:
        _store_time.reset(before)


@contextmanager
def shared_store_time(times: Iterable[StoreTime | None]) -> Iterator[None]:
    """Wait in the block for several calls, for as long as the least patient of them may; each has waited then.

    Args:
        times: Those of the calls; None for one that has no time of its own.
    """
    own = [time for time in times if time is not None]
    shared = StoreTime(min((time.left_s for time in own), default=PATIENT_S))
    given_s, before = shared.left_s, _store_time.set(shared)
    try:
        yield
    finally:
        _store_time.reset(before)
        for time in own:
            time.left_s -= given_s - shared.left_s


def is_over() -> bool:
    """Return whether the call has waited for its stores for as long as it may."""
    time = _store_time.get()
    return time is not None and time.left_s <= 0


def waited_for(mailbox: Mailbox[T]) -> T:
    """Return what comes into a mailbox in the time that the call has, or in 2 s where there is no call.

    Raises:
        TimeoutError: It did not come.
    """
    time = _store_time.get() or StoreTime(PATIENT_S)
    started, slices = SYSTEM_CLOCK.monotonic(), 0
    try:
        while slices * SLICE_S < time.left_s:
            slices += 1
            try:
                return mailbox.get(SLICE_S)
            except TimeoutError:
                continue
        raise TimeoutError
    finally:
        time.left_s -= min(SYSTEM_CLOCK.monotonic() - started, slices * SLICE_S)


async def until_done(future: asyncio.Future[None]) -> bool:
    """Return whether a future is done in the time that the call has; on its event loop, as `waited_for`."""
    import asyncio

    time = _store_time.get() or StoreTime(PATIENT_S)
    while not future.done() and time.left_s > 0:
        started = SYSTEM_CLOCK.monotonic()
        await asyncio.wait([future], timeout=SLICE_S)
        time.left_s -= min(SYSTEM_CLOCK.monotonic() - started, SLICE_S)
    return future.done()


def bounded(action: Callable[[], T], *, wait_s: float) -> T:
    """Return what something returns or raises in a thread of its own, which is left behind if that takes too long.

    Raises:
        StoreError: It did.
    """
    mailbox: Mailbox[Outcome[T]] = Mailbox()
    try:
        start_thread(lambda: mailbox.put(Outcome.of(action)), name="vision-store")
        return mailbox.get(wait_s).unwrap()
    except TimeoutError:
        raise StoreError(f"The store has not answered within {wait_s:g} s.") from None
    except OverloadedError as error:
        raise StoreError(f"The store cannot be asked: {error}") from error


class Outage:
    """Whether a store is away, since when, and why. Says so in the log, once; not thread-safe by itself.

    Args:
        what: What cannot be done meanwhile, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.error: StoreError | None = None
        self.retry_at = 0.0
        self._since = 0.0
        self._is_told = False

    def begin(self, error: Exception, *, is_slow: bool = False) -> StoreError:
        """Note an error, or that an answer is late; return what to raise."""
        now = SYSTEM_CLOCK.monotonic()
        if self.error is None:
            self._since, self._is_told = now, False
        elif is_slow and self._is_told:
            return _copy_of(self.error)  # which says more
        raised = error if isinstance(error, StoreError) else StoreError(f"The store failed: {error!r}")
        self.error = _copy_of(raised)
        self.retry_at = now + RETRY_S
        if not self._is_told and not isinstance(error, StoreClosedError):
            if is_slow and now - self._since < WARN_S:
                return raised
            self._is_told = True
            _log.warning("Cannot %s: %s Until it can, this is kept in memory.", self._what, raised)
        return raised

    def end(self) -> None:
        """Note that the store has answered."""
        if self.error is not None:
            self.error = None
            if self._is_told:
                _log.warning("The store is back.")


def _copy_of(error: StoreError) -> StoreError:
    """Return an error to keep or to raise: one that is both would keep the frames of the calls that meet it."""
    return type(error)(error.message, remedy=error.remedy)


class Reader:
    """Asks a store in threads of its own. Safe for many threads.

    Args:
        what: What is read, for the log.
        stuck_s: After so long without an answer another thread tries.
    """

    def __init__(self, what: str, *, stuck_s: float = STUCK_S) -> None:
        self._what = what
        self._stuck_s = stuck_s
        self._pool = Pool("store", size=READERS, may_hang=False)
        self._here = _Here()
        self._begin()
        after_fork_in_child(self, Reader._begin)

    def _begin(self) -> None:
        self._lock = make_lock()
        self._outage = Outage(self._what)
        self._late = 0
        self._is_probing = False

    @property
    def trouble(self) -> StoreError | None:
        """Why the store is away; None when it is not, or is to be tried again."""
        with self._lock:
            return self._trouble()

    def ask(self, action: Callable[[], T]) -> T:
        """Return what the store answers in the time that the call has; within another question it is asked here.

        Raises:
            StoreError: It is away, or becomes so now.
        """
        if self._here.asks:
            return self._answered(action)
        with self._lock:
            trouble = self._trouble() or (
                StoreError("The call has waited for its stores for 50 ms.") if is_over() else None
            )
            if trouble is not None:
                raise StoreError(trouble.message) from trouble
            self._is_probing = self._outage.error is not None
        asked = _Asked(self, action)
        try:
            self._pool.submit(asked.run)
            outcome = waited_for(asked.mailbox)
        except (TimeoutError, OverloadedError, RuntimeError) as error:
            with self._lock:
                self._is_probing = False
                if not asked.is_done:
                    asked.is_late = isinstance(error, TimeoutError)
                    self._late += asked.is_late
                    late = StoreError("The store has not answered in time.")
                    raise self._outage.begin(late, is_slow=True) from None
            outcome = asked.mailbox.get(0.0)
        return outcome.unwrap()

    def ended(self, asked: _Asked[T], outcome: Outcome[T]) -> None:
        """Note how the store has answered; in the thread that has asked it."""
        with self._lock:
            asked.is_done = True
            self._late -= asked.is_late
            self._is_probing = False
            error = outcome.error
            if error is None and self._here.error is not None:
                self._outage.begin(self._here.error)
            elif error is None:
                if not (asked.is_late and self._late):
                    self._outage.end()
            elif isinstance(error, Exception):
                outcome.error = self._outage.begin(error)
            asked.mailbox.put(outcome)

    def close(self) -> None:
        """Let idle threads end."""
        self._pool.close()

    def here(self, action: Callable[[], T]) -> Outcome[T]:
        """Ask in this thread, one of the pool's."""
        self._here.asks, self._here.error = True, None
        try:
            return Outcome.of(action)
        finally:
            self._here.asks = False

    def _answered(self, action: Callable[[], T]) -> T:
        """Do as `ask`, within another question."""
        if self._here.error is not None:
            raise self._here.error
        try:
            return action()
        except Exception as error:
            self._here.error = error if isinstance(error, StoreError) else StoreError(f"The store failed: {error!r}")
            raise self._here.error from error

    def _trouble(self) -> StoreError | None:
        if self._outage.error is None:
            return None
        now = SYSTEM_CLOCK.monotonic()
        is_hopeless = self._late and (self._late >= READERS or now < self._outage.retry_at + self._stuck_s)
        is_due = not (is_hopeless or self._is_probing) and now >= self._outage.retry_at
        return None if is_due else self._outage.error


class _Here(threading.local):
    """Whether this thread asks the store, and what that has failed with although the question as a whole has not."""

    asks = False
    error: StoreError | None = None


class _Asked(Generic[T]):
    """One question to a store."""

    __slots__ = ("_action", "_reader", "is_done", "is_late", "mailbox")

    def __init__(self, reader: Reader, action: Callable[[], T]) -> None:
        self._reader = reader
        self._action = action
        self.mailbox: Mailbox[Outcome[T]] = Mailbox()
        self.is_done = False
        self.is_late = False

    def run(self) -> None:
        """Ask; in a thread of the pool."""
        self._reader.ended(self, self._reader.here(self._action))
