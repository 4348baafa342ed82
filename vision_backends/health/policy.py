"""Which gate an error blocks, for how long, and for which calls.

This module decides the numbers; `circuit_breaker` applies them. It must not know where gates are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vision_backends.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.errors import VisionError

__all__ = ["MAYBE_BILLED", "RULES", "GateKind", "Rule", "Span", "gate_kind"]

GateKind = Literal["quota", "authentication", "model", "rate", "overload", "outage"]
"""What a gate is blocked by."""

Span = Literal["account", "model", "task"]
"""What a blocked gate blocks: all calls of an account, of one model of a backend, or of one task of that model."""

GATE_KINDS: Mapping[str, GateKind] = {
    "quota_exhausted": "quota",
    "authentication": "authentication",
    "model_not_found": "model",
    "rate_limited": "rate",
    "overloaded": "overload",
}
"""From `VisionError.kind`; every other failure of a backend is an outage."""

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
            server do not come back simultaneously.
        obeys_hint: Whether the server's own "retry after" is taken instead, even if it is shorter.
    """

    span: Span
    first_s: float
    max_s: float
    jitter: float = 0.0
    obeys_hint: bool = False


RULES: Mapping[GateKind, Rule] = {
    "quota": Rule(span="account", first_s=15 * 60, max_s=60 * 60),
    "authentication": Rule(span="account", first_s=5 * 60, max_s=5 * 60),
    "model": Rule(span="model", first_s=5 * 60, max_s=60 * 60),
    "rate": Rule(span="task", first_s=20, max_s=120, obeys_hint=True),
    "overload": Rule(span="model", first_s=20, max_s=120, obeys_hint=True),
    "outage": Rule(span="task", first_s=30, max_s=300, jitter=0.2),
}
"""The lengths of an outage follow Envoy's outlier detection (30 s, growing, at most 300 s). A single error that is not
an outage blocks its gate: one answer "insufficient_quota" leaves no doubt."""


def gate_kind(error: VisionError) -> GateKind | None:
    """Return which gate an error concerns; None if it says nothing about the backend's health."""
    if not isinstance(error, BackendError) or error.kind in HARMLESS:
        return None
    return GATE_KINDS.get(error.kind, "outage")
