"""The SQLite file of a store: when it is opened, each thread's connection to it, and what happens when it is damaged.

This module decides when connections are opened and closed, and that a file which is broken, gone or replaced is
followed by one that can be used. It must not know what is read or written through them.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.errors import ConfigError
from vision_backends.storage.base import StoreClosedError, StoreError
from vision_backends.storage.sqlite_ownership import COMPANIONS, examine, identity_of
from vision_backends.storage.sqlite_schema import (
    SQLITE_ERRORS,
    carry_over_states,
    connect,
    is_damage,
    is_sound,
    prepare,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from vision_backends.clock import Clock
    from vision_backends.engine.threads import Lock

__all__ = ["SQLiteFile"]

FORK_S = 1.0
"""How long a fork waits for what other threads are doing with a file; see `SQLiteFile`."""

_log = logging.getLogger(__name__)

_Identity = tuple[int, int]


class SQLiteFile:
    """One SQLite file, and each thread's own connection to it: ``with file.connection() as db: ...``.

    It is opened when it is first needed, and again whenever another has taken its place. A link is followed.

    No connection outlives its thread, and none crosses a fork, which would be fatal: the child's SQLite believes that
    it holds locks that belong to the parent (https://sqlite.org/howtocorrupt.html, section 2.6). So all are closed
    just before a fork, and parent and child open new ones when they need them. Where that takes too long, because a
    disk hangs or another process holds the lock, the child does without the file.

    Args:
        path: The file; it is made where it is missing.
        clock: Where time comes from.
        is_ours: Whether nobody but this package keeps files at this path.
    """

    def __init__(self, path: Path, *, clock: Clock, is_ours: bool = False) -> None:
        self.path = path
        self._clock = clock
        self._is_ours = is_ours
        self._real_path = path
        self._identity: _Identity | None = None
        self._anchor: int | None = None
        self._local = threading.local()
        self._all: weakref.WeakSet[_ThreadConnection] = weakref.WeakSet()
        self._held: list[Lock] = []
        self._is_in_use = False
        self._is_cut_off = False
        self._closed = False
        self._unlock()
        _open_files.add(self)
        _watch_forks(self)

    def _unlock(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._opening = threading.Lock()

    def open(self) -> None:
        """Make sure that the file can be used.

        Raises:
            StoreError: It cannot now.
            ConfigError: It is not ours, or was written by a newer version of this package.
        """
        self._usable()

    @contextmanager
    def connection(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend the calling thread its connection, opened when it is first needed; roll back what is not committed.

        A file that turns out to be damaged is replaced; the operation that discovered it is lost.

        Args:
            writes: Whether it is lent in a transaction: all of it is written, or none. The threads of a process take
                turns then. SQLite itself waits by sleeping for ever longer, whichever came first: among 32 threads one
                was measured to wait for a second where here it waits for 80 ms.

        Raises:
            StoreError: SQLite could not do it, or `close` has been called.
        """
        own = getattr(self._local, "own", None) or self._new_connection()
        identity: _Identity | None = None
        with self._writing if writes else nullcontext():
            try:
                identity = self._usable()
                with own.lock:
                    db = own.db if own.identity == identity else None
                    if db is None:
                        db = own.open(self._real_path, identity)
                    try:
                        if writes:
                            db.execute("BEGIN IMMEDIATE")
                        yield db
                        if writes:
                            db.execute("COMMIT")
                    finally:
                        if db.in_transaction:
                            db.rollback()
                        if self._closed:
                            own.close()
            except ConfigError as error:
                raise StoreError(str(error)) from error
            except SQLITE_ERRORS as error:
                if is_damage(error):
                    self._repair(error, identity)
                raise StoreError(f"The store {str(self.path)!r} cannot be used: {error}.") from error

    def is_open_as(self, identity: _Identity) -> bool:
        """Return whether connections may be open to this very file."""
        return self._identity == identity and not self._closed

    def close(self) -> None:
        """Close every connection, for good; one that is in use is closed by its thread. Twice is harmless."""
        self._closed = True
        self._close_idle()
        self._hold_on(None)

    def __del__(self) -> None:
        self._hold_on(None)

    def hold(self) -> None:
        """Close every connection and keep every thread from opening one, until `release` or `renew`."""
        ends = SYSTEM_CLOCK.monotonic() + FORK_S
        self._is_in_use = False
        for lock in (self._writing, self._opening, self._lock):
            self._hold(lock, ends)
        for each in list(self._all):
            if self._hold(each.lock, ends):
                each.close()

    def release(self) -> None:
        """Let threads open connections again after `hold`, in the process that has forked."""
        while self._held:
            self._held.pop().release()

    def renew(self) -> None:
        """Begin anew in the child of a fork, which must not touch a connection that was open then."""
        self._is_cut_off = self._is_cut_off or self._is_in_use
        for each in list(self._all):
            each.abandon()
        self._held.clear()
        self._all = weakref.WeakSet()
        self._local = threading.local()
        self._unlock()

    def _new_connection(self) -> _ThreadConnection:
        """Return the connection of a thread that has had none."""
        own = self._local.own = _ThreadConnection()
        with self._lock:
            self._all.add(own)
        return own

    def _close_idle(self) -> None:
        with self._lock:
            everyone = list(self._all)
        for each in everyone:
            if each.lock.acquire(blocking=False):
                each.close()
                each.lock.release()

    def _hold(self, lock: Lock, ends: float) -> bool:
        """Take a lock and return True, or note that it is in use for too long."""
        is_held = lock.acquire(timeout=max(0.0, ends - SYSTEM_CLOCK.monotonic()))
        if is_held:
            self._held.append(lock)
        else:
            self._is_in_use = True
        return is_held

    def _usable(self) -> _Identity:
        """Return which file it is, after opening it where that has not been done yet.

        Raises:
            StoreError: It cannot be used now.
            ConfigError: It is not ours.
        """
        if self._closed:
            raise StoreClosedError("The store is closed.")
        if self._is_cut_off:
            raise StoreError(f"The store {str(self.path)!r} was in use when this process was forked.")
        identity = self._identity
        if identity is not None and self._found() == identity:
            return identity
        with self._opening:
            identity = self._identity
            if identity is None or self._found() != identity:
                self._identity = None
                identity = self._open()
                self._hold_on(identity)
                self._identity = identity
            return identity

    def _hold_on(self, identity: _Identity | None) -> None:
        """Keep the system from giving the number of our file to another, should ours be deleted.

        Such a descriptor reads and locks nothing, and closing it ends no lock, as that of any other would.
        """
        anchor, self._anchor = self._anchor, None
        with suppress(OSError):
            if anchor is not None:
                os.close(anchor)
            if identity is not None and hasattr(os, "O_PATH"):
                self._anchor = os.open(self._real_path, os.O_PATH)

    def _found(self) -> _Identity | None:
        try:
            info = self._real_path.stat()
        except OSError:
            return None
        return info.st_dev, info.st_ino

    def _open(self) -> _Identity:
        """Make sure that the file exists, is ours and its owner's alone, has the newest tables and can be used.

        A damaged file is moved aside, with a warning, and a new one begun.
        """
        path = self.path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = examine(path, is_known=self._is_known(), is_ours=self._is_ours)
            path = self._real_path = Path(os.path.realpath(path))
            if found == "damaged":
                self._replace("its header is broken", identity_of(path))
            else:
                self._prepare()
            identity = identity_of(path)
        except (OSError, *SQLITE_ERRORS) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"The store {str(self.path)!r} cannot be used: {error}.") from error
        if identity is None:
            raise StoreError(f"The store {str(self.path)!r} has vanished.")
        return identity

    def _is_known(self) -> bool:
        """Return whether this process has the file open already, through this object or another."""
        try:
            identity = identity_of(self.path)
        except NotADirectoryError:
            return False
        return identity is not None and _open_files.has(identity)

    def _prepare(self) -> None:
        """Make a file, or bring it up to date; one that is broken is replaced."""
        path = self._real_path
        try:
            _create(path)
            if not os.access(path, os.W_OK):
                raise StoreError(f"The store {str(self.path)!r} cannot be used: it is read-only.")
            prepare(path, clock=self._clock)
        except SQLITE_ERRORS as error:
            if not is_damage(error):
                raise
            self._replace(error, identity_of(path))

    def _repair(self, damage: Exception, identity: _Identity | None) -> None:
        """Replace a file that turned out to be damaged, unless another thread or process has done so."""
        with self._opening, suppress(OSError, *SQLITE_ERRORS):  # what keeps failing is reported by the next operation
            if self._identity != identity or identity is None:
                return
            if identity_of(self._real_path) == identity and not is_sound(self._real_path):
                self._close_idle()
                self._identity = None
                self._replace(damage, identity)

    def _replace(self, cause: object, identity: _Identity | None) -> None:
        """Move a damaged file and its companions aside, with a warning, and begin a new one with its states.

        Raises:
            OSError: The place cannot be written.
            SQLITE_ERRORS: The same, in SQLite's words.
        """
        path = self._real_path
        aside = path.with_name(f"{path.name}.damaged-{self._clock.time():.0f}")
        if identity_of(path) == identity and identity is not None:
            if aside.exists():
                aside = aside.with_name(f"{aside.name}-{identity[1]}")
            for end in ("", *COMPANIONS):
                companion = path.with_name(path.name + end)
                if companion.is_file():
                    companion.rename(aside.with_name(aside.name + end))
            _log.warning(
                "The store %s was damaged (%s); it was moved to %s, and a new one was started.", path, cause, aside.name
            )
        _create(path)
        prepare(path, clock=self._clock)
        with suppress(*SQLITE_ERRORS):
            carry_over_states(aside, path)


class _ThreadConnection:
    """One thread's connection, closed when its thread has ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.db: sqlite3.Connection | None = None
        self.identity: _Identity | None = None

    def __del__(self) -> None:
        if self.lock.acquire(blocking=False):  # otherwise somebody has found it in the list of all, and closes it
            self.close()
            self.lock.release()

    def open(self, path: Path, identity: _Identity) -> sqlite3.Connection:
        """Open a connection to a file in place of what is open; the caller holds the lock."""
        self.close()
        self.db, self.identity = connect(path), identity
        return self.db

    def close(self) -> None:
        """Close the connection if there is one; the caller holds the lock."""
        db, self.db = self.db, None
        if db is not None:
            db.close()

    def abandon(self) -> None:
        """Never close the connection, not even at the end of the interpreter."""
        db, self.db = self.db, None
        if db is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


class _OpenFiles:
    """The files that this process has open; it has one set of locks on each, whichever object has opened it."""

    def __init__(self) -> None:
        self._files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
        self._unlock()
        after_fork_in_child(self, _OpenFiles._unlock)

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def add(self, file: SQLiteFile) -> None:
        """Count one more."""
        with self._lock:
            self._files.add(file)

    def has(self, identity: _Identity) -> bool:
        """Return whether one of them may have connections to a file."""
        with self._lock:
            return any(file.is_open_as(identity) for file in self._files)


_open_files = _OpenFiles()
"""One for the whole process, as are the locks."""


def _create(path: Path) -> None:
    """Make a file for its owner alone, if it is missing."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


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

    def after_in_parent() -> None:
        if holding:
            holding.pop().release()

    def after_in_child() -> None:
        if holding:
            holding.pop().renew()

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
