"""Admission control: whether a rung may be asked now, and what its answer means for the next call.

Three things can keep a call out, asked in this order: a blocked gate (`circuit_breaker`, shared by all processes), what
this process has learned from the server's replies (`throttling`), and the limits that the user has set (`budgets`,
shared). An admitted call gets a permit, with which it says how it has ended.

This module decides that order, and when the gates are read and written. It must not know what is asked, nor how the
limits are counted (`reservations`). A store in trouble never fails a call: gates live in its shadow.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from vision_backends.engine.identifiers import Identifiers
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.health.budgets import Amount
from vision_backends.health.circuit_breaker import AccountGates, Failure, longest_refusal, report
from vision_backends.health.policy import MAYBE_BILLED, SERVER_IS_DOWN, Scope, gate_kind
from vision_backends.health.reservations import BUDGETS, Reservations
from vision_backends.health.shared_states import SharedStates
from vision_backends.health.throttling import Throttling
from vision_backends.types import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vision_backends.backends.requests import RateLimits
    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError, VisionError
    from vision_backends.health.budget_state import BudgetState
    from vision_backends.health.budgets import Limits, Spending
    from vision_backends.health.policy import GateReport
    from vision_backends.health.shared_states import Event
    from vision_backends.storage.base import States
    from vision_backends.storage.guarded_states import GuardedStates
    from vision_backends.types import Usage

__all__ = ["AdmissionControl", "GateSnapshot", "Permit", "Scope"]

GATES = "gates/"
"""How the keys of these states begin."""

LEASE = 2.0
MIN_LEASE_S = 1.0
"""A probe or a reservation that was not heard of for twice its timeout belongs to a process that has died."""

USUAL_PERCENT = 90.0
"""The percentage of calls that "usually" refers to where durations are concerned."""

SAMPLES = 32
"""How many durations are remembered for each task of each model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSnapshot:
    """What the store said of some scopes at one moment, so that a call reads it once.

    Attributes:
        accounts: The gates, by account.
        moved: The gates as this process had last moved any of them by then, by account.
        budgets: What is spent and reserved, by name of the backend or account, where the user has set limits.
    """

    accounts: Mapping[str, AccountGates]
    moved: Mapping[str, AccountGates | None]
    budgets: Mapping[str, BudgetState]


class AdmissionControl:
    """Keeps the gates, budgets and limits of every rung. Safe for many threads.

    A caller that must not wait for a disk or a network does elsewhere what may block: `look`, and, where `may_block`
    and `end_may_block` say so, `admit` and the ending of a permit. The healthy path then reads the store once and
    writes nothing.

    Args:
        states: Where the shared states live.
        clock: Where time comes from.
        random: Jitter of the gates.
        limits: What the user has allowed, by name of the backend, or of an account: ``"accounts.work"``.
        on_event: Told whenever a gate moves, and when 80 % and 100 % of a budget are spent, once among all processes,
            in the thread of the call that caused it.

    Attributes:
        blocking: Whether the store may block.
        well: Whether the last call of a scope in this process was answered; those that had none are missing.
    """

    def __init__(
        self,
        states: States | GuardedStates,
        *,
        clock: Clock,
        random: Random | None = None,
        limits: Mapping[str, Limits] | None = None,
        on_event: Callable[[Event], object] = lambda _event: None,
    ) -> None:
        self.blocking = states.blocking
        self._states = SharedStates(states, clock=clock, on_event=on_event)
        self._reservations = Reservations(self._states, clock=clock, limits=limits or {})
        self._clock = clock
        self._random = random or Random()  # noqa: S311 — jitter is no secret
        self._throttling = Throttling()
        self._identifiers = Identifiers()
        self._durations: defaultdict[Scope, deque[float]] = defaultdict(lambda: deque(maxlen=SAMPLES))
        self._moved: dict[str, AccountGates] = {}
        self._counted: set[Scope] = set()
        self.well: dict[Scope, bool] = {}
        self._renew()
        after_fork_in_child(self, AdmissionControl._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def look(self, scopes: Iterable[Scope]) -> GateSnapshot:
        """Read what concerns some scopes: one read for the gates of each account, and one for each counter."""
        scopes = list(scopes)
        moved = {scope.account: self._moved.get(scope.account) for scope in scopes}  # before the store is read
        limited = {name for scope in scopes for name in self._reservations.counters.get(scope.backend, ())}
        keys = [GATES + account for account in moved] + [BUDGETS + name for name in limited]
        states = self._states.read_many(keys)
        accounts = {account: AccountGates.parse(states[GATES + account]) for account in moved}
        for scope in scopes:
            failures = accounts[scope.account].failures
            if failures and not failures.keys().isdisjoint(scope.outage_keys()):
                self._counted.add(scope)
            else:
                self._counted.discard(scope)
        budgets = {name: self._reservations.parse(name, states[BUDGETS + name]) for name in limited}
        return GateSnapshot(accounts=accounts, moved=moved, budgets=budgets)

    def may_block(self, scope: Scope, snapshot: GateSnapshot) -> bool:
        """Return whether `admit` with a snapshot may have to wait for the store; `peek` with one never does.

        It may if the store is one that blocks, and the user has set limits for the backend or a gate that concerns
        the scope is not passing.
        """
        is_limited = scope.backend in self._reservations.counters and self._reservations.may_block(scope.backend)
        gates = self._gates(scope, snapshot)
        return self.blocking and (is_limited or (gates is not None and bool(gates.concerning(scope))))

    def refusal(self, scope: Scope, snapshot: GateSnapshot) -> BackendError | None:
        """Return the error of the gate that would keep out any call now, or None; asks no store."""
        gates = self._gates(scope, snapshot)
        return None if gates is None else gates.refusal(scope, now=self._clock.time())

    def peek(self, scope: Scope, snapshot: GateSnapshot | None = None) -> BackendError | None:
        """Return what would keep out a small call now, or None; changes nothing.

        Args:
            scope: What the call concerns.
            snapshot: What `look` has returned for the call; by default the store is read.
        """
        now = self._clock.time()
        snapshot = snapshot or self.look([scope])
        blocked = self.refusal(scope, snapshot)
        throttled = blocked or self._throttling.obstacle(scope, now=self._clock.monotonic())
        return throttled or self._reservations.obstacle(scope.backend, snapshot.budgets, now=now)

    def admit(
        self,
        scope: Scope,
        *,
        timeout_s: float,
        expected_s: float = 0.0,
        estimate: Usage = FREE,
        snapshot: GateSnapshot | None = None,
    ) -> Permit:
        """Let a call through, or say why not.

        Args:
            scope: What the call concerns.
            timeout_s: Seconds that it may take; a permit that was not ended after twice that time lapses.
            expected_s: Seconds that the backend says it takes, until that is measured.
            estimate: What it is expected to consume at most.
            snapshot: What `look` has returned for the call; by default the store is read.

        Returns:
            The permit, to be ended with ``succeeded``, ``failed`` or ``released``.

        Raises:
            BackendError: The kind of trouble for which it may not pass, with ``retry_after_s`` and a remedy.
        """
        now = self._clock.time()
        gates = self._gates(scope, snapshot or self.look([scope]))
        concerning = [] if gates is None else gates.concerning(scope)
        blocked = longest_refusal(concerning, now=now) if concerning else None
        if blocked is not None:
            raise blocked
        permit = Permit(
            control=self,
            scope=scope,
            caller=self._identifiers.new(),
            amount=Amount.of(estimate),
            is_probe=bool(concerning),
            timeout_s=timeout_s,
            expected_s=expected_s,
            lease_s=max(LEASE * timeout_s, MIN_LEASE_S),
        )
        tokens = permit.amount.tokens
        with ExitStack() as undo:
            self._throttling.enter(scope, tokens=tokens, now=self._clock.monotonic())
            undo.callback(self._throttling.leave, scope, tokens=tokens, asked=False)
            if scope.backend in self._reservations.counters:
                if estimate.cost_usd is None:
                    self._reservations.warn_of_unpriced(scope.backend, scope.model)
                self._reservations.reserve(
                    scope.backend, permit.amount, caller=permit.caller, lease_s=permit.lease_s, now=now
                )
                undo.callback(self._reservations.cancel, scope.backend, permit.amount, caller=permit.caller, now=now)
            if permit.is_probe:
                self._take_probe(permit, now=now)
            undo.pop_all()
        return permit

    def expected_s(self, scope: Scope, default: float, *, percent: float = USUAL_PERCENT) -> float:
        """Return the seconds within which this percentage of the last 32 answers came; the default before the first."""
        with self._lock:
            durations = sorted(self._durations.get(scope, ()))
        return durations[max(0, math.ceil(len(durations) * percent / 100) - 1)] if durations else default

    def most_running(self, scope: Scope) -> int | None:
        """Return how many calls may run concurrently before one more would be refused; None for any number.

        That is what the user allows, what the server's last reply leaves, and what it bore when it was overloaded.
        """
        throttled = self._throttling.most_running(scope, now=self._clock.monotonic())
        allowed = self._reservations.most_running(scope.backend)
        return min((each for each in (throttled, allowed) if each is not None), default=None)

    def gates(self) -> list[GateReport]:
        """Return every gate that is not passing, the oldest trouble first."""
        now = self._clock.time()
        reports = [
            report(key, gate, now=now)
            for text in self._states.all(GATES).values()
            for key, gate in AccountGates.parse(text).gates.items()
            if not gate.is_forgotten(now)
        ]
        return sorted(reports, key=lambda report: report.since)

    def spending(self) -> list[Spending]:
        """Return how far each budget is spent."""
        return self._reservations.spending()

    def reset(self, backend: str | None = None, *, account: str | None = None) -> int:
        """Let the gates pass that calls of a backend, or of any for None, have blocked, and forget its failures.

        Budgets stay as they are: what is spent is spent.

        Args:
            backend: Its name.
            account: Its account, whose gates pass as well if another backend of it has blocked them.

        Returns:
            How many gates were blocked.

        Raises:
            StoreError: That cannot be written now.
        """
        self._throttling.forget(backend)
        now, count = self._clock.time(), 0
        for key in self._states.all(GATES):
            pays = account is not None and key == GATES + account

            def reset(gates: AccountGates, *, pays: bool = pays) -> tuple[AccountGates, Sequence[Event]]:
                return gates, gates.reset(backend, now=now, pays=pays)

            gates, events = self._states.update_now(key, AccountGates.parse, reset)
            self._has_moved(key.removeprefix(GATES), gates, events)
            count += len(events)
        return count

    def end(
        self,
        permit: Permit,
        *,
        error: VisionError | None = None,
        usage: Usage | None = None,
        elapsed_s: float | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        """Note how a call has ended, on gates, on budgets and in what was learned; only its first ending counts.

        Args:
            permit: The call's.
            error: What it failed with; None otherwise.
            usage: What it consumed; None leaves it to the kind of the error.
            elapsed_s: How long it took; None for one that was released.
            limits: What its reply said about the server's limits.
        """
        scope, now, monotonic = permit.scope, self._clock.time(), self._clock.monotonic()
        with permit.lock:
            if permit.booked is not None:
                return
            usage = usage if permit.late is None else permit.late
            if usage is None and error is not None and error.kind in MAYBE_BILLED:
                permit.booked = permit.amount
            else:
                permit.booked = Amount.of(usage or FREE, otherwise=permit.amount)
            permit.ended_at = now
        failure = None if error is None else self._failure(permit, error)
        self._throttling.leave(scope, tokens=permit.amount.tokens, limits=limits, now=monotonic)
        if scope.backend in self._reservations.counters:
            self._reservations.settle(
                scope.backend, permit.booked, caller=permit.caller, estimate=permit.amount, reserved=permit.amount
            )
        if failure is not None:
            self.well[scope] = False
            if failure.kind == "outage":
                self._counted.add(scope)
            moved = self._move(scope.account, lambda gates: gates.fail(scope, failure, caller=permit.caller, now=now))
            if moved and failure.kind == "overload":
                self._throttling.halve(scope, now=monotonic)
        elif error is None and elapsed_s is not None:
            self.well[scope] = True
            with self._lock:
                self._durations[scope].append(elapsed_s)
            if permit.is_probe or scope in self._counted:
                self._move(scope.account, lambda gates: gates.succeed(scope, caller=permit.caller, now=now))
        elif permit.is_probe:
            self._move(scope.account, lambda gates: gates.give_up(scope, caller=permit.caller))

    def correct(self, permit: Permit, usage: Usage) -> None:
        """Book the true usage of a call, which was not known when it ended, in the day of its end."""
        with permit.lock:
            permit.late, booked = usage, permit.booked
        backend = permit.scope.backend
        if booked is not None and backend in self._reservations.counters:
            self._reservations.settle(
                backend,
                Amount.of(usage, otherwise=permit.amount).minus(booked),
                caller=permit.caller,
                estimate=permit.amount,
                reserved=Amount(),
                ended_at=permit.ended_at,
            )

    def end_may_block(self, permit: Permit, error: VisionError | None = None) -> bool:
        """Return whether ending a permit with this error, or without one, may have to wait for the store.

        False is reliable as long as no other call of the same scope fails in between.
        """
        scope = permit.scope
        is_limited = scope.backend in self._reservations.counters
        touched = permit.is_probe or (is_limited and self._reservations.settle_may_block(scope.backend, permit.amount))
        noted = scope in self._counted if error is None else gate_kind(error) is not None
        return self.blocking and (touched or noted)

    def close(self) -> None:
        """Give back what was drawn of budgets; harmless twice."""
        self._reservations.close()

    def _gates(self, scope: Scope, snapshot: GateSnapshot) -> AccountGates | None:
        """Return the gates of a snapshot, or as this process has moved them since; None where all of them pass."""
        account = scope.account
        moved = self._moved.get(account)
        gates = snapshot.accounts[account] if moved is None or moved is snapshot.moved[account] else moved
        return gates if gates.gates else None

    def _take_probe(self, permit: Permit, *, now: float) -> None:
        """Take the one place for a probe.

        Raises:
            BackendError: Another call was faster.
        """
        scope = permit.scope

        def act(gates: AccountGates) -> tuple[AccountGates, Sequence[Event], BackendError | None]:
            blocked = gates.refusal(scope, now=now)
            if blocked is not None:
                return gates, [], blocked
            return gates, gates.take_probe(scope, caller=permit.caller, lease_s=permit.lease_s, now=now), None

        done = self._states.update(GATES + scope.account, AccountGates.parse, act)
        if done is None:
            return
        gates, events, blocked = done
        self._has_moved(scope.account, gates, events)
        if blocked is not None:
            raise blocked

    def _move(self, account: str, act: Callable[[AccountGates], Sequence[Event]]) -> Sequence[Event]:
        """Change the gates of an account; return how they moved."""
        done = self._states.update(GATES + account, AccountGates.parse, lambda gates: (gates, act(gates)))
        if done is None:
            return []
        self._has_moved(account, *done)
        return done[1]

    def _has_moved(self, account: str, gates: AccountGates, events: Sequence[Event]) -> None:
        if events:
            self._moved[account] = gates
        self._states.tell(events)

    def _failure(self, permit: Permit, error: VisionError) -> Failure | None:
        """Return what an error means for the gates; None if it says nothing about the backend's health."""
        kind = gate_kind(error)
        if kind is None:
            return None
        if error.kind == "timed_out" and permit.timeout_s < self.expected_s(permit.scope, permit.expected_s):
            return None  # the caller's limit was shorter than what the backend usually takes
        code = getattr(error, "code", None) or ""
        return Failure(
            kind=kind,
            backend=permit.scope.backend,
            reason=error.kind if code.isdigit() else code or error.kind,
            hint_s=getattr(error, "retry_after_s", None),
            spread=self._random.uniform(-1, 1),
            own=error.kind not in SERVER_IS_DOWN,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Permit:
    """Leave to make one call. May be ended from any thread; only the first ending counts.

    A permit that is never ended, because its process died, lapses after twice its timeout.

    Attributes:
        control: Has admitted the call, and is told how it ends.
        scope: What the call concerns.
        caller: A random id of the call.
        amount: What it is estimated to take; reserved where there is a budget.
        is_probe: Whether it probes a gate.
        timeout_s: Seconds that it may take.
        expected_s: Seconds that the backend says it takes.
        lease_s: Seconds after which it is taken for dead.
        lock: Guards ``booked`` and ``late``.
        booked: What it was booked with when it ended; None while it runs.
        ended_at: When that was, in seconds since 1970 UTC.
        late: Its true usage, where that became known later, or before it ended.
    """

    control: AdmissionControl
    scope: Scope
    caller: str
    amount: Amount
    is_probe: bool
    timeout_s: float
    expected_s: float = 0.0
    lease_s: float
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    booked: Amount | None = field(default=None, init=False)
    ended_at: float | None = field(default=None, init=False)
    late: Usage | None = field(default=None, init=False)

    def succeeded(self, *, usage: Usage, elapsed_s: float, limits: RateLimits | None = None) -> None:
        """The backend has answered.

        Args:
            usage: What it consumed; what is unknown in it is booked as it was estimated.
            elapsed_s: Seconds that it took.
            limits: What the reply said about the server's limits.
        """
        self.control.end(self, usage=usage, elapsed_s=elapsed_s, limits=limits)

    def failed(self, error: VisionError, *, elapsed_s: float, usage: Usage | None = None) -> None:
        """The backend has failed.

        Args:
            error: What it failed with.
            elapsed_s: Seconds that it took.
            usage: What it consumed all the same. By default that is nothing, or what was estimated after
                errors that may come after the work was done: a timeout, an outage, an unusable reply.
        """
        self.control.end(self, error=error, elapsed_s=elapsed_s, usage=usage)

    def released(self, *, usage: Usage | None = None) -> None:
        """The call was cancelled, or its input was at fault: it says nothing about the backend's health.

        Args:
            usage: What it consumed all the same; nothing by default.
        """
        self.control.end(self, usage=usage)

    def corrected(self, usage: Usage) -> None:
        """Book the true usage of a call whose answer came when no caller was waiting for it any more.

        To be called once, from any thread, before or after the call was ended.
        """
        self.control.correct(self, usage)
