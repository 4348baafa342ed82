"""The tables of a store's SQLite file, and how one of any age or condition becomes usable.

This module decides what a file must look like before it is used, and which errors say that a file is broken. It must
not know whose file it is, nor what is read or written through it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING

from vision_backends.errors import ConfigError
from vision_backends.storage.base import LedgerRow
from vision_backends.storage.sqlite_ownership import APPLICATION_ID

if TYPE_CHECKING:
    from pathlib import Path

    from vision_backends.clock import Clock

__all__ = [
    "BUSY_S",
    "COLUMNS",
    "KINDS",
    "SQLITE_ERRORS",
    "carry_over_states",
    "connect",
    "is_damage",
    "is_sound",
    "prepare",
]

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
    ("ALTER TABLE ledger ADD COLUMN degraded INTEGER",),
)
"""The n-th entry makes version n + 1 out of version n. Entries are only ever added."""

COLUMNS = ", ".join(spec.name for spec in fields(LedgerRow))
"""Of the ledger."""

KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("at", "elapsed_s"), (float,)),
    **dict.fromkeys(("call_id", "task", "backend", "outcome"), (str,)),
    **dict.fromkeys(("model", "error", "code", "request_id"), (str, NoneType)),
    **dict.fromkeys(("input_tokens", "output_tokens"), (int, NoneType)),
    "cost_usd": (float, NoneType),
    "degraded": (int, NoneType),
}
"""What a column of the ledger may hold; a row that is damaged may hold anything, and is passed over."""

NEWEST = 99
"""Versions that may come; a larger number, or one that differs from ours in a single bit, was not written by us."""

USED = (
    "SELECT key, used, value FROM cache LIMIT 1",
    "SELECT entries + 0, bytes + 0 FROM cache_total LIMIT 1",
    "SELECT key, value FROM state LIMIT 1",
    f"SELECT id, {COLUMNS} FROM ledger LIMIT 1",  # noqa: S608 — the names of our own columns
)
"""What every file has to answer."""

ABSENT = frozenset(
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Errors of a file that cannot be used now: locked, full, read-only, gone. Every other says that it is broken."""


SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; the second where the text of the error has a damaged letter."""


def is_damage(error: Exception) -> bool:
    """Return whether an error says that the file itself is broken, rather than that it cannot be used now."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) not in ABSENT


def connect(path: Path, *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Return a connection in autocommit mode that any thread may close and that waits up to ``busy_s`` for locks.

    With a write-ahead log and ``synchronous=NORMAL``, whatever was committed survives the death of the process,
    SIGKILL included; only a power failure may lose the last commits, and even that damages nothing
    (https://sqlite.org/pragma.html#pragma_synchronous).
    """
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        db.text_factory = _text
        db.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _text(data: bytes) -> str:
    """Return a text of any condition: one damaged letter is no reason to lose the row."""
    return data.decode("utf-8", "replace")


def is_sound(path: Path) -> bool:
    """Return whether SQLite finds no fault with a file, and it has our tables."""
    try:
        with closing(connect(path)) as db:
            _check_tables(db)
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except SQLITE_ERRORS:
        return False


def prepare(path: Path, *, clock: Clock) -> None:
    """Bring a file up to date; wait for another process doing so, since SQLite does not always wait by itself.

    A file that is up to date is only read, which waits for nobody.

    Raises:
        SQLITE_ERRORS: It is broken or cannot be used; `is_damage` says which.
        ConfigError: The file was written by a newer version of this package.
    """
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


def carry_over_states(old: Path, new: Path) -> None:
    """Copy what can still be read of the states of a broken file, so that what is spent of a budget stays spent.

    Raises:
        SQLITE_ERRORS: No more could be read.
    """
    with closing(connect(old, busy_s=0)) as source, closing(connect(new)) as target:
        for key, value in source.execute("SELECT key, value FROM state"):
            if isinstance(key, str) and isinstance(value, str):
                target.execute("INSERT OR IGNORE INTO state (key, value) VALUES (?, ?)", (key, value))


def _bring_up_to_date(path: Path) -> None:
    """Migrate the tables of a file, mark it as ours, and check that everything is there."""
    with closing(connect(path, busy_s=PAUSE_S)) as db:
        if _version(db, path) < len(MIGRATIONS) or not _is_marked(db):
            _migrate(db, path)
        _check_tables(db)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    if not _version(db, path):
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect on a new file only
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")  # before there is a log: it stands in the file itself
        db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN IMMEDIATE")
    for migration in MIGRATIONS[_version(db, path) :]:
        for statement in migration:
            db.execute(statement)
    db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute("COMMIT")


def _is_marked(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,))


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of the tables.

    Raises:
        ConfigError: It is a newer one than ours.
        sqlite3.DatabaseError: It can be none.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    ours = len(MIGRATIONS)
    is_flipped = version != ours and (version ^ ours).bit_count() == 1
    if ours < version <= NEWEST and not is_flipped:
        raise ConfigError(
            f"The store {str(path)!r} was written by a newer version of vision-backends (format {version}).",
            remedy="Upgrade vision-backends, or set state= to another file.",
        )
    if 0 <= version <= ours:
        return int(version)
    damage = sqlite3.DatabaseError(f"{version} is not a version")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise damage


def _check_tables(db: sqlite3.Connection) -> None:
    """Return if every table has its columns.

    Raises:
        sqlite3.Error: One is missing or broken.
    """
    for query in USED:
        row = db.execute(query).fetchone()
        if row is None and "cache_total" in query:
            damage = sqlite3.DatabaseError("the total of the cache is missing")
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
