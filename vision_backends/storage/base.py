"""The three interfaces of storage: cached answers, the ledger of attempts, and small states that processes share.

This module decides what must survive a call, a process or a restart. It must not know what the bytes of an answer
mean, which gates exist, or any backend. Each interface can be implemented alone, and `Stores` combines them: states
in Redis for all machines, say, with answers and ledger in a file on each.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from vision_backends.errors import VisionError
from vision_backends.serialization import VersionedRecord
from vision_backends.traces import Outcome, Purpose  # noqa: TC001 — `read_record` looks annotations up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "DAY_S",
    "MAX_ENTRY_BYTES",
    "Answers",
    "CacheInfo",
    "Ledger",
    "LedgerRow",
    "LedgerTotal",
    "States",
    "Store",
    "StoreClosedError",
    "StoreError",
    "Stores",
    "add_up",
]

T = TypeVar("T")

DAY_S = 86_400

MAX_ENTRY_BYTES = 4_000_000
"""Larger answers are not cached: the largest real ones, vectors of 4,096 components, take 16 kB."""


class StoreError(VisionError, OSError):
    """The place where a store keeps its data cannot be used now: locked for too long, full, unreadable."""

    kind = "store"


class StoreClosedError(StoreError):
    """The store was closed before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow(VersionedRecord):
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
        degraded: Whether it has answered in place of a better rung; None where it has not answered, and in rows of
            versions that did not book that.
    """

    at: float
    call_id: str
    task: Purpose
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
    degraded: bool | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the attempt has given an answer, fresh or kept."""
        return self.outcome in {"answered", "cached"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTotal(VersionedRecord):
    """Attempts of one day of UTC that are alike, added up.

    Attributes:
        at: Seconds since 1970 UTC when that day began.
        task: What was asked.
        backend: Which rung.
        outcome: How they ended.
        model: Which model.
        error: Kind of the error.
        attempts: How many there were.
        elapsed_s: Seconds that they took together.
        input_tokens: Billed tokens sent, as far as they are known.
        unknown_input: Attempts of which those are not known.
        output_tokens: Billed tokens received, as far as they are known.
        unknown_output: Attempts of which those are not known.
        cost_usd: US dollars, as far as they are known.
        unknown_cost: Attempts of which those are not known.
        degraded: Answers in place of a better rung, as far as that is known.
        unknown_degraded: Answers of which it is not known.
    """

    at: float
    task: Purpose
    backend: str
    outcome: Outcome
    model: str | None
    error: str | None
    attempts: int
    elapsed_s: float
    input_tokens: int
    unknown_input: int
    output_tokens: int
    unknown_output: int
    cost_usd: float
    unknown_cost: int
    degraded: int = 0
    unknown_degraded: int = 0


def add_up(rows: Iterable[LedgerRow]) -> list[LedgerTotal]:
    """Return the totals of some attempts."""
    alike: dict[tuple[float, Purpose, str, Outcome, str | None, str | None], list[LedgerRow]] = {}
    for row in rows:
        key = (row.at // DAY_S * DAY_S, row.task, row.backend, row.outcome, row.model, row.error)
        alike.setdefault(key, []).append(row)
    return [
        LedgerTotal(
            at=at,
            task=task,
            backend=backend,
            outcome=outcome,
            model=model,
            error=error,
            attempts=len(group),
            elapsed_s=sum(row.elapsed_s for row in group),
            input_tokens=sum(row.input_tokens or 0 for row in group),
            unknown_input=sum(row.input_tokens is None for row in group),
            output_tokens=sum(row.output_tokens or 0 for row in group),
            unknown_output=sum(row.output_tokens is None for row in group),
            cost_usd=sum(row.cost_usd or 0.0 for row in group),
            unknown_cost=sum(row.cost_usd is None for row in group),
            degraded=sum(row.degraded or 0 for row in group),
            unknown_degraded=sum(row.is_answer and row.degraded is None for row in group),
        )
        for (at, task, backend, outcome, model, error), group in alike.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo(VersionedRecord):
    """How full the cache is.

    Attributes:
        entries: Answers kept.
        size_bytes: Bytes that they take.
        max_bytes: Bytes that they may take; the least recently used are evicted first.
        location: Path of the file, or ``"memory"``.
    """

    entries: int
    size_bytes: int
    max_bytes: int
    location: str


class Answers(Protocol):
    """Keeps cached answers. Safe for many threads.

    A router waits for one that blocks for 50 ms in a call, whatever it does, and then takes it for a cache that misses.
    One that looks several answers up faster together than one by one may have a method ``get_many`` beside `get`, which
    takes keys and returns the answers that there are, by their keys.

    Attributes:
        blocking: Whether its methods may wait for a disk, a lock of another process or a network.
    """

    blocking: bool

    def get(self, key: str) -> bytes | None:
        """Return a cached answer and mark it as used, or None.

        Raises:
            StoreError: It cannot be read.
        """

    def put(self, key: str, value: bytes) -> None:
        """Keep an answer of at most ``MAX_ENTRY_BYTES``; the least recently used ones make room.

        Raises:
            StoreError: It could not be kept; the router tries again.
        """

    def cache_info(self) -> CacheInfo:
        """Return how full the cache is.

        Raises:
            StoreError: It cannot be read.
        """

    def clear_cache(self) -> int:
        """Forget every cached answer and return how many there were.

        Raises:
            StoreError: They could not be removed.
        """

    def close(self) -> None:
        """Release files and connections; calling it twice is harmless."""


class Ledger(Protocol):
    """Keeps one row for each attempt. Safe for many threads.

    A router records behind its calls, in one thread, and waits for one that blocks for 50 ms in a call. One that adds
    rows up faster than they can be read may have a method ``totals`` beside `rows`, with its arguments. One that keeps
    answers too may have a method ``put_and_record``, which takes answers by their keys and rows, and keeps all or none.

    Attributes:
        blocking: As for `Answers`.
    """

    blocking: bool

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Book attempts, all or none of them.

        Raises:
            StoreError: They could not be booked; the router tries again.
        """

    def rows(self, *, since: float = 0.0, until: float = float("inf")) -> Iterator[LedgerRow]:
        """Return the booked attempts with ``since <= at < until``, oldest first.

        Raises:
            StoreError: They cannot be read.
        """

    def close(self) -> None:
        """Release files and connections; calling it twice is harmless."""


class States(Protocol):
    """Keeps small texts that are shared by all processes: the states of gates and budgets. Safe for many threads.

    A router waits for one that blocks for 50 ms in a call, and then keeps a shadow in memory until it is back. One that
    reads several texts faster together than one by one may have a method ``read_many`` beside `read`, which takes keys
    and returns the text, or None, for each of them.

    Attributes:
        blocking: As for `Answers`.
    """

    blocking: bool

    def read(self, key: str) -> str | None:
        """Return a state, or None.

        Raises:
            StoreError: It cannot be read.
        """

    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace a state atomically, for all threads and processes.

        Args:
            key: Name of the state.
            change: Takes the current state (None if absent); returns the new one (None removes it) and a value.
                It must be quick, must not use the store, and must have no other effect than what it returns:
                an implementation may hold a lock and call it once, or call it again with the newer state when
                another writer was faster, as ``WATCH`` and ``MULTI`` of Redis require. What it raises changes nothing.

        Returns:
            The value that the last call of ``change`` returned.

        Raises:
            StoreError: The new state could not be kept.
        """

    def all(self, prefix: str = "") -> Mapping[str, str]:
        """Return all states whose keys begin with ``prefix``.

        Raises:
            StoreError: They cannot be read.
        """

    def close(self) -> None:
        """Release files and connections; calling it twice is harmless."""


class Store(Answers, Ledger, States, Protocol):
    """A store that keeps all three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Which store keeps what.

    Attributes:
        answers: Keeps the cache.
        ledger: Keeps the ledger.
        states: Keeps gates and budgets.
    """

    answers: Answers
    ledger: Ledger
    states: States

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return one store in the role of all three."""
        return cls(answers=store, ledger=store, states=store)

    def close(self) -> None:
        """Close each of them."""
        with ExitStack() as ends:  # whatever one of them raises
            for store in (self.states, self.ledger, self.answers):
                ends.callback(store.close)
