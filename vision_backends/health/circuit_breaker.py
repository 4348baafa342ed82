"""The state machine of one gate: passing → blocked → probing → passing, or blocked again for longer.

These are the closed, open and half-open states of a circuit breaker, under names that say what happens to a call.
A gate that is passing has no state at all (None). A blocked gate refuses every call until its time; from then on it
is due, and one call may probe while all others are still refused. The probe's success makes the gate pass again, its
failure blocks it for twice as long. A probe that ends neither way, because its caller was cancelled or its process
died, gives up its place immediately or when its lease ends.

States are frozen and made of JSON's own types, times are seconds of a wall clock, since processes share them,
and every function here is pure: the state and the time in, the new state out. This module must not know where
states are kept, who asks, or what an error means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision_backends.health.policy import Policy, Rule

__all__ = [
    "MAX_LEASE_S",
    "FailureCount",
    "Gate",
    "Throttle",
    "block",
    "count",
    "give_up",
    "halve",
    "is_tripped",
    "probe",
    "room",
    "wait_s",
]

MIN_BLOCKED_S = 1.0
"""A server that says "retry after 0 s" and means it would otherwise be asked in a tight loop."""

MAX_LEASE_S = 600.0
"""No probe keeps its place for longer, whatever its timeout and however the clock is set meanwhile."""

SLACK_S = 1.0
"""Tolerance for rounding, and for clocks that are put back by a hair, where a time is checked against its maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate that is not passing.

    Attributes:
        since: When the trouble began.
        blocked_at: When it was last blocked.
        until: When it is due; the next doubling starts from the time between the two.
        probe: Id of the caller who probes, None when nobody does.
        probe_until: When the probe's lease ends.
    """

    since: float
    blocked_at: float
    until: float
    probe: str | None = None
    probe_until: float = 0.0


def wait_s(gate: Gate, *, now: float) -> float:
    """Return the seconds for which a gate refuses every call; 0 when it is due for a probe.

    A gate that was blocked in the future was blocked by a clock that has since been put back, and is due; likewise
    a lease that is longer than leases can be has ended. No clock can block a gate for longer than was intended.
    """
    if gate.blocked_at - SLACK_S <= now < gate.until:
        return gate.until - now
    leased_s = gate.probe_until - now if gate.probe is not None else 0.0
    return leased_s if 0 < leased_s <= MAX_LEASE_S + SLACK_S else 0.0


def probe(gate: Gate, *, caller: str, lease_s: float, now: float) -> Gate:
    """Return a due gate with its one place for a probe taken."""
    return replace(gate, probe=caller, probe_until=now + min(lease_s, MAX_LEASE_S))


def give_up(gate: Gate, *, caller: str) -> Gate:
    """Return the gate without this caller's probe, if it was the one who probed."""
    return replace(gate, probe=None, probe_until=0.0) if gate.probe == caller else gate


def block(
    gate: Gate | None, rule: Rule, *, now: float, caller: str, hint_s: float | None = None, spread: float = 0.0
) -> Gate:
    """Return the gate after a call has failed.

    Args:
        gate: The gate so far, None when it was passing.
        rule: How gates of its kind behave.
        now: The time.
        caller: Id of the call that failed. Only a probe lengthens the time; a straggler, admitted before the gate
            was blocked, can at most put off its end if the server has told it a later one.
        hint_s: Seconds after which the server says to come back.
        spread: A random number in [-1, 1] for the jitter.
    """
    hint_s = None if hint_s is None else min(max(hint_s, MIN_BLOCKED_S), rule.max_s)
    if gate is None:
        length_s = _length_s(rule.first_s, rule, hint_s, spread)
        return Gate(since=now, blocked_at=now, until=now + length_s)
    if gate.probe == caller:
        doubled_s = min((gate.until - gate.blocked_at) * 2, rule.max_s)
        return Gate(since=gate.since, blocked_at=now, until=now + _length_s(doubled_s, rule, hint_s, spread))
    if hint_s is not None and wait_s(gate, now=now) < hint_s:
        return replace(gate, blocked_at=min(gate.blocked_at, now), until=now + hint_s)
    return gate


def _length_s(length_s: float, rule: Rule, hint_s: float | None, spread: float) -> float:
    if hint_s is not None:
        return hint_s if rule.obeys_hint else max(hint_s, length_s)
    return min(length_s * (1 + rule.jitter * spread), rule.max_s)


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


def count(tally: FailureCount | None, policy: Policy, *, failed: bool, now: float) -> FailureCount | None:
    """Return the tally after one more call; None when no failure needs to be remembered any more."""
    fresh = FailureCount(since=now, calls=0, failures=0, streak=0, failed_at=now)
    before = tally or fresh
    if not 0 <= now - before.since <= policy.window_s:
        before = replace(before, since=now, calls=0, failures=0)
    if not 0 <= now - before.failed_at <= policy.streak_gap_s:
        before = replace(before, streak=0)
    if failed:
        calls, failures, streak = before.calls + 1, before.failures + 1, before.streak + 1
        return FailureCount(since=before.since, calls=calls, failures=failures, streak=streak, failed_at=now)
    return replace(before, calls=before.calls + 1, streak=0) if before.failures else None


def is_tripped(tally: FailureCount, policy: Policy) -> bool:
    """Return whether these failures are an outage."""
    share = tally.failures / tally.calls
    return tally.streak >= policy.streak or (tally.calls >= policy.window_calls and share >= policy.window_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """How many calls at once a server bears after it has complained: halved at once, grown back one by one.

    Additive increase, multiplicative decrease, as in TCP (RFC 5681); the increase goes by time, so that it
    needs no state to be written on the way.

    Attributes:
        limit: Calls that may run at once, at ``since``.
        peak: Calls that ran when it complained; grown back to this, the throttle is over.
        since: When it complained last.
    """

    limit: int
    peak: int
    since: float


def room(throttle: Throttle, policy: Policy, *, now: float) -> int | None:
    """Return how many calls may run at once now; None when the throttle is over."""
    elapsed_s = now - throttle.since
    limit = throttle.limit + int(elapsed_s / policy.regrow_s)
    return limit if elapsed_s >= 0 and limit < throttle.peak else None


def halve(throttle: Throttle | None, policy: Policy, *, running: int, now: float) -> Throttle | None:
    """Return the throttle after a server has complained while this many calls ran; None if there was but one."""
    limit = None if throttle is None else room(throttle, policy, now=now)
    peak = running if throttle is None or limit is None else max(throttle.peak, running)
    halved = max(1, (running if limit is None else min(limit, running)) // 2)
    return Throttle(limit=halved, peak=peak, since=now) if halved < peak else None
