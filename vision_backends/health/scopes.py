"""Gate scopes (account, model, task), and the records of gates and of their transitions.

This module decides how widely trouble of each kind is shared: a rate limit of one model never keeps its
siblings from answering, while an empty account keeps out whatever it pays for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from vision_backends.health.policy import RULES

if TYPE_CHECKING:
    from vision_backends.health.policy import GateKind
    from vision_backends.types import Task

__all__ = ["GateKey", "GateReport", "GateState", "Scope", "Transition"]

GateState = Literal["passing", "blocked", "probing"]
"""Whether a gate admits every call, none, or exactly one (a breaker's closed, open and half-open states)."""


class GateKey(NamedTuple):
    """Which gate of an account; fields are empty where the gate stands before all their values."""

    kind: GateKind
    backend: str = ""
    model: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one call is about, as far as gates go.

    Attributes:
        backend: Name of the backend.
        credential: Identifier of the account that pays; None for a backend without one.
        model: Name of the model, empty where there is none.
        task: What is asked.
    """

    backend: str
    credential: str | None
    model: str
    task: Task

    @property
    def account(self) -> str:
        """The account that gates for quota and authentication stand before; the backend's name where there is none."""
        return self.credential or self.backend

    def gate_key(self, kind: GateKind) -> GateKey:
        """Return where the gate of a kind stands that concerns this scope."""
        span = RULES[kind].span
        if span == "account":
            return GateKey(kind)
        return GateKey(kind, self.backend, self.model, self.task if span == "task" else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A gate was blocked, admitted a probe, or passes again. Reported once, by the process in which it happened.

    Attributes:
        at: When, in seconds since 1970 UTC.
        backend: The backend whose call moved the gate.
        model: The model that the gate stands before; empty for a whole account.
        task: The task that it stands before; empty for all tasks of a model.
        gate: What the gate is blocked by.
        before: How it stood.
        after: How it stands.
        reason: The provider's code or the kind of the error that blocked it.
        until: When it is due for a probe; None when it is passing.
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
        """What the gate stands before, for people: ``openai``, ``openai/gpt-x`` or ``openai/gpt-x/describe``."""
        return "/".join(part for part in (self.backend, self.model, self.task) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """A gate that is not passing, for ``vision status``.

    Attributes:
        backend: The backend whose call blocked it.
        model: The model that it stands before; empty for a whole account.
        task: The task that it stands before; empty for all tasks of a model.
        gate: What it is blocked by.
        state: ``"blocked"`` or ``"probing"``.
        since: When the trouble began, in seconds since 1970 UTC.
        until: When it is, or was, due for a probe.
        message: All this in a sentence.
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
