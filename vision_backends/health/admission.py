"""Admission control: whether a rung may be asked now, and what its answer means for the next call.

Three things can keep a call out, asked in this order: a blocked gate (`circuit_breaker`, shared by all processes), what
this process has learned from the server's replies (`throttling`), and the limits that the user has set (`budgets`,
shared). An admitted call gets a permit, with which it says how it has ended.

This module decides that order, and when the store is read and written. It must not know what is asked. A store in
trouble never fails a call: gates live in its shadow, and a backend with limits is asked as long as what was drawn
before lasts, and then not.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import defaultdict, deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from vision_backends.engine.identifiers import Identifiers
from vision_backends.engine.pools import Pool
from vision_backends.engine.threads import after_fork_in_child, make_queue
from vision_backends.errors import OverloadedError, QuotaExhaustedError
from vision_backends.health.allowances import SPARE_CALLS, Allowance
from vision_backends.health.budgets import GIVE_BACK_S, Amount, BudgetState
from vision_backends.health.circuit_breaker import AccountGates, Failure, report
from vision_backends.health.policy import MAYBE_BILLED, Scope, gate_kind
from vision_backends.health.throttling import Throttling
from vision_backends.storage.base import StoreError
from vision_backends.storage.bounded import RETRY_S
from vision_backends.storage.guarded import GuardedStates
from vision_backends.types import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vision_backends.backends.requests import RateLimits
    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError, VisionError
    from vision_backends.health.allowances import Drawn
    from vision_backends.health.budgets import Alert, Limits, Spending
    from vision_backends.health.policy import GateReport, Transition
    from vision_backends.storage.base import States
    from vision_backends.types import Usage

__all__ = ["AdmissionControl", "GateSnapshot", "Permit", "Scope"]

GATES = "gates/"
BUDGETS = "book/"
"""How the keys of states begin; what was spent before an upgrade stays spent."""

LEASE = 2.0
MIN_LEASE_S = 1.0
"""A probe or a reservation that was not heard of for twice its timeout belongs to a process that has died."""

DRAW_S = 0.05
"""A call does not wait any longer for another thread to draw."""

BOOK_S = 1.0
"""How often what calls have taken is booked."""

FORGET_S = 60.0
"""After so long without a call nothing is looked after any more; what could not be booked is on its way."""

USUAL_PERCENT = 90.0
"""The percentage of calls that "usually" refers to where durations are concerned."""

SAMPLES = 32
"""How many durations are remembered for each task of each model."""

_log = logging.getLogger(__name__)


class _State(Protocol):
    def dump(self, *, now: float) -> str | None: ...


R = TypeVar("R")
S = TypeVar("S", bound=_State)
_Event: TypeAlias = "Transition | Alert"


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

    A caller that must not wait for a disk or a network does elsewhere what may block: `look`, and, where `may_block`
    and `end_may_block` say so, `admit` and the ending of a permit. The healthy path then reads the store once and
    writes nothing.

    Args:
        states: Where the shared states live.
        clock: Where time comes from.
        random: Jitter of the gates.
        limits: What the user has allowed, by name of the backend.
        on_event: Told whenever a gate moves, and when 80 % and 100 % of a budget are spent, once among all processes,
            in the thread of the call that caused it.

    Attributes:
        blocking: Whether the store may block.
    """

    def __init__(
        self,
        states: States | GuardedStates,
        *,
        clock: Clock,
        random: Random | None = None,
        limits: Mapping[str, Limits] | None = None,
        on_event: Callable[[_Event], object] = lambda _event: None,
    ) -> None:
        self.blocking = states.blocking
        self._states = GuardedStates.of(states)
        self._clock = clock
        self._random = random or Random()  # noqa: S311 — jitter is no secret
        self._limits = dict(limits or {})
        self._on_event = on_event
        self._throttling = Throttling()
        self._identifiers = Identifiers()
        self._allowances = {
            backend: Allowance()
            for backend, allowed in self._limits.items()
            if states.blocking and Allowance.suits(allowed)
        }
        self._keeper = Pool("allowances", size=1, may_hang=False)
        self._renew()
        after_fork_in_child(self, AdmissionControl._renew)
        self._durations: defaultdict[Scope, deque[float]] = defaultdict(lambda: deque(maxlen=SAMPLES))
        self._moved: dict[str, AccountGates] = {}
        self._counted: set[Scope] = set()
        self._well: dict[Scope, bool] = {}
        self._unpriced: set[str] = set()
        self._is_in_trouble = False
        self._is_closed = False

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._wake: Any = make_queue()
        self._is_kept = False
        for allowance in self._allowances.values():
            allowance.begin()

    def look(self, scopes: Iterable[Scope]) -> GateSnapshot:
        """Read what concerns some scopes: one read for each account, and one for each backend with limits."""
        scopes = list(scopes)
        moved = {scope.account: self._moved.get(scope.account) for scope in scopes}  # before the store is read
        limited = {scope.backend for scope in scopes if scope.backend in self._limits}
        keys = [GATES + account for account in moved] + [BUDGETS + backend for backend in limited]
        states: Mapping[str, str | None]
        try:
            states = self._states.read_many(keys)
        except OSError as error:
            self._complain(error)
            states = dict.fromkeys(keys)
        accounts = {account: AccountGates.parse(states[GATES + account]) for account in moved}
        for scope in scopes:
            if scope.gate_key("outage") in accounts[scope.account].failures:
                self._counted.add(scope)
            else:
                self._counted.discard(scope)
        budgets = {backend: self._budget(backend, states[BUDGETS + backend]) for backend in limited}
        return GateSnapshot(accounts=accounts, moved=moved, budgets=budgets)

    def may_block(self, scope: Scope, snapshot: GateSnapshot) -> bool:
        """Return whether `admit` with a snapshot may have to wait for the store; `peek` with one never does.

        It may if the store is one that blocks, and the user has set limits for the backend or a gate that concerns
        the scope is not passing.
        """
        allowance = self._allowances.get(scope.backend)
        is_limited = scope.backend in self._limits and not (allowance is not None and allowance.has(SPARE_CALLS))
        return self.blocking and (is_limited or bool(self._gates(scope, snapshot).concerning(scope)))

    def peek(self, scope: Scope, snapshot: GateSnapshot | None = None) -> BackendError | None:
        """Return what would keep out a small call now, or None; changes nothing.

        Args:
            scope: What the call concerns.
            snapshot: What `look` has returned for the call; by default the store is read.
        """
        now = self._clock.time()
        snapshot = snapshot or self.look([scope])
        blocked = self._gates(scope, snapshot).refusal(scope, now=now)
        throttled = blocked or self._throttling.obstacle(scope, now=self._clock.monotonic())
        budget = snapshot.budgets.get(scope.backend)
        if throttled or budget is None:
            return throttled
        allowance, trouble = self._allowances.get(scope.backend), self._states.trouble
        if trouble is not None and not (allowance is not None and allowance.has()):
            return self._unknown(scope.backend, trouble)
        return budget.obstacle(Amount(), now=now)

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
        blocked = gates.refusal(scope, now=now)
        if blocked is not None:
            raise blocked
        permit = Permit(
            control=self,
            scope=scope,
            caller=self._identifiers.new(),
            amount=Amount.of(estimate),
            is_probe=bool(gates.concerning(scope)),
            timeout_s=timeout_s,
            expected_s=expected_s,
            lease_s=max(LEASE * timeout_s, MIN_LEASE_S),
        )
        tokens = permit.amount.tokens
        with ExitStack() as undo:
            self._throttling.enter(scope, tokens=tokens, now=self._clock.monotonic())
            undo.callback(self._throttling.leave, scope, tokens=tokens, asked=False)
            if scope.backend in self._limits:
                self._reserve(permit, is_priced=estimate.cost_usd is not None, now=now)
                undo.callback(self._cancel, permit, now=now)
            if permit.is_probe:
                self._take_probe(permit, now=now)
            undo.pop_all()
        return permit

    def expected_s(self, scope: Scope, default: float, *, percent: float = USUAL_PERCENT) -> float:
        """Return the seconds within which this percentage of the last 32 answers came; the default before the first."""
        with self._lock:
            durations = sorted(self._durations.get(scope, ()))
        return durations[max(0, math.ceil(len(durations) * percent / 100) - 1)] if durations else default

    def was_well(self, scope: Scope) -> bool | None:
        """Return whether the last call of a scope in this process was answered; None before the first."""
        return self._well.get(scope)

    def most_running(self, scope: Scope) -> int | None:
        """Return how many calls may run concurrently, since the server reported overload; None for any number."""
        return self._throttling.most_running(scope, now=self._clock.monotonic())

    def gates(self) -> list[GateReport]:
        """Return every gate that is not passing, the oldest trouble first."""
        now = self._clock.time()
        reports = [
            report(key, gate, now=now)
            for text in self._all(GATES).values()
            for key, gate in AccountGates.parse(text).gates.items()
            if not gate.is_forgotten(now)
        ]
        return sorted(reports, key=lambda report: report.since)

    def spending(self) -> list[Spending]:
        """Return how far each budget is spent."""
        now, states = self._clock.time(), self._all(BUDGETS) if self._limits else {}
        budgets = [self._budget(backend, states.get(BUDGETS + backend)) for backend in self._limits]
        return [spending for budget in budgets for spending in budget.spending(now=now)]

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
        for key in self._all(GATES):
            pays = account is not None and key == GATES + account
            change = self._parsing(AccountGates.parse, partial(AccountGates.reset, backend=backend, now=now, pays=pays))
            state, events = self._states.update_now(key, change)
            self._has_moved(key.removeprefix(GATES), state, events)
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
        if scope.backend in self._limits:
            self._settle(permit, permit.booked, reserved=permit.amount)
        if failure is not None:
            self._well[scope] = False
            if failure.kind == "outage":
                self._counted.add(scope)
            moved = self._move(scope.account, lambda gates: gates.fail(scope, failure, caller=permit.caller, now=now))
            if moved and failure.kind == "overload":
                self._throttling.halve(scope, now=monotonic)
        elif error is None and elapsed_s is not None:
            self._well[scope] = True
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
        if booked is not None and permit.scope.backend in self._limits:
            late = Amount.of(usage, otherwise=permit.amount).minus(booked)
            self._settle(permit, late, reserved=Amount(), ended_at=permit.ended_at)

    def end_may_block(self, permit: Permit, error: VisionError | None = None) -> bool:
        """Return whether ending a permit with this error, or without one, may have to wait for the store.

        False is reliable as long as no other call of the same scope fails in between.
        """
        allowance = self._allowances.get(permit.scope.backend)
        is_limited = permit.scope.backend in self._limits
        touched = permit.is_probe or (is_limited and (allowance is None or self._is_booked_at_once(permit, allowance)))
        noted = permit.scope in self._counted if error is None else gate_kind(error) is not None
        return self.blocking and (touched or noted)

    def _gates(self, scope: Scope, snapshot: GateSnapshot) -> AccountGates:
        """Return the gates of a snapshot, or as this process has moved them since."""
        account = scope.account
        moved = self._moved.get(account)
        return snapshot.accounts[account] if moved is None or moved is snapshot.moved[account] else moved

    def _budget(self, backend: str, text: str | None) -> BudgetState:
        """Return what is spent and reserved, as this process sees it."""
        state, allowance = self._parse_budget(backend, text), self._allowances.get(backend)
        return state if allowance is None else allowance.show(state, now=self._clock.time())

    def _parse_budget(self, backend: str, text: str | None) -> BudgetState:
        return BudgetState.parse(text, backend=backend, limits=self._limits[backend])

    def _reserve(self, permit: Permit, *, is_priced: bool, now: float) -> None:
        """Set aside what a call is estimated to take.

        Raises:
            BackendError: It does not fit in; says when it will.
        """
        limits, model = self._limits[permit.scope.backend], permit.scope.model
        has_budget = limits.daily_budget_usd is not None or limits.monthly_budget_usd is not None
        if has_budget and not is_priced and model not in self._unpriced:
            self._unpriced.add(model)
            _log.warning("The price of %r is unknown: budgets in US dollars cannot count it.", model)
        allowance = self._allowances.get(permit.scope.backend)
        if allowance is None:
            self._reserve_alone(permit, now=now)
        elif not allowance.take(permit.amount, now=now):
            self._draw(permit, allowance, now=now)
        elif allowance.is_low:
            self._wake.put(None)

    def _reserve_alone(self, permit: Permit, *, now: float) -> None:
        """Set aside in the store what one call is estimated to take; errors as for `_reserve`."""
        backend = permit.scope.backend

        def act(state: BudgetState) -> tuple[Sequence[_Event], BackendError | None]:
            refused = state.obstacle(permit.amount, now=now)
            if refused is not None:
                return state.alerts(now=now, refused=permit.amount), refused
            state.reserve(permit.amount, caller=permit.caller, lease_s=permit.lease_s, now=now)
            return [], None

        def undo(result: tuple[Sequence[_Event], BackendError | None]) -> None:
            if result[1] is None:
                self._cancel(permit, now=now)

        try:
            events, refused = self._states.update_now(
                BUDGETS + backend, self._changing(partial(self._parse_budget, backend), act), on_late=undo
            )
        except OSError as error:
            raise self._unknown(backend, error) from error
        self._tell(events)
        if refused is not None:
            raise refused

    def _draw(self, permit: Permit, allowance: Allowance, *, now: float) -> None:
        """Draw an allowance for this call and some more, and take from it; errors as for `_reserve`."""
        backend = permit.scope.backend
        if not allowance.drawing.acquire(timeout=DRAW_S):
            raise self._unknown(backend, self._states.trouble or StoreError("The store has not written in time."))
        try:
            while not allowance.take(permit.amount, now=now):
                change = self._changing(
                    partial(self._parse_budget, backend),
                    lambda state: allowance.draw(state, permit.amount, now=now),
                )
                drawn = self._states.update_now(
                    BUDGETS + backend, change, on_made=lambda drawn: self._drawn(allowance, drawn, now=now)
                )
                if drawn.refused is not None:
                    raise drawn.refused
        except OSError as error:
            raise self._unknown(backend, error) from error
        finally:
            allowance.drawing.release()
        self._keep()

    def _drawn(self, allowance: Allowance, drawn: Drawn, *, now: float | None = None) -> None:
        """Note that the shared state was changed; before anything else is written to it."""
        allowance.made(drawn, now=now)
        self._tell(drawn.alerts)

    def _book_allowance(self, backend: str, allowance: Allowance, *, ahead: bool = False, waits: bool = False) -> None:
        """Say in the store what calls have taken, and draw more where it is time; not twice at a time."""
        if not (allowance.ask_to_book() or waits):
            return
        now = self._clock.time()

        def act(state: BudgetState) -> Drawn:
            return allowance.draw_ahead(state, now=now) if ahead else allowance.book(state, now=now)

        def made(drawn: Drawn) -> None:
            allowance.is_booked()
            self._drawn(allowance, drawn, now=now if ahead else None)

        change = self._changing(partial(self._parse_budget, backend), act)
        self._states.update_later(BUDGETS + backend, change, on_made=made, waits=waits)

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
            for backend, allowance in self._allowances.items():
                unused_s = allowance.unused_s
                if unused_s >= GIVE_BACK_S:
                    allowance.give_back()
                if allowance.is_open and unused_s < FORGET_S:
                    is_open = True
                    self._book_allowance(backend, allowance, ahead=allowance.is_low)
            with self._lock:
                if not is_open or self._is_closed:
                    self._is_kept = False
                    return

    def close(self) -> None:
        """Give back what was drawn; harmless twice."""
        self._is_closed = True
        self._wake.put(None)
        for backend, allowance in self._allowances.items():
            allowance.give_back()
            if allowance.is_used:
                self._book_allowance(backend, allowance, waits=True)
        self._keeper.close()

    def _unknown(self, backend: str, error: OSError) -> BackendError:
        """Return the error for a call that cannot be counted."""
        return QuotaExhaustedError(
            f"What is left of the limits of {backend} is not known: {error}",
            remedy="See to it that the state can be written. Backends without limits are asked meanwhile.",
            backend=backend,
            code="limits_unknown",
            retry_after_s=RETRY_S,
        )

    def _cancel(self, permit: Permit, *, now: float) -> None:
        """Undo `_reserve` for a call that was not made after all."""
        allowance = self._allowances.get(permit.scope.backend)
        if allowance is not None:
            allowance.put_back(permit.amount)
            return

        def act(state: BudgetState) -> Sequence[_Event]:
            state.cancel(permit.amount, caller=permit.caller, now=now)
            return []

        self._book(permit, act)

    def _settle(self, permit: Permit, amount: Amount, *, reserved: Amount, ended_at: float | None = None) -> None:
        """Book what a call has taken (negative where more was booked before) instead of what was reserved for it."""
        now, backend = self._clock.time(), permit.scope.backend
        allowance = self._allowances.get(backend)
        if allowance is not None:
            ended_at = now if ended_at is None else ended_at
            is_more = allowance.settle(amount, reserved=reserved, ended_at=ended_at)
            if is_more or self._is_booked_at_once(permit, allowance):
                self._book_allowance(backend, allowance, waits=self._is_booked_at_once(permit, allowance))
            self._keep()
            return

        def act(state: BudgetState) -> Sequence[_Event]:
            state.settle(amount, caller=permit.caller, reserved=reserved, now=now, ended_at=ended_at)
            return state.alerts(now=now)

        self._book(permit, act)

    @staticmethod
    def _is_booked_at_once(permit: Permit, allowance: Allowance) -> bool:
        """Return whether a call is booked before it returns: little is left, or nothing was set aside for it."""
        return allowance.is_scarce or permit.amount == Amount()

    def _book(self, permit: Permit, act: Callable[[BudgetState], Sequence[_Event]]) -> None:
        """Change what the backend of a call has spent and reserved."""
        backend = permit.scope.backend
        self._change(BUDGETS + backend, partial(self._parse_budget, backend), act)

    def _take_probe(self, permit: Permit, *, now: float) -> None:
        """Take the one place for a probe.

        Raises:
            BackendError: Another call was faster.
        """
        scope = permit.scope

        def act(gates: AccountGates) -> tuple[Sequence[_Event], BackendError | None]:
            blocked = gates.refusal(scope, now=now)
            if blocked is not None:
                return [], blocked
            return gates.take_probe(scope, caller=permit.caller, lease_s=permit.lease_s, now=now), None

        try:
            key = GATES + scope.account
            state, (events, blocked) = self._states.update(key, self._parsing(AccountGates.parse, act))
        except OSError as error:
            self._complain(error)
            return
        self._has_moved(scope.account, state, events)
        if blocked is not None:
            raise blocked

    def _move(self, account: str, act: Callable[[AccountGates], Sequence[_Event]]) -> Sequence[_Event]:
        """Change the gates of an account; return how they moved."""
        try:
            state, events = self._states.update(GATES + account, self._parsing(AccountGates.parse, act))
        except OSError as error:
            self._complain(error)
            return []
        self._has_moved(account, state, events)
        return events

    def _has_moved(self, account: str, state: AccountGates, events: Sequence[_Event]) -> None:
        if events:
            self._moved[account] = state
        self._tell(events)

    def _change(self, key: str, parse: Callable[[str | None], S], act: Callable[[S], Sequence[_Event]]) -> None:
        """Change a state atomically, and tell the listener what has happened."""
        try:
            self._tell(self._states.update(key, self._changing(parse, act)))
        except OSError as error:
            self._complain(error)

    def _changing(
        self, parse: Callable[[str | None], S], act: Callable[[S], R]
    ) -> Callable[[str | None], tuple[str | None, R]]:
        """Return the change of a written state that a change of a state is."""
        change = self._parsing(parse, act)

        def changing(text: str | None) -> tuple[str | None, R]:
            new, (_, result) = change(text)
            return new, result

        return changing

    def _parsing(
        self, parse: Callable[[str | None], S], act: Callable[[S], R]
    ) -> Callable[[str | None], tuple[str | None, tuple[S, R]]]:
        """Do as `_changing`, with the state as well."""
        now = self._clock.time()

        def change(text: str | None) -> tuple[str | None, tuple[S, R]]:
            state = parse(text)
            result = act(state)
            return state.dump(now=now), (state, result)

        return change

    def _tell(self, events: Sequence[_Event]) -> None:
        for event in events:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001 — a listener may raise anything, and must not fail a call
                _log.exception("A listener failed on %s.", type(event).__name__)

    def _all(self, prefix: str) -> Mapping[str, str]:
        try:
            return self._states.all(prefix)
        except OSError as error:
            self._complain(error)
            return {}

    def _complain(self, error: OSError) -> None:
        if not self._is_in_trouble:
            self._is_in_trouble = True
            _log.warning("Gates and budgets are not shared or kept while the store is in trouble: %s", error)

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
    lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    booked: Amount | None = field(default=None, init=False, repr=False)
    ended_at: float | None = field(default=None, init=False, repr=False)
    late: Usage | None = field(default=None, init=False, repr=False)

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
