"""How many calls of one list are under way at a rung: few at first, more while it stays as fast, half on trouble.

This module decides the number. It must not know what is asked, nor who answers instead. Additive increase and
multiplicative decrease are those of TCP (RFC 5681), in answers instead of acknowledgements.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Self

from vision_backends.errors import OverloadedError, RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.backends.requests import RateLimits
    from vision_backends.errors import BackendError

__all__ = ["FIRST_PLACES", "ListPlaces", "Place", "Places"]

FIRST_PLACES = 8
"""Calls that are under way once the first has ended, if there may be so many."""

AS_FAST = 1.5
TOO_SLOW = 3.0
"""Times as long as with few calls: up to the first, one more is sent for every answer; from the second, one fewer."""

SMOOTHING = 1 / 8
"""Weight of the latest duration in the mean."""


class Places:
    """The places of one list at one rung. For one event loop.

    The first call goes alone: should the backend be dead, one request has found that out.

    Args:
        most: How many there are at most.
        grows: Whether there are few at first, as for a server that others use as well.
        ceiling: Returns a smaller limit that holds now, or None.
    """

    def __init__(self, most: int, *, grows: bool, ceiling: Callable[[], int | None] = lambda: None) -> None:
        self._most = max(1, most)
        self._first = min(FIRST_PLACES, self._most) if grows else self._most
        self._grows = grows
        self._ceiling = ceiling
        self._limit = 1
        self._has_begun = False
        self._running = 0
        self._usual_s = self._mean_s = math.nan
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many calls may be under way now."""
        ceiling = self._ceiling()
        return self._limit if ceiling is None else max(1, min(self._limit, ceiling))

    async def take(self) -> Place:
        """Return a place once one is free, first come, first served."""
        if self._waiting or self._running >= self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._running -= 1  # it was given a place in this very moment
                    self._let_in()
                raise
        else:
            self._running += 1
        return Place(self)

    def leave(self, place: Place) -> None:
        """Give a place back, and draw conclusions from how its call has ended."""
        if not self._has_begun:
            self._has_begun, self._limit = True, self._first
        elif self._grows and isinstance(place.error, RateLimitedError | OverloadedError):
            self._limit = max(1, self._running // 2)
        elif self._grows and place.answered_after_s is not None:
            self._learn(place.answered_after_s, place.limits)
        self._running -= 1
        self._let_in()

    def _learn(self, seconds: float, limits: RateLimits | None) -> None:
        if math.isnan(self._usual_s):
            self._usual_s = self._mean_s = seconds
        self._mean_s += SMOOTHING * (seconds - self._mean_s)
        if self._limit <= self._first:
            self._usual_s = min(self._usual_s, self._mean_s)
        left = None if limits is None else limits.remaining_requests
        is_used = self._running >= self._limit
        if self._mean_s > TOO_SLOW * self._usual_s:
            self._limit = max(self._first, self._limit - 1)
        elif is_used and self._mean_s <= AS_FAST * self._usual_s and (left is None or left > self._running):
            self._limit = min(self._most, self._limit + 1)

    def _let_in(self) -> None:
        while self._waiting and self._running < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)


class Place:
    """Leave to make one call, and how it has ended.

    Attributes:
        answered_after_s: How long the answer took; None where there was none.
        error: What the call has failed with.
        limits: What the reply said about the server's limits.
    """

    __slots__ = ("_places", "answered_after_s", "error", "limits")

    def __init__(self, places: Places) -> None:
        self._places = places
        self.answered_after_s: float | None = None
        self.error: BackendError | None = None
        self.limits: RateLimits | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._places.leave(self)


class ListPlaces:
    """The places of one list at all rungs."""

    def __init__(self) -> None:
        self._of: dict[str, Places] = {}

    def at(self, rung: str, make: Callable[[], Places]) -> Places:
        """Return the places at a rung, made when it is first asked for."""
        places = self._of.get(rung)
        if places is None:
            places = self._of[rung] = make()
        return places
