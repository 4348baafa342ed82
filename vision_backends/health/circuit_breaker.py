"""The state machine of one gate: passing → blocked → probing → passing, or blocked again for longer.

These are the closed, open and half-open states of a circuit breaker, under names that say what happens to a call.
A gate that is passing has no state at all (None). A blocked gate refuses every call until its time; from then on it
is due, and one call may probe while all others are still refused. The probe's success makes the gate pass again, its
failure blocks it for twice as long. A probe that ends neither way, because its caller was cancelled or its process
died, gives up its place immediately or when its lease ends.

States are frozen and made of JSON's own types, times are seconds of a wall clock, since processes share them,
and every function here is pure: the state and the time in, the new state out. This module must not know where
states are kept, what a gate stands before, or which error means what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision_backends.health.policy import GateKind, Rule

__all__ = ["MAX_LEASE_S", "SLACK_S", "STREAK_GAP_S", "WINDOW_S", "Failure", "FailureCount", "Gate", "block", "count"]

WINDOW_S = 20.0
"""Length of the window in which outages are counted; it begins with a failure. Short, as calls are rare and slow."""

WINDOW_CALLS = 8
"""How many calls the window must have seen before the share of failures counts."""

WINDOW_SHARE = 0.5
"""Share of failures that is an outage, as in resilience4j."""

STREAK = 5
"""Failures in a row that are an outage in any case, as in Envoy's outlier detection."""

STREAK_GAP_S = 300.0
"""Failures further apart than this are not in a row."""

MIN_BLOCKED_S = 1.0
"""A server that says "retry after 0 s" and means it would otherwise be asked in a tight loop."""

MAX_LEASE_S = 600.0
"""No probe keeps its place for longer, whatever its timeout and however the clock is set meanwhile."""

SLACK_S = 1.0
"""Tolerance for rounding, and for clocks that are put back by a hair, where a time is checked against its maximum."""


FORGOTTEN_S = 86_400.0
"""A gate that has been due for so long without a probe stands before an account or model that is not used any more."""


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
        """Return the seconds for which it refuses every call; 0 when it is due for a probe.

        A gate that was blocked in the future was blocked by a clock that has since been put back, and is due;
        likewise a lease that is longer than leases can be has ended. No clock can block a gate for longer than was
        intended.
        """
        if self.blocked_at - SLACK_S <= now < self.until:
            return self.until - now
        leased_s = self.probe_until - now if self.probe is not None else 0.0
        return leased_s if 0 < leased_s <= MAX_LEASE_S + SLACK_S else 0.0

    def probed(self, *, caller: str, lease_s: float, now: float) -> Gate:
        """Return it, being due, with its one place for a probe taken."""
        return replace(self, probe=caller, probe_until=now + min(lease_s, MAX_LEASE_S))

    def given_up(self, *, caller: str) -> Gate:
        """Return it without the probe of this call, if it had one."""
        return replace(self, probe=None, probe_until=0.0) if self.probe == caller else self

    def is_forgotten(self, now: float) -> bool:
        """Return whether it is not worth keeping."""
        return now - max(self.until, self.probe_until) > FORGOTTEN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the gates need to know about a failed call.

    Attributes:
        kind: The gate that it concerns.
        backend: The backend that failed.
        reason: The provider's code, or the kind of the error.
        hint_s: Seconds after which the server says to come back.
        spread: A random number in [-1, 1] for the jitter.
    """

    kind: GateKind
    backend: str
    reason: str
    hint_s: float | None = None
    spread: float = 0.0


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
    hint_s = None if failure.hint_s is None else min(max(failure.hint_s, MIN_BLOCKED_S), rule.max_s)
    if gate is None or gate.probe == caller:
        length_s = rule.first_s if gate is None else min((gate.until - gate.blocked_at) * 2, rule.max_s)
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
