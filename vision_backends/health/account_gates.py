"""All gates of one account together: which of them block a call, and what its outcome does to them.

They are read from the store, changed and written back within one atomic update, so that every event
happens exactly once among all threads and processes. This module decides which gates an outcome moves;
`circuit_breaker` decides how. It must not know where the state is kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vision_backends.health import circuit_breaker
from vision_backends.health.circuit_breaker import FailureCount, Gate, Throttle
from vision_backends.health.policy import GATE_KINDS
from vision_backends.health.scopes import GateKey, Transition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.health.policy import GateKind, Policy
    from vision_backends.health.scopes import GateState, Scope

__all__ = ["AccountGates", "Blocked", "Failure"]

S = TypeVar("S", Gate, FailureCount, Throttle)

VERSION = 2
"""Version 1 called the time at which a gate was blocked ``closed_at``."""

FORGOTTEN_S = 86_400.0

KINDS: tuple[GateKind, ...] = (*GATE_KINDS.values(), "outage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A gate that is not passing, and what is known about why.

    Attributes:
        gate: Its state.
        backend: The backend whose call blocked it.
        reason: The provider's code, or the kind of the error.
    """

    gate: Gate
    backend: str
    reason: str

    def is_forgotten(self, *, now: float) -> bool:
        """Return whether it has been due for a day without a probe: its account or model is not used any more."""
        return now - max(self.gate.until, self.gate.probe_until) > FORGOTTEN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the gates need to know about a failed call.

    Attributes:
        kind: The gate that it concerns.
        reason: The provider's code, or the kind of the error.
        hint_s: Seconds after which the server says to come back.
        running: Calls that were running at once when it failed.
        spread: A random number in [-1, 1].
    """

    kind: GateKind
    reason: str
    hint_s: float | None = None
    running: int = 1
    spread: float = 0.0


@dataclass(slots=True)
class AccountGates:
    """The gates of one account; lives within one update or one look."""

    gates: dict[GateKey, Blocked] = field(default_factory=dict)
    tallies: dict[GateKey, FailureCount] = field(default_factory=dict)
    throttles: dict[GateKey, Throttle] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read the gates; whatever cannot be read is taken for healthy, since a probe costs less than a lockout."""
        if text is None:
            return cls()
        try:
            state = json.loads(text)
            if state["version"] == 1:
                for _, gate, _, _ in state["gates"]:
                    gate["blocked_at"] = gate.pop("closed_at")
            elif state["version"] != VERSION:
                return cls()
            return cls(
                gates={
                    _gate_key(key): Blocked(gate=_read(Gate, gate), backend=str(backend), reason=str(reason))
                    for key, gate, backend, reason in state["gates"]
                },
                tallies={_gate_key(key): _read(FailureCount, tally) for key, tally in state["tallies"]},
                throttles={_gate_key(key): _read(Throttle, throttle) for key, throttle in state["throttles"]},
            )
        except (ValueError, TypeError, KeyError):
            return cls()

    def dump(self, policy: Policy, *, now: float) -> str | None:
        """Write the gates down without what is over; None when everything is healthy."""
        memory_s = max(policy.window_s, policy.streak_gap_s)
        tallies = [(key, tally) for key, tally in self.tallies.items() if abs(now - tally.failed_at) <= memory_s]
        throttles = [
            (key, throttle)
            for key, throttle in self.throttles.items()
            if circuit_breaker.room(throttle, policy, now=now) is not None
        ]
        gates = [(key, blocked) for key, blocked in self.gates.items() if not blocked.is_forgotten(now=now)]
        if not (gates or tallies or throttles):
            return None
        state = {
            "version": VERSION,
            "gates": [[key, asdict(blocked.gate), blocked.backend, blocked.reason] for key, blocked in gates],
            "tallies": [[key, asdict(tally)] for key, tally in tallies],
            "throttles": [[key, asdict(throttle)] for key, throttle in throttles],
        }
        return json.dumps(state, separators=(",", ":"))

    def concerning(self, scope: Scope, policy: Policy) -> Iterator[tuple[GateKey, Blocked]]:
        """Yield the gates that stand before a scope and are not passing."""
        if not self.gates:
            return
        for kind in KINDS:
            key = scope.gate_key(kind, policy.rule(kind).span)
            blocked = self.gates.get(key)
            if blocked is not None:
                yield key, blocked

    def obstacle(self, scope: Scope, policy: Policy, *, now: float) -> tuple[GateKey, Blocked, float] | None:
        """Return the gate that blocks a scope for the longest, and the seconds; None when it may pass or probe."""
        waits = [
            (key, blocked, circuit_breaker.wait_s(blocked.gate, now=now))
            for key, blocked in self.concerning(scope, policy)
        ]
        return max((each for each in waits if each[2] > 0), key=lambda each: each[2], default=None)

    def room(self, scope: Scope, policy: Policy, *, now: float) -> int | None:
        """Return how many calls of a scope may run at once; None when nothing limits them."""
        throttle = self.throttles.get(scope.gate_key("overload", policy.overload.span))
        return None if throttle is None else circuit_breaker.room(throttle, policy, now=now)

    def take_probe(self, scope: Scope, policy: Policy, *, caller: str, lease_s: float, now: float) -> list[Transition]:
        """Let a caller probe every gate before a scope; all of them are due."""
        moved = []
        for key, blocked in list(self.concerning(scope, policy)):
            gate = circuit_breaker.probe(blocked.gate, caller=caller, lease_s=lease_s, now=now)
            self.gates[key] = replace(blocked, gate=gate)
            moved.append(_moved(key, blocked, scope, "blocked", "probing", at=now, until=gate.probe_until))
        return moved

    def is_affected_by_success(self, scope: Scope, policy: Policy, *, caller: str) -> bool:
        """Return whether `succeed` would change anything."""
        counted = scope.gate_key("outage", policy.outage.span) in self.tallies
        return counted or self.is_probing(scope, policy, caller=caller)

    def is_probing(self, scope: Scope, policy: Policy, *, caller: str) -> bool:
        """Return whether a caller is the one who probes a gate before a scope."""
        return any(blocked.gate.probe == caller for _, blocked in self.concerning(scope, policy))

    def succeed(self, scope: Scope, policy: Policy, *, caller: str, now: float) -> list[Transition]:
        """Let the gates pass that the caller has probed, and count the success where outages are being counted."""
        moved = []
        for key, blocked in list(self.concerning(scope, policy)):
            if blocked.gate.probe == caller:
                del self.gates[key]
                moved.append(_moved(key, blocked, scope, "probing", "passing", at=now))
        self._count(scope.gate_key("outage", policy.outage.span), policy, failed=False, now=now)
        return moved

    def fail(self, scope: Scope, policy: Policy, failure: Failure, *, caller: str, now: float) -> list[Transition]:
        """Block the gate that the failure concerns, or count towards that; give up all other probes."""
        rule = policy.rule(failure.kind)
        key = scope.gate_key(failure.kind, rule.span)
        blocked = self.gates.get(key)
        moved = []
        if blocked is not None or failure.kind != "outage" or self._is_outage(key, policy, now=now):
            gate = circuit_breaker.block(
                blocked.gate if blocked else None,
                rule,
                now=now,
                caller=caller,
                hint_s=failure.hint_s,
                spread=failure.spread,
            )
            if blocked is not None and blocked.gate.probe != caller:
                self.gates[key] = replace(blocked, gate=gate)  # a straggler: admitted before, it is not an event
            else:
                before: GateState = "passing" if blocked is None else "probing"
                after = self.gates[key] = Blocked(gate=gate, backend=scope.backend, reason=failure.reason)
                moved = [_moved(key, after, scope, before, "blocked", at=now, until=gate.until)]
        if moved and failure.kind == "overload":
            self._throttle(scope, policy, running=failure.running, now=now)
        self.give_up(scope, policy, caller=caller)
        return moved

    def give_up(self, scope: Scope, policy: Policy, *, caller: str) -> list[Transition]:
        """Let somebody else probe the gates that this caller was probing; moves none of them."""
        for key, blocked in list(self.concerning(scope, policy)):
            self.gates[key] = replace(blocked, gate=circuit_breaker.give_up(blocked.gate, caller=caller))
        return []

    def reset(self, backend: str | None, *, at: float) -> list[Transition]:
        """Let the gates pass that calls of a backend have blocked, or all for None, and forget its failures."""
        moved = []
        for key, blocked in list(self.gates.items()):
            if backend in {None, blocked.backend}:
                del self.gates[key]
                moved.append(_moved(key, blocked, None, "blocked", "passing", at=at))
        for counts in (self.tallies, self.throttles):
            for key in [key for key in counts if backend in {None, key.backend}]:
                del counts[key]
        return moved

    def _is_outage(self, key: GateKey, policy: Policy, *, now: float) -> bool:
        """Count a failure; return whether it is one too many, and then forget the others."""
        tally = self._count(key, policy, failed=True, now=now)
        tripped = tally is not None and circuit_breaker.is_tripped(tally, policy)
        if tripped:
            del self.tallies[key]
        return tripped

    def _count(self, key: GateKey, policy: Policy, *, failed: bool, now: float) -> FailureCount | None:
        tally = circuit_breaker.count(self.tallies.pop(key, None), policy, failed=failed, now=now)
        if tally is not None:
            self.tallies[key] = tally
        return tally

    def _throttle(self, scope: Scope, policy: Policy, *, running: int, now: float) -> None:
        key = scope.gate_key("overload", policy.overload.span)
        throttle = circuit_breaker.halve(self.throttles.pop(key, None), policy, running=running, now=now)
        if throttle is not None:
            self.throttles[key] = throttle


def _gate_key(values: list[Any]) -> GateKey:
    kind, *rest = values
    if kind not in KINDS:
        raise ValueError(f"There is no gate {kind!r}.")
    return GateKey(kind, *map(str, rest))


def _read(kind: type[S], values: dict[str, Any]) -> S:
    """Return a state from its fields; apart from the id of a probe they are finite numbers."""
    numbers = [value for name, value in values.items() if name != "probe"]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{values} cannot be a {kind.__name__}.")
    return kind(**values)


def _moved(
    key: GateKey,
    blocked: Blocked,
    scope: Scope | None,
    before: GateState,
    after: GateState,
    *,
    at: float,
    until: float | None = None,
) -> Transition:
    return Transition(
        at=at,
        backend=scope.backend if scope else blocked.backend,
        model=key.model,
        task=key.task,
        gate=key.kind,
        before=before,
        after=after,
        reason=blocked.reason,
        until=until,
    )
