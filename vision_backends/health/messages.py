"""The messages about a blocked gate: which one, since when, why, and what to do about it.

This module decides the words; that a gate is blocked has been decided before.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from vision_backends.errors import (
    AuthenticationError,
    BackendError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    UnavailableError,
)
from vision_backends.health.scopes import GateReport

if TYPE_CHECKING:
    from vision_backends.health.circuit_breaker import Gate
    from vision_backends.health.policy import GateKind
    from vision_backends.health.scopes import GateKey

__all__ = ["duration", "refusal", "report"]


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


def report(key: GateKey, gate: Gate, *, now: float) -> GateReport:
    """Return a gate for people who look at all of them; arguments as for `refusal`."""
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


def duration(seconds: float) -> str:
    """Return a duration for people, rounded up: ``45 s``, ``12 min``, ``3 h``, ``12 d``."""
    for unit_s, unit, limit in ((1, "s", 120), (60, "min", 120), (3_600, "h", 72)):
        if seconds <= unit_s * limit:
            return f"{math.ceil(seconds / unit_s)} {unit}"
    return f"{math.ceil(seconds / 86_400)} d"


def _time_of_day(at: float, *, now: float) -> str:
    """Return a time in UTC, with its date if that is not today's."""
    then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    return f"{then:%H:%M} UTC" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M} UTC"
