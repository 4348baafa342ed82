"""What this process has drawn of a budget that it shares with others: enough for several calls, before they are made.

This module decides how much that is, what of it is in use, and what has to be said to the others, and when. Its calls
then ask no store, and a store that is away stops them only when they have spent it. It must not know where the shared
state is kept: it changes a `BudgetState` that it is given.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.threads import make_lock
from vision_backends.health.budgets import Amount, Limits, day_of
from vision_backends.health.circuit_breaker import MAX_LEASE_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError
    from vision_backends.health.budget_state import BudgetState
    from vision_backends.health.budgets import Alert

__all__ = ["SPARE_CALLS", "Allowance", "Drawn"]

CALLS = 8
"""For how many calls is drawn at once, where others have enough left."""

NOTHING = Amount()

SPARE_CALLS = 2
"""With fewer left, several threads may find none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What has become of a change of the shared state.

    Attributes:
        booked: What was booked, by day.
        held: What was said to be held.
        extra: What was drawn on top of what there was.
        calls: For how many calls there is enough now, if something was drawn.
        is_scarce: Whether so little is left for all that nothing is kept that is not in use.
        refused: Why nothing was drawn.
        alerts: Those that were due.
    """

    booked: Mapping[str, Amount]
    held: Amount
    extra: Amount = NOTHING
    calls: int = 0
    is_scarce: bool = False
    refused: BackendError | None = None
    alerts: Sequence[Alert] = ()


class Allowance:
    """The allowance of one backend in this process. Safe for many threads.

    Args:
        clock: Says how long it was not used.

    Attributes:
        drawing: Held by the thread that draws.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.begin()

    @staticmethod
    def suits(limits: Limits) -> bool:
        """Return whether limits are budgets only: what is left of a minute, or of calls at a time, cannot be kept."""
        others = limits.requests_per_minute, limits.tokens_per_minute, limits.max_concurrency
        return others == (None, None, None) and limits.are_any

    def begin(self) -> None:
        """Begin with nothing, as the child of a fork does: what its parent has drawn is the parent's."""
        self.drawing = make_lock()
        self._lock = make_lock()
        self._process = secrets.token_hex(4)
        self._day = ""
        self._left = NOTHING
        self._calls = 0
        self._amount = NOTHING
        self._running = NOTHING
        self._told = NOTHING
        self._is_scarce = False
        self._is_asked = False
        self._used_at = 0.0
        self._unbooked: defaultdict[str, Amount] = defaultdict(Amount)
        self._own: defaultdict[str, Amount] = defaultdict(Amount)

    def has(self, calls: int = 1) -> bool:
        """Return whether there is enough for some small calls."""
        return self._calls >= calls

    @property
    def is_scarce(self) -> bool:
        """Whether what a call has not used is given back at its end."""
        return self._is_scarce

    @property
    def is_used(self) -> bool:
        """Whether the shared state knows of something drawn, or should know of something taken."""
        with self._lock:
            return bool(self._day or self._unbooked)

    @property
    def is_open(self) -> bool:
        """Whether something is not booked, or is held as far as the others know."""
        with self._lock:
            return bool(self._unbooked) or self._told != NOTHING

    def take(self, amount: Amount, *, now: float) -> bool:
        """Set aside what a call is estimated to take, and return whether there was enough of today's."""
        with self._lock:
            if self._day != day_of(now) or self._calls < 1 or not self._left.covers(amount):
                return False
            self._left, self._running = self._left.minus(amount), self._running.plus(amount)
            self._calls -= 1
            self._amount = amount
            self._used_at = self._clock.monotonic()
            return True

    def put_back(self, amount: Amount) -> None:
        """Undo `take` for a call that was not made after all."""
        with self._lock:
            self._left, self._running = self._left.plus(amount), self._running.minus(amount)
            self._calls += 1

    def settle(self, amount: Amount, *, reserved: Amount, ended_at: float) -> bool:
        """Note what a call has taken instead of what was set aside for it; return whether it was more than is held."""
        day = day_of(ended_at)
        with self._lock:
            self._running = self._running.minus(reserved)
            self._left = self._left.plus(reserved).minus(amount)
            self._unbooked[day] = self._unbooked[day].plus(amount)
            self._own[day] = self._own[day].plus(amount)
            for old in sorted(self._own)[:-2]:
                del self._own[old]
            self._used_at = self._clock.monotonic()
            is_more = not self._left.covers(NOTHING)
            if self._is_scarce:
                self._left, self._calls = NOTHING, 0
            return is_more

    @property
    def unused_s(self) -> float:
        """Seconds since a call has used it."""
        with self._lock:
            return 0.0 if self._running != NOTHING else self._clock.monotonic() - self._used_at

    @property
    def is_low(self) -> bool:
        """Whether it is time to draw more, before a call has to wait for that."""
        return not self._is_scarce and 0 < self._calls <= CALLS // 2

    def give_back(self) -> None:
        """Keep nothing that is not in use; the others hear of it with the next change."""
        with self._lock:
            self._left, self._calls = NOTHING, 0

    def draw_ahead(self, state: BudgetState, *, now: float) -> Drawn:
        """Draw for some calls like the last one if others have enough left; otherwise only book."""
        if state.calls(self._amount, now=now) < SPARE_CALLS:
            return self.book(state, now=now)
        return self.draw(state, self._amount, now=now)

    def ask_to_book(self) -> bool:
        """Return whether a change has to be begun; it is not where one is on its way."""
        with self._lock:
            is_first, self._is_asked = not self._is_asked, True
            return is_first

    def book(self, state: BudgetState, *, now: float) -> Drawn:
        """Book in the shared state what calls have taken, and say what is still held."""
        with self._lock:
            booked, held = self._booked_in(state), self._held()
            state.hold(self._process, self._day, held, now=now)
        alerts = state.alerts(now=now)
        return Drawn(booked=booked, held=held, is_scarce=self._is_scarce, alerts=alerts)

    def draw(self, state: BudgetState, amount: Amount, *, now: float) -> Drawn:
        """Draw for this call and for some after it, as far as others have enough left."""
        day = day_of(now)
        with self._lock:
            booked = self._booked_in(state)
            left = self._left.at_least(NOTHING) if self._day == day else NOTHING
            state.hold(self._process, day, self._running, now=now)  # what is left is there to be drawn again
            refused = state.obstacle(amount, now=now)
            if refused is not None:
                held = self._running.plus(left)
                state.hold(self._process, day, held, now=now)
                alerts = state.alerts(now=now, refused=amount)
                return Drawn(booked=booked, held=held, refused=refused, is_scarce=True, alerts=alerts)
            calls = min(CALLS, state.calls(amount, now=now))
            extra = amount.times(max(1, calls)).minus(left).at_least(NOTHING)
            held = self._running.plus(left).plus(extra)
            state.hold(self._process, day, held, now=now)
        return Drawn(
            booked=booked,
            held=held,
            extra=extra,
            calls=max(1, calls),
            is_scarce=calls < SPARE_CALLS,
            alerts=state.alerts(now=now),
        )

    def is_booked(self) -> None:
        """Note that the change that `ask_to_book` was about has been made, or never will be."""
        with self._lock:
            self._is_asked = False

    def made(self, drawn: Drawn, *, now: float | None = None) -> None:
        """Take note that a change was made; ``now`` where something was drawn."""
        with self._lock:
            for day, amount in drawn.booked.items():
                self._unbooked[day] = self._unbooked[day].minus(amount)
                if self._unbooked[day] == NOTHING:
                    del self._unbooked[day]
            self._told, self._is_scarce = drawn.held, drawn.is_scarce
            if now is None or drawn.refused is not None:
                return
            if self._day != day_of(now):
                self._day, self._left, self._calls = day_of(now), NOTHING, 0
            self._left = self._left.at_least(NOTHING).plus(drawn.extra)
            self._calls = max(self._calls, drawn.calls)

    def show(self, state: BudgetState, *, now: float) -> BudgetState:
        """Return a shared state as it is for this process: what it has left is free, what it runs is reserved."""
        with self._lock:
            self._booked_in(state)
            state.hold(self._process, self._day, NOTHING, now=now)
            if self._running != NOTHING:
                state.reserved[self._process] = (now + MAX_LEASE_S, self._running)
        return state

    def _booked_in(self, state: BudgetState) -> dict[str, Amount]:
        """Book what is not booked yet, and return it; never less than what this process alone has taken."""
        booked = dict(self._unbooked)
        for day, own in self._own.items():
            state.book(day, booked.get(day, NOTHING), at_least=own)
        for day in booked.keys() - self._own.keys():
            state.book(day, booked[day])
        return booked

    def _held(self) -> Amount:
        return self._left.at_least(NOTHING).plus(self._running)
