"""One SQLite connection per thread, none of them in a forked child, none left behind by a thread that ended.

This module decides when a connection is opened and closed. It must not know what is done with it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from vision_backends.storage.base import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Connections"]


class Connections:
    """Lends each thread its own connection: ``with connections.mine() as db: ...``.

    A connection that came through a fork would be fatal: the child's SQLite believes that it holds locks which
    belong to the parent (https://sqlite.org/howtocorrupt.html, section 2.6). Hence all are closed just before a
    fork, and parent and child open new ones when they need them.

    Args:
        connect: Opens a connection that any thread may close.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self.writing = threading.Lock()
        self._local = threading.local()
        self._all: weakref.WeakSet[_Seat] = weakref.WeakSet()
        self._held: list[_Seat] = []
        self._closed = False
        _watch_forks(self)

    def mine(self) -> _Seat:
        """Return the calling thread's seat, to be entered with ``with``.

        Raises:
            StoreError: `close` has been called.
        """
        seat: _Seat | None = getattr(self._local, "seat", None)
        if seat is None or self._closed:
            with self._lock:
                if self._closed:
                    raise StoreError("The store is closed.")
                seat = self._local.seat = _Seat(self._connect)
                self._all.add(seat)
        return seat

    def renew(self) -> None:
        """Close every connection that is open now; each thread gets a new one when it asks."""
        with self._lock:
            seats = list(self._all)
        for seat in seats:
            with seat.lock:
                seat.vacate()

    def close(self) -> None:
        """Close every connection, for good; calling it twice is harmless."""
        with self._lock:
            self._closed = True
        self.renew()

    def hold(self) -> None:
        """Close every connection and keep every thread from opening one, until `release`."""
        self.writing.acquire()
        self._lock.acquire()
        self._held = list(self._all)
        for seat in self._held:
            seat.lock.acquire()
            seat.vacate()

    def release(self) -> None:
        """Let go what `hold` holds."""
        for seat in self._held:
            seat.lock.release()
        self._held = []
        self._lock.release()
        self.writing.release()


class _Seat:
    """One thread's connection, opened when it is first entered, closed when its thread has ended."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self.lock = threading.Lock()
        self._connect = connect
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> sqlite3.Connection:
        self.lock.acquire()
        try:
            if self._db is None:
                self._db = self._connect()
        except BaseException:
            self.lock.release()
            raise
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._db is not None and self._db.in_transaction:
                self._db.rollback()
        finally:
            self.lock.release()

    def __del__(self) -> None:
        self.vacate()  # without the lock: nobody else knows this seat any more

    def vacate(self) -> None:
        """Close the connection if there is one; the caller holds the lock."""
        db, self._db = self._db, None
        if db is not None:
            db.close()


def _watch_forks(connections: Connections) -> None:
    """Have the connections closed around every fork, for as long as they exist."""
    if not hasattr(os, "register_at_fork"):  # Windows does not fork
        return
    reference = weakref.ref(connections)
    holding: list[Connections] = []

    def before() -> None:
        alive = reference()
        if alive is not None:
            alive.hold()
            holding.append(alive)

    def after() -> None:
        if holding:
            holding.pop().release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
