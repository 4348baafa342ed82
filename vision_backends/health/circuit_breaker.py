"""The state machine of gates: passing → blocked → probing → passing, or blocked again for longer.

These are the closed, open and half-open states of a circuit breaker, under names that say what happens to a call.
A gate that is passing has no state at all. A blocked gate refuses every call until its time; from then on it is due,
and one call may probe while all others are still refused. The probe's success makes the gate pass again, its failure
blocks it for twice as long. A probe that ends neither way, because its caller was cancelled or its process died,
gives up its place immediately or when its lease ends.

`AccountGates` holds all gates of one account: it is read from the store, changed and written back within one atomic
update, so that every event happens exactly once among all threads and processes. Times are seconds of a wall clock,
since processes share them. This module decides which gates an outcome moves, how, and in which words they refuse a
call. It must not know where states are kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from vision_backends.errors import (
    AuthenticationError,
    BackendError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from vision_backends.health.policy import RULES, GateKey, GateReport, Transition, duration, gate_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.health.policy import GateKind, GateState, Rule, Scope

__all__ = [
    "MAX_LEASE_S",
    "SLACK_S",
    "STREAK_GAP_S",
    "AccountGates",
    "Failure",
    "FailureCount",
    "Gate",
    "block",
    "count",
    "refusal",
    "report",
]

VERSION = 2
"""Of the format in which the gates of an account are written down."""

WINDOW_S = 20.0
"""Length of the window in which failures are counted; it begins with one. Short, as calls are rare and slow."""

WINDOW_CALLS = 8
"""How many calls the window must have seen before the share of failures counts."""

WINDOW_SHARE = 0.5
"""Share of failures that is an outage, as in resilience4j."""

STREAK = 5
"""Failures in a row that are an outage in any case, as in Envoy's outlier detection."""

STREAK_GAP_S = 300.0
"""Failures further apart than this are not in a row."""

SHORTEST_S = 0.05
MIN_BLOCKED_S = 1.0
"""A server that says "retry after 0 s" is believed at first; if it does not mean it, its gate is blocked for twice as
long each time, up to the second of these, lest it be asked in a tight loop."""

MAX_LEASE_S = 600.0
"""No probe keeps its place for longer, whatever its timeout and wherever the clock is set meanwhile."""

SLACK_S = 1.0
"""Tolerance for rounding, and for clocks that are put back by a hair, where a time is checked against its maximum."""


S = TypeVar("S", "Gate", "FailureCount")

FORGOTTEN_S = 86_400.0
"""A gate that has been due for this long without a probe blocks an account or a model that is no longer used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate that is not passing.

    Attributes:
        backend: The backend whose call blocked it.
        reason: The provider's code, or the kind of the error.
        since: When the trouble began.
        blocked_at: When it was last blocked.
        until: When it is due; the next doubling starts from the time between the two.
        probe: Id of the call that probes, None when none does.
        probe_until: When the probe's lease ends.
    """

    backend: str
    reason: str
    since: float
    blocked_at: float
    until: float
    probe: str | None = None
    probe_until: float = 0.0

    def wait_s(self, now: float) -> float:
        """Return the seconds for which this gate refuses every call; 0 when it is due for a probe.

        A gate that was blocked in the future was blocked by a clock that has since been put back, and is due;
        likewise a lease that is longer than leases can be has ended. No clock can block a gate for longer than was
        intended.
        """
        if self.blocked_at - SLACK_S <= now < self.until:
            return self.until - now
        leased_s = self.probe_until - now if self.probe is not None else 0.0
        return leased_s if 0 < leased_s <= MAX_LEASE_S + SLACK_S else 0.0

    def probed(self, *, caller: str, lease_s: float, now: float) -> Gate:
        """Return this gate, which is due, with its one place for a probe taken."""
        return replace(self, probe=caller, probe_until=now + min(lease_s, MAX_LEASE_S))

    def is_forgotten(self, now: float) -> bool:
        """Return whether this gate is no longer worth keeping."""
        return now - max(self.until, self.probe_until) > FORGOTTEN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the gates need to know about a failed call.

    Attributes:
        kind: The gate that the failure concerns.
        backend: The backend that failed.
        reason: The provider's code, or the kind of the error.
        hint_s: Seconds after which the server says to come back.
        spread: A random number in [-1, 1] for the jitter.
        own: Whether an outage may be one for this backend only.
    """

    kind: GateKind
    backend: str
    reason: str
    hint_s: float | None = None
    spread: float
    own: bool = False


def block(gate: Gate | None, rule: Rule, failure: Failure, *, caller: str, now: float) -> Gate:
    """Return the gate after a call has failed.

    Args:
        gate: The gate so far, None when it was passing.
        rule: How gates of its kind behave.
        failure: What happened.
        caller: Id of the call that failed. Only a probe lengthens the time; a straggler, admitted before the gate
            was blocked, can at most put off its end if the server has told it a later one.
        now: The time.
    """
    hint_s = None if failure.hint_s is None else min(max(failure.hint_s, SHORTEST_S), rule.max_s)
    if gate is None or gate.probe == caller:
        length_s = rule.first_s if gate is None else min((gate.until - gate.blocked_at) * 2, rule.max_s)
        if hint_s is not None and gate is not None:
            hint_s = max(hint_s, min(length_s, MIN_BLOCKED_S))
        if hint_s is None:
            length_s = min(length_s * (1 + rule.jitter * failure.spread), rule.max_s)
        else:
            length_s = hint_s if rule.obeys_hint else max(hint_s, length_s)
        since = now if gate is None else gate.since
        return Gate(backend=failure.backend, reason=failure.reason, since=since, blocked_at=now, until=now + length_s)
    if hint_s is not None and gate.wait_s(now) < hint_s:
        return replace(gate, blocked_at=min(gate.blocked_at, now), until=now + hint_s)
    return gate


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """Outages that have not blocked the gate yet; kept only as long as one is remembered.

    Attributes:
        since: When the window began.
        calls: Calls that ended in the window.
        failures: How many of them failed.
        streak: Failures since the last success.
        failed_at: When the last failure was.
    """

    since: float
    calls: int
    failures: int
    streak: int
    failed_at: float

    @property
    def is_outage(self) -> bool:
        """Whether these failures are enough to block the gate."""
        share = self.failures / self.calls
        return self.streak >= STREAK or (self.calls >= WINDOW_CALLS and share >= WINDOW_SHARE)


def count(before: FailureCount | None, *, failed: bool, now: float) -> FailureCount | None:
    """Return the count after one more call; None when no failure needs to be remembered any more."""
    before = before or FailureCount(since=now, calls=0, failures=0, streak=0, failed_at=now)
    if not 0 <= now - before.since <= WINDOW_S:
        before = replace(before, since=now, calls=0, failures=0)
    if not 0 <= now - before.failed_at <= STREAK_GAP_S:
        before = replace(before, streak=0)
    calls = before.calls + 1
    if failed:
        return replace(before, calls=calls, failures=before.failures + 1, streak=before.streak + 1, failed_at=now)
    return replace(before, calls=calls, streak=0) if before.failures else None


@dataclass(slots=True)
class AccountGates:
    """The gates that are not passing, and the failures that may block more; lives within one update or one look."""

    gates: dict[GateKey, Gate] = field(default_factory=dict)
    failures: dict[GateKey, FailureCount] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read the gates; what cannot be read counts as healthy, since a probe costs less than a lockout."""
        if text is None:
            return cls()
        try:
            state = json.loads(text)
            if state["version"] == 1:
                state = _translated(state)
            if state["version"] != VERSION:
                return cls()
            return cls(
                gates={_key(key): _read(Gate, gate) for key, gate in state["gates"]},
                failures={_key(key): _read(FailureCount, failures) for key, failures in state["failures"]},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def dump(self, *, now: float) -> str | None:
        """Write the gates down without what is over; None when everything is healthy."""
        memory_s = max(WINDOW_S, STREAK_GAP_S)
        gates = [(key, asdict(gate)) for key, gate in self.gates.items() if not gate.is_forgotten(now)]
        failures = [(key, asdict(each)) for key, each in self.failures.items() if abs(now - each.failed_at) <= memory_s]
        if not (gates or failures):
            return None
        return json.dumps({"version": VERSION, "gates": gates, "failures": failures}, separators=(",", ":"))

    def concerning(self, scope: Scope) -> list[tuple[GateKey, Gate]]:
        """Return the gates that calls of a scope must pass and that are not passing."""
        if not self.gates:
            return []
        return [(key, self.gates[key]) for key in gate_keys(scope) if key in self.gates]

    def refusal(self, scope: Scope, *, now: float) -> BackendError | None:
        """Return the error of the gate that blocks a scope for the longest; None when it may pass or probe."""
        return longest_refusal(self.concerning(scope), now=now)

    def take_probe(self, scope: Scope, *, caller: str, lease_s: float, now: float) -> list[Transition]:
        """Let a call probe every gate that concerns a scope; all of them are due."""
        moved = []
        for key, gate in self.concerning(scope):
            probed = self.gates[key] = gate.probed(caller=caller, lease_s=lease_s, now=now)
            moved.append(_moved(key, gate, "blocked", "probing", by=scope.backend, at=now, until=probed.probe_until))
        return moved

    def succeed(self, scope: Scope, *, caller: str, now: float) -> list[Transition]:
        """Let the gates pass that the call has probed, and count the success where outages are being counted."""
        probed = [(key, gate) for key, gate in self.concerning(scope) if gate.probe == caller]
        for key, _ in probed:
            del self.gates[key]
        for outage in scope.outage_keys():
            counted = count(self.failures.pop(outage, None), failed=False, now=now)
            if counted is not None:
                self.failures[outage] = counted
        return [_moved(key, gate, "probing", "passing", by=scope.backend, at=now) for key, gate in probed]

    def fail(self, scope: Scope, failure: Failure, *, caller: str, now: float) -> list[Transition]:
        """Block the gate that the failure concerns, or count towards that; give up all other probes."""
        moved: list[Transition] = []
        for key in self._concerned(scope, failure, caller=caller):
            before = self.gates.get(key)
            if before is None and failure.kind == "outage":
                counted = count(self.failures.pop(key, None), failed=True, now=now)
                if counted is not None and not counted.is_outage:
                    self.failures[key] = counted
                    continue
            after = self.gates[key] = block(before, RULES[failure.kind], failure, caller=caller, now=now)
            if before is None or before.probe == caller:  # not a straggler, which is not an event
                state: GateState = "passing" if before is None else "probing"
                moved = [_moved(key, after, state, "blocked", by=scope.backend, at=now, until=after.until)]
            break  # one gate is enough
        self.give_up(scope, caller=caller)
        return moved

    def _concerned(self, scope: Scope, failure: Failure, *, caller: str) -> Sequence[GateKey]:
        """Return the gates that a failure may block, the widest first."""
        if failure.kind != "outage":
            return (scope.gate_key(failure.kind),)
        shared, own = scope.outage_keys()
        probed = self.gates.get(shared)
        is_probe = probed is not None and probed.probe == caller
        return (shared, own) if is_probe or not failure.own else (own,)

    def give_up(self, scope: Scope, *, caller: str) -> list[Transition]:
        """Let another call probe the gates that this one was probing; moves none of them."""
        for key, gate in self.concerning(scope):
            if gate.probe == caller:
                self.gates[key] = replace(gate, probe=None, probe_until=0.0)
        return []

    def reset(self, backend: str | None, *, now: float, pays: bool = False) -> list[Transition]:
        """Let the gates pass that calls of a backend have blocked, or all for None, and forget its failures.

        Args:
            backend: Its name.
            now: The time.
            pays: Whether this account pays for it: then what blocks other backends of the account as well passes,
                whoever blocked it.
        """
        gone = [
            (key, gate)
            for key, gate in self.gates.items()
            if backend in {None, gate.backend} or (pays and not key.backend)
        ]
        for key, _ in gone:
            del self.gates[key]
        met = {key[2:] for key in self.failures if backend in {None, key.backend}}  # models and tasks
        self.failures = {
            key: each
            for key, each in self.failures.items()
            if backend not in {None, key.backend} and (key.backend or not (pays or key[2:] in met))
        }
        return [_moved(key, gate, "blocked", "passing", by=gate.backend, at=now) for key, gate in gone]


def _translated(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 1, which wrote ``closed_at``, and the backend and the reason beside the gate."""
    gates = [
        (key, gate | {"blocked_at": gate.pop("closed_at"), "backend": backend, "reason": reason})
        for key, gate, backend, reason in state["gates"]
    ]
    return {"version": VERSION, "gates": gates, "failures": state["tallies"]}


def _key(values: list[Any]) -> GateKey:
    kind, *rest = values
    if kind not in RULES:
        raise ValueError(f"There is no gate {kind!r}.")
    key = GateKey(kind, *map(str, rest))
    is_shared = RULES[key.kind].shared and kind != "outage"  # earlier versions wrote the backend there
    return key._replace(backend="") if is_shared else key


def _read(kind: type[S], values: dict[str, Any]) -> S:
    """Return a record from its fields; apart from names they are finite numbers."""
    numbers = [value for name, value in values.items() if name not in {"probe", "backend", "reason"}]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{values} cannot be a {kind.__name__}.")
    return kind(**values)


def _moved(
    key: GateKey, gate: Gate, before: GateState, after: GateState, *, by: str, at: float, until: float | None = None
) -> Transition:
    return Transition(
        at=at,
        backend=by,
        model=key.model,
        task=key.task,
        gate=key.kind,
        before=before,
        after=after,
        reason=gate.reason,
        until=until,
    )


class _Words(NamedTuple):
    error: type[BackendError]
    trouble: str
    remedy: str | None = None


WORDS: dict[GateKind, _Words] = {
    "quota": _Words(QuotaExhaustedError, "No quota", "Top up the account, then run `vision reset {backend}`."),
    "authentication": _Words(
        AuthenticationError, "The key is not accepted", "Correct the key, or run `vision reset {backend}`."
    ),
    "model": _Words(
        ModelNotFoundError,
        "The model {model!r} was not found",
        "Configure a model that this account may use, or run `vision reset {backend}`.",
    ),
    "refusal": _Words(RefusedError, "It does not do this", "If it has learned to, run `vision reset {backend}`."),
    "rate": _Words(RateLimitedError, "Rate limited"),
    "overload": _Words(OverloadedError, "Overloaded"),
    "outage": _Words(UnavailableError, "Out of order", "`vision reset {backend}` asks it again immediately."),
}


def refusal(key: GateKey, gate: Gate, *, now: float) -> BackendError:
    """Return the error for a call that a gate blocks; its kind is that of the trouble.

    Args:
        key: Which gate.
        gate: How it stands.
        now: The time, in seconds since 1970 UTC.
    """
    words = WORDS[key.kind]
    wait_s = gate.wait_s(now)
    if wait_s <= 0:
        next_step = "the next call probes it"
    elif gate.until > now:
        next_step = f"the next probe is due in {duration(wait_s)}"
    else:
        next_step = "another call is probing it now"
    trouble, since = words.trouble.format(model=key.model), _time_of_day(gate.since, now=now)
    return words.error(
        f"{trouble} ({gate.reason}) since {since}; {next_step}.",
        remedy=words.remedy.format(backend=gate.backend) if words.remedy else None,
        backend=gate.backend,
        code=gate.reason,
        retry_after_s=wait_s,
    )


def longest_refusal(gates: Sequence[tuple[GateKey, Gate]], *, now: float) -> BackendError | None:
    """Return the error of that one of some gates which blocks for the longest; None where none does."""
    waiting = [(wait_s, key, gate) for key, gate in gates if (wait_s := gate.wait_s(now)) > 0]
    if not waiting:
        return None
    _, key, gate = max(waiting, key=itemgetter(0))
    return refusal(key, gate, now=now)


def report(key: GateKey, gate: Gate, *, now: float) -> GateReport:
    """Return a gate for a list of all of them; the arguments are those of `refusal`."""
    error = refusal(key, gate, now=now)
    return GateReport(
        backend=gate.backend,
        model=key.model,
        task=key.task,
        gate=key.kind,
        state="blocked" if gate.probe is None else "probing",
        since=gate.since,
        until=gate.until,
        message=error.message,
        remedy=error.remedy,
    )


def _time_of_day(at: float, *, now: float) -> str:
    """Return a time in UTC, with its date if that is not today's."""
    then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    return f"{then:%H:%M} UTC" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M} UTC"
