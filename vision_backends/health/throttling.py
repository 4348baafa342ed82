"""Client-side throttling: what this process has in flight, and what the replies have taught it.

This module decides when a call steps aside before the server has to say so: because as many are running as the
server bears, or because its last reply left too little of the current minute. It must not know gates or
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

MAX_RESET_S = 3_600.0
"""A server that says that its limit comes back later than this is asked again all the same; it may have meant
milliseconds, or a date."""


class Throttling:
    """Running calls, learned limits and durations. Safe for many threads; times are of a monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: defaultdict[tuple[str, str, str], _Lane] = defaultdict(_Lane)
        self._durations: defaultdict[Scope, deque[float]] = defaultdict(lambda: deque(maxlen=SAMPLES))

    def enter(self, scope: Scope, *, tokens: int, room: int | None, now: float) -> None:
        """Let a call begin.

        Args:
            scope: What it is about.
            tokens: How many it is expected to take.
            room: How many calls of the model may run at once; None when nothing limits them.
            now: The time.

        Raises:
            OverloadedError: So many are running.
            RateLimitedError: The server's last reply has left too little; says when there will be enough.
        """
        with self._lock:
            lane = self._lanes[_key(scope)]
            obstacle = lane.obstacle(scope, tokens=tokens, room=room, now=now)
            if obstacle is not None:
                raise obstacle
            lane.running += 1
            lane.tokens += tokens

    def leave(
        self, scope: Scope, *, tokens: int, asked: bool = True, limits: RateLimits | None = None, now: float = 0.0
    ) -> None:
        """Note that a call has ended.

        Args:
            scope: As it entered.
            tokens: As it entered.
            asked: Whether the server has heard of it.
            limits: What its reply said about the server's limits.
            now: The time of the reply.
        """
        with self._lock:
            lane = self._lanes[_key(scope)]
            lane.running -= 1
            lane.tokens -= tokens
            if limits is None:
                lane.requests_left.spend(int(asked))
                lane.tokens_left.spend(tokens * asked)
                return
            lane.requests_left.learn(limits.remaining_requests, limits.limit_requests, limits.reset_requests_s, now=now)
            lane.tokens_left.learn(limits.remaining_tokens, limits.limit_tokens, limits.reset_tokens_s, now=now)

    def obstacle(self, scope: Scope, *, room: int | None, now: float) -> BackendError | None:
        """Return what would keep out a small call, or None; changes nothing."""
        with self._lock:
            lane = self._lanes.get(_key(scope))
            return None if lane is None else lane.obstacle(scope, tokens=1, room=room, now=now)

    def running(self, scope: Scope) -> int:
        """Return how many calls of the scope's model are running."""
        with self._lock:
            lane = self._lanes.get(_key(scope))
            return 0 if lane is None else lane.running

    def forget(self, backend: str | None) -> None:
        """Forget what the servers of a backend, or all of them for None, have said about their limits."""
        with self._lock:
            for (_, name, _), lane in self._lanes.items():
                if backend in {None, name}:
                    lane.requests_left, lane.tokens_left = _Allowance(), _Allowance()

    def note_duration(self, scope: Scope, elapsed_s: float) -> None:
        """Remember how long a successful call took."""
        with self._lock:
            self._durations[scope].append(elapsed_s)

    def percentile_s(self, scope: Scope, percent: float) -> float | None:
        """Return what so many percent of the last successful calls did not exceed, in seconds; None without any."""
        with self._lock:
            durations = sorted(self._durations.get(scope, ()))
        if not durations:
            return None
        return durations[max(0, math.ceil(len(durations) * percent / 100) - 1)]


@dataclass(slots=True)
class _Allowance:
    """What a server has left of its requests or tokens, as far as its replies tell.

    Servers count in one of two ways, and their headers do not say in which: some give back a little all the
    time, some give back all at once when a window ends. Both name the time until everything is back, so what is
    used divided by that time is how fast it comes back; a window betrays itself by an early reply with little
    used and a long time. Hence the slowest pace that was seen since all was back last is the one to trust.
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
class _Lane:
    """One model of one account: its running calls, the tokens they may take, and what is left for more."""

    running: int = 0
    tokens: int = 0
    requests_left: _Allowance = field(default_factory=_Allowance)
    tokens_left: _Allowance = field(default_factory=_Allowance)

    def obstacle(self, scope: Scope, *, tokens: int, room: int | None, now: float) -> BackendError | None:
        if room is not None and self.running >= room:
            return OverloadedError(
                f"{self.running} calls are running, as many as {scope.backend} bears after it was overloaded.",
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
            f"The last reply has left too few {what} for this minute.",
            backend=scope.backend,
            code="limit_near",
            retry_after_s=waits[what],
        )


def _key(scope: Scope) -> tuple[str, str, str]:
    return scope.account, scope.backend, scope.model
