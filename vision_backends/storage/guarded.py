"""Stores that never hold up a call: what they cannot do now is done in memory, and made up when they can.

This module decides what stands in for a store that is away, whichever it is: a shadow of the states, and the answers
and attempts that are on their way. It must not know how long that is waited for, nor what the texts and bytes mean. A
store that does not block is used as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from vision_backends.engine.threads import after_fork_in_child, make_lock
from vision_backends.storage.base import MAX_ENTRY_BYTES, StoreClosedError, StoreError, Stores, add_up
from vision_backends.storage.bounded import PATIENT_S, Reader, bounded, until_done
from vision_backends.storage.write_behind import Job, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.storage.base import Answers, CacheInfo, Ledger, LedgerRow, LedgerTotal, States

_Threads: TypeAlias = tuple[Reader, Writer]

__all__ = ["GuardedAnswers", "GuardedLedger", "GuardedStates", "GuardedStores"]

T = TypeVar("T")

MAX_PENDING_BYTES = 64_000_000
"""Answers that are kept for a store that is away; the oldest make room."""

MAX_PENDING_ROWS = 100_000
MAX_PENDING_CHANGES = 10_000
"""Attempts and changes of states that are kept for one; more are lost, which the log says."""

PAGE_ROWS = 500
"""Rows of the ledger that are read in one go."""

_log = logging.getLogger(__name__)


class _Guard:
    """What all three have: threads that read and write, unless the store does not block."""

    def __init__(self, store: Answers | Ledger | States, threads: _Threads | None = None) -> None:
        self.blocking = store.blocking
        self._reader, self._writer = threads or _threads()
        self._has_told = False
        self.begin()
        after_fork_in_child(self, type(self).begin)

    def begin(self) -> None:
        """Begin with nothing in memory: what is on its way is the parent's to write."""
        self._lock = make_lock()

    def _overflows(self, what: str) -> None:
        if not self._has_told:
            self._has_told = True
            _log.warning("More %s wait for the store than can be kept in memory: some are lost.", what)


class GuardedStates(_Guard):
    """States, or their shadow while they cannot be read or written.

    The shadow of a state is what it was when it was last read or written, with every change of this process since.
    """

    def __init__(self, states: States, threads: _Threads | None = None) -> None:
        self._states = states
        super().__init__(states, threads)

    @classmethod
    def of(cls, states: States | GuardedStates) -> GuardedStates:
        """Return guarded states, those that are guarded as they are."""
        return states if isinstance(states, GuardedStates) else cls(states)

    def begin(self) -> None:
        """Do as every guard."""
        super().begin()
        self._last: dict[str, str | None] = {}
        self._shadow: dict[str, str | None] = {}
        self._pending: dict[str, int] = {}

    @property
    def trouble(self) -> StoreError | None:
        """Why no state can be kept now; None when they can, as far as is known."""
        return (self._writer.trouble or self._reader.trouble) if self.blocking else None

    def read(self, key: str) -> str | None:
        """Return a state, or None."""
        return self.read_many([key])[key]

    def read_many(self, keys: Sequence[str]) -> Mapping[str, str | None]:
        """Return some states, in one go."""
        if not self.blocking:
            return {key: self._states.read(key) for key in keys}
        with self._lock:
            known = {key: self._shadow[key] for key in keys if key in self._shadow}
        asked = [key for key in keys if key not in known]
        if not asked:
            return known
        try:
            found = self._reader.ask(lambda: {key: self._states.read(key) for key in asked})
        except StoreError:
            with self._lock:
                return known | {key: self._last.get(key) for key in asked}
        with self._lock:
            for key in asked:
                self._last[key] = found[key]
        return known | found

    def all(self, prefix: str = "") -> Mapping[str, str]:
        """Return all states whose keys begin with ``prefix``."""
        if not self.blocking:
            return self._states.all(prefix)
        try:
            found: dict[str, str | None] = dict(self._reader.ask(lambda: self._states.all(prefix)))
        except StoreError:
            with self._lock:
                found = dict(self._last)
        with self._lock:
            found |= self._shadow
        return {key: text for key, text in found.items() if text is not None and key.startswith(prefix)}

    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace a state, or its shadow now and the state itself later; ``change`` is then called once more."""
        if not self.blocking:
            return self._states.update(key, change)
        job = _Change(self, key, change)
        with self._lock:
            is_kept = sum(self._pending.values()) < MAX_PENDING_CHANGES
        if is_kept:
            self._writer.put(job)
            if self._writer.wait(job):
                return job.value
        else:
            self._overflows("changes of states")
        return self._in_shadow(job)

    def update_now(
        self,
        key: str,
        change: Callable[[str | None], tuple[str | None, T]],
        *,
        on_made: Callable[[T], object] | None = None,
        on_late: Callable[[T], object] | None = None,
    ) -> T:
        """Replace a state itself, or not at all.

        Args:
            key: Name of the state.
            change: As for `update`.
            on_made: Called with the value when it was replaced, before anything else is written.
            on_late: Called with it as well in case the error was raised before.

        Raises:
            StoreError: It could not be replaced in the time that the call has.
        """
        if not self.blocking:
            value = self._states.update(key, change)
            if on_made is not None:
                on_made(value)
            return value
        trouble = self._writer.trouble
        if trouble is not None and self._writer.is_away:
            raise StoreError(trouble.message, remedy=trouble.remedy) from trouble
        job = _Change(self, key, change, lasts=False, on_made=on_made)
        self._writer.put(job)
        try:
            is_done = self._writer.wait(job, is_probe=True)
        except StoreError:
            raise
        except BaseException:
            if self._give_up(job, on_late) and on_late is not None:
                on_late(job.value)
            raise
        if not is_done and not self._give_up(job, on_late):
            raise self._writer.trouble or StoreClosedError("The store is closed.")
        return job.value

    def update_later(
        self,
        key: str,
        change: Callable[[str | None], tuple[str | None, T]],
        *,
        on_made: Callable[[T], object] | None = None,
        waits: bool = False,
    ) -> None:
        """Replace a state when that can be done, without a shadow until then.

        Args:
            key: Name of the state.
            change: As for `update`.
            on_made: As for `update_now`.
            waits: Whether that is waited for in the time that the call has.
        """
        job = _Change(self, key, change, on_made=on_made)
        if not self.blocking:
            self.make(job)
            return
        self._writer.put(job)
        if waits:
            with suppress(StoreError):
                self._writer.wait(job)

    def close(self) -> None:
        """Close the states."""
        self._states.close()

    def _give_up(self, job: _Change[T], on_late: Callable[[T], object] | None) -> bool:
        """Return whether a change that is not waited for any more has been made in this very moment."""
        if self._writer.withdraw(job):
            return False
        with self._lock:
            if not job.is_made:
                job.on_late = on_late
            return job.is_made

    def _in_shadow(self, job: _Change[T]) -> T:
        """Make a change in the shadow, until it is made in the state."""
        with self._lock:
            if job.is_made:
                return job.value
            key = job.key
            new, value = job.change(self._shadow[key] if key in self._shadow else self._last.get(key))
            self._shadow[key] = new
            self._pending[key] = self._pending.get(key, 0) + 1
            job.is_in_shadow = True
            return value

    def make(self, job: _Change[T]) -> None:
        """Make a change in the state; in the writer's thread."""
        made: list[str | None] = []

        def change(text: str | None) -> tuple[str | None, T]:
            new, value = job.change(text)
            made[:] = [new]
            return new, value

        value = self._states.update(job.key, change)
        with self._lock:
            job.value, job.is_made = value, True
            self._last[job.key] = made[0]
            if job.is_in_shadow:
                self._pending[job.key] -= 1
                if not self._pending[job.key]:
                    del self._pending[job.key], self._shadow[job.key]
            callbacks = job.on_made, job.on_late
        for callback in callbacks:
            if callback is not None:
                try:
                    callback(value)
                except Exception:  # noqa: BLE001 — the change is made, and must not be made twice
                    _log.exception("A change of a state has had a consequence that failed.")


class _Change(Job, Generic[T]):
    """A change of one state."""

    __slots__ = ("change", "is_in_shadow", "is_made", "key", "on_late", "on_made", "value")

    value: T

    def __init__(
        self,
        states: GuardedStates,
        key: str,
        change: Callable[[str | None], tuple[str | None, T]],
        *,
        lasts: bool = True,
        on_made: Callable[[T], object] | None = None,
    ) -> None:
        super().__init__(partial(states.make, self), what="changes of states", lasts=lasts)
        self.key = key
        self.change = change
        self.is_made = self.is_in_shadow = False
        self.on_made = on_made
        self.on_late: Callable[[T], object] | None = None


class GuardedAnswers(_Guard):
    """Cached answers; one that is on its way to the store is found as if it had arrived."""

    def __init__(self, answers: Answers, threads: _Threads | None = None) -> None:
        self._answers = answers
        super().__init__(answers, threads)

    def begin(self) -> None:
        """Do as every guard."""
        super().begin()
        self._pending: OrderedDict[str, bytes] = OrderedDict()
        self._pending_bytes = 0
        self._is_due = False

    def get(self, key: str) -> bytes | None:
        """Return a cached answer, or None."""
        return self.first_of([key]).get(key)

    def first_of(self, keys: Sequence[str], *, every: bool = False) -> Mapping[str, bytes]:
        """Return the answer of the first of some keys that has one, or of every one, by its key; in one go."""
        if not self.blocking:
            return _found(self._answers.get, keys, every=every)
        with self._lock:
            pending = {key: self._pending[key] for key in keys if key in self._pending}
        if len(pending) == len(keys) or (not every and keys[0] in pending):
            return _found(pending.get, keys, every=every)

        def get(key: str) -> bytes | None:
            return pending.get(key) or self._answers.get(key)

        try:
            return self._reader.ask(lambda: _found(get, keys, every=every))
        except StoreError:
            return _found(pending.get, keys, every=every)

    def put(self, key: str, value: bytes) -> None:
        """Keep an answer, soon."""
        if not self.blocking:
            self._answers.put(key, value)
            return
        if len(value) > MAX_ENTRY_BYTES:
            return
        with self._lock:
            self._pending_bytes += len(value) - len(self._pending.pop(key, b""))
            self._pending[key] = value
            while self._pending_bytes > MAX_PENDING_BYTES:
                self._pending_bytes -= len(self._pending.popitem(last=False)[1])
            is_first, self._is_due = not self._is_due, True
        if is_first:
            self._writer.put(Job(self._write, what="answers", count=lambda: len(self._pending)))

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is. Errors as for `Answers`."""
        return self._reader.ask(self._answers.cache_info) if self.blocking else self._answers.cache_info()

    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were. Errors as for `Answers`."""
        if not self.blocking:
            return self._answers.clear_cache()
        with self._lock:
            self._pending.clear()
            self._pending_bytes = 0
        return _written_now(self._writer, self._answers.clear_cache)

    def close(self) -> None:
        """Close the cache."""
        self._answers.close()

    def _write(self) -> None:
        """Put what is pending into the cache; in the writer's thread."""
        with self._lock:
            self._is_due = False  # what comes from now on needs another job
            pending = self._pending.copy()
        try:
            for key, value in pending.items():
                self._answers.put(key, value)
                with self._lock:
                    if self._pending.get(key) is value:
                        del self._pending[key]
                        self._pending_bytes -= len(value)
        except BaseException:
            self._is_due = True  # this job is tried again
            raise


class GuardedLedger(_Guard):
    """The ledger; attempts are booked soon, and those of a call together."""

    def __init__(self, ledger: Ledger, threads: _Threads | None = None) -> None:
        self._ledger = ledger
        super().__init__(ledger, threads)

    def begin(self) -> None:
        """Do as every guard."""
        super().begin()
        self._pending: list[LedgerRow] = []
        self._is_due = False

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Book attempts, soon."""
        if not self.blocking:
            self._ledger.record(rows)
            return
        with self._lock:
            if len(self._pending) + len(rows) > MAX_PENDING_ROWS:
                self._overflows("attempts")
                return
            self._pending += rows
            is_first, self._is_due = not self._is_due, True
        if is_first:
            self._writer.put(Job(self._write, what="attempts", count=lambda: len(self._pending)))

    def rows(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts, oldest first, and then those that are to be booked. Errors as for `Ledger`."""
        rows = self._ledger.rows(since=since, until=until)
        if not self.blocking:
            yield from rows
            return
        while page := self._reader.ask(lambda: list(islice(rows, PAGE_ROWS))):
            yield from page
        with self._lock:
            pending = [row for row in self._pending if since <= row.at < until]
        yield from sorted(pending, key=lambda row: row.at)

    def totals(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerTotal]:
        """Return the totals of what is booked, and of what is to be booked. Errors as for `Ledger`."""
        find = getattr(self._ledger, "totals", None)
        if find is None:
            yield from add_up(self.rows(since=since, until=until))
            return
        totals = find(since=since, until=until)
        while page := self._reader.ask(lambda: list(islice(totals, 1))):  # a day may take as long as many rows
            yield from page
        with self._lock:
            pending = [row for row in self._pending if since <= row.at < until]
        yield from add_up(pending)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _write(self) -> None:
        """Book what is pending; in the writer's thread."""
        with self._lock:
            self._is_due = False
            pending = self._pending.copy()
        try:
            if pending:
                self._ledger.record(pending)
        except BaseException:
            self._is_due = True
            raise
        with self._lock:
            del self._pending[: len(pending)]


class GuardedStores:
    """The three of them, with the same threads where one store is all of them.

    Args:
        stores: What they guard.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        threads = {id(store): _threads() for store in (stores.ledger, stores.answers, stores.states)}
        self._writers = [writer for _, writer in threads.values()]
        self._reader, _ = threads[id(stores.answers)]
        self.answers = GuardedAnswers(stores.answers, threads[id(stores.answers)])
        self.ledger = GuardedLedger(stores.ledger, threads[id(stores.ledger)])
        self.states = GuardedStates(stores.states, threads[id(stores.states)])

    def in_one_go(self, action: Callable[[], T]) -> T:
        """Return what something returns that reads several times, and has no other effect; that is waited for once.

        It is done again, without the store, where that does not answer in time.
        """
        if not self.answers.blocking:
            return action()
        try:
            return self._reader.ask(action)
        except StoreError:
            return action()

    def written(self) -> bool:
        """Return whether all that was recorded is written, in the time that the call has."""
        written = [writer.written() for writer in self._writers]
        return all(written)

    async def until_written(self) -> None:
        """Return when all that was recorded is written, or when the time that the call has is over."""
        loop = asyncio.get_running_loop()
        for writer in self._writers:
            if writer.is_idle or writer.trouble is not None:
                continue
            is_written = loop.create_future()
            writer.put(Job(partial(_tell, is_written)))
            if not await until_done(is_written):
                writer.slow()

    def write_rest(self) -> None:
        """Write what is left, for 2 s at most, and say what was lost."""
        lost: Counter[str] = Counter()
        for writer in self._writers:
            lost += writer.close()
        if lost:
            what = " and ".join(f"{count} {name}" for name, count in lost.items())
            _log.warning("The store was away until the end: %s are lost.", what)

    def close(self) -> None:
        """Write what is left and close each of them, which is waited for for 2 s at most; harmless twice."""
        self.write_rest()
        if self.answers.blocking or self.ledger.blocking or self.states.blocking:
            try:
                bounded(self._stores.close, wait_s=PATIENT_S)
            except StoreError as error:
                _log.warning("The store could not be closed: %s", error)
        else:
            self._stores.close()


def _threads() -> _Threads:
    return Reader("read the store"), Writer("write to the store")


def _tell(is_written: asyncio.Future[None]) -> None:
    """Settle a future of an event loop, from the writer's thread."""
    with suppress(RuntimeError):  # the loop has ended
        is_written.get_loop().call_soon_threadsafe(_settle, is_written)


def _settle(is_written: asyncio.Future[None]) -> None:
    if not is_written.done():
        is_written.set_result(None)


def _found(get: Callable[[str], bytes | None], keys: Sequence[str], *, every: bool) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key in keys:
        value = get(key)
        if value is not None:
            found[key] = value
            if not every:
                break
    return found


def _written_now(writer: Writer, write: Callable[[], T]) -> T:
    """Return what writing something now returns.

    Raises:
        StoreError: It could not be written in time.
    """
    results: list[T] = []
    job = Job(lambda: results.append(write()), what="changes", lasts=False)
    writer.put(job)
    if not writer.wait(job, is_probe=True):
        writer.withdraw(job)
        raise writer.trouble or StoreClosedError("The store is closed.")
    return results[0]
