"""Client-side throttling: what this process has in flight, and what the replies have taught it.

This module decides when a call steps aside before the server has to say so: because the last reply left too little
of the current minute, or because as many calls are running as the server bore
after it was last overloaded. It must not know gates or
budgets, and shares nothing with other processes: the server's replies count their calls too.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vision_backends.errors import OverloadedError, RateLimitedError

if TYPE_CHECKING:
    from vision_backends.backends.requests import RateLimits
    from vision_backends.errors import BackendError
    from vision_backends.health.scopes import Scope

__all__ = ["Throttling"]

SAMPLES = 32
"""How many durations are remembered for each task of each model."""

REGROW_S = 10.0
"""Seconds after which one more concurrent call is admitted, after an overload has halved them."""

MAX_RESET_S = 3_600.0
"""A server that says that its limit comes back later than this is asked again all the same; it may have meant
milliseconds, or a date."""


class Throttling:
    """Running calls, learned limits and durations. Safe for many threads; times are of a monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: defaultdict[tuple[str, str, str], _Load] = defaultdict(_Load)
        self._durations: defaultdict[Scope, deque[float]] = defaultdict(lambda: deque(maxlen=SAMPLES))

    def enter(self, scope: Scope, *, tokens: int, now: float) -> None:
        """Let a call begin that is expected to take this many tokens.

        Raises:
            OverloadedError: As many are running as the server bears.
            RateLimitedError: The server's last reply has left too little; says when there will be enough.
        """
        with self._lock:
            load = self._loads[_key(scope)]
            obstacle = load.obstacle(scope, tokens=tokens, now=now)
            if obstacle is not None:
                raise obstacle
            load.running += 1
            load.tokens += tokens

    def leave(
        self, scope: Scope, *, tokens: int, asked: bool = True, limits: RateLimits | None = None, now: float = 0.0
    ) -> None:
        """Note that a call has ended.

        Args:
            scope: As it entered.
            tokens: As it entered.
            asked: Whether the request was sent.
            limits: What its reply said about the server's limits.
            now: The time of the reply.
        """
        with self._lock:
            load = self._loads[_key(scope)]
            load.running -= 1
            load.tokens -= tokens
            if limits is None:
                load.requests_left.spend(int(asked))
                load.tokens_left.spend(tokens * asked)
                return
            load.requests_left.learn(limits.remaining_requests, limits.limit_requests, limits.reset_requests_s, now=now)
            load.tokens_left.learn(limits.remaining_tokens, limits.limit_tokens, limits.reset_tokens_s, now=now)

    def obstacle(self, scope: Scope, *, now: float) -> BackendError | None:
        """Return what would keep out a small call, or None; changes nothing."""
        with self._lock:
            load = self._loads.get(_key(scope))
            return None if load is None else load.obstacle(scope, tokens=1, now=now)

    def halve(self, scope: Scope, *, now: float) -> None:
        """Halve the concurrency of a model, as a call that has just left has overloaded its server."""
        with self._lock:
            self._loads[_key(scope)].halve(now=now)

    def forget(self, backend: str | None) -> None:
        """Forget what the servers of a backend, or of all for None, have said about their limits."""
        with self._lock:
            for (_, name, _), load in self._loads.items():
                if backend in {None, name}:
                    load.requests_left, load.tokens_left, load.peak = _Allowance(), _Allowance(), 0

    def note_duration(self, scope: Scope, elapsed_s: float) -> None:
        """Remember how long a successful call took."""
        with self._lock:
            self._durations[scope].append(elapsed_s)

    def percentile_s(self, scope: Scope, percent: float) -> float | None:
        """Return the seconds that this percentage of the last successful calls did not exceed; None without any."""
        with self._lock:
            durations = sorted(self._durations.get(scope, ()))
        if not durations:
            return None
        return durations[max(0, math.ceil(len(durations) * percent / 100) - 1)]


@dataclass(slots=True)
class _Allowance:
    """What a server has left of its requests or tokens, as far as its replies tell.

    Servers count in one of two ways, and their headers do not say in which: some give back a little all the
    time, some give back everything when a window ends. Both name the time until everything is back, so what is
    used divided by that time is how fast it comes back; a window betrays itself by an early reply with little
    used and a long time. Hence the slowest pace seen since everything was last back is the one to trust.
    """

    left: float = math.inf
    pace: float = math.inf
    full_at: float = -math.inf
    at: float = 0.0
    limit: int | None = None

    def learn(self, left: int | None, limit: int | None, reset_s: float | None, *, now: float) -> None:
        if left is None or reset_s is None:
            self.left = math.inf
            return
        reset_s = min(reset_s, MAX_RESET_S)
        used = max(0, limit - left) if limit is not None else 0
        pace = used / reset_s if reset_s > 0 else math.inf
        self.pace = min(pace, self.pace) if now < self.full_at else pace
        self.left, self.limit, self.at, self.full_at = left, limit, now, now + reset_s

    def spend(self, amount: int) -> None:
        self.left -= amount

    def wait_s(self, amount: float, *, now: float) -> float:
        """Return the seconds until there is enough; an amount that is more than all waits for all."""
        if self.limit is not None:
            amount = min(amount, self.limit)
        if now >= self.full_at or math.isinf(self.left):
            return 0.0
        missing = amount - (self.left + self.pace * (now - self.at))
        if missing <= 0:
            return 0.0
        until_full_s = self.full_at - now
        return min(missing / self.pace, until_full_s) if self.pace > 0 else until_full_s


@dataclass(slots=True)
class _Load:
    """One model of one account: its running calls, the tokens they may take, and what is left for more.

    After an overload the concurrency is halved and grows back one by one, up to where the trouble began: additive
    increase, multiplicative decrease, as in TCP (RFC 5681).
    """

    running: int = 0
    tokens: int = 0
    room: int = 0
    peak: int = 0
    halved_at: float = 0.0
    requests_left: _Allowance = field(default_factory=_Allowance)
    tokens_left: _Allowance = field(default_factory=_Allowance)

    def limit(self, *, now: float) -> int | None:
        """Return how many calls may run concurrently; None when nothing limits them."""
        limit = self.room + int((now - self.halved_at) / REGROW_S)
        return limit if limit < self.peak else None

    def halve(self, *, now: float) -> None:
        running, limit = self.running + 1, self.limit(now=now)
        self.peak = max(running, 0 if limit is None else self.peak)
        self.room = max(1, running // 2)
        self.halved_at = now

    def obstacle(self, scope: Scope, *, tokens: int, now: float) -> BackendError | None:
        limit = self.limit(now=now)
        if limit is not None and self.running >= limit:
            return OverloadedError(
                f"{scope.backend} is limited to {limit} concurrent calls since it reported overload.",
                backend=scope.backend,
                code="throttled",
            )
        # What runs already is not yet in any reply, or only in the last: counting it in full errs on the safe side.
        waits = {
            "requests": self.requests_left.wait_s(self.running + 1, now=now),
            "tokens": self.tokens_left.wait_s(self.tokens + tokens, now=now),
        }
        what = max(waits, key=lambda each: waits[each])
        if waits[what] == 0:
            return None
        return RateLimitedError(
            f"The last reply of {scope.backend} has left too few {what} for this minute.",
            backend=scope.backend,
            code="limit_near",
            retry_after_s=waits[what],
        )


def _key(scope: Scope) -> tuple[str, str, str]:
    return scope.account, scope.backend, scope.model
