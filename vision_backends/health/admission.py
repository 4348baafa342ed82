"""Admission control: whether a rung may be asked now, and what its answer means for the next call.

Three things can keep a call out, asked in this order: a blocked gate (`account_gates`, shared by all processes), what
this process has learned from the server's replies (`throttling`), and the limits that the user has set (`budgets`,
shared). A call that is admitted gets a permit, with which it says how it has ended.

This module decides that order, and when the store is read and written. It must not know what is asked. A store in
trouble never fails a call: it is logged once, and everything counts as healthy.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

from vision_backends.health.account_gates import AccountGates
from vision_backends.health.budgets import Budgets
from vision_backends.health.circuit_breaker import Failure
from vision_backends.health.limits import Amount
from vision_backends.health.messages import report
from vision_backends.health.policy import MAYBE_BILLED, gate_kind
from vision_backends.health.scopes import Scope
from vision_backends.health.shared_state import SharedStates, tell
from vision_backends.health.throttling import Throttling
from vision_backends.types import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vision_backends.backends.requests import RateLimits
    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError, VisionError
    from vision_backends.health.budgets import BudgetState
    from vision_backends.health.limits import Alert, Limits, Spending
    from vision_backends.health.scopes import GateReport, Transition
    from vision_backends.storage.base import States
    from vision_backends.types import Usage

__all__ = ["AdmissionControl", "GateSnapshot", "Permit", "Scope"]

PREFIX = "gates/"
"""How the keys of the gates' states begin."""

LEASE = 2.0
MIN_LEASE_S = 1.0
"""A probe or a reservation that was not heard of for twice its timeout belongs to a process that has died."""

USUAL_PERCENT = 90.0
"""The part of the calls that "usually" refers to where durations are concerned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSnapshot:
    """What the store said of some scopes at one moment, so that a call reads it once.

    Attributes:
        accounts: The gates, by account.
        moved: The gates as this process had last moved any of them by then, by account.
        budgets: What is spent and reserved, by name of the backend, where the user has set limits.
    """

    accounts: Mapping[str, AccountGates]
    moved: Mapping[str, AccountGates | None]
    budgets: Mapping[str, BudgetState]


class AdmissionControl:
    """Keeps the gates, budgets and limits of every rung. Safe for many threads.

    A caller that must not wait for a disk or a network does what may block elsewhere: `look`, and, where `may_block`
    and `Permit.may_block` say so, `admit` and the ending of a permit. The healthy path then reads the store once and
    writes nothing.

    Args:
        states: Where the shared states live.
        clock: Where time comes from.
        random: Jitter of the gates.
        limits: What the user has allowed, by name of the backend.
        on_transition: Told whenever a gate moves, once per event, in the thread that moved it.
        on_alert: Told when 80 % and 100 % of a budget are spent, once per budget and period.

    Attributes:
        blocking: Whether the store may block.
    """

    def __init__(
        self,
        states: States,
        *,
        clock: Clock,
        random: Random | None = None,
        limits: Mapping[str, Limits] | None = None,
        on_transition: Callable[[Transition], object] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
    ) -> None:
        self.blocking = states.blocking
        self._clock = clock
        self._random = random or Random()  # noqa: S311 — jitter is no secret
        self._states = SharedStates(states)
        self._budgets = Budgets(self._states, limits or {}, on_alert=on_alert)
        self._throttling = Throttling()
        self._on_transition = on_transition
        self._moved: dict[str, AccountGates] = {}
        self._counted: set[Scope] = set()

    def look(self, scopes: Iterable[Scope]) -> GateSnapshot:
        """Read what concerns some scopes: one read for each account, and one for each backend with limits."""
        scopes = list(scopes)
        moved = {scope.account: self._moved.get(scope.account) for scope in scopes}  # before the store is read
        accounts = {account: AccountGates.parse(self._states.read(PREFIX + account)) for account in moved}
        limited = {scope.backend for scope in scopes if self._budgets.concern(scope.backend)}
        for scope in scopes:
            if accounts[scope.account].counts(scope):
                self._counted.add(scope)
            else:
                self._counted.discard(scope)
        budgets = {backend: self._budgets.read(backend) for backend in limited}
        return GateSnapshot(accounts=accounts, moved=moved, budgets=budgets)

    def may_block(self, scope: Scope, snapshot: GateSnapshot) -> bool:
        """Return whether `admit` with a snapshot may have to wait for the store; `peek` with one never does.

        It may if the store is one that blocks, and the user has set limits for the backend or a gate that concerns
        the scope is not passing.
        """
        limited = self._budgets.concern(scope.backend)
        return self.blocking and (limited or bool(self._gates(scope, snapshot).concerning(scope)))

    def peek(self, scope: Scope, snapshot: GateSnapshot | None = None) -> BackendError | None:
        """Return what would keep out a small call now, or None; changes nothing.

        Args:
            scope: What it is about.
            snapshot: What `look` has returned for the call; by default the store is read.
        """
        now = self._clock.time()
        snapshot = snapshot or self.look([scope])
        blocked = self._gates(scope, snapshot).refusal(scope, now=now)
        throttled = blocked or self._throttling.obstacle(scope, now=self._clock.monotonic())
        budget = snapshot.budgets.get(scope.backend)
        return throttled or (budget.obstacle(Amount(), now=now) if budget else None)

    def admit(
        self, scope: Scope, *, timeout_s: float, estimate: Usage = FREE, snapshot: GateSnapshot | None = None
    ) -> Permit:
        """Let a call through, or say why not.

        Args:
            scope: What it is about.
            timeout_s: Seconds that it may take; a permit that was not ended after twice that time lapses.
            estimate: What it is expected to consume at most.
            snapshot: What `look` has returned for the call; by default the store is read.

        Returns:
            The permit, to be ended with ``succeeded``, ``failed`` or ``released``.

        Raises:
            BackendError: The kind of trouble for which it may not pass, with ``retry_after_s`` and a remedy.
        """
        now = self._clock.time()
        gates = self._gates(scope, snapshot or self.look([scope]))
        blocked = gates.refusal(scope, now=now)
        if blocked is not None:
            raise blocked
        permit = Permit(
            control=self,
            scope=scope,
            caller=secrets.token_hex(8),
            amount=Amount.of(estimate),
            is_priced=estimate.cost_usd is not None,
            is_probe=bool(gates.concerning(scope)),
            timeout_s=timeout_s,
            lease_s=max(LEASE * timeout_s, MIN_LEASE_S),
        )
        tokens = permit.amount.tokens
        with ExitStack() as undo:
            self._throttling.enter(scope, tokens=tokens, now=self._clock.monotonic())
            undo.callback(self._throttling.leave, scope, tokens=tokens, asked=False)
            self._budgets.reserve(permit, now=now)
            undo.callback(self._budgets.cancel, permit, now=now)
            if permit.is_probe:
                self._take_probe(permit, now=now)
            undo.pop_all()
        return permit

    def expected_s(self, scope: Scope, default: float, *, percent: float = USUAL_PERCENT) -> float:
        """Return the seconds within which this percentage of the last 32 answers came; the default before the first."""
        measured_s = self._throttling.percentile_s(scope, percent)
        return default if measured_s is None else measured_s

    def gates(self) -> list[GateReport]:
        """Return every gate that is not passing, the oldest trouble first."""
        now = self._clock.time()
        reports = [
            report(key, gate, now=now)
            for text in self._states.all(PREFIX).values()
            for key, gate in AccountGates.parse(text).gates.items()
            if not gate.is_forgotten(now)
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
        accounts = [key.removeprefix(PREFIX) for key in self._states.all(PREFIX)]
        return sum(len(self._change(account, lambda gates: gates.reset(backend, now=now))) for account in accounts)

    def end(self, permit: Permit, ending: Ending) -> None:
        """Note how a call has ended, on gates, on budgets and in what was learned; its permit calls this once."""
        scope, now, monotonic = permit.scope, self._clock.time(), self._clock.monotonic()
        failure = self._failure(permit, ending)
        self._throttling.leave(scope, tokens=permit.amount.tokens, limits=ending.limits, now=monotonic)
        self._budgets.settle(permit, _amount(permit, ending), reserved=permit.amount, now=now)
        if failure is not None:
            if failure.kind == "outage":
                self._counted.add(scope)
            moved = self._change(scope.account, lambda gates: gates.fail(scope, failure, caller=permit.caller, now=now))
            if moved and failure.kind == "overload":
                self._throttling.halve(scope, now=monotonic)
        elif ending.error is None and ending.counted:
            self._throttling.note_duration(scope, ending.elapsed_s)
            if permit.is_probe or scope in self._counted:
                self._change(scope.account, lambda gates: gates.succeed(scope, caller=permit.caller, now=now))
        elif permit.is_probe:
            self._change(scope.account, lambda gates: gates.give_up(scope, caller=permit.caller))

    def end_may_block(self, permit: Permit, error: VisionError | None) -> bool:
        """Return whether `end` with this error, or without one, may have to wait for the store."""
        touched = permit.is_probe or self._budgets.concern(permit.scope.backend)
        noted = permit.scope in self._counted if error is None else gate_kind(error) is not None
        return self.blocking and (touched or noted)

    def correct(self, permit: Permit, ending: Ending, usage: Usage) -> None:
        """Book the true usage of a call, which was not known when it ended."""
        late = Amount.of(usage, otherwise=permit.amount).minus(_amount(permit, ending))
        self._budgets.settle(permit, late, reserved=Amount(), now=self._clock.time())

    def _gates(self, scope: Scope, snapshot: GateSnapshot) -> AccountGates:
        """Return the gates of a snapshot, or as this process has moved them since."""
        account = scope.account
        moved = self._moved.get(account)
        return snapshot.accounts[account] if moved is None or moved is snapshot.moved[account] else moved

    def _take_probe(self, permit: Permit, *, now: float) -> None:
        """Take the one place for a probe.

        Raises:
            BackendError: Another call was faster.
        """
        scope, blocked = permit.scope, None

        def act(gates: AccountGates) -> list[Transition]:
            nonlocal blocked
            blocked = gates.refusal(scope, now=now)  # of the last call of this function, should there be several
            if blocked is not None:
                return []
            return gates.take_probe(scope, caller=permit.caller, lease_s=permit.lease_s, now=now)

        self._change(scope.account, act)
        if blocked is not None:
            raise blocked

    def _change(self, account: str, act: Callable[[AccountGates], list[Transition]]) -> list[Transition]:
        """Change the gates of an account atomically, tell the listener what has moved, and return it."""
        now = self._clock.time()

        def change(text: str | None) -> tuple[str | None, tuple[AccountGates, list[Transition]]]:
            gates = AccountGates.parse(text)
            moved = act(gates)
            return gates.dump(now=now), (gates, moved)

        nothing: list[Transition] = []
        gates, moved = self._states.update(PREFIX + account, change, otherwise=(AccountGates(), nothing))
        if moved:
            self._moved[account] = gates
            tell(self._on_transition, moved)
        return moved

    def _failure(self, permit: Permit, ending: Ending) -> Failure | None:
        """Return what an ending means for the gates; None when it says nothing about the backend's health."""
        error = ending.error
        kind = None if error is None else gate_kind(error)
        if error is None or kind is None:
            return None
        usual_s = self._throttling.percentile_s(permit.scope, USUAL_PERCENT)
        if error.kind == "timed_out" and usual_s is not None and permit.timeout_s < usual_s:
            return None  # a caller in more of a hurry than the backend ever is
        return Failure(
            kind=kind,
            backend=permit.scope.backend,
            reason=getattr(error, "code", None) or error.kind,
            hint_s=getattr(error, "retry_after_s", None),
            spread=self._random.uniform(-1, 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call has ended.

    Attributes:
        error: What it failed with; None otherwise.
        counted: False when it says nothing about the backend's health.
        usage: What it has consumed; None leaves it to the kind of the error.
        elapsed_s: How long it took.
        limits: What its reply said about the server's limits.
    """

    error: VisionError | None = None
    counted: bool = True
    usage: Usage | None = None
    elapsed_s: float = 0.0
    limits: RateLimits | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Permit:
    """Leave to make one call. May be ended from any thread; only the first ending counts.

    A permit that is never ended, because its process died, lapses after twice its timeout.

    Attributes:
        control: Has admitted the call, and is told how it ends.
        scope: What it is about.
        caller: A random id of the call.
        amount: What it is estimated to take; reserved where there is a budget.
        is_priced: Whether the cost in that estimate is known.
        is_probe: Whether it probes a gate.
        timeout_s: Seconds that it may take.
        lease_s: Seconds after which it is taken for dead.
    """

    control: AdmissionControl
    scope: Scope
    caller: str
    amount: Amount
    is_priced: bool
    is_probe: bool
    timeout_s: float
    lease_s: float
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _ending: Ending | None = field(default=None, init=False, repr=False)
    _late: Usage | None = field(default=None, init=False, repr=False)

    def may_block(self, error: VisionError | None = None) -> bool:
        """Return whether ending it may have to wait for the store: with this error, or without one.

        False is reliable as long as no other call of the same scope fails in between.
        """
        return self.control.end_may_block(self, error)

    def succeeded(self, *, usage: Usage, elapsed_s: float, limits: RateLimits | None = None) -> None:
        """The backend has answered.

        Args:
            usage: What it consumed; what is unknown in it is booked as it was estimated.
            elapsed_s: Seconds that it took.
            limits: What the reply said about the server's limits.
        """
        self._finish(Ending(usage=usage, elapsed_s=elapsed_s, limits=limits))

    def failed(self, error: VisionError, *, elapsed_s: float, usage: Usage | None = None) -> None:
        """The backend has failed.

        Args:
            error: With what.
            elapsed_s: Seconds that it took.
            usage: What it consumed all the same. By default that is nothing, or what was estimated after
                errors that may come after the work was done: a timeout, an outage, an unusable reply.
        """
        self._finish(Ending(error=error, elapsed_s=elapsed_s, usage=usage))

    def released(self, *, usage: Usage | None = None) -> None:
        """The call was cancelled, or its input was at fault: it says nothing about the backend's health.

        Args:
            usage: What it consumed all the same; nothing by default.
        """
        self._finish(Ending(counted=False, usage=usage))

    def corrected(self, usage: Usage) -> None:
        """Book the true usage of a call whose answer came when nobody waited for it any more.

        To be called once, from any thread; whether before or after the call was ended does not matter.
        """
        with self._lock:
            self._late = usage
            ending = self._ending
        if ending is not None:
            self.control.correct(self, ending, usage)

    def _finish(self, ending: Ending) -> None:
        with self._lock:
            if self._ending is not None:
                return
            if self._late is not None:
                ending = replace(ending, usage=self._late)
            self._ending = ending
        self.control.end(self, ending)


def _amount(permit: Permit, ending: Ending) -> Amount:
    """Return what a call is booked with."""
    if ending.usage is not None:
        return Amount.of(ending.usage, otherwise=permit.amount)
    billed = ending.error is not None and ending.error.kind in MAYBE_BILLED
    return permit.amount if billed else Amount()
