"""What calls may take of the limits that the user has set: reserved before they begin, settled when they have ended.

This module decides where that is counted, for each call in the state that processes share or in an allowance that was
drawn from it for several, and when what calls have taken is booked. It must not know what else keeps calls out. While
the store is in trouble, a backend with limits is asked as long as what was drawn before lasts, and then not.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, suppress
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any

from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import after_fork_in_child, make_queue
from vision_backends.errors import BackendError, OverloadedError, QuotaExhaustedError
from vision_backends.health.allowances import SPARE_CALLS, Allowance
from vision_backends.health.budget_state import GIVE_BACK_S, BudgetReservedError, BudgetState
from vision_backends.health.budgets import ACCOUNTS, Amount
from vision_backends.storage.bounded import RETRY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vision_backends.clock import Clock
    from vision_backends.health.allowances import Drawn
    from vision_backends.health.budgets import Limits, Spending
    from vision_backends.health.shared_states import Event, SharedStates

__all__ = ["BUDGETS", "Reservations"]

BUDGETS = "book/"
"""How the keys of these states begin; what was spent before an upgrade stays spent."""

DRAW_S = 0.05
"""A call does not wait any longer for another thread to draw."""

BOOK_S = 1.0
"""How often what calls have taken is booked."""

FORGET_S = 60.0
"""After so long without a call nothing is looked after any more; what could not be booked is on its way."""

_log = logging.getLogger(__name__)


class Reservations:
    """What calls have reserved and taken of the limits of their backend, and of its account. Safe for many threads.

    Each of these is a counter, with a name, limits and a state of its own; a call has to fit in all that concern it.

    Args:
        states: Where the shared states live, and who is told of alerts.
        clock: Where time comes from.
        limits: What the user has allowed, by name of the backend, or of an account: ``"accounts.work"``.

    Attributes:
        counters: The names of all counters that count the calls of a backend; those without limits are missing.
    """

    def __init__(self, states: SharedStates, *, clock: Clock, limits: Mapping[str, Limits]) -> None:
        self._states = states
        self._clock = clock
        self.counters = {
            backend: tuple(_counters_of(backend, allowed))
            for backend, allowed in limits.items()
            if not backend.startswith(ACCOUNTS)
        }
        used = dict.fromkeys(counter for counters in self.counters.values() for counter in counters)
        self._limits = {counter: limits[counter] for counter in used}
        self._allowances = {
            counter: Allowance(clock=clock)
            for counter, allowed in self._limits.items()
            if states.blocking and Allowance.suits(allowed)
        }
        self._keeper = Pool("allowances", size=1, may_hang=False)
        self._unpriced: set[str] = set()
        self._is_closed = False
        self._renew()
        after_fork_in_child(self, Reservations._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._wake: Any = make_queue()
        self._is_kept = False
        for allowance in self._allowances.values():
            allowance.begin()

    def most_running(self, backend: str) -> int | None:
        """Return how many calls of a backend the user lets run concurrently; None for any number."""
        allowed = [self._limits[counter].max_concurrency for counter in self.counters.get(backend, ())]
        return min((each for each in allowed if each is not None), default=None)

    def may_block(self, backend: str) -> bool:
        """Return whether `reserve` may have to wait for the store, if that is one that blocks."""
        for counter in self.counters.get(backend, ()):
            allowance = self._allowances.get(counter)
            if allowance is None or not allowance.has(SPARE_CALLS):
                return True
        return False

    def settle_may_block(self, backend: str, estimate: Amount) -> bool:
        """Return whether `settle` may have to wait for the store, if that is one that blocks."""
        for counter in self.counters.get(backend, ()):
            allowance = self._allowances.get(counter)
            if allowance is None or _is_booked_at_once(allowance, estimate):
                return True
        return False

    def parse(self, counter: str, text: str | None) -> BudgetState:
        """Return what is spent and reserved, as this process sees it."""
        state, allowance = self._parse(counter, text), self._allowances.get(counter)
        return state if allowance is None else allowance.show(state, now=self._clock.time())

    def obstacle(self, backend: str, budgets: Mapping[str, BudgetState], *, now: float) -> BackendError | None:
        """Return what would keep out a small call of a backend now, or None; asks no store.

        Args:
            backend: Which one is to be called.
            budgets: What is spent and reserved, for each of its counters.
            now: The time.
        """
        trouble = self._states.trouble
        for counter in self.counters.get(backend, ()):
            allowance = self._allowances.get(counter)
            if trouble is not None and not (allowance is not None and allowance.has()):
                found: BackendError | None = self._unknown(counter, trouble)
            else:
                found = budgets[counter].obstacle(Amount(), now=now)
            if found is not None:
                found.backend = backend
                return found
        return None

    def spending(self) -> list[Spending]:
        """Return how far each budget is spent."""
        now, states = self._clock.time(), self._states.all(BUDGETS) if self._limits else {}
        budgets = [self.parse(counter, states.get(BUDGETS + counter)) for counter in self._limits]
        return [spending for budget in budgets for spending in budget.spending(now=now)]

    def warn_of_unpriced(self, backend: str, model: str) -> None:
        """Say in the log, once, that a budget in dollars cannot count the calls of a model."""
        limits = [self._limits[counter] for counter in self.counters.get(backend, ())]
        has_budget = any(
            not each.allow_unpriced and (each.daily_budget_usd, each.monthly_budget_usd) != (None, None)
            for each in limits
        )
        if has_budget and model not in self._unpriced:
            self._unpriced.add(model)
            _log.warning("The price of %r is unknown: budgets in US dollars cannot count it.", model)

    def reserve(self, backend: str, amount: Amount, *, caller: str, lease_s: float, now: float) -> None:
        """Set aside what a call is estimated to take.

        Args:
            backend: Which one is to be called; it has limits.
            amount: What the call is estimated to take.
            caller: The id of the call.
            lease_s: Seconds after which it is taken for dead.
            now: The time.

        Raises:
            BackendError: It does not fit in; says when it will.
        """
        with ExitStack() as undo:
            for counter in self.counters[backend]:
                try:
                    self._reserve(counter, amount, caller=caller, lease_s=lease_s, now=now)
                except BackendError as error:
                    error.backend = backend
                    raise
                undo.callback(self._cancel, counter, amount, caller=caller, now=now)
            undo.pop_all()

    def _reserve(self, counter: str, amount: Amount, *, caller: str, lease_s: float, now: float) -> None:
        allowance = self._allowances.get(counter)
        if allowance is None:
            self._reserve_alone(counter, amount, caller=caller, lease_s=lease_s, now=now)
        elif not allowance.take(amount, now=now):
            self._draw(counter, amount, allowance, now=now)
        elif allowance.is_low:
            self._wake.put(None)

    def cancel(self, backend: str, reserved: Amount, *, caller: str, now: float) -> None:
        """Undo `reserve` for a call that was not made after all."""
        for counter in self.counters[backend]:
            self._cancel(counter, reserved, caller=caller, now=now)

    def _cancel(self, counter: str, reserved: Amount, *, caller: str, now: float) -> None:
        allowance = self._allowances.get(counter)
        if allowance is not None:
            allowance.put_back(reserved)
            return

        def act(state: BudgetState) -> Sequence[Event]:
            state.cancel(reserved, caller=caller, now=now)
            return []

        self._book(counter, act)

    def settle(
        self,
        backend: str,
        amount: Amount,
        *,
        caller: str,
        estimate: Amount,
        reserved: Amount,
        ended_at: float | None = None,
    ) -> None:
        """Book what a call has taken instead of what was reserved for it.

        Args:
            backend: Which one was called; it has limits.
            amount: What the call has taken; negative where more was booked before.
            caller: The id of the call.
            estimate: What it was estimated to take.
            reserved: What of that is still reserved.
            ended_at: When the call ended, in whose day and month it is booked; by default now.
        """
        now = self._clock.time()
        ended_at = now if ended_at is None else ended_at
        for counter in self.counters[backend]:
            allowance = self._allowances.get(counter)
            if allowance is None:
                self._settle_alone(counter, amount, caller=caller, reserved=reserved, now=now, ended_at=ended_at)
                continue
            is_more = allowance.settle(amount, reserved=reserved, ended_at=ended_at)
            is_at_once = _is_booked_at_once(allowance, estimate)
            if is_more or is_at_once:
                self._book_allowance(counter, allowance, waits=is_at_once)
            self._keep()

    def _settle_alone(
        self, counter: str, amount: Amount, *, caller: str, reserved: Amount, now: float, ended_at: float
    ) -> None:
        """Book in the store what one call has taken."""

        def act(state: BudgetState) -> Sequence[Event]:
            state.settle(amount, caller=caller, reserved=reserved, now=now, ended_at=ended_at)
            return state.alerts(now=now)

        self._book(counter, act)

    def close(self) -> None:
        """Give back what was drawn; harmless twice."""
        self._is_closed = True
        self._wake.put(None)
        for counter, allowance in self._allowances.items():
            allowance.give_back()
            if allowance.is_used:
                self._book_allowance(counter, allowance, waits=True)
        self._keeper.close()

    def _parse(self, counter: str, text: str | None) -> BudgetState:
        backends = tuple(backend for backend, counters in self.counters.items() if counter in counters)
        return BudgetState.parse(text, backend=counter, limits=self._limits[counter], backends=backends)

    def _reserve_alone(self, counter: str, amount: Amount, *, caller: str, lease_s: float, now: float) -> None:
        """Set aside in the store what one call is estimated to take; errors as for `reserve`."""

        def act(state: BudgetState) -> tuple[Sequence[Event], BackendError | None]:
            refused = state.obstacle(amount, now=now)
            if refused is not None:
                return state.alerts(now=now, refused=amount), refused
            state.reserve(amount, caller=caller, lease_s=lease_s, now=now)
            return [], None

        def undo(result: tuple[Sequence[Event], BackendError | None]) -> None:
            if result[1] is None:
                self._cancel(counter, amount, caller=caller, now=now)

        try:
            events, refused = self._states.update_now(
                BUDGETS + counter, partial(self._parse, counter), act, on_late=undo
            )
        except OSError as error:
            raise self._unknown(counter, error) from error
        self._states.tell(events)
        if refused is not None:
            raise refused

    def _draw(self, counter: str, amount: Amount, allowance: Allowance, *, now: float) -> None:
        """Draw an allowance for this call and some more, and take from it; errors as for `reserve`."""
        if not allowance.drawing.acquire(timeout=DRAW_S):
            trouble = self._states.trouble
            if trouble is not None:
                raise self._unknown(counter, trouble)
            raise BudgetReservedError(
                f"Calls that have just begun are being counted for the limits of {counter}.",
                remedy="A call waits for that, as long as its deadline allows.",
                backend=counter,
                code="budget_reserved",
                retry_after_s=DRAW_S,
            )
        try:
            while not allowance.take(amount, now=now):
                drawn = self._states.update_now(
                    BUDGETS + counter,
                    partial(self._parse, counter),
                    lambda state: allowance.draw(state, amount, now=now),
                    on_made=lambda drawn: self._drawn(allowance, drawn, now=now),
                )
                if drawn.refused is not None:
                    raise drawn.refused
        except OSError as error:
            raise self._unknown(counter, error) from error
        finally:
            allowance.drawing.release()
        self._keep()

    def _drawn(self, allowance: Allowance, drawn: Drawn, *, now: float | None = None) -> None:
        """Note that the shared state was changed; before anything else is written to it."""
        allowance.made(drawn, now=now)
        self._states.tell(drawn.alerts)

    def _book(self, counter: str, act: Callable[[BudgetState], Sequence[Event]]) -> None:
        """Change what a counter has spent and reserved."""
        self._states.tell(self._states.update(BUDGETS + counter, partial(self._parse, counter), act) or [])

    def _book_allowance(self, counter: str, allowance: Allowance, *, ahead: bool = False, waits: bool = False) -> None:
        """Say in the store what calls have taken, and draw more where it is time; not twice at a time."""
        if not (allowance.ask_to_book() or waits):
            return
        now = self._clock.time()

        def act(state: BudgetState) -> Drawn:
            if self._is_closed:
                allowance.give_back()  # also what was drawn ahead while it was closed
            elif ahead:
                return allowance.draw_ahead(state, now=now)
            return allowance.book(state, now=now)

        def made(drawn: Drawn) -> None:
            allowance.is_booked()
            self._drawn(allowance, drawn, now=now if ahead else None)

        self._states.update_later(
            BUDGETS + counter,
            partial(self._parse, counter),
            act,
            on_made=made,
            on_lost=allowance.is_booked,
            waits=waits,
        )

    def _keep(self) -> None:
        """Have what is drawn looked after, behind the calls."""
        with self._lock:
            is_first, self._is_kept = not self._is_kept, True
        if is_first:
            with suppress(OverloadedError, RuntimeError):  # the interpreter ends
                self._keeper.submit(self._look_after)

    def _look_after(self) -> None:
        """Book what calls have taken, draw more before it is needed, and give back what is not, as long as any is."""
        while True:
            with suppress(Empty):
                self._wake.get(timeout=BOOK_S)
            is_open = False
            for counter, allowance in self._allowances.items():
                unused_s = allowance.unused_s
                if unused_s >= GIVE_BACK_S:
                    allowance.give_back()
                if allowance.is_open and unused_s < FORGET_S:
                    is_open = True
                    self._book_allowance(counter, allowance, ahead=allowance.is_low)
            with self._lock:
                if not is_open or self._is_closed:
                    self._is_kept = False
                    return

    def _unknown(self, counter: str, error: OSError) -> BackendError:
        """Return the error for a call that cannot be counted."""
        return QuotaExhaustedError(
            f"What is left of the limits of {counter} is not known: {error}",
            remedy="Make sure that the state can be written. Backends without limits are asked meanwhile.",
            backend=counter,
            code="limits_unknown",
            retry_after_s=RETRY_S,
        )


def _counters_of(backend: str, limits: Limits) -> Iterator[str]:
    if limits.are_any or limits.account is None:
        yield backend
    if limits.account is not None:
        yield ACCOUNTS + limits.account


def _is_booked_at_once(allowance: Allowance, estimate: Amount) -> bool:
    """Return whether a call is booked before it returns: little is left, or nothing was set aside for it."""
    return allowance.is_scarce or estimate == Amount()
