"""The budgets of all backends that the user has set limits for.

This module decides when a state is changed: before a call to reserve, after it to settle, both atomically for all
processes. How amounts are booked is `budget_state`'s business, what is allowed `limits`'s.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from vision_backends.health.budget_state import BudgetState
from vision_backends.health.limits import Amount
from vision_backends.health.shared_state import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vision_backends.errors import BackendError
    from vision_backends.health.limits import Alert, Limits, Spending
    from vision_backends.health.permits import Entry
    from vision_backends.health.shared_state import SharedStates

__all__ = ["Budgets"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Budgets:
    """Reserves and settles. Safe for many threads; a backend without limits costs nothing.

    Args:
        states: Where the books are.
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

    def obstacle(self, backend: str, *, now: float) -> BackendError | None:
        """Return what would keep out a small call, or None; changes nothing."""
        limits = self._limits.get(backend)
        if limits is None:
            return None
        return BudgetState.parse(self._states.read(backend)).obstacle(limits, Amount(), backend=backend, now=now)

    def reserve(self, entry: Entry, *, now: float) -> None:
        """Set aside what a call is estimated to take.

        Raises:
            BackendError: It does not fit in; says when it will.
        """
        backend = entry.scope.backend
        limits = self._limits.get(backend)
        if limits is None:
            return
        self._warn_of_unknown_price(entry, limits)

        def act(state: BudgetState) -> tuple[BackendError | None, list[Alert]]:
            refused = state.obstacle(limits, entry.amount, backend=backend, now=now)
            if refused is None:
                state.reserve(limits, entry.amount, caller=entry.caller, lease_s=entry.lease_s, now=now)
                return None, []
            alerts = state.alerts(limits, backend=backend, now=now, refused=entry.amount)
            return refused, alerts

        unknown: tuple[BackendError | None, list[Alert]] = (None, [])
        refused, alerts = self._change(backend, act, otherwise=unknown)
        tell(self._on_alert, alerts)
        if refused is not None:
            raise refused

    def cancel(self, entry: Entry, *, now: float) -> None:
        """Undo `reserve` for a call that was not made after all."""
        limits = self._limits.get(entry.scope.backend)
        if limits is not None:
            self._change(
                entry.scope.backend,
                lambda state: state.cancel(limits, caller=entry.caller, reserved=entry.amount, now=now),
                otherwise=None,
            )

    def settle(self, entry: Entry, amount: Amount, *, reserved: Amount, now: float) -> None:
        """BudgetState what a call has taken.

        Args:
            entry: The call.
            amount: What it has taken; negative where it was booked as more before.
            reserved: What was reserved for it until now.
            now: The time.
        """
        backend = entry.scope.backend
        limits = self._limits.get(backend)
        if limits is None:
            return

        def act(state: BudgetState) -> list[Alert]:
            state.settle(limits, amount, caller=entry.caller, reserved=reserved, now=now)
            return state.alerts(limits, backend=backend, now=now)

        nothing: list[Alert] = []
        tell(self._on_alert, self._change(backend, act, otherwise=nothing))

    def spending(self, *, now: float) -> list[Spending]:
        """Return how far each budget is spent."""
        return [
            spending
            for backend, limits in self._limits.items()
            for spending in BudgetState.parse(self._states.read(backend)).spending(limits, backend=backend, now=now)
        ]

    def _change(self, backend: str, act: Callable[[BudgetState], T], *, otherwise: T) -> T:
        def change(text: str | None) -> tuple[str, T]:
            state = BudgetState.parse(text)
            value = act(state)
            return state.dump(), value

        return self._states.update(backend, change, otherwise=otherwise)

    def _warn_of_unknown_price(self, entry: Entry, limits: Limits) -> None:
        budget = limits.daily_budget_usd or limits.monthly_budget_usd
        model = entry.scope.model
        if budget is not None and not entry.is_priced and model not in self._unpriced:
            self._unpriced.add(model)
            _log.warning("The price of %r is unknown: budgets in US dollars cannot count it.", model)
