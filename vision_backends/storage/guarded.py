"""Stores that never hold up a call: what is on its way to a store is kept in memory until it has arrived.

This module decides how many answers and attempts that may be, that they are found meanwhile, and what becomes of them
at the end. It must not know how long a store is waited for, nor what the bytes mean. A store that does not block is
used as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from vision_backends.storage.base import MAX_ENTRY_BYTES, StoreClosedError, StoreError, add_up
from vision_backends.storage.bounded import PATIENT_S, bounded, until_done
from vision_backends.storage.guard import Guard, make_threads
from vision_backends.storage.guarded_states import GuardedStates
from vision_backends.storage.write_behind import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.storage.base import Answers, CacheInfo, Ledger, LedgerRow, LedgerTotal, Stores
    from vision_backends.storage.guard import Threads
    from vision_backends.storage.write_behind import Writer

__all__ = ["GuardedAnswers", "GuardedLedger", "GuardedStores"]

T = TypeVar("T")

MAX_PENDING_BYTES = 64_000_000
"""Answers that are kept for a store that is away; the oldest make room."""

MAX_PENDING_ROWS = 100_000
"""Attempts that are kept for one; more are lost, which the log says."""

PAGE_ROWS = 500
"""Rows of the ledger that are read in one go."""

_log = logging.getLogger(__name__)


class GuardedAnswers(Guard):
    """Cached answers; one that is on its way to the store is found as if it had arrived."""

    def __init__(self, answers: Answers, threads: Threads | None = None) -> None:
        self._answers = answers
        self._look_up = getattr(answers, "first_of", None) or partial(_found, answers.get)
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
            return self._look_up(keys, every=every)
        with self._lock:
            pending = {key: self._pending[key] for key in keys if key in self._pending}
        if pending and not every:
            first = next(iter(pending))
            pending, keys = {first: pending[first]}, keys[: keys.index(first)]
        asked = [key for key in keys if key not in pending]
        try:
            kept = self._reader.ask(partial(self._look_up, asked, every=every)) if asked else {}
        except StoreError:
            kept = {}
        return {**kept, **pending} if every else kept or pending

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
            self._writer.put(Job(self._write, what="answers", count=lambda: len(self._pending), on_lost=self._lose))

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

    def _lose(self) -> None:
        with self._lock:
            self._pending.clear()
            self._pending_bytes = 0
            self._is_due = False


class GuardedLedger(Guard):
    """The ledger; attempts are booked soon, and those of a call together."""

    def __init__(self, ledger: Ledger, threads: Threads | None = None) -> None:
        self._ledger = ledger
        super().__init__(ledger, threads)

    def begin(self) -> None:
        """Do as every guard."""
        super().begin()
        self._pending: list[LedgerRow] = []
        self._tried = 0
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
            self._writer.put(Job(self._write, what="attempts", count=lambda: len(self._pending), on_lost=self._lose))

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
            self._tried = len(pending)
        try:
            if pending:
                self._ledger.record(pending)
        except BaseException:
            self._is_due = True
            raise
        with self._lock:
            del self._pending[: len(pending)]

    def _lose(self) -> None:
        with self._lock:
            del self._pending[: self._tried]
            self._is_due = False


class GuardedStores:
    """The three of them, with the same threads where one store is all of them.

    Args:
        stores: What they guard.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        threads = {id(store): make_threads() for store in (stores.ledger, stores.answers, stores.states)}
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
