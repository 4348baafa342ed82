"""The vocabulary of gates, and their rules: which gate an error blocks, for how long, and for which calls.

This module decides how widely trouble of each kind is shared: a rate limit of one model never keeps its siblings from
answering, while an empty account blocks everything that it pays for. `circuit_breaker` applies the rules. This module
must not know where gates are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from vision_backends.errors import BackendError, RefusedError
from vision_backends.serialization import VersionedRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.errors import VisionError
    from vision_backends.types import Task

__all__ = [
    "MAYBE_BILLED",
    "RULES",
    "SERVER_IS_DOWN",
    "GateKey",
    "GateKind",
    "GateReport",
    "GateState",
    "Rule",
    "Scope",
    "Transition",
    "duration",
    "gate_keys",
    "gate_kind",
]

GateKind = Literal["quota", "authentication", "model", "refusal", "rate", "overload", "outage"]
"""What a gate is blocked by."""

SERVER_IS_DOWN = frozenset({"unavailable"})
"""Errors that are an outage for every backend of an account."""

Span = Literal["account", "model", "task"]
"""Which calls a blocked gate refuses: those of an account, of one model of a backend, or of one task of that model."""

GateState = Literal["passing", "blocked", "probing"]
"""Whether a gate admits every call, none, or exactly one (a breaker's closed, open and half-open states)."""

GATE_KINDS: Mapping[str, GateKind] = {
    "quota_exhausted": "quota",
    "authentication": "authentication",
    "model_not_found": "model",
    "refused": "refusal",
    "rate_limited": "rate",
    "overloaded": "overload",
}
"""From `VisionError.kind`; every other failure of a backend is an outage."""

HARMLESS = frozenset({"not_supported", "not_ready"})
"""Errors that a backend raises before it tries; they say nothing about its health."""

MAYBE_BILLED = frozenset(
    {"timed_out", "invalid_reply", "unavailable", "stream_interrupted", "hedged", "cancelled", "backend_error"}
)
"""Errors after which a server may have charged an unknown amount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How gates of one kind behave.

    Attributes:
        span: Which calls they block.
        shared: Whether they block those of every backend of the account: its server counts or fails for all of them.
        first_s: Seconds for which a gate is blocked at first.
        max_s: Seconds for which it is blocked at most; each failed probe doubles the time.
        jitter: Share of the time by which it is lengthened or shortened at random, so that the clients of a server
            do not come back simultaneously.
        obeys_hint: Whether the server's own "retry after" is used instead, even if it is shorter.
    """

    span: Span
    shared: bool = False
    first_s: float
    max_s: float
    jitter: float = 0.0
    obeys_hint: bool = False


RULES: Mapping[GateKind, Rule] = {
    "quota": Rule(span="account", first_s=15 * 60, max_s=60 * 60),
    "authentication": Rule(span="account", first_s=5 * 60, max_s=5 * 60),
    "model": Rule(span="model", first_s=5 * 60, max_s=60 * 60),
    "refusal": Rule(span="task", first_s=15 * 60, max_s=24 * 60 * 60),
    "rate": Rule(span="task", shared=True, first_s=20, max_s=120, obeys_hint=True),
    "overload": Rule(span="model", shared=True, first_s=20, max_s=120, obeys_hint=True),
    "outage": Rule(span="task", shared=True, first_s=30, max_s=300, jitter=0.2),
}
"""The times of an outage follow Envoy's outlier detection (30 s, growing, at most 300 s). Of every other kind a single
error blocks the gate: one answer "insufficient_quota" leaves no doubt."""


def gate_kind(error: VisionError) -> GateKind | None:
    """Return which gate an error concerns; None if it says nothing about the backend's next calls."""
    if not isinstance(error, BackendError) or error.kind in HARMLESS:
        return None
    if isinstance(error, RefusedError) and (error.blind or not error.lasting):
        return None  # the backend remembers the first; of the second, the next request may be of another kind
    return GATE_KINDS.get(error.kind, "outage")


class GateKey(NamedTuple):
    """Identifies one gate of an account; a field is empty where the gate blocks all of its values."""

    kind: GateKind
    backend: str = ""
    model: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one call concerns, as far as gates go.

    Attributes:
        backend: Name of the backend.
        account: Identifier of the account that pays; the backend's name where there is none.
        model: Name of the model, empty where there is none.
        task: What is asked.
    """

    backend: str
    account: str
    model: str
    task: Task

    def gate_key(self, kind: GateKind, *, own: bool = False) -> GateKey:
        """Return the key of the gate of this kind that calls of this scope must pass; of the backend's own, if any."""
        rule = RULES[kind]
        if rule.span == "account":
            return GateKey(kind)
        backend = "" if rule.shared and not own else self.backend
        return GateKey(kind, backend, self.model, self.task if rule.span == "task" else "")

    def outage_keys(self) -> tuple[GateKey, GateKey]:
        """Return the keys of both gates of outages: the account's, and the backend's own.

        A server that is down is so for every backend that asks it; one that is too slow for the timeout of a backend,
        or answers it with what cannot be read, may be well for another.
        """
        return self.gate_key("outage"), self.gate_key("outage", own=True)


@lru_cache(maxsize=256)
def gate_keys(scope: Scope) -> tuple[GateKey, ...]:
    """Return the keys of all gates that calls of a scope must pass, the account's first."""
    return (*(scope.gate_key(kind) for kind in RULES), scope.gate_key("outage", own=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition(VersionedRecord):
    """A gate was blocked, admitted a probe, or passes again. Reported once, by the process in which it happened.

    Attributes:
        at: When it happened, in seconds since 1970 UTC.
        backend: The backend whose call moved the gate.
        model: The model that the gate blocks; empty for a whole account.
        task: The task that it blocks; empty for all tasks of a model.
        gate: What the gate is blocked by.
        before: The state before.
        after: The state after.
        reason: The provider's code or the kind of the error that blocked it.
        until: When it is due for a probe; None when it is passing.

    Examples:
        >>> from vision_backends import QuotaExhaustedError
        >>> from vision_backends.health.policy import Transition
        >>> from vision_backends.testing import FakeBackend
        >>> paid, moved = FakeBackend("paid"), []
        >>> paid.play(QuotaExhaustedError("The account has no quota left."))
        >>> with Router([paid, FakeBackend("free")]) as two:
        ...     _ = two.subscribe(lambda event: isinstance(event, Transition) and moved.append(event))
        ...     _ = two.describe("cat.jpg")
        >>> [(each.scope, each.gate, each.after) for each in moved]
        [('paid', 'quota', 'blocked')]
    """

    at: float
    backend: str
    model: str
    task: str
    gate: GateKind
    before: GateState
    after: GateState
    reason: str
    until: float | None = None

    @property
    def scope(self) -> str:
        """What the gate blocks, for people: ``openai``, ``openai/gpt-x`` or ``openai/gpt-x/describe``."""
        return "/".join(filter(None, (self.backend, self.model, self.task)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport(VersionedRecord):
    """A gate that is not passing, for ``vision status``.

    Attributes:
        backend: The backend whose call blocked it.
        model: The model that it blocks; empty for a whole account.
        task: The task that it blocks; empty for all tasks of a model.
        gate: What it is blocked by.
        state: ``"blocked"`` or ``"probing"``.
        since: When the trouble began, in seconds since 1970 UTC.
        until: When it is, or was, due for a probe.
        message: All of this in a sentence.
        remedy: What the reader can do about it.
    """

    backend: str
    model: str
    task: str
    gate: GateKind
    state: GateState
    since: float
    until: float
    message: str
    remedy: str | None


def duration(seconds: float) -> str:
    """Return a duration for people, rounded up: ``45 s``, ``12 min``, ``3 h``, ``12 d``."""
    for unit_s, unit, limit in ((1, "s", 120), (60, "min", 120), (3_600, "h", 72)):
        if seconds <= unit_s * limit:
            return f"{math.ceil(seconds / unit_s)} {unit}"
    return f"{math.ceil(seconds / 86_400)} d"
