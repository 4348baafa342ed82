"""The limits that a user can set for a backend: calls and tokens per minute, concurrency, budgets.

Amounts are whole tokens and whole billionths of a dollar: sums are exact. Days and months are those of UTC, as in
the providers' own accounts. This module decides what can be limited, and in which units. It must not know what has
been spent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, NamedTuple

from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from vision_backends.types import Usage

__all__ = ["BUDGETS", "Alert", "Amount", "Budget", "Limits", "Spending"]

NANO_USD = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be asked of one backend, by all processes of this machine; None means no limit.

    Attributes:
        requests_per_minute: Calls that may begin per minute; as many may begin together after a quiet minute.
        tokens_per_minute: Tokens that may be used per minute, likewise.
        max_concurrency: Calls that may run concurrently.
        daily_budget_usd: US dollars per day of UTC.
        monthly_budget_usd: US dollars per month of UTC.
        daily_budget_tokens: Tokens, sent and received, per day of UTC.
        monthly_budget_tokens: Tokens, sent and received, per month of UTC.

    Raises:
        ConfigError: A limit is not positive.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    daily_budget_usd: float | None = None
    monthly_budget_usd: float | None = None
    daily_budget_tokens: int | None = None
    monthly_budget_tokens: int | None = None

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if value is not None and not value > 0:
                raise ConfigError(
                    f"{spec.name} = {value} leaves nothing to ask for.", remedy="Leave it out for no limit."
                )


class Amount(NamedTuple):
    """What a call takes, in whole numbers."""

    tokens: int = 0
    nano_usd: int = 0

    @classmethod
    def of(cls, usage: Usage, *, otherwise: Amount | None = None) -> Amount:
        """Return a usage as an amount; what is unknown in it is taken from ``otherwise``, or for nothing."""
        unknown = otherwise or cls()
        known = usage.input_tokens is not None and usage.output_tokens is not None
        return cls(
            tokens=(usage.input_tokens or 0) + (usage.output_tokens or 0) if known else unknown.tokens,
            nano_usd=unknown.nano_usd if usage.cost_usd is None else round(usage.cost_usd * NANO_USD),
        )

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return Amount(self.tokens + other.tokens, self.nano_usd + other.nano_usd)

    def minus(self, other: Amount) -> Amount:
        """Return the difference, which may be negative."""
        return Amount(self.tokens - other.tokens, self.nano_usd - other.nano_usd)


class Budget(NamedTuple):
    """One of the budgets: which key sets it, what it counts, and for how long."""

    key: str
    period: Literal["day", "month"]
    unit: Literal["tokens", "nano_usd"]

    @property
    def scale(self) -> int:
        """Units to one of what the user sets: dollars or tokens."""
        return NANO_USD if self.unit == "nano_usd" else 1

    def limit(self, limits: Limits) -> int | None:
        """Return how much may be spent, in this budget's unit; None if there is no limit."""
        limit: float | None = getattr(limits, self.key)
        return None if limit is None else round(limit * self.scale)

    def of(self, amount: Amount) -> int:
        """Return the part of an amount that this budget counts."""
        part: int = getattr(amount, self.unit)
        return part

    def show(self, value: int) -> str:
        """Return a value of this budget for people: ``$4.20``, ``$0.0042``, ``12,000 tokens``."""
        if self.unit == "tokens":
            return f"{value:,} tokens"
        dollars = value / NANO_USD
        return f"${dollars:,.2f}" if dollars >= 0.1 or not value else f"${dollars:.4f}"


BUDGETS = (
    Budget("daily_budget_usd", "day", "nano_usd"),
    Budget("monthly_budget_usd", "month", "nano_usd"),
    Budget("daily_budget_tokens", "day", "tokens"),
    Budget("monthly_budget_tokens", "month", "tokens"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A budget is nearly or wholly spent. Reported once per budget and period, among all processes.

    Attributes:
        at: When, in seconds since 1970 UTC.
        backend: Whose budget.
        budget: The key that sets it, such as ``"daily_budget_usd"``.
        percent: 80 or 100.
        period: The day or month, such as ``"2026-11-23"`` or ``"2026-11"``.
        message: All this in a sentence.
    """

    at: float
    backend: str
    budget: str
    percent: int
    period: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How far a budget is spent.

    Attributes:
        backend: Whose budget.
        budget: The key that sets it.
        period: The day or month.
        spent: What has been booked, in dollars or tokens as the key says.
        reserved: What running calls are expected to add.
        limit: What may be spent.
    """

    backend: str
    budget: str
    period: str
    spent: float
    reserved: float
    limit: float
