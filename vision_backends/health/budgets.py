"""What each backend has spent, what its running calls have reserved, and how many calls the minute has left.

This module decides whether a call fits into the limits that the user has set, and how it is booked: reserved by its
estimate before it begins, settled by its usage after it, each within one atomic update for all processes. What can be
limited is in `limits`. It must not know where the states are kept.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from vision_backends.errors import BackendError, OverloadedError, QuotaExhaustedError, RateLimitedError
from vision_backends.health.circuit_breaker import MAX_LEASE_S, SLACK_S
from vision_backends.health.limits import BUDGETS, Alert, Amount, Limits, Spending
from vision_backends.health.shared_state import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vision_backends.health.admission import Permit
    from vision_backends.health.limits import Budget
    from vision_backends.health.shared_state import SharedStates

__all__ = ["BudgetState", "Budgets"]

T = TypeVar("T")

PREFIX = "book/"
"""How the keys of the states begin; what was spent before an upgrade stays spent."""

VERSION = 1

MINUTE_S = 60.0

KEPT_PERIODS = 6
"""Periods that are remembered. More than the current day and month, lest a clock that is wrong for a moment
makes today's costs forgotten."""

ROUNDING = 1e-6
"""A call that has waited for as long as it was told is not refused for a millionth of a request."""

ALERT_PERCENTS = (80, 100)

_log = logging.getLogger(__name__)


class Budgets:
    """Reserves and settles. Safe for many threads; a backend without limits costs nothing.

    Args:
        states: Where the states are.
        limits: What is allowed, by name of the backend.
        on_alert: Told when 80 % and 100 % of a budget are spent.
    """

    def __init__(
        self, states: SharedStates, limits: Mapping[str, Limits], *, on_alert: Callable[[Alert], object] | None
    ) -> None:
        self._states = states
        self._limits = dict(limits)
        self._on_alert = on_alert
        self._unpriced: set[str] = set()

    def concern(self, backend: str) -> bool:
        """Return whether the user has set limits for a backend, so that each of its calls is booked."""
        return backend in self._limits

    def read(self, backend: str) -> BudgetState:
        """Return what a backend has spent and reserved."""
        return BudgetState.parse(self._states.read(PREFIX + backend), backend=backend, limits=self._limits[backend])

    def reserve(self, permit: Permit, *, now: float) -> None:
        """Set aside what a call is estimated to take.

        Raises:
            BackendError: It does not fit in; says when it will.
        """
        backend = permit.scope.backend
        if backend not in self._limits:
            return
        self._warn_of_unknown_price(permit)

        def act(state: BudgetState) -> tuple[BackendError | None, list[Alert]]:
            refused = state.obstacle(permit.amount, now=now)
            if refused is not None:
                return refused, state.alerts(now=now, refused=permit.amount)
            state.reserve(permit.amount, caller=permit.caller, lease_s=permit.lease_s, now=now)
            return None, []

        unknown: tuple[BackendError | None, list[Alert]] = (None, [])
        refused, alerts = self._change(backend, act, otherwise=unknown)
        tell(self._on_alert, alerts)
        if refused is not None:
            raise refused

    def cancel(self, permit: Permit, *, now: float) -> None:
        """Undo `reserve` for a call that was not made after all."""
        backend = permit.scope.backend
        if backend in self._limits:
            self._change(
                backend, lambda state: state.cancel(permit.amount, caller=permit.caller, now=now), otherwise=None
            )

    def settle(self, permit: Permit, amount: Amount, *, reserved: Amount, now: float) -> None:
        """Book what a call has taken.

        Args:
            permit: The call's.
            amount: What it has taken; negative where it was booked as more before.
            reserved: What was reserved for it until now.
            now: The time.
        """
        backend = permit.scope.backend
        if backend not in self._limits:
            return

        def act(state: BudgetState) -> list[Alert]:
            state.settle(amount, caller=permit.caller, reserved=reserved, now=now)
            return state.alerts(now=now)

        nothing: list[Alert] = []
        tell(self._on_alert, self._change(backend, act, otherwise=nothing))

    def spending(self, *, now: float) -> list[Spending]:
        """Return how far each budget is spent."""
        return [spending for backend in self._limits for spending in self.read(backend).spending(now=now)]

    def _change(self, backend: str, act: Callable[[BudgetState], T], *, otherwise: T) -> T:
        def change(text: str | None) -> tuple[str, T]:
            state = BudgetState.parse(text, backend=backend, limits=self._limits[backend])
            value = act(state)
            return state.dump(), value

        return self._states.update(PREFIX + backend, change, otherwise=otherwise)

    def _warn_of_unknown_price(self, permit: Permit) -> None:
        limits, model = self._limits[permit.scope.backend], permit.scope.model
        has_budget = limits.daily_budget_usd is not None or limits.monthly_budget_usd is not None
        if has_budget and not permit.is_priced and model not in self._unpriced:
            self._unpriced.add(model)
            _log.warning("The price of %r is unknown: budgets in US dollars cannot count it.", model)


@dataclass(slots=True)
class BudgetState:
    """What one backend has spent and reserved; lives within one update or one look.

    Attributes:
        backend: Which.
        limits: What is allowed.
        spent: Amounts booked, by day and by month.
        told: Alerts that have been given, as ``"<budget> <percent>"``, by day and by month.
        reserved: Ends of leases and amounts of running calls, by call.
        levels: What is left of the minute's requests and tokens, and when that was so.
    """

    backend: str
    limits: Limits
    spent: dict[str, Amount] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    reserved: dict[str, tuple[float, Amount]] = field(default_factory=dict)
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None, *, backend: str, limits: Limits) -> Self:
        """Read a state; one that cannot be read starts from nothing."""
        if text is None:
            return cls(backend, limits)
        try:
            state = json.loads(text)
            if state["version"] != VERSION:
                return cls(backend, limits)
            return cls(
                backend,
                limits,
                spent={period: _amount(values) for period, values in state["spent"].items()},
                told={period: [str(each) for each in told] for period, told in state["told"].items()},
                reserved={caller: (float(until), _amount(values)) for caller, until, values in state["reserved"]},
                levels={what: (float(level), float(at)) for what, (level, at) in state["levels"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(backend, limits)

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

    def obstacle(self, amount: Amount, *, now: float) -> BackendError | None:
        """Return why a call of this estimated amount may not begin; None when it may."""
        limit, running = self.limits.max_concurrency, len(self._running(now))
        if limit is not None and running >= limit:
            return OverloadedError(
                f"{running} calls are running.",
                remedy=f"{self.backend}.max_concurrency = {limit} allows no more.",
                backend=self.backend,
                code="max_concurrency",
            )
        for key, needed in (("requests_per_minute", 1), ("tokens_per_minute", amount.tokens)):
            limit = getattr(self.limits, key)
            if limit is not None:
                missing = min(needed, limit) - self._level(key, limit, now)
                if missing > ROUNDING:
                    return RateLimitedError(
                        f"{self.backend}.{key} = {limit} is used up.",
                        backend=self.backend,
                        code=key,
                        retry_after_s=missing * MINUTE_S / limit,
                    )
        return self._over_budget(amount, now=now)

    def reserve(self, amount: Amount, *, caller: str, lease_s: float, now: float) -> None:
        """Set an amount aside for a call that begins; should its process die, the lease ends by itself."""
        self.reserved = self._running(now) | {caller: (now + min(lease_s, MAX_LEASE_S), amount)}
        self._draw(requests=1, tokens=amount.tokens, now=now)

    def cancel(self, reserved: Amount, *, caller: str, now: float) -> None:
        """Undo `reserve` for a call that has not been made after all."""
        self.reserved.pop(caller, None)
        self._draw(requests=-1, tokens=-reserved.tokens, now=now)

    def settle(self, amount: Amount, *, caller: str, reserved: Amount, now: float) -> None:
        """Book what a call has taken instead of what was reserved for it."""
        self.reserved.pop(caller, None)
        self._draw(requests=0, tokens=amount.tokens - reserved.tokens, now=now)
        for period in (_period("day", now), _period("month", now)):
            self.spent[period] = self.spent.pop(period, Amount()).plus(amount)
        for period in list(self.spent)[:-KEPT_PERIODS]:
            del self.spent[period]
        self.told = {period: told for period, told in self.told.items() if period in self.spent}

    def alerts(self, *, now: float, refused: Amount | None = None) -> list[Alert]:
        """Return what has to be told now, and remember that it was.

        Args:
            now: The time.
            refused: What a call that has just been refused would have taken: a budget that is nearly spent and
                has no room for it counts as wholly spent.
        """
        alerts = []
        for budget, limit, period, spent in self._limited(now):
            percent = spent * 100 // limit
            if refused is not None and percent >= ALERT_PERCENTS[0] and spent + budget.of(refused) > limit:
                percent = 100
            told = self.told.setdefault(period, [])
            due = [each for each in ALERT_PERCENTS if each <= percent and f"{budget.key} {each}" not in told]
            told += [f"{budget.key} {each}" for each in due]
            if due:
                key, part = f"{self.backend}.{budget.key}", f"{budget.show(spent)} of {budget.show(limit)}"
                alert = Alert(
                    at=now,
                    backend=self.backend,
                    budget=budget.key,
                    percent=due[-1],
                    period=period,
                    message=f"{part} is spent ({key}, {period}).",
                )
                alerts.append(alert)
        return alerts

    def spending(self, *, now: float) -> list[Spending]:
        """Return how far each budget is spent."""
        return [
            Spending(
                backend=self.backend,
                budget=budget.key,
                period=period,
                spent=spent / budget.scale,
                reserved=self._reserved(budget, now) / budget.scale,
                limit=limit / budget.scale,
            )
            for budget, limit, period, spent in self._limited(now)
        ]

    def _limited(self, now: float) -> Iterator[tuple[Budget, int, str, int]]:
        """Yield each budget that is set, with its limit, its current period and what is spent of it."""
        for budget in BUDGETS:
            limit = budget.limit(self.limits)
            if limit is not None:
                period = _period(budget.period, now)
                yield budget, limit, period, budget.of(self.spent.get(period, Amount()))

    def _over_budget(self, amount: Amount, *, now: float) -> QuotaExhaustedError | None:
        for budget, limit, _, spent in self._limited(now):
            needed = max(1, budget.of(amount))  # an unknown price must not get past a budget that is spent
            if spent + self._reserved(budget, now) + needed > limit:
                return self._spent(budget, limit, spent, needed, now=now)
        return None

    def _spent(self, budget: Budget, limit: int, spent: int, needed: int, *, now: float) -> QuotaExhaustedError:
        key = f"{self.backend}.{budget.key}"
        if spent + needed <= limit:  # running calls may turn out cheaper than they were estimated
            return QuotaExhaustedError(
                f"Running calls have reserved the rest of {key} = {budget.show(limit)}.",
                backend=self.backend,
                code="budget_reserved",
                retry_after_s=max(0.0, min(until for until, _ in self._running(now).values()) - now),
            )
        this = "today" if budget.period == "day" else "this month"
        more = f", and this call may take {budget.show(needed)}" if spent < limit else ""
        return QuotaExhaustedError(
            f"{budget.show(spent)} of {this}'s budget of {budget.show(limit)} is spent{more}.",
            remedy=f"Raise {key}, or wait for the next {budget.period} (UTC).",
            backend=self.backend,
            code="budget_exhausted",
            retry_after_s=_until_next(budget.period, now),
        )

    def _running(self, now: float) -> dict[str, tuple[float, Amount]]:
        """Return the reservations whose leases have not ended."""
        longest_s = MAX_LEASE_S + SLACK_S  # what lasts longer was set by a clock that has been put back since
        return {
            call: (until, amount) for call, (until, amount) in self.reserved.items() if 0 < until - now <= longest_s
        }

    def _reserved(self, budget: Budget, now: float) -> int:
        return sum(budget.of(amount) for _, amount in self._running(now).values())

    def _level(self, key: str, limit: int, now: float) -> float:
        """Return what is left of a minute's allowance, which comes back steadily up to the whole of it."""
        level, at = self.levels.get(key, (float(limit), now))
        return min(float(limit), level + max(0.0, now - at) * limit / MINUTE_S)

    def _draw(self, *, requests: int, tokens: int, now: float) -> None:
        for key, drawn in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            limit: int | None = getattr(self.limits, key)
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
