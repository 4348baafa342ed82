"""How far the limits of a backend are used up: what has been spent, reserved and drawn.

This module decides whether a call fits in, and how it is booked: reserved by its estimate before it begins, settled by
its usage after it. `BudgetState` is read, changed and written back within one atomic update for all processes; this
module must not know where it is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from vision_backends.errors import BackendError, OverloadedError, QuotaExhaustedError, RateLimitedError
from vision_backends.health.budgets import BUDGETS, Alert, Amount, Spending, day_of, period_of, until_next
from vision_backends.health.circuit_breaker import MAX_LEASE_S, SLACK_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.health.budgets import Budget, Limits

__all__ = ["GIVE_BACK_S", "BudgetReservedError", "BudgetState"]

VERSION = 1
"""Of the format in which a state is written down."""

MINUTE_S = 60.0

KEPT_PERIODS = 6
"""Periods that are remembered. More than the current day and month, so that a clock that is wrong for a moment does not
make today's costs forgotten."""

ROUNDING = 1e-6
"""A call that has waited for as long as it was told to is not refused for a millionth of a request."""

ALERT_PERCENTS = (80, 100)

PROCESSES = 16
"""A process draws at most this part of what is left, lest what it does not use be missed by others."""

GIVE_BACK_S = 5.0
"""What a process has not used for so long it gives back."""

ALIVE_S = 30.0
"""What a process has drawn and not spoken of for so long is not waited for: it may have died."""

MONTH = len("2026-11")


class BudgetReservedError(QuotaExhaustedError):
    """A call does not fit in only because of what calls under way have reserved; it may as soon as they are settled."""


@dataclass(slots=True)
class BudgetState:
    """What one backend, or the rungs of an account, have spent and reserved; lives within one update or one look.

    Attributes:
        backend: Its name; ``"accounts.work"`` for an account.
        limits: What is allowed.
        spent: Amounts booked, by day and by month.
        told: Alerts that have been raised, as ``"<budget> <percent>"``, by day and by month.
        reserved: End of the lease and amount of each running call, by its id.
        drawn: What processes have drawn and neither booked nor given back, by day and by process. It counts as spent
            until they do: one that has died has spent it.
        drawn_at: When each of these processes has last said so, to within 5 s, in seconds since 1970 UTC.
        levels: What was left of the minute's requests and tokens, and when.
        backends: The rungs whose calls are counted here.
    """

    backend: str
    limits: Limits
    spent: dict[str, Amount] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    reserved: dict[str, tuple[float, Amount]] = field(default_factory=dict)
    drawn: dict[str, dict[str, Amount]] = field(default_factory=dict)
    drawn_at: dict[str, float] = field(default_factory=dict)
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)
    backends: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None, *, backend: str, limits: Limits, backends: tuple[str, ...] = ()) -> Self:
        """Read a state; one that cannot be read starts from nothing."""
        nothing = cls(backend, limits, backends=backends)
        if text is None:
            return nothing
        try:
            state = json.loads(text)
            if state["version"] != VERSION:
                return nothing
            return replace(
                nothing,
                spent={period: _amount(values) for period, values in state["spent"].items()},
                told={period: [str(each) for each in told] for period, told in state["told"].items()},
                reserved={caller: (float(until), _amount(values)) for caller, until, values in state["reserved"]},
                drawn={
                    day: {process: _amount(values) for process, values in drawn.items()}
                    for day, drawn in state.get("drawn", {}).items()
                },
                drawn_at={process: float(at) for process, at in state.get("drawn_at", {}).items()},
                levels={what: (float(level), float(at)) for what, (level, at) in state["levels"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return nothing

    def dump(self, *, now: float) -> str:
        """Write the state down, without the reservations whose leases have ended."""
        state: dict[str, Any] = {
            "version": VERSION,
            "spent": self.spent,
            "told": self.told,
            "reserved": [[caller, until, amount] for caller, (until, amount) in self._running(now).items()],
            "levels": self.levels,
        }
        if self.drawn:
            state["drawn"], state["drawn_at"] = self.drawn, self.drawn_at
        return json.dumps(state, separators=(",", ":"))

    def obstacle(self, amount: Amount, *, now: float) -> BackendError | None:
        """Return why a call of this estimated amount may not begin; None if it may."""
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
        self.reserved[caller] = (now + min(lease_s, MAX_LEASE_S), amount)
        self._draw(requests=1, tokens=amount.tokens, now=now)

    def cancel(self, reserved: Amount, *, caller: str, now: float) -> None:
        """Undo `reserve` for a call that was not made after all."""
        self.reserved.pop(caller, None)
        self._draw(requests=-1, tokens=-reserved.tokens, now=now)

    def settle(
        self, amount: Amount, *, caller: str, reserved: Amount, now: float, ended_at: float | None = None
    ) -> None:
        """Book what a call has taken instead of what was reserved for it.

        Args:
            amount: What it has taken.
            caller: Its id.
            reserved: What was reserved.
            now: The time.
            ended_at: When the call ended, in whose day and month it is booked; by default now.
        """
        ended_at = now if ended_at is None else ended_at
        self.reserved.pop(caller, None)
        self._draw(requests=0, tokens=amount.tokens - reserved.tokens, now=now)
        self.book(day_of(ended_at), amount)

    def book(self, day: str, amount: Amount, *, at_least: Amount | None = None) -> None:
        """Book what was taken on a day.

        Args:
            day: The day, and by its beginning the month.
            amount: What was taken.
            at_least: What is known to have been taken on that day in all, in case the state was lost.
        """
        for period in (day, day[:MONTH]):
            self.spent[period] = self.spent.pop(period, Amount()).plus(amount).at_least(at_least or Amount())
        for period in list(self.spent)[:-KEPT_PERIODS]:
            del self.spent[period]
        self.told = {period: told for period, told in self.told.items() if period in self.spent}

    def hold(self, process: str, day: str, amount: Amount, *, now: float) -> None:
        """Note what a process holds of a day, in place of what it has held; that of other days is given back."""
        for held in self.drawn.values():
            held.pop(process, None)
        if amount != Amount():
            self.drawn.setdefault(day, {})[process] = amount
            self.drawn_at[process] = (
                now // GIVE_BACK_S * GIVE_BACK_S
            )  # the state is written only when something changes
        holding = {each for held in self.drawn.values() for each in held}
        self.drawn_at = {each: at for each, at in self.drawn_at.items() if each in holding}
        self.drawn = {day: held for day, held in self.drawn.items() if held}
        for old in sorted(self.drawn)[:-KEPT_PERIODS]:
            for lost in self.drawn.pop(old).values():  # by processes that have died: it stays spent
                self.book(old, lost)

    def calls(self, amount: Amount, *, now: float) -> int:
        """Return how many calls of this amount a process may draw at once, so that enough is left for others."""
        rooms = [
            (limit - spent - self._held(budget, period) - self._reserved(budget, now)) // max(1, budget.of(amount))
            for budget, limit, period, spent in self._limited(now)
        ]
        return min(rooms, default=0) // PROCESSES

    def alerts(self, *, now: float, refused: Amount | None = None) -> list[Alert]:
        """Return the alerts that are due now, and remember that they were raised.

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
                    backends=self.backends,
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
                spent=(spent + self._held(budget, period)) / budget.scale,
                reserved=self._reserved(budget, now) / budget.scale,
                limit=limit / budget.scale,
                backends=self.backends,
            )
            for budget, limit, period, spent in self._limited(now)
        ]

    def _limited(self, now: float) -> Iterator[tuple[Budget, int, str, int]]:
        """Yield each budget that is set, with its limit, its current period and what is spent of it."""
        for budget in BUDGETS:
            limit = budget.limit(self.limits)
            if limit is not None:
                period = period_of(budget.period, now)
                yield budget, limit, period, budget.of(self.spent.get(period, Amount()))

    def _over_budget(self, amount: Amount, *, now: float) -> QuotaExhaustedError | None:
        for budget, limit, period, spent in self._limited(now):
            needed = max(1, budget.of(amount))  # a call of unknown price must not get past a budget that is spent
            if spent + self._held(budget, period) + self._reserved(budget, now) + needed > limit:
                return self._spent(budget, limit, spent, self._lost(budget, period, now), needed, now=now)
        return None

    def _spent(
        self, budget: Budget, limit: int, spent: int, lost: int, needed: int, *, now: float
    ) -> QuotaExhaustedError:
        key = f"{self.backend}.{budget.key}"
        if spent + lost + needed <= limit:  # calls under way may turn out cheaper than they were estimated
            ends = self._running(now)
            return BudgetReservedError(
                f"Calls under way have reserved the rest of {key} = {budget.show(limit)}.",
                remedy="A call waits for them to be settled, as long as its deadline allows.",
                backend=self.backend,
                code="budget_reserved",
                retry_after_s=max(0.0, min((until for until, _ in ends.values()), default=now + GIVE_BACK_S) - now),
            )
        this = "today" if budget.period == "day" else "this month"
        more = f", {budget.show(lost)} drawn by a process that was not heard of again" if lost else ""
        more += f", and this call may take {budget.show(needed)}" if spent + lost < limit else ""
        return QuotaExhaustedError(
            f"{budget.show(spent)} of {this}'s budget of {budget.show(limit)} is spent{more}.",
            remedy=f"Raise {key}, or wait for the next {budget.period} (UTC).",
            backend=self.backend,
            code="budget_exhausted",
            retry_after_s=until_next(budget.period, now),
        )

    def _running(self, now: float) -> dict[str, tuple[float, Amount]]:
        """Return the reservations whose leases have not ended."""
        longest_s = MAX_LEASE_S + SLACK_S  # what lasts longer was set by a clock that has been put back since
        return {
            call: (until, amount) for call, (until, amount) in self.reserved.items() if 0 < until - now <= longest_s
        }

    def _reserved(self, budget: Budget, now: float) -> int:
        return sum(budget.of(amount) for _, amount in self._running(now).values())

    def _held(self, budget: Budget, period: str) -> int:
        """Return what processes have drawn of a day or month."""
        return sum(budget.of(amount) for _process, amount in self._drawn(period))

    def _lost(self, budget: Budget, period: str, now: float) -> int:
        """Return what of that was drawn by processes that have not been heard of for long."""
        silent = [amount for process, amount in self._drawn(period) if not self._is_heard_of(process, now)]
        return sum(map(budget.of, silent))

    def _drawn(self, period: str) -> Iterator[tuple[str, Amount]]:
        for day, held in self.drawn.items():
            if day.startswith(period):
                yield from held.items()

    def _is_heard_of(self, process: str, now: float) -> bool:
        return abs(now - self.drawn_at.get(process, -ALIVE_S)) < ALIVE_S

    def _level(self, key: str, limit: int, now: float) -> float:
        """Return what is left of a minute's allowance, which comes back steadily up to the whole of it."""
        level, at = self.levels.get(key, (float(limit), now))
        return min(float(limit), level + max(0.0, now - at) * limit / MINUTE_S)

    def _latest(self, key: str, now: float) -> float:
        """Return the later of the caller's time and that of the level.

        A call that has waited for a lock comes with an older time: what has come back since would come back once more.
        """
        _, at = self.levels.get(key, (0.0, now))
        return at if now < at <= now + MINUTE_S else now  # one further ahead was set by a clock that was wrong

    def _draw(self, *, requests: int, tokens: int, now: float) -> None:
        for key, drawn in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            limit: int | None = getattr(self.limits, key)
            if limit is not None:
                self.levels[key] = (self._level(key, limit, now) - drawn, self._latest(key, now))


def _amount(values: list[int]) -> Amount:
    tokens, nano_usd = values
    return Amount(int(tokens), int(nano_usd))
