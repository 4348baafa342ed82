"""The limits that a user can set for a backend, and the words for how far they are used up.

This module decides what can be limited, in which units and for which periods, and how amounts are shown. Amounts are
whole tokens and whole billionths of a dollar: sums are exact. Days and months are those of UTC, as in the providers'
own accounts. It must not know what has been spent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from vision_backends.arguments import shown
from vision_backends.backends.rung_names import table_of
from vision_backends.errors import ConfigError
from vision_backends.serialization import VersionedRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.errors import VisionError
    from vision_backends.types import Usage

__all__ = [
    "ACCOUNTS",
    "BUDGETS",
    "Alert",
    "Amount",
    "Budget",
    "Limits",
    "Spending",
    "day_of",
    "period_of",
    "remedy_of_unpriced",
    "until_next",
]

NANO_USD = 1_000_000_000

ACCOUNTS = "accounts."
"""How the names of what several rungs share begin, in messages and in the store, as their tables do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much all processes of this machine together may ask of one backend, or of an account; None means no limit.

    Attributes:
        requests_per_minute: Calls that may begin per minute; as many may begin together after a quiet minute.
        tokens_per_minute: Tokens that may be used per minute, likewise.
        max_concurrency: Calls that may run concurrently.
        daily_budget_usd: US dollars per day of UTC.
        monthly_budget_usd: US dollars per month of UTC.
        daily_budget_tokens: Tokens, sent and received, per day of UTC.
        monthly_budget_tokens: Tokens, sent and received, per month of UTC.
        allow_unpriced: Whether a model whose price is unknown may be asked under a budget in US dollars, which cannot
            count it.
        account: The account whose limits hold for the backend besides its own, together with all that name it.

    Raises:
        ConfigError: A limit is not positive, or no number.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    daily_budget_usd: float | None = None
    monthly_budget_usd: float | None = None
    daily_budget_tokens: int | None = None
    monthly_budget_tokens: int | None = None
    allow_unpriced: bool = False
    account: str | None = None

    def __post_init__(self) -> None:
        account: object = self.account
        if account is not None and not (isinstance(account, str) and account):
            raise ConfigError(f"account={shown(account)} is not a name.", remedy='Write for example: account = "work".')
        if not isinstance(self.allow_unpriced, bool):
            raise ConfigError(f"allow_unpriced={shown(self.allow_unpriced)} is neither true nor false.")
        for spec in fields(self)[:-2]:
            value: float | None = getattr(self, spec.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{spec.name}={shown(value)} is not a number.", remedy="Leave it out for no limit.")
            if value is not None and not value > 0:
                raise ConfigError(f"{spec.name} = {value} must be positive.", remedy="Leave it out for no limit.")

    @property
    def are_any(self) -> bool:
        """Whether anything is limited."""
        return replace(self, allow_unpriced=False, account=None) != Limits()

    def check_priced(
        self, backend: Backend, requests: Iterable[Request], *, name: str, error: type[VisionError]
    ) -> None:
        """Return if the budgets can count what some requests of a backend cost, or need not.

        Args:
            backend: Who is asked.
            requests: What it may be asked.
            name: Whose budgets they are: the backend's, or its account's.
            error: What to raise where they cannot: a `ConfigError` for what is configured, the caller's error for what
                a call has chosen.
        """
        keys = [budget.key for budget in BUDGETS if budget.unit == "nano_usd" and budget.limit(self) is not None]
        models = dict.fromkeys(model for request in requests for model in backend.unpriced(request))
        if keys and models and not self.allow_unpriced:
            names, kind = " and ".join(map(repr, models)), getattr(type(backend), "name", "")
            table = table_of(backend.name, kind=kind if isinstance(kind, str) else "")
            raise error(
                f"{name}.{keys[0]} cannot count what {names} costs: the price is unknown.",
                remedy=f"{remedy_of_unpriced(table)}, or allow_unpriced = true.",
            )


class Amount(NamedTuple):
    """What a call takes, in whole numbers."""

    tokens: int = 0
    nano_usd: int = 0

    @classmethod
    def of(cls, usage: Usage, *, otherwise: Amount | None = None) -> Amount:
        """Return a usage as an amount; what is unknown in it is taken from ``otherwise``, or counts as nothing."""
        unknown = otherwise or cls()
        known = usage.input_tokens is not None and usage.output_tokens is not None
        return cls(
            tokens=(usage.input_tokens or 0) + (usage.output_tokens or 0) if known else unknown.tokens,
            nano_usd=unknown.nano_usd if usage.cost_usd is None else round(usage.cost_usd * NANO_USD),
        )

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return Amount(self.tokens + other.tokens, self.nano_usd + other.nano_usd)

    def times(self, count: int) -> Amount:
        """Return the amount for several calls."""
        return Amount(self.tokens * count, self.nano_usd * count)

    def at_least(self, other: Amount) -> Amount:
        """Return the larger of each part."""
        return Amount(max(self.tokens, other.tokens), max(self.nano_usd, other.nano_usd))

    def covers(self, other: Amount) -> bool:
        """Return whether another fits in."""
        return self.tokens >= other.tokens and self.nano_usd >= other.nano_usd

    def minus(self, other: Amount) -> Amount:
        """Return the difference, which may be negative."""
        return Amount(self.tokens - other.tokens, self.nano_usd - other.nano_usd)


class Budget(NamedTuple):
    """One kind of budget: the key that sets it, what it counts, and for how long."""

    key: str
    period: Literal["day", "month"]
    unit: Literal["tokens", "nano_usd"]

    @property
    def scale(self) -> int:
        """Units in one of what the user sets: a dollar or a token."""
        return NANO_USD if self.unit == "nano_usd" else 1

    def limit(self, limits: Limits) -> int | None:
        """Return how much may be spent, in this budget's unit; None where there is no limit."""
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
class Alert(VersionedRecord):
    """A budget is nearly or wholly spent. Reported once per budget and period, among all processes.

    Attributes:
        at: When it happened, in seconds since 1970 UTC.
        backend: Whose budget it is; ``"accounts.work"`` for an account.
        budget: The key that sets it, such as ``"daily_budget_usd"``.
        percent: 80 or 100.
        period: The day or month, such as ``"2026-11-23"`` or ``"2026-11"``.
        message: All of this in a sentence.
        backends: The rungs whose calls it counts.
    """

    at: float
    backend: str
    budget: str
    percent: int
    period: str
    message: str
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending(VersionedRecord):
    """How far a budget is spent.

    Attributes:
        backend: Whose budget it is; ``"accounts.work"`` for an account.
        budget: The key that sets it.
        period: The day or month.
        spent: What has been booked, in dollars or tokens, as the key says, and what other processes have drawn for
            their next calls.
        reserved: What running calls are expected to add.
        limit: What may be spent.
        backends: The rungs whose calls it counts.
    """

    backend: str
    budget: str
    period: str
    spent: float
    reserved: float
    limit: float
    backends: tuple[str, ...] = ()


def remedy_of_unpriced(table: str) -> str:
    """Return what to do about a model whose price is unknown, as a sentence without its end.

    Args:
        table: The table of the backend, as messages write it.
    """
    return f"Set prices in {table} (USD per million tokens), or price = 0 there if it costs nothing"


def day_of(now: float) -> str:
    """Return the day of UTC."""
    return period_of("day", now)


def period_of(period: str, now: float) -> str:
    """Return the day or month of UTC."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def until_next(period: str, now: float) -> float:
    """Return the seconds until the next day or month of UTC begins."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        following = today + timedelta(days=1)
    else:
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return following.timestamp() - now
