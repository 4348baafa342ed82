"""What all guards of stores share: threads that read and write, and a log that says when too much waits for a store.

This module decides what is shared by the guards of states, answers and the ledger, and that each begins with nothing
after a fork. It must not know what is kept in memory meanwhile.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from vision_backends.engine.threads import after_fork_in_child, make_lock
from vision_backends.storage.bounded import Reader
from vision_backends.storage.write_behind import Writer

if TYPE_CHECKING:
    from vision_backends.storage.base import Answers, Ledger, States

__all__ = ["Guard", "Threads", "make_threads"]

Threads: TypeAlias = tuple[Reader, Writer]

_log = logging.getLogger(__name__)


def make_threads() -> Threads:
    """Return what asks a store and what writes to it."""
    return Reader("read the store"), Writer("write to the store")


class Guard:
    """What all three have: threads that read and write, unless the store does not block."""

    def __init__(self, store: Answers | Ledger | States, threads: Threads | None = None) -> None:
        self.blocking = store.blocking
        self._reader, self._writer = threads or make_threads()
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
