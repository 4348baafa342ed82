"""Which gate an error blocks, for how long, and for which calls.

This module decides the numbers; `circuit_breaker` applies them. It must not know where gates are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vision_backends.errors import BackendError

if TYPE_CHECKING:
    from vision_backends.errors import VisionError

__all__ = ["DEFAULT_POLICY", "GATE_KINDS", "MAYBE_BILLED", "GateKind", "Policy", "Rule", "Span", "gate_kind"]

GateKind = Literal["quota", "authentication", "model", "rate", "overload", "outage"]
"""What a gate is blocked by."""

Span = Literal["account", "model", "task"]
"""What a blocked gate blocks: all calls of an account, of one model of a backend, or of one task of that model."""

GATE_KINDS: dict[str, GateKind] = {
    "quota_exhausted": "quota",
    "authentication": "authentication",
    "model_not_found": "model",
    "rate_limited": "rate",
    "overloaded": "overload",
}
"""From `VisionError.kind`; whatever else a backend fails with is an outage."""

HARMLESS = frozenset({"not_supported", "not_ready"})
"""What a backend says before it has tried; it says nothing about the backend's health."""

MAYBE_BILLED = frozenset(
    {"timed_out", "invalid_reply", "unavailable", "stream_interrupted", "hedged", "cancelled", "backend_error"}
)
"""After these a server may have charged, and nobody has said how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How gates of one kind behave.

    Attributes:
        span: Which calls they block.
        first_s: Seconds for which one is blocked at first.
        max_s: Seconds for which one is blocked at most; each failed probe doubles the time.
        jitter: Part of the time by which it is made longer or shorter at random, so that the clients of a
            server do not come back all at once.
        obeys_hint: Whether the server's own "retry after" is taken instead, even if it is shorter.
    """

    span: Span
    first_s: float
    max_s: float
    jitter: float = 0.0
    obeys_hint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers of all gates.

    The outage gate follows Envoy's outlier detection (5 consecutive failures; 30 s, growing, at most 300 s) and
    resilience4j's sliding window (50 % of the calls); the window is short because calls are rare and slow. What
    is not an outage blocks at the first error: one answer "insufficient_quota" leaves no doubt.

    Attributes:
        quota: The account has no money; waiting for it is a matter of people.
        authentication: The key is not accepted; likewise.
        model: The model does not exist for this account.
        rate: Too many requests; the server says when to come back.
        overload: The server is busy with a model, whatever it is asked for; besides, fewer calls of it are let
            through at once for a while.
        outage: It does not answer, or not with anything that makes sense.
        window_s: Length of the window in which outages are counted; it begins with a failure.
        window_calls: How many calls the window must have seen before their share counts.
        window_share: Share of failures that blocks the gate.
        streak: Failures in a row that block it in any case, if none is further from the next than
            ``streak_gap_s`` seconds.
        streak_gap_s: See ``streak``.
        regrow_s: Seconds after which one more call is let through at once, after an overload has halved them.
    """

    quota: Rule = Rule(span="account", first_s=15 * 60, max_s=60 * 60)
    authentication: Rule = Rule(span="account", first_s=5 * 60, max_s=5 * 60)
    model: Rule = Rule(span="model", first_s=5 * 60, max_s=60 * 60)
    rate: Rule = Rule(span="task", first_s=20, max_s=120, obeys_hint=True)
    overload: Rule = Rule(span="model", first_s=20, max_s=120, obeys_hint=True)
    outage: Rule = Rule(span="task", first_s=30, max_s=300, jitter=0.2)
    window_s: float = 20.0
    window_calls: int = 8
    window_share: float = 0.5
    streak: int = 5
    streak_gap_s: float = 300.0
    regrow_s: float = 10.0

    def rule(self, kind: GateKind) -> Rule:
        """Return the rule for one kind of gate."""
        rule: Rule = getattr(self, kind)
        return rule


DEFAULT_POLICY = Policy()


def gate_kind(error: VisionError) -> GateKind | None:
    """Return which gate an error concerns; None if it says nothing about the backend's health."""
    if not isinstance(error, BackendError) or error.kind in HARMLESS:
        return None
    return GATE_KINDS.get(error.kind, "outage")
