"""The budget state of one backend: what is spent, what is reserved, and how many calls the minute has left.

A state is read from the store, changed and written back within one atomic update. This module decides
how amounts are booked; the limits are `limits`'s. It must not know where the state is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from vision_backends.errors import BackendError, OverloadedError, QuotaExhaustedError, RateLimitedError
from vision_backends.health.circuit_breaker import MAX_LEASE_S, SLACK_S
from vision_backends.health.limits import BUDGETS, NANO_USD, Alert, Amount, Spending

if TYPE_CHECKING:
    from vision_backends.health.limits import Budget, Limits

__all__ = ["BudgetState"]

VERSION = 1

MINUTE_S = 60.0

KEPT_PERIODS = 6
"""Periods that are remembered. More than the current day and month, lest a clock that is wrong for a moment
makes it forget what today has cost."""

ROUNDING = 1e-6
"""Who has waited for as long as he was told is not sent away for a millionth of a request."""

ALERT_PERCENTS = (80, 100)


@dataclass(slots=True)
class BudgetState:
    """Lives within one update or one look.

    Attributes:
        spent: Amounts booked, by day and by month.
        told: Alerts that have been given, as ``"<budget> <percent>"``, by day and by month.
        reserved: Ends of leases and amounts of running calls, by call.
        levels: What is left of the minute's requests and tokens, and when that was so.
    """

    spent: dict[str, Amount] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    reserved: dict[str, tuple[float, Amount]] = field(default_factory=dict)
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a state; one that cannot be read starts from nothing."""
        if text is None:
            return cls()
        try:
            state = json.loads(text)
            if state["version"] != VERSION:
                return cls()
            return cls(
                spent={period: _amount(values) for period, values in state["spent"].items()},
                told={period: [str(each) for each in told] for period, told in state["told"].items()},
                reserved={caller: (float(until), _amount(values)) for caller, until, values in state["reserved"]},
                levels={what: (float(level), float(at)) for what, (level, at) in state["levels"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def dump(self) -> str:
        """Write the state down."""
        state = {
            "version": VERSION,
            "spent": self.spent,
            "told": self.told,
            "reserved": [[caller, until, amount] for caller, (until, amount) in self.reserved.items()],
            "levels": self.levels,
        }
        return json.dumps(state, separators=(",", ":"))

    def obstacle(self, limits: Limits, amount: Amount, *, backend: str, now: float) -> BackendError | None:
        """Return why a call of this estimated amount may not begin; None when it may."""
        self._drop_expired(now)
        if limits.max_concurrency is not None and len(self.reserved) >= limits.max_concurrency:
            return OverloadedError(
                f"{len(self.reserved)} calls are running.",
                remedy=f"{backend}.max_concurrency = {limits.max_concurrency} allows no more.",
                backend=backend,
                code="max_concurrency",
            )
        for key, needed in (("requests_per_minute", 1), ("tokens_per_minute", amount.tokens)):
            limit: int | None = getattr(limits, key)
            if limit is not None:
                missing = min(needed, limit) - self._level(key, limit, now)
                if missing > ROUNDING:
                    return RateLimitedError(
                        f"{backend}.{key} = {limit} is used up.",
                        backend=backend,
                        code=key,
                        retry_after_s=missing * MINUTE_S / limit,
                    )
        for budget in BUDGETS:
            refused = self._over_budget(budget, limits, amount, backend=backend, now=now)
            if refused is not None:
                return refused
        return None

    def reserve(self, limits: Limits, amount: Amount, *, caller: str, lease_s: float, now: float) -> None:
        """Set an amount aside for a call that begins; should its process die, the lease ends by itself."""
        self.reserved[caller] = (now + min(lease_s, MAX_LEASE_S), amount)
        self._draw(limits, requests=1, tokens=amount.tokens, now=now)

    def cancel(self, limits: Limits, *, caller: str, reserved: Amount, now: float) -> None:
        """Undo `reserve` for a call that has not been made after all."""
        self.reserved.pop(caller, None)
        self._draw(limits, requests=-1, tokens=-reserved.tokens, now=now)

    def settle(self, limits: Limits, amount: Amount, *, caller: str, reserved: Amount, now: float) -> None:
        """BudgetState what a call has taken instead of what was reserved for it."""
        self.reserved.pop(caller, None)
        self._draw(limits, requests=0, tokens=amount.tokens - reserved.tokens, now=now)
        for period in (_period("day", now), _period("month", now)):
            self.spent[period] = self.spent.pop(period, Amount()).plus(amount)
        for period in list(self.spent)[:-KEPT_PERIODS]:
            del self.spent[period]
        self.told = {period: told for period, told in self.told.items() if period in self.spent}

    def alerts(self, limits: Limits, *, backend: str, now: float, refused: Amount | None = None) -> list[Alert]:
        """Return what has to be told now, and remember that it was.

        Args:
            limits: The budgets.
            backend: Whose they are.
            now: The time.
            refused: What a call that has just been refused would have taken: a budget that is nearly spent and
                has no room for it counts as wholly spent.
        """
        alerts = []
        for budget in BUDGETS:
            limit = budget.limit(limits)
            if limit is None:
                continue
            period = _period(budget.period, now)
            spent = budget.of(self.spent.get(period, Amount()))
            percent = spent * 100 // limit
            if refused is not None and percent >= ALERT_PERCENTS[0] and spent + budget.of(refused) > limit:
                percent = 100
            told = self.told.setdefault(period, [])
            due = [each for each in ALERT_PERCENTS if each <= percent and f"{budget.key} {each}" not in told]
            told += [f"{budget.key} {each}" for each in due]
            if due:
                message = f"{budget.show(spent)} of {budget.show(limit)} are spent ({backend}.{budget.key}, {period})."
                alerts.append(
                    Alert(at=now, backend=backend, budget=budget.key, percent=due[-1], period=period, message=message)
                )
        return alerts

    def spending(self, limits: Limits, *, backend: str, now: float) -> list[Spending]:
        """Return how far each budget is spent."""
        self._drop_expired(now)
        found = []
        for budget in BUDGETS:
            limit = budget.limit(limits)
            if limit is not None:
                scale = NANO_USD if budget.unit == "nano_usd" else 1
                period = _period(budget.period, now)
                found.append(
                    Spending(
                        backend=backend,
                        budget=budget.key,
                        period=period,
                        spent=budget.of(self.spent.get(period, Amount())) / scale,
                        reserved=budget.of(self._reserved_in_all()) / scale,
                        limit=limit / scale,
                    )
                )
        return found

    def _over_budget(
        self, budget: Budget, limits: Limits, amount: Amount, *, backend: str, now: float
    ) -> QuotaExhaustedError | None:
        limit = budget.limit(limits)
        if limit is None:
            return None
        spent = budget.of(self.spent.get(_period(budget.period, now), Amount()))
        needed = max(1, budget.of(amount))  # an unknown price must not get past a budget that is spent
        if spent + budget.of(self._reserved_in_all()) + needed <= limit:
            return None
        if spent + needed <= limit:  # running calls may turn out cheaper than they were estimated
            return QuotaExhaustedError(
                f"Running calls have reserved the rest of {backend}.{budget.key} = {budget.show(limit)}.",
                backend=backend,
                code="budget_reserved",
                retry_after_s=max(0.0, min(until for until, _ in self.reserved.values()) - now),
            )
        more = f", and this call may take {budget.show(needed)}" if spent < limit else ""
        return QuotaExhaustedError(
            f"{budget.show(spent)} of {budget.show(limit)} are spent this {budget.period}{more}.",
            remedy=f"Raise {backend}.{budget.key}, or wait for the next {budget.period} (UTC).",
            backend=backend,
            code="budget_exhausted",
            retry_after_s=_until_next(budget.period, now),
        )

    def _reserved_in_all(self) -> Amount:
        total = Amount()
        for _, amount in self.reserved.values():
            total = total.plus(amount)
        return total

    def _drop_expired(self, now: float) -> None:
        longest_s = MAX_LEASE_S + SLACK_S  # what lasts longer was set by a clock that has been put back since
        self.reserved = {
            caller: (until, amount) for caller, (until, amount) in self.reserved.items() if 0 < until - now <= longest_s
        }

    def _level(self, key: str, limit: int, now: float) -> float:
        """Return what is left of a minute's allowance, which comes back steadily up to the whole of it."""
        level, at = self.levels.get(key, (float(limit), now))
        return min(float(limit), level + max(0.0, now - at) * limit / MINUTE_S)

    def _draw(self, limits: Limits, *, requests: int, tokens: int, now: float) -> None:
        for key, drawn in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            limit: int | None = getattr(limits, key)
            if limit is not None:
                self.levels[key] = (self._level(key, limit, now) - drawn, now)


def _amount(values: list[int]) -> Amount:
    tokens, nano_usd = values
    return Amount(int(tokens), int(nano_usd))


def _period(period: str, now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def _until_next(period: str, now: float) -> float:
    """Return the seconds until the next day or month of UTC begins."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        following = today + timedelta(days=1)
    else:
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return following.timestamp() - now
