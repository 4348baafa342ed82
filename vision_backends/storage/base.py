"""The interface of a store: cached answers, the ledger of attempts, and small shared states.

This module decides what must survive a call, a process or a restart. It must not know what the bytes of the
cache mean, which gates exist, or any backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.types import Outcome, Task

__all__ = ["MAX_ENTRY_BYTES", "CacheInfo", "LedgerRow", "Store", "StoreError"]

T = TypeVar("T")

MAX_ENTRY_BYTES = 4_000_000
"""Larger answers are not cached: the largest real ones, vectors of 4,096 components, take 16 kB."""


class StoreError(OSError):
    """The place where a store keeps its data cannot be used now: locked for too long, full, unreadable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One attempt, as it is booked.

    Attributes:
        at: Seconds since 1970 UTC when the attempt ended.
        call_id: Groups the attempts of one call; the last of a call is the one that answered, if any did.
        task: What was asked.
        backend: Which rung.
        outcome: How it ended.
        model: Which model.
        error: Kind of the error.
        code: The provider's own code.
        request_id: The provider's id.
        elapsed_s: Seconds that it took.
        input_tokens: Billed tokens sent; None means unknown.
        output_tokens: Billed tokens received; None means unknown.
        cost_usd: US dollars; None means unknown.
    """

    at: float
    call_id: str
    task: Task
    backend: str
    outcome: Outcome
    model: str | None = None
    error: str | None = None
    code: str | None = None
    request_id: str | None = None
    elapsed_s: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """How full the cache is.

    Attributes:
        entries: Answers kept.
        size_bytes: Bytes that they take.
        max_bytes: Bytes that they may take; the least recently used go first.
        location: Path of the file, or ``"memory"``.
    """

    entries: int
    size_bytes: int
    max_bytes: int
    location: str


class Store(ABC):
    """Keeps cached answers, the ledger and shared states. Safe for many threads.

    What a call does on its way (`get`, `put`, `record`) never fails: a store in trouble logs it and is a cache
    that misses. Everything else raises `StoreError`.
    """

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return a cached answer and mark it as used, or None."""

    @abstractmethod
    def put(self, key: str, value: bytes) -> None:
        """Keep an answer of at most ``MAX_ENTRY_BYTES``; the least recently used ones make room."""

    @abstractmethod
    def cache_info(self) -> CacheInfo:
        """Return how full the cache is."""

    @abstractmethod
    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were."""

    @abstractmethod
    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Book attempts, all or none of them."""

    @abstractmethod
    def ledger(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts with ``since <= at < until``, oldest first."""

    @abstractmethod
    def read(self, key: str) -> str | None:
        """Return a shared state, or None."""

    @abstractmethod
    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace a shared state atomically, for all threads and processes of the store.

        Args:
            key: Name of the state.
            change: Takes the state now (None if absent); returns the new one (None removes it) and a value.
                It is called once, while everybody else waits: it must be quick and must not use the store.

        Returns:
            The value that ``change`` returned.

        Raises:
            StoreError: The new state could not be kept.
        """

    @abstractmethod
    def states(self, prefix: str = "") -> Mapping[str, str]:
        """Return all shared states whose keys begin with ``prefix``."""

    def close(self) -> None:  # noqa: B027 — a store may have nothing to close
        """Release files and connections; calling it twice is harmless."""
