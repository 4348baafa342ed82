"""Client-side throttling: what this process has in flight, and what the server's replies say about its limits.

This module decides when a call steps aside before the server has to say so: because the last reply left too little of
the current minute, or because as many calls are running as the server could handle when it was last overloaded. It must
not know gates or budgets, and shares nothing with other processes: the server's replies count their calls too.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vision_backends.engine.threads import after_fork_in_child
from vision_backends.errors import OverloadedError, RateLimitedError

if TYPE_CHECKING:
    from vision_backends.backends.requests import RateLimits
    from vision_backends.errors import BackendError
    from vision_backends.health.policy import Scope

__all__ = ["Throttling"]

REGROW_S = 10.0
"""Seconds after which one more concurrent call is admitted, after an overload has halved them."""

LEAST_RESET_S = 0.001
MAX_RESET_S = 3_600.0
"""Longest time until a reset that is believed: a server that names a later one may have meant milliseconds, or a
date."""


class Throttling:
    """Running calls and learned limits of each model. Safe for many threads; times are of a monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loads: defaultdict[tuple[str, str], _Load] = defaultdict(_Load)
        after_fork_in_child(self, Throttling._renew)

    def _renew(self) -> None:
        """Forget the parent's calls, which do not run here."""
        self._lock = threading.RLock()
        for load in self._loads.values():
            load.running = load.tokens = 0

    def enter(self, scope: Scope, *, tokens: int, now: float) -> None:
        """Let a call begin that is expected to take this many tokens.

        Raises:
            OverloadedError: As many calls are running as the server can handle.
            RateLimitedError: The server's last reply has left too little; says when there will be enough.
        """
        with self._lock:
            obstacle = self.obstacle(scope, tokens=tokens, now=now)
            if obstacle is not None:
                raise obstacle
            load = self._loads[scope.account, scope.model]
            load.backends.add(scope.backend)
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
            load = self._loads[scope.account, scope.model]
            load.running -= 1
            load.tokens -= tokens
            if limits is not None:
                load.learn(limits, now=now)
            elif asked and load.left is not None:
                load.left.requests.left -= 1
                load.left.tokens.left -= tokens

    def obstacle(self, scope: Scope, *, tokens: int = 1, now: float) -> BackendError | None:
        """Return why a call, by default a small one, may not begin now; None if it may. Changes nothing."""
        with self._lock:
            load = self._loads.get((scope.account, scope.model))
            if load is None:
                return None
            limit = load.limit(now=now)
            if limit is not None and load.running >= limit:
                return OverloadedError(
                    f"{scope.backend} is limited to {limit} concurrent calls since it reported overload.",
                    backend=scope.backend,
                    code="throttled",
                )
            if load.left is None:
                return None
            # Running calls are not yet in any reply, or only in the last: counting them in full errs on the safe side.
            requests_s = load.left.requests.wait_s(load.running + 1, now=now)
            tokens_s = load.left.tokens.wait_s(load.tokens + tokens, now=now)
        if not (requests_s or tokens_s):
            return None
        what = "requests" if requests_s >= tokens_s else "tokens"
        return RateLimitedError(
            f"The last reply of {scope.backend} left too few {what} for this minute.",
            backend=scope.backend,
            code="limit_near",
            retry_after_s=max(requests_s, tokens_s),
        )

    def most_running(self, scope: Scope, *, now: float) -> int | None:
        """Return how many calls of a model, each like those that run, may run concurrently; None for any number."""
        with self._lock:
            load = self._loads.get((scope.account, scope.model))
            if load is None:
                return None
            tokens = load.tokens / load.running if load.running else 0.0
            most = load.limit(now=now) or math.inf
            if load.left is not None:
                enough = load.left.tokens.available(now=now) / tokens if tokens else math.inf
                most = min(most, load.left.requests.available(now=now), enough)
        return None if math.isinf(most) else max(1, int(most))

    def halve(self, scope: Scope, *, now: float) -> None:
        """Halve the concurrency of a model, as a call that has just left has overloaded its server."""
        with self._lock:
            load = self._loads[scope.account, scope.model]
            running = load.running + 1
            load.peak = max(running, 0 if load.limit(now=now) is None else load.peak)
            load.room, load.halved_at = max(1, running // 2), now

    def forget(self, backend: str | None) -> None:
        """Forget what the servers of a backend, or of all for None, have said about their limits."""
        with self._lock:
            for load in self._loads.values():
                if backend is None or backend in load.backends:
                    load.left, load.peak = None, 0


@dataclass(slots=True)
class _Allowance:
    """What a server has left of its requests or tokens, as far as its replies say.

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
        if left is None or reset_s is None or reset_s < LEAST_RESET_S:  # which is as good as now
            self.left = math.inf
            return
        reset_s = min(reset_s, MAX_RESET_S)
        used = max(0, limit - left) if limit is not None else 0
        pace = used / reset_s
        self.pace = min(pace, self.pace) if now < self.full_at else pace
        self.left, self.limit, self.at, self.full_at = left, limit, now, now + reset_s

    def available(self, *, now: float) -> float:
        """Return how much is left now; any amount where that is not known."""
        if now >= self.full_at or math.isinf(self.left):
            return math.inf
        return self.left + self.pace * (now - self.at)

    def wait_s(self, amount: float, *, now: float) -> float:
        """Return the seconds until there is enough; an amount above the limit waits for the whole of it."""
        if self.limit is not None:
            amount = min(amount, self.limit)
        missing = amount - self.available(now=now)
        if missing <= 0:
            return 0.0
        until_full_s = self.full_at - now
        return min(missing / self.pace, until_full_s) if self.pace > 0 else until_full_s


@dataclass(slots=True)
class _Left:
    """What a server has left for one model."""

    requests: _Allowance = field(default_factory=_Allowance)
    tokens: _Allowance = field(default_factory=_Allowance)


@dataclass(slots=True)
class _Load:
    """One model of one account, whichever rungs ask it: its running calls, their tokens, and what is left for more.

    After an overload the concurrency is halved and grows back one by one, up to where the trouble began: additive
    increase, multiplicative decrease, as in TCP (RFC 5681).
    """

    running: int = 0
    tokens: int = 0
    room: int = 0
    peak: int = 0
    halved_at: float = 0.0
    backends: set[str] = field(default_factory=set)
    left: _Left | None = None  # until a reply says it

    def limit(self, *, now: float) -> int | None:
        """Return how many calls may run concurrently; None when nothing limits them."""
        limit = self.room + int((now - self.halved_at) / REGROW_S)
        return limit if limit < self.peak else None

    def learn(self, limits: RateLimits, *, now: float) -> None:
        """Take what a reply says is left."""
        left = self.left = self.left or _Left()
        left.requests.learn(limits.remaining_requests, limits.limit_requests, limits.reset_requests_s, now=now)
        left.tokens.learn(limits.remaining_tokens, limits.limit_tokens, limits.reset_tokens_s, now=now)
