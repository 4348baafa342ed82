"""A store in one SQLite file, shared by all threads and processes of a machine.

This module decides how little work each operation is: one indexed statement or one short transaction. Whatever
was put, recorded or updated survives the death of the process; see `sqlite_file` for power failures.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.storage.base import DAY_S, MAX_ENTRY_BYTES, CacheInfo, LedgerRow, LedgerTotal, StoreError
from vision_backends.storage.sqlite_file import SQLiteFile
from vision_backends.storage.sqlite_schema import BUSY_S, COLUMNS, KINDS
from vision_backends.storage.sqlite_totals import first_day, forget_days, last_day, read_day

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.clock import Clock

__all__ = ["MAX_CACHE_BYTES", "SQLiteStore"]

T = TypeVar("T")

MAX_CACHE_BYTES = 500_000_000
"""Room for cached answers by default: about 80,000 vectors of 1,536 components."""

EVICT_TO = 0.95
"""A full cache is emptied to this part, so that the next puts do not each have to make room again."""

TOUCH_AFTER_S = 60.0
"""An entry used again within this time is not marked again: a hit then writes nothing."""

KEEP_LEDGER_S = 400 * 86_400.0
"""Attempts are remembered for a little more than a year, so that a month can be compared with last year's."""

PRUNE_EVERY_S = 3_600.0
"""How often a process looks for attempts that are too old."""

MOST_KEYS = 500
"""Keys in one statement; SQLite before 3.32 takes 999 values."""

LAST_CHARACTER = "\U0010ffff"
"""Sorts behind every other and is in no key: between a prefix and the prefix with it lie all keys that begin so."""

PAGE_ROWS = 1_000
"""Ledger rows held in memory while the ledger is read."""

INSERT_ROW = f"INSERT INTO ledger ({COLUMNS}) VALUES ({', '.join('?' for _ in fields(LedgerRow))})"  # noqa: S608 — the names of our own columns

INSERT_ANSWER = (
    "INSERT INTO cache (key, used, value) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET used = excluded.used, value = excluded.value"
)


class SQLiteStore:
    """Keeps everything in a file with mode 0600; a missing directory is made with mode 0700.

    Its methods raise `StoreError` where the file cannot be used now. A file that turns out to be damaged is moved aside
    and begun anew; one that was deleted or replaced is followed by the one that is there.

    Args:
        path: The file; a link is followed.
        max_cache_bytes: Room for cached answers; the least recently used go first.
        clock: Where time comes from.
        is_ours: Whether nobody but this package keeps files at this path: whatever lies there may be moved aside.
        opens_later: Whether the file is opened when it is first needed, not now.

    Raises:
        StoreError: The place cannot be used now.
        ConfigError: The file is not ours, or was written by a newer version of this package.
    """

    blocking = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_cache_bytes: int = MAX_CACHE_BYTES,
        clock: Clock = SYSTEM_CLOCK,
        is_ours: bool = False,
        opens_later: bool = False,
    ) -> None:
        self._max_cache_bytes = max_cache_bytes
        self._clock = clock
        self._prune_at = clock.monotonic()
        self._next_day = 0.0
        self._file = SQLiteFile(Path(path), clock=clock, is_ours=is_ours)
        if not opens_later:
            self.open()

    def open(self) -> None:
        """Make sure that the file can be used; errors as above."""
        self._file.open()

    def get(self, key: str) -> bytes | None:
        """Return a cached answer and mark it as used, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return those of some answers that are kept, by their keys, and mark them as used."""
        found: dict[str, bytes] = {}
        stale: list[str] = []
        now = self._clock.time()
        with self._file.connection() as db:
            for start in range(0, len(keys), MOST_KEYS):
                some = keys[start : start + MOST_KEYS]
                marks = ", ".join("?" * len(some))
                for key, value, used in db.execute(f"SELECT key, value, used FROM cache WHERE key IN ({marks})", some):  # noqa: S608 — only marks
                    if not isinstance(used, float) or abs(now - used) > TOUCH_AFTER_S:
                        stale.append(key)
                    if isinstance(value, bytes):
                        found[key] = value
        if stale:
            self._write_in_passing("UPDATE cache SET used = ? WHERE key = ?", [(now, key) for key in stale])
        return found

    def put(self, key: str, value: bytes) -> None:
        """Keep an answer; the least recently used ones make room."""
        self.put_and_record({key: value}, ())

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is."""
        with self._file.connection() as db:
            entries, size = db.execute("SELECT entries, bytes FROM cache_total").fetchone()
        return CacheInfo(
            entries=entries, size_bytes=size, max_bytes=self._max_cache_bytes, location=str(self._file.path)
        )

    def clear_cache(self) -> int:
        """Forget every cached answer, give the room back, and return how many there were."""
        with self._file.connection() as db:
            count = db.execute("DELETE FROM cache").rowcount
            db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Book attempts, all or none of them."""
        self.put_and_record({}, rows)

    def put_and_record(self, answers: Mapping[str, bytes], rows: Sequence[LedgerRow]) -> None:
        """Keep answers and book attempts, all or none of them."""
        most = min(MAX_ENTRY_BYTES, self._max_cache_bytes)
        kept = [(key, self._clock.time(), value) for key, value in answers.items() if len(value) <= most]
        if not (kept or rows):
            return
        with self._file.connection(writes=True) as db:
            if kept:
                db.executemany(INSERT_ANSWER, kept)
                (size,) = db.execute("SELECT bytes FROM cache_total").fetchone()
                if size > self._max_cache_bytes:
                    self._evict(db, size, keep=kept[-1][0])
            if rows:
                db.executemany(INSERT_ROW, map(astuple, rows))
                if self._clock.monotonic() >= self._prune_at:
                    self._prune_at = self._clock.monotonic() + PRUNE_EVERY_S
                    oldest = self._clock.time() - KEEP_LEDGER_S
                    db.execute("DELETE FROM ledger WHERE at < ?", (oldest,))
                    forget_days(db, oldest)
        if rows and rows[-1].at >= self._next_day:
            day = rows[-1].at // DAY_S * DAY_S
            self._next_day = day + DAY_S
            self._add_up_last_day(before=day)

    def rows(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts with ``since <= at < until``, oldest first; a page of them at a time."""
        after = (since, 0)
        while True:
            with self._file.connection() as db:
                page = db.execute(
                    f"SELECT id, {COLUMNS} FROM ledger WHERE (at, id) > (?, ?) AND at < ?"  # noqa: S608 — as above
                    f" ORDER BY at, id LIMIT {PAGE_ROWS}",
                    (*after, until),
                ).fetchall()
            for _, *values in page:
                row = dict(zip(LedgerRow.__slots__, values, strict=True))
                if all(isinstance(value, KINDS[name]) for name, value in row.items()):
                    degraded = row.pop("degraded")
                    yield LedgerRow(**row, degraded=None if degraded is None else bool(degraded))
            if len(page) < PAGE_ROWS:
                return
            after = (page[-1][1], page[-1][0])

    def totals(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerTotal]:
        """Return the totals of the booked attempts with ``since <= at < until``; those of a day are read in one go.

        Those of days that are over are remembered in the file.
        """
        while True:
            with self._file.connection() as db:
                day = first_day(db, since, until)
                if day is None:
                    return
                totals, state = read_day(db, day, since=since, until=until, now=self._clock.time())
            if state is not None:
                self._write_in_passing("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", [state])
            yield from totals
            if day + DAY_S <= since:  # so late that a day is less than a step of its number
                return
            since = day + DAY_S

    def read(self, key: str) -> str | None:
        """Return a state, or None."""
        return self.read_many([key])[key]

    def read_many(self, keys: Sequence[str]) -> Mapping[str, str | None]:
        """Return some states, all as they were at one moment; None for those that are not there."""
        marks = ", ".join("?" * len(keys))
        with self._file.connection() as db:
            rows = db.execute(f"SELECT key, value FROM state WHERE key IN ({marks})", keys).fetchall()  # noqa: S608 — only marks
        return dict.fromkeys(keys) | {key: str(value) for key, value in rows}

    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace a state atomically, as `States.update` says; ``change`` is called once, in a transaction."""
        with self._file.connection(writes=True) as db:
            row = db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
            old = None if row is None else row[0]
            new, value = change(old)
            if new is None and old is not None:
                db.execute("DELETE FROM state WHERE key = ?", (key,))
            elif new != old:
                db.execute("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", (key, new))
            return value

    def all(self, prefix: str = "") -> Mapping[str, str]:
        """Return all states whose keys begin with ``prefix``."""
        with self._file.connection() as db:
            rows = db.execute(
                "SELECT key, value FROM state WHERE key >= ? AND key < ?", (prefix, prefix + LAST_CHARACTER)
            ).fetchall()
        return dict(rows)

    def close(self) -> None:
        """Close the connections of all threads; calling it twice is harmless."""
        self._file.close()

    def _add_up_last_day(self, *, before: float) -> None:
        """Have the last day before another remembered: whoever asks for many days finds them added up."""
        with suppress(StoreError):
            with self._file.connection() as db:
                day = last_day(db, before)
            if day is not None and day + DAY_S <= self._clock.time():
                list(self.totals(since=day, until=day + DAY_S))

    def _write_in_passing(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Write what is no loss if it is not written, unless that has to be waited for."""
        with suppress(StoreError), self._file.connection() as db:
            db.execute("PRAGMA busy_timeout=0")
            try:
                db.executemany(statement, rows)
            finally:
                db.execute(f"PRAGMA busy_timeout={BUSY_S * 1000:.0f}")

    def _evict(self, db: sqlite3.Connection, size: int, *, keep: str) -> None:
        """Delete the least recently used entries, found through the index, until enough room is free."""
        oldest = db.execute("SELECT key, length(value) FROM cache WHERE key != ? ORDER BY used", (keep,))
        gone = []
        for key, length in oldest:
            if size <= self._max_cache_bytes * EVICT_TO:
                break
            gone.append((key,))
            size -= length
        oldest.close()
        db.executemany("DELETE FROM cache WHERE key = ?", gone)
