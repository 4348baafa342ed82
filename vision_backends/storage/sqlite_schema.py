"""The tables of the SQLite store, and how a file of any age or condition becomes one that can be used.

This module decides what a file must look like before it is worked with. It must not know what is read from it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from typing import TYPE_CHECKING

from vision_backends.errors import ConfigError
from vision_backends.storage.base import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from vision_backends.clock import Clock

__all__ = ["connect", "is_damage", "open_file", "replace_damaged"]

BUSY_S = 5.0
"""How long one process waits for another's write; writes take well under a millisecond."""
PAUSE_S = 0.05
"""Between two looks whether another process has made the file."""

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


def open_file(path: Path, *, clock: Clock) -> None:
    """Make sure that the file is there, is ours alone, has the newest tables and can be written.

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
            if not is_damage(error):
                raise
            replace_damaged(path, error, clock=clock)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The store {str(path)!r} cannot be used: {error}.") from error


def replace_damaged(path: Path, cause: Exception, *, clock: Clock) -> None:
    """Move a damaged file and its companions aside, with a warning, and begin a new one.

    Nothing is moved when the file turns out to be sound: another process may have found the same damage and
    have replaced it already.

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


def connect(path: Path, *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Return a connection in autocommit mode, which any thread may close and which waits so long for locks.

    With a write-ahead log and ``synchronous=NORMAL`` whatever was committed survives the death of the process,
    SIGKILL included; only a power failure may take the last commits, and even that damages nothing
    (https://sqlite.org/pragma.html#pragma_synchronous).
    """
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def is_damage(error: BaseException) -> bool:
    """Return whether an error says that the file itself is broken, rather than locked, full or read-only."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (code & 0xFF) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _is_sound(path: Path) -> bool:
    try:
        db = connect(path)
        try:
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
        finally:
            db.close()
    except sqlite3.Error:
        return False


def _prepare(path: Path, *, clock: Clock) -> None:
    """Bring a file up to date; wait for another process that does so, since SQLite by itself not always does."""
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
    """Make the file if it is missing, make its tables the newest, and try out whether it can be written."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = connect(path, busy_s=PAUSE_S)
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
