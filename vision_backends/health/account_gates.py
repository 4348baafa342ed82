"""All gates of one account together: which of them block a call, and what its outcome does to them.

They are read from the store, changed and written back within one atomic update, so that every event happens exactly
once among all threads and processes. This module decides which gates an outcome moves; `circuit_breaker` decides how.
It must not know where the state is kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vision_backends.health.circuit_breaker import STREAK_GAP_S, WINDOW_S, FailureCount, Gate, block, count
from vision_backends.health.messages import refusal
from vision_backends.health.policy import RULES
from vision_backends.health.scopes import GateKey, Transition

if TYPE_CHECKING:
    from vision_backends.errors import BackendError
    from vision_backends.health.circuit_breaker import Failure
    from vision_backends.health.scopes import GateState, Scope

__all__ = ["AccountGates"]

S = TypeVar("S", Gate, FailureCount)

VERSION = 2


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
        """Return the gates that stand before a scope and are not passing."""
        if not self.gates:
            return []
        keys = [scope.gate_key(kind) for kind in RULES]
        return [(key, self.gates[key]) for key in keys if key in self.gates]

    def counts(self, scope: Scope) -> bool:
        """Return whether failures of a scope are being counted, so that its successes count as well."""
        return scope.gate_key("outage") in self.failures

    def refusal(self, scope: Scope, *, now: float) -> BackendError | None:
        """Return the error of the gate that blocks a scope for the longest; None when it may pass or probe."""
        waiting = [(key, gate) for key, gate in self.concerning(scope) if gate.wait_s(now) > 0]
        if not waiting:
            return None
        key, gate = max(waiting, key=lambda each: each[1].wait_s(now))
        return refusal(key, gate, now=now)

    def take_probe(self, scope: Scope, *, caller: str, lease_s: float, now: float) -> list[Transition]:
        """Let a call probe every gate before a scope; all of them are due."""
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
        self._count(scope.gate_key("outage"), failed=False, now=now)
        return [_moved(key, gate, "probing", "passing", by=scope.backend, at=now) for key, gate in probed]

    def fail(self, scope: Scope, failure: Failure, *, caller: str, now: float) -> list[Transition]:
        """Block the gate that the failure concerns, or count towards that; give up all other probes."""
        key = scope.gate_key(failure.kind)
        before = self.gates.get(key)
        moved = []
        if before is not None or failure.kind != "outage" or self._is_outage(key, now=now):
            after = self.gates[key] = block(before, RULES[failure.kind], failure, caller=caller, now=now)
            if before is None or before.probe == caller:  # not a straggler, which is not an event
                state: GateState = "passing" if before is None else "probing"
                moved = [_moved(key, after, state, "blocked", by=scope.backend, at=now, until=after.until)]
        self.give_up(scope, caller=caller)
        return moved

    def give_up(self, scope: Scope, *, caller: str) -> list[Transition]:
        """Let another call probe the gates that this one was probing; moves none of them."""
        for key, gate in self.concerning(scope):
            self.gates[key] = gate.given_up(caller=caller)
        return []

    def reset(self, backend: str | None, *, now: float) -> list[Transition]:
        """Let the gates pass that calls of a backend have blocked, or all for None, and forget its failures."""
        gone = [(key, gate) for key, gate in self.gates.items() if backend in {None, gate.backend}]
        for key, _ in gone:
            del self.gates[key]
        self.failures = {key: each for key, each in self.failures.items() if backend not in {None, key.backend}}
        return [_moved(key, gate, "blocked", "passing", by=gate.backend, at=now) for key, gate in gone]

    def _is_outage(self, key: GateKey, *, now: float) -> bool:
        """Count a failure; return whether it is one too many, and then forget the others."""
        self._count(key, failed=True, now=now)
        if not self.failures[key].is_outage:
            return False
        del self.failures[key]
        return True

    def _count(self, key: GateKey, *, failed: bool, now: float) -> None:
        counted = count(self.failures.pop(key, None), failed=failed, now=now)
        if counted is not None:
            self.failures[key] = counted


def _translated(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 1: it wrote ``closed_at``, and whose gate it is beside the gate."""
    gates = [
        (key, gate | {"blocked_at": gate.pop("closed_at"), "backend": backend, "reason": reason})
        for key, gate, backend, reason in state["gates"]
    ]
    return {"version": VERSION, "gates": gates, "failures": state["tallies"]}


def _key(values: list[Any]) -> GateKey:
    kind, *rest = values
    if kind not in RULES:
        raise ValueError(f"There is no gate {kind!r}.")
    return GateKey(kind, *map(str, rest))


def _read(kind: type[S], values: dict[str, Any]) -> S:
    """Return a state from its fields; apart from names they are finite numbers."""
    numbers = [value for name, value in values.items() if name not in {"probe", "backend", "reason"}]
    if not all(math.isfinite(number) for number in numbers):
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
