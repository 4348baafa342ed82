"""The ledger in sums: what was asked, answered and spent, for each day, model or whatever it is grouped by.

This module decides what of an attempt counts where, and that an unknown amount is never taken for nothing. It must
not know how sums are shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from vision_backends.errors import (
    ContentRejectedError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidRequestError,
    SpaceMismatchError,
    StreamInterruptedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vision_backends.storage.base import LedgerTotal

__all__ = ["KEYS", "Figure", "Key", "Sums", "sum_up", "utc_day"]

Key = Literal["day", "model", "backend", "task", "error"]
"""What attempts can be grouped by."""

KEYS: tuple[Key, ...] = get_args(Key)

OF_THE_CALLER = frozenset(
    error.kind
    for error in (
        ContentRejectedError,
        ImageTooLargeError,
        InvalidImageError,
        InvalidRequestError,
        SpaceMismatchError,
        StreamInterruptedError,  # in the ledger it stands for a caller who has stopped listening
    )
)
"""Errors after which no other backend is asked."""


@dataclass(slots=True)
class Figure:
    """A sum of which parts may be unknown.

    Attributes:
        known: The sum of the known parts.
        unknown: How many parts are unknown.
    """

    known: float = 0
    unknown: int = 0

    def include(self, other: Figure) -> None:
        """Add another sum."""
        self.known += other.known
        self.unknown += other.unknown

    @property
    def total(self) -> float | None:
        """The whole sum, or None if a part of it is unknown."""
        return None if self.unknown else self.known

    def show(self, form: Callable[[float], str]) -> str:
        """Return the sum for people: ``$0.42``, ``≥ $0.42`` or ``unknown``."""
        if not self.unknown:
            return form(self.known)
        return f"≥ {form(self.known)}" if self.known else "unknown"


@dataclass(slots=True)
class Sums:
    """What the attempts of one group add up to.

    Attributes:
        calls: Attempts in which the backend was asked.
        answered: Calls that were answered.
        cached: Answers that came from the cache.
        fallbacks: Answers in place of a better rung; unknown where an earlier version has booked them.
        errors: Attempts without an answer, by the kind of the error.
        input_tokens: Tokens sent.
        output_tokens: Tokens received.
        cost_usd: US dollars.
        elapsed_s: Seconds that the answered calls took.
    """

    calls: int = 0
    answered: int = 0
    cached: int = 0
    fallbacks: Figure = field(default_factory=Figure)
    errors: Counter[str] = field(default_factory=Counter)
    input_tokens: Figure = field(default_factory=Figure)
    output_tokens: Figure = field(default_factory=Figure)
    cost_usd: Figure = field(default_factory=Figure)
    elapsed_s: float = 0.0

    def add(self, total: LedgerTotal) -> None:
        """Count attempts that are alike."""
        if total.outcome in {"answered", "failed"}:
            self.calls += total.attempts
        if total.outcome == "cached":
            self.cached += total.attempts
        if total.outcome == "answered":
            self.answered += total.attempts
            self.elapsed_s += total.elapsed_s
        self.fallbacks.include(Figure(total.degraded, total.unknown_degraded))
        if total.error is not None:
            self.errors[total.error] += total.attempts
        self.input_tokens.include(Figure(total.input_tokens, total.unknown_input))
        self.output_tokens.include(Figure(total.output_tokens, total.unknown_output))
        self.cost_usd.include(Figure(total.cost_usd, total.unknown_cost))

    def include(self, other: Sums) -> None:
        """Add the sums of another group."""
        self.calls += other.calls
        self.answered += other.answered
        self.cached += other.cached
        self.fallbacks.include(other.fallbacks)
        self.errors += other.errors
        self.input_tokens.include(other.input_tokens)
        self.output_tokens.include(other.output_tokens)
        self.cost_usd.include(other.cost_usd)
        self.elapsed_s += other.elapsed_s

    @property
    def missed(self) -> Counter[str]:
        """Attempts after which somebody else had to be asked, by the kind of the error."""
        return Counter({kind: count for kind, count in self.errors.items() if kind not in OF_THE_CALLER})

    @property
    def mean_s(self) -> float | None:
        """Seconds that an answer took on average; None without any."""
        return self.elapsed_s / self.answered if self.answered else None

    def to_dict(self) -> dict[str, Any]:
        """Return the sums as JSON-able values; null is what is not known in full."""
        return {
            "calls": self.calls,
            "answered": self.answered,
            "cached": self.cached,
            "fallbacks": self.fallbacks.total,
            "fallbacks_known": self.fallbacks.known,
            "errors": dict(self.errors.most_common()),
            "input_tokens": self.input_tokens.total,
            "input_tokens_known": self.input_tokens.known,
            "output_tokens": self.output_tokens.total,
            "output_tokens_known": self.output_tokens.known,
            "cost_usd": self.cost_usd.total,
            "cost_usd_known": self.cost_usd.known,
            "mean_s": self.mean_s,
        }


def sum_up(totals: Iterable[LedgerTotal], *, by: Sequence[Key]) -> dict[tuple[str | None, ...], Sums]:
    """Return the sums of each group, sorted by what it is grouped by; a day is one of UTC."""
    groups: dict[tuple[str | None, ...], Sums] = {}
    for total in totals:
        group = tuple(utc_day(total.at) if key == "day" else getattr(total, key) for key in by)
        groups.setdefault(group, Sums()).add(total)
    return dict(sorted(groups.items(), key=lambda pair: [part or "" for part in pair[0]]))


def utc_day(at: float) -> str:
    """Return the day of a time in UTC, as ``2026-11-23``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
