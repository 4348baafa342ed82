"""Rate limits and quotas that are really enforced: one-minute windows per model, a budget for the account.

This module decides whether a request is admitted, and what the rate-limit headers say. It must not know what is
answered or how.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.fault_table import FAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.clock import Clock
    from vision_backends.testing.sandbox.faults import Fault

__all__ = ["Admission", "Limiter", "Limits", "format_duration"]

_WINDOW_S = 60.0
_GENEROUS = {"requests": 30_000, "tokens": 150_000_000}
"""What the headers claim where nothing is limited: the real API sends them with every reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the sandbox admits; None means no limit.

    Attributes:
        rpm: Requests in any 60 s, for each model.
        tpm: Tokens in any 60 s, for each model.
        quota_requests: Requests after which the quota is exhausted, for good.
        quota_tokens: Tokens after which the quota is exhausted: the request that crosses the limit is the last.

    Raises:
        ValueError: A limit is negative or not a whole number.
    """

    rpm: int | None = None
    tpm: int | None = None
    quota_requests: int | None = None
    quota_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and (type(value) is not int or value < 0):
                raise ValueError(f"The limit {name} must be a whole number of 0 or more, not {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether a request is admitted.

    Attributes:
        headers: The rate-limit headers, for the reply in either case.
        refusal: The error to answer with; None if the request is admitted.
    """

    headers: Mapping[str, str]
    refusal: Fault | None = None


class Limiter:
    """Counts what was admitted and refuses what is too much; safe to use from many threads."""

    def __init__(self, limits: Limits, *, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._spent_requests = 0
        self._spent_tokens = 0
        self._windows: dict[tuple[str, str], _Window] = {}

    def admit(self, model: str, *, tokens: int) -> Admission:
        """Return the verdict on one request; a refused one counts for nothing."""
        limits = self._limits
        asked = {"requests": (limits.rpm, 1), "tokens": (limits.tpm, tokens)}
        with self._lock:
            now = self._clock.monotonic()
            windows = {kind: self._window(model, kind) for kind, (limit, _) in asked.items() if limit is not None}
            waits = {kind: window.wait_s(asked[kind][1], now=now) for kind, window in windows.items()}
            refusal = FAULTS["quota_gone"] if self._quota_gone() else None
            if refusal is None and any(waits.values()):
                worst = max(waits, key=lambda kind: waits[kind])
                refusal = _rate_limited(worst, waits[worst], limit=windows[worst].limit, model=model)
            if refusal is None:
                self._spent_requests += 1
                self._spent_tokens += tokens
                for kind, window in windows.items():
                    window.book(asked[kind][1], now=now)
            headers = _generous_headers()
            for kind, window in windows.items():
                headers |= window.headers(kind, now=now)
        return Admission(headers=headers, refusal=refusal)

    def _quota_gone(self) -> bool:
        limits = self._limits
        return (limits.quota_requests is not None and self._spent_requests >= limits.quota_requests) or (
            limits.quota_tokens is not None and self._spent_tokens >= limits.quota_tokens
        )

    def _window(self, model: str, kind: str) -> _Window:
        limit = (self._limits.rpm if kind == "requests" else self._limits.tpm) or 0
        return self._windows.setdefault((model, kind), _Window(limit))


class _Window:
    """What was admitted in the last 60 s, exactly."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def wait_s(self, amount: int, *, now: float) -> float:
        """Return the seconds until an amount fits in, 0 for now; one that never fits has to wait a window."""
        while self._entries and self._entries[0][0] <= now - _WINDOW_S:
            self._total -= self._entries.popleft()[1]
        excess = self._total + amount - self.limit
        if excess <= 0:
            return 0.0
        for at, booked in self._entries:
            excess -= booked
            if excess <= 0:
                return at + _WINDOW_S - now
        return _WINDOW_S

    def book(self, amount: int, *, now: float) -> None:
        """Count an admitted amount."""
        self._entries.append((now, amount))
        self._total += amount

    def headers(self, kind: str, *, now: float) -> dict[str, str]:
        """Return the limit, what remains of it, and the time until all of it is back."""
        reset_s = self._entries[-1][0] + _WINDOW_S - now if self._entries else 0.0
        return _headers(kind, self.limit, self.limit - self._total, reset_s)


def format_duration(seconds: float) -> str:
    """Return a duration as the API writes it: ``120ms``, ``1.5s``, ``6m0s``, ``1h2m3s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole, part = divmod(round(seconds, 3), 1)
    minutes, rest = divmod(int(whole), 60)
    hours, minutes = divmod(minutes, 60)
    last = f"{rest + part:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{last}"
    return f"{minutes}m{last}" if minutes else last


def _rate_limited(kind: str, wait_s: float, *, limit: int, model: str) -> Fault:
    row = FAULTS["rate_limited" if kind == "requests" else "rate_limited_tokens"]
    unit = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[kind]
    message = (
        f"Rate limit reached for {model} in organization org-sandbox on {unit}: Limit {limit}. "
        f"Please try again in {format_duration(wait_s)}."
    )
    body: dict[str, Any] = {"error": {**row.body["error"], "message": message}}
    retry = {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
    return replace(row, body=body, headers=retry)


def _generous_headers() -> dict[str, str]:
    headers: dict[str, str] = {}
    for kind, limit in _GENEROUS.items():
        headers |= _headers(kind, limit, limit - 1, 0.002)
    return headers


def _headers(kind: str, limit: int, remaining: int, reset_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(remaining),
        f"x-ratelimit-reset-{kind}": format_duration(reset_s),
    }
