"""The SQLite file of a store: its tables, how one of any age or condition becomes usable, and each thread's connection.

This module decides what a file must look like before it is used, when connections to it are opened and closed, and what
happens when it is damaged.
It must not know what is read or written through them.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vision_backends.errors import ConfigError
from vision_backends.storage.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vision_backends.clock import Clock

__all__ = ["SQLiteFile"]

BUSY_S = 5.0
"""How long one process waits for another's write; writes take well under a millisecond."""
PAUSE_S = 0.05
"""Between two attempts to open a file that another process is making."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE cache (key TEXT PRIMARY KEY, used REAL NOT NULL, value BLOB NOT NULL)",
        "CREATE INDEX cache_used ON cache (used)",
        "CREATE TABLE cache_total (entries INTEGER NOT NULL, bytes INTEGER NOT NULL)",
        "INSERT INTO cache_total VALUES (0, 0)",
        # Triggers keep the total, so that neither a crash nor another process can make it wrong.
        """
        CREATE TRIGGER cache_added AFTER INSERT ON cache BEGIN
          UPDATE cache_total SET entries = entries + 1, bytes = bytes + length(NEW.value);
        END
        """,
        """
        CREATE TRIGGER cache_changed AFTER UPDATE OF value ON cache BEGIN
          UPDATE cache_total SET bytes = bytes + length(NEW.value) - length(OLD.value);
        END
        """,
        """
        CREATE TRIGGER cache_removed AFTER DELETE ON cache BEGIN
          UPDATE cache_total SET entries = entries - 1, bytes = bytes - length(OLD.value);
        END
        """,
        "CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """
        CREATE TABLE ledger (
          id INTEGER PRIMARY KEY, at REAL NOT NULL, call_id TEXT NOT NULL, task TEXT NOT NULL, backend TEXT NOT NULL,
          outcome TEXT NOT NULL, model TEXT, error TEXT, code TEXT, request_id TEXT, elapsed_s REAL NOT NULL,
          input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL
        )
        """,
        "CREATE INDEX ledger_at ON ledger (at)",
    ),
)
"""The n-th entry makes version n + 1 out of version n. Entries are only ever added."""

_log = logging.getLogger(__name__)


class SQLiteFile:
    """One usable SQLite file, and each thread's own connection to it: ``with file.connection() as db: ...``.

    No connection outlives its thread, and none crosses a fork, which would be fatal: the child's SQLite believes that
    it holds locks that belong to the parent (https://sqlite.org/howtocorrupt.html, section 2.6). So all are closed
    just before a fork, and parent and child open new ones when they need them.

    Args:
        path: The file; it is made where it is missing.
        clock: Where time comes from.

    Raises:
        StoreError: The place cannot be written.
        ConfigError: The file was written by a newer version of this package.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        _open_file(path, clock=clock)
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._repairing = threading.Lock()
        self._local = threading.local()
        self._all: weakref.WeakSet[_ThreadConnection] = weakref.WeakSet()
        self._held: list[_ThreadConnection] = []
        self._closed = False
        _watch_forks(self)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend the calling thread its connection, opened when it is first needed; roll back what is not committed.

        A file that turns out to be damaged is replaced; the operation that discovered it is lost.

        Raises:
            StoreError: SQLite could not do it, or `close` has been called.
        """
        own: _ThreadConnection | None = getattr(self._local, "own", None)
        if own is None or self._closed:
            with self._lock:
                if self._closed:
                    raise StoreError("The store is closed.")
                own = self._local.own = _ThreadConnection()
                self._all.add(own)
        try:
            with own.lock:
                db = own.db = own.db or _connect(self.path)
                try:
                    yield db
                finally:
                    if db.in_transaction:
                        db.rollback()
        except sqlite3.Error as error:
            if _is_damage(error):
                self._repair(error)
            raise StoreError(f"The store {str(self.path)!r} cannot be used: {error}.") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in a transaction: all of it is written, or none. The threads of a process take turns here.

        SQLite itself waits by sleeping for ever longer, whichever came first: among 32 threads one was measured
        to wait for a second where here it waits for 80 ms.
        """
        with self._writing, self.connection() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def _repair(self, damage: sqlite3.Error) -> None:
        self.renew()
        with self._repairing, suppress(OSError, sqlite3.Error):  # what keeps failing is reported by the next operation
            _replace_damaged(self.path, damage, clock=self._clock)

    def renew(self) -> None:
        """Close every connection that is open now; each thread gets a new one when it asks."""
        with self._lock:
            everyone = list(self._all)
        for each in everyone:
            with each.lock:
                each.close()

    def close(self) -> None:
        """Close every connection, for good; calling it twice is harmless."""
        with self._lock:
            self._closed = True
        self.renew()

    def hold(self) -> None:
        """Close every connection and keep every thread from opening one, until `release`."""
        self._writing.acquire()
        self._lock.acquire()
        self._held = list(self._all)
        for each in self._held:
            each.lock.acquire()
            each.close()

    def release(self) -> None:
        """Let threads open connections again after `hold`."""
        for each in self._held:
            each.lock.release()
        self._held = []
        self._lock.release()
        self._writing.release()


class _ThreadConnection:
    """One thread's connection, closed when its thread has ended."""

    db: sqlite3.Connection | None = None

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __del__(self) -> None:
        self.close()  # without the lock: nothing else refers to it any more

    def close(self) -> None:
        """Close the connection if there is one; the caller holds the lock."""
        db, self.db = self.db, None
        if db is not None:
            db.close()


def _watch_forks(file: SQLiteFile) -> None:
    """Have the connections to a file closed around every fork, for as long as it is in use."""
    if not hasattr(os, "register_at_fork"):  # Windows does not fork
        return
    reference = weakref.ref(file)
    holding: list[SQLiteFile] = []

    def before() -> None:
        alive = reference()
        if alive is not None:
            alive.hold()
            holding.append(alive)

    def after() -> None:
        if holding:
            holding.pop().release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)


def _open_file(path: Path, *, clock: Clock) -> None:
    """Make sure that the file exists, is readable by its owner only, has the newest tables and can be written.

    A damaged file is moved aside, with a warning, and a new one begun.

    Raises:
        StoreError: The place cannot be written.
        ConfigError: The file was written by a newer version of this package.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _prepare(path, clock=clock)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            _replace_damaged(path, error, clock=clock)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The store {str(path)!r} cannot be used: {error}.") from error


def _replace_damaged(path: Path, cause: Exception, *, clock: Clock) -> None:
    """Move a damaged file and its companions aside, with a warning, and begin a new one.

    Nothing is moved when the file turns out to be sound: another process may have found the same damage and
    replaced it already.

    Raises:
        OSError: The place cannot be written.
        sqlite3.Error: The same, in SQLite's words.
    """
    if not _is_sound(path):
        aside = path.with_name(f"{path.name}.damaged-{clock.time():.0f}")
        for suffix in ("", "-wal", "-shm"):
            companion = path.with_name(path.name + suffix)
            if companion.is_file():
                companion.rename(aside.with_name(aside.name + suffix))
        _log.warning("The store %s was damaged (%s); it was moved to %s and begun anew.", path, cause, aside.name)
    _prepare(path, clock=clock)


def _connect(path: Path, *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Return a connection in autocommit mode that any thread may close and that waits up to ``busy_s`` for locks.

    With a write-ahead log and ``synchronous=NORMAL``, whatever was committed survives the death of the process,
    SIGKILL included; only a power failure may lose the last commits, and even that damages nothing
    (https://sqlite.org/pragma.html#pragma_synchronous).
    """
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _is_damage(error: BaseException) -> bool:
    """Return whether an error says that the file itself is broken, rather than locked, full or read-only."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (code & 0xFF) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _is_sound(path: Path) -> bool:
    try:
        db = _connect(path)
        try:
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
        finally:
            db.close()
    except sqlite3.Error:
        return False


def _prepare(path: Path, *, clock: Clock) -> None:
    """Bring a file up to date; wait for another process doing so, since SQLite does not always wait by itself."""
    give_up_at = clock.monotonic() + BUSY_S
    while True:
        try:
            _bring_up_to_date(path)
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY or clock.monotonic() >= give_up_at:
                raise
            clock.sleep(PAUSE_S)
        else:
            return


def _bring_up_to_date(path: Path) -> None:
    """Create the file if it is missing, migrate its tables, and check that it can be written."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = _connect(path, busy_s=PAUSE_S)
    try:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect on a new file only
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"The store {str(path)!r} was written by a newer version of vision-backends (format {version}).",
                remedy="Upgrade vision-backends, or set state= to another file.",
            )
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        db.execute("UPDATE cache_total SET entries = entries")
        db.execute("COMMIT")
    finally:
        db.close()
