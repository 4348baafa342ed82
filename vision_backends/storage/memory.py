"""A store that lives and ends with the process.

This module decides only how much is kept: the cache by bytes, the ledger by rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, TypeVar

from vision_backends.engine.threads import after_fork_in_child
from vision_backends.storage.base import MAX_ENTRY_BYTES, CacheInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.storage.base import LedgerRow

__all__ = ["MAX_CACHE_BYTES", "MemoryStore"]

T = TypeVar("T")

MAX_CACHE_BYTES = 64_000_000
"""Room for cached answers by default: about 10,000 vectors of 1,536 components."""


class MemoryStore:
    """Keeps everything in memory, shared by the threads of one process.

    Args:
        max_cache_bytes: Room for cached answers; the least recently used go first.
        max_ledger_rows: How many attempts are remembered; the oldest go first.
    """

    blocking = False

    def __init__(self, *, max_cache_bytes: int = MAX_CACHE_BYTES, max_ledger_rows: int = 10_000) -> None:
        self._max_cache_bytes = max_cache_bytes
        self._unlock()
        after_fork_in_child(self, MemoryStore._unlock)
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cache_bytes = 0
        self._ledger: deque[LedgerRow] = deque(maxlen=max_ledger_rows)
        self._states: dict[str, str] = {}

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Return a cached answer and mark it as used, or None."""
        with self._lock:
            value = self._cache.get(key)
            if value is not None:
                self._cache.move_to_end(key)
            return value

    def put(self, key: str, value: bytes) -> None:
        """Keep an answer; the least recently used ones make room."""
        if len(value) > min(MAX_ENTRY_BYTES, self._max_cache_bytes):
            return
        with self._lock:
            self._cache_bytes += len(value) - len(self._cache.pop(key, b""))
            self._cache[key] = value
            while self._cache_bytes > self._max_cache_bytes:
                _, oldest = self._cache.popitem(last=False)
                self._cache_bytes -= len(oldest)

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is."""
        with self._lock:
            return CacheInfo(
                entries=len(self._cache),
                size_bytes=self._cache_bytes,
                max_bytes=self._max_cache_bytes,
                location="memory",
            )

    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were."""
        with self._lock:
            count = len(self._cache)
            self._cache.clear()
            self._cache_bytes = 0
            return count

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Book attempts, all or none of them."""
        with self._lock:
            self._ledger.extend(rows)

    def rows(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts with ``since <= at < until``, oldest first."""
        with self._lock:
            rows = [row for row in self._ledger if since <= row.at < until]
        return iter(sorted(rows, key=lambda row: row.at))

    def read(self, key: str) -> str | None:
        """Return a state, or None."""
        return self._states.get(key)

    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace a state atomically, as `States.update` says; ``change`` is called once, under a lock."""
        with self._lock:
            new, value = change(self._states.get(key))
            if new is None:
                self._states.pop(key, None)
            else:
                self._states[key] = new
            return value

    def all(self, prefix: str = "") -> Mapping[str, str]:
        """Return all states whose keys begin with ``prefix``."""
        with self._lock:
            return {key: state for key, state in self._states.items() if key.startswith(prefix)}

    def close(self) -> None:
        """Do nothing: what is in memory ends with the process."""
