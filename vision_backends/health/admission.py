"""Admission control: whether a rung may be asked now, and what its answer means for the next call.

Three things can keep a call out, asked in this order: a blocked gate (`account_gates`, shared by all processes), what
this process has learned from the server's replies (`throttling`), and the limits that the user has set (`budget_state`,
shared). Who is let in gets a permit, and says with it how the call has ended.

This module decides that order and keeps the states in the store. It must not know what is asked, nor of whom. A
store in trouble never fails a call: it is logged once, and everything counts as healthy.
"""

from __future__ import annotations

import secrets
from random import Random
from typing import TYPE_CHECKING, TypeVar

from vision_backends.errors import BackendError
from vision_backends.health.account_gates import AccountGates, Failure
from vision_backends.health.budgets import Budgets
from vision_backends.health.circuit_breaker import wait_s
from vision_backends.health.limits import Amount
from vision_backends.health.messages import refusal, report
from vision_backends.health.permits import Ending, Entry, Permit
from vision_backends.health.policy import DEFAULT_POLICY, MAYBE_BILLED, gate_kind
from vision_backends.health.scopes import Scope
from vision_backends.health.shared_state import SharedStates, tell
from vision_backends.health.throttling import Throttling
from vision_backends.types import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vision_backends.clock import Clock
    from vision_backends.health.limits import Alert, Limits, Spending
    from vision_backends.health.policy import Policy
    from vision_backends.health.scopes import GateReport, Transition
    from vision_backends.storage.base import States
    from vision_backends.types import Usage

__all__ = ["AdmissionControl", "Permit", "Scope"]

T = TypeVar("T")

LEASE = 2.0
MIN_LEASE_S = 1.0
"""A probe or a reservation that was not heard of for twice its timeout belongs to a process that has died."""

USUAL_PERCENT = 90.0
"""The part of the calls that "usually" refers to where durations are concerned."""


class AdmissionControl:
    """Keeps the gates, budgets and limits of every rung. Safe for many threads.

    Args:
        states: Where the shared states live.
        clock: Where time comes from.
        random: Jitter of the gates.
        policy: The numbers of the gates.
        limits: What the user has allowed, by name of the backend.
        on_transition: Told whenever a gate moves, once per event, in the thread that moved it.
        on_alert: Told when 80 % and 100 % of a budget are spent, once per budget and period.
    """

    def __init__(
        self,
        states: States,
        *,
        clock: Clock,
        random: Random | None = None,
        policy: Policy = DEFAULT_POLICY,
        limits: Mapping[str, Limits] | None = None,
        on_transition: Callable[[Transition], object] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
    ) -> None:
        self._clock = clock
        self._random = random or Random()  # noqa: S311 — jitter is no secret
        self._policy = policy
        self._gate_states = SharedStates(states, prefix="gates/")
        self._budgets = Budgets(SharedStates(states, prefix="book/"), limits or {}, on_alert=on_alert)
        self._throttling = Throttling()
        self._on_transition = on_transition
        self._troubled: set[str] = set()

    def admit(self, scope: Scope, *, timeout_s: float, estimate: Usage = FREE) -> Permit:
        """Let a call through, or say why not.

        Args:
            scope: What it is about.
            timeout_s: Seconds that it may take; a permit that was not ended after twice that time lapses.
            estimate: What it is expected to consume at most.

        Returns:
            The permit, to be ended with ``succeeded``, ``failed`` or ``released``.

        Raises:
            BackendError: The kind of trouble for which it may not pass, with ``retry_after_s`` and a remedy.
        """
        now = self._clock.time()
        gates = self._look(scope)
        blocked = self._blocked(gates, scope, now=now)
        if blocked is not None:
            raise blocked
        entry = Entry(
            scope=scope,
            caller=secrets.token_hex(8),
            amount=Amount.of(estimate),
            is_priced=estimate.cost_usd is not None,
            timeout_s=timeout_s,
            lease_s=max(LEASE * timeout_s, MIN_LEASE_S),
        )
        room = gates.room(scope, self._policy, now=now)
        self._throttling.enter(scope, tokens=entry.amount.tokens, room=room, now=self._clock.monotonic())
        try:
            self._budgets.reserve(entry, now=now)
            try:
                self._probe(gates, entry, now=now)
            except BackendError:
                self._budgets.cancel(entry, now=now)
                raise
        except BaseException:
            self._throttling.leave(scope, tokens=entry.amount.tokens, asked=False)
            raise
        return Permit(entry, self._end, self._correct)

    def peek(self, scope: Scope) -> BackendError | None:
        """Return what would keep out a small call now, or None; changes nothing."""
        now = self._clock.time()
        gates = self._look(scope)
        blocked = self._blocked(gates, scope, now=now)
        if blocked is not None:
            return blocked
        room = gates.room(scope, self._policy, now=now)
        near = self._throttling.obstacle(scope, room=room, now=self._clock.monotonic())
        return near or self._budgets.obstacle(scope.backend, now=now)

    def expected_s(self, scope: Scope, default: float, *, percent: float = USUAL_PERCENT) -> float:
        """Return the seconds within which so many percent of the last 32 answers came; the default before the first."""
        measured_s = self._throttling.percentile_s(scope, percent)
        return default if measured_s is None else measured_s

    def gates(self) -> list[GateReport]:
        """Return every gate that is not passing, the oldest trouble first."""
        now = self._clock.time()
        reports = [
            report(key, blocked, wait_s=wait_s(blocked.gate, now=now), now=now)
            for text in self._gate_states.all().values()
            for key, blocked in AccountGates.parse(text).gates.items()
            if not blocked.is_forgotten(now=now)
        ]
        return sorted(reports, key=lambda report: report.since)

    def spending(self) -> list[Spending]:
        """Return how far each budget is spent."""
        return self._budgets.spending(now=self._clock.time())

    def reset(self, backend: str | None = None) -> int:
        """Let the gates pass that calls of a backend, or of any for None, have blocked, and forget its failures.

        Budgets stay as they are: what is spent is spent.

        Returns:
            How many gates were blocked.
        """
        self._throttling.forget(backend)
        now = self._clock.time()
        moved = [
            transition
            for account in self._gate_states.all()
            for transition in self._change(account, lambda gates: gates.reset(backend, at=now), now=now)
        ]
        return len(moved)

    def _look(self, scope: Scope) -> AccountGates:
        """Return the gates of a scope's account as they are now; the healthy path reads this and writes nothing."""
        text = self._gate_states.read(scope.account)
        if text is None:
            self._troubled.discard(scope.account)
        else:
            self._troubled.add(scope.account)
        return AccountGates.parse(text)

    def _blocked(self, gates: AccountGates, scope: Scope, *, now: float) -> BackendError | None:
        found = gates.obstacle(scope, self._policy, now=now)
        if found is None:
            return None
        key, blocked, wait_s = found
        return refusal(key, blocked, wait_s=wait_s, now=now)

    def _probe(self, gates: AccountGates, entry: Entry, *, now: float) -> None:
        """Take the one place for a probe if a gate is due.

        Raises:
            BackendError: Somebody else was faster.
        """
        scope = entry.scope
        if not any(gates.concerning(scope, self._policy)):
            return
        overtaken: list[BackendError] = []

        def act(gates: AccountGates) -> list[Transition]:
            overtaken.clear()  # the store may call this again, with a newer state
            blocked = self._blocked(gates, scope, now=now)
            if blocked is not None:
                overtaken.append(blocked)
                return []
            return gates.take_probe(scope, self._policy, caller=entry.caller, lease_s=entry.lease_s, now=now)

        self._change(scope.account, act, now=now)
        if overtaken:
            raise overtaken[0]

    def _end(self, entry: Entry, ending: Ending) -> None:
        """Note how a call has ended: on its backend's gates, on the user's budgets, in what was learned."""
        scope, now = entry.scope, self._clock.time()
        failure = self._failure(entry, ending)
        limits, monotonic = ending.limits, self._clock.monotonic()
        self._throttling.leave(scope, tokens=entry.amount.tokens, limits=limits, now=monotonic)
        self._budgets.settle(entry, _amount(entry, ending), reserved=entry.amount, now=now)
        if failure is not None:
            self._troubled.add(scope.account)
            self._change(
                scope.account,
                lambda gates: gates.fail(scope, self._policy, failure, caller=entry.caller, now=now),
                now=now,
            )
        elif ending.error is None and ending.counted:
            self._throttling.note_duration(scope, ending.elapsed_s)
            self._note_success(entry, now=now)
        elif self._look(scope).is_probing(scope, self._policy, caller=entry.caller):
            self._change(scope.account, lambda gates: gates.give_up(scope, self._policy, caller=entry.caller), now=now)

    def _note_success(self, entry: Entry, *, now: float) -> None:
        scope = entry.scope
        if scope.account not in self._troubled:
            return
        if self._look(scope).is_affected_by_success(scope, self._policy, caller=entry.caller):
            self._change(
                scope.account,
                lambda gates: gates.succeed(scope, self._policy, caller=entry.caller, now=now),
                now=now,
            )

    def _failure(self, entry: Entry, ending: Ending) -> Failure | None:
        """Return what an ending means for the gates; None when it says nothing about the backend's health."""
        error = ending.error
        kind = None if error is None else gate_kind(error)
        if error is None or kind is None:
            return None
        usual_s = self._throttling.percentile_s(entry.scope, USUAL_PERCENT)
        if error.kind == "timed_out" and usual_s is not None and entry.timeout_s < usual_s:
            return None  # a caller in more of a hurry than the backend ever is
        return Failure(
            kind=kind,
            reason=getattr(error, "code", None) or error.kind,
            hint_s=getattr(error, "retry_after_s", None),
            running=self._throttling.running(entry.scope),
            spread=self._random.uniform(-1, 1),
        )

    def _correct(self, entry: Entry, ending: Ending, usage: Usage) -> None:
        late = Amount.of(usage, otherwise=entry.amount).minus(_amount(entry, ending))
        self._budgets.settle(entry, late, reserved=Amount(), now=self._clock.time())

    def _change(self, account: str, act: Callable[[AccountGates], list[Transition]], *, now: float) -> list[Transition]:
        """Change the gates of an account atomically, tell the listener what has moved, and return it."""

        def change(text: str | None) -> tuple[str | None, list[Transition]]:
            gates = AccountGates.parse(text)
            moved = act(gates)
            return gates.dump(self._policy, now=now), moved

        nothing: list[Transition] = []
        moved = self._gate_states.update(account, change, otherwise=nothing)
        tell(self._on_transition, moved)
        return moved


def _amount(entry: Entry, ending: Ending) -> Amount:
    """Return what a call is booked with."""
    if ending.usage is not None:
        return Amount.of(ending.usage, otherwise=entry.amount)
    billed = ending.error is not None and ending.error.kind in MAYBE_BILLED
    return entry.amount if billed else Amount()
