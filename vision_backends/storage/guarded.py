"""Stores that never hold up a call: what is on its way to a store is kept in memory until it has arrived.

This module decides that answers and attempts are found meanwhile, and what becomes of them at the end. It must not know
how long a store is waited for, nor what the bytes mean. A store that does not block is used as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from vision_backends.engine.threads import callbacks_of
from vision_backends.storage.backlog import Backlog
from vision_backends.storage.base import StoreClosedError, StoreError, add_up
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

PAGE_ROWS = 500
"""Rows of the ledger that are read in one go."""

_log = logging.getLogger(__name__)


class GuardedAnswers(Guard):
    """Cached answers; one that is on its way to the store is found as if it had arrived."""

    def __init__(self, answers: Answers, threads: Threads | None = None, backlog: Backlog | None = None) -> None:
        super().__init__(answers, threads)
        self._answers = answers
        self._look_up = getattr(answers, "get_many", None) or partial(_found, answers.get)
        self._backlog = backlog or Backlog(answers, (self._reader, self._writer), self._put_each)

    def get(self, key: str) -> bytes | None:
        """Return a cached answer, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return those of some answers that are kept, by their keys, in one go."""
        if not self.blocking:
            return self._look_up(keys)
        pending = self._backlog.answers_of(keys)
        asked = [key for key in keys if key not in pending] if pending else keys
        try:
            kept = self._reader.ask(partial(self._look_up, asked)) if asked else {}
        except StoreError:
            kept = {}
        return {**kept, **pending}

    def put(self, key: str, value: bytes) -> None:
        """Keep an answer, soon."""
        if not self.blocking:
            self._answers.put(key, value)
        else:
            self._backlog.add_answer(key, value)

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is. Errors as for `Answers`."""
        return self._reader.ask(self._answers.cache_info) if self.blocking else self._answers.cache_info()

    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were. Errors as for `Answers`."""
        if not self.blocking:
            return self._answers.clear_cache()
        self._backlog.forget_answers()
        return _written_now(self._writer, self._answers.clear_cache)

    def close(self) -> None:
        """Close the cache."""
        self._answers.close()

    def _put_each(self, answers: Mapping[str, bytes], _rows: Sequence[LedgerRow]) -> None:
        for key, value in answers.items():
            self._answers.put(key, value)


class GuardedLedger(Guard):
    """The ledger; attempts are booked soon, and those of a call together."""

    def __init__(self, ledger: Ledger, threads: Threads | None = None, backlog: Backlog | None = None) -> None:
        super().__init__(ledger, threads)
        self._ledger = ledger
        self._backlog = backlog or Backlog(
            ledger, (self._reader, self._writer), lambda _answers, rows: ledger.record(rows)
        )

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Book attempts, soon."""
        if not self.blocking:
            self._ledger.record(rows)
        else:
            self._backlog.add_rows(rows)

    def rows(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts, oldest first, and then those that are to be booked. Errors as for `Ledger`."""
        rows = self._ledger.rows(since=since, until=until)
        if not self.blocking:
            yield from rows
            return
        while page := self._reader.ask(lambda: list(islice(rows, PAGE_ROWS))):
            yield from page
        yield from sorted(self._backlog.rows_of(since, until), key=lambda row: row.at)

    def totals(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerTotal]:
        """Return the totals of what is booked, and of what is to be booked. Errors as for `Ledger`."""
        find = getattr(self._ledger, "totals", None)
        if find is None:
            yield from add_up(self.rows(since=since, until=until))
            return
        totals = find(since=since, until=until)
        while page := self._reader.ask(lambda: list(islice(totals, 1))):  # a day may take as long as many rows
            yield from page
        yield from add_up(self._backlog.rows_of(since, until))

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


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
        backlog = _joint_backlog(stores, threads[id(stores.ledger)])
        self.answers = GuardedAnswers(stores.answers, threads[id(stores.answers)], backlog)
        self.ledger = GuardedLedger(stores.ledger, threads[id(stores.ledger)], backlog)
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
            is_written = loop.create_future()
            if writer.when_written(partial(_tell, is_written)) and not await until_done(is_written):
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


def _joint_backlog(stores: Stores, threads: Threads) -> Backlog | None:
    """Return that of a store which keeps both answers and the ledger and can write them in one go, if it is one."""
    write = getattr(stores.ledger, "put_and_record", None)
    if write is None or id(stores.ledger) != id(stores.answers):
        return None
    return Backlog(stores.ledger, threads, write, is_joint=True)


def _tell(is_written: asyncio.Future[None]) -> None:
    """Settle a future of an event loop, from any thread."""
    with suppress(RuntimeError):  # the loop has ended
        callbacks_of(is_written.get_loop()).call_soon(partial(_settle, is_written))


def _settle(is_written: asyncio.Future[None]) -> None:
    if not is_written.done():
        is_written.set_result(None)


def _found(get: Callable[[str], bytes | None], keys: Sequence[str]) -> dict[str, bytes]:
    found = ((key, get(key)) for key in keys)
    return {key: value for key, value in found if value is not None}


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
