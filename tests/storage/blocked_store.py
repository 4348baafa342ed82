"""A store that can be made to hang or to fail, as one on another machine or on a dying disk does."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

from vision_backends.storage.base import LedgerRow
from vision_backends.storage.memory import MemoryStore

__all__ = ["BlockedStore", "attempt", "until"]

LONG_S = 30.0
"""Nobody waits for so long; who does is the fault that is looked for."""


def until(condition, timeout_s=20.0):
    """Wait for something that happens in another thread."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "It did not happen."
        time.sleep(0.005)


def attempt(number):
    """An attempt to be booked."""
    return LedgerRow(at=float(number), call_id=str(number), task="embed", backend="b", outcome="answered")


class BlockedStore(MemoryStore):
    """Keeps everything in memory, once it answers.

    Attributes:
        answers: Cleared while it hangs.
        error: What it raises meanwhile instead, if anything.
        asked: How often it was asked for something.
    """

    blocking = True

    def __init__(self, **options):
        super().__init__(**options)
        self.answers = threading.Event()
        self.answers.set()
        self.error = None
        self.asked = 0

    def _answer(self):
        self.asked += 1
        assert self.answers.wait(LONG_S)
        if self.error is not None:
            raise self.error

    def get(self, key):
        """As the store in memory, when it answers."""
        self._answer()
        return super().get(key)

    def put(self, key, value):
        """As the store in memory, when it answers."""
        self._answer()
        super().put(key, value)

    def record(self, rows):
        """As the store in memory, when it answers."""
        self._answer()
        super().record(rows)

    def rows(self, *, since=0.0, until=float("inf")):
        """As the store in memory, when it answers."""
        self._answer()
        return super().rows(since=since, until=until)

    def read(self, key):
        """As the store in memory, when it answers."""
        self._answer()
        return super().read(key)

    def update(self, key, change):
        """As the store in memory, when it answers."""
        self._answer()
        return super().update(key, change)

    def all(self, prefix=""):
        """As the store in memory, when it answers."""
        self._answer()
        return super().all(prefix)

    def kept(self, key):
        """A state, whether it answers or not."""
        return super().read(key)

    def booked(self):
        """The ledger, whether it answers or not."""
        return list(super().rows())

    @contextmanager
    def lent(self):
        """Be there for a test, and let go of everybody at its end."""
        try:
            yield self
        finally:
            self.error = None
            self.answers.set()
