"""Asking the next rung as well when one thinks for too long: when, how often, and whose answer counts.

This module decides what a hedge may cost and how its race ends. It must not know who is asked. Its source is Dean and
Barroso, "The Tail at Scale" (2013): a second request after the 95th percentile cuts the tail for about 5 % more load.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from vision_backends.arguments import check_number
from vision_backends.engine.cancellation import reason_of, wait_for_end
from vision_backends.errors import HedgedError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError
    from vision_backends.routing.call import Item

    Leg = Callable[[Item], Coroutine[Any, Any, object]]

__all__ = ["HedgeAfter", "Hedges"]

HedgeAfter = float | Literal["p95"] | None
"""Seconds after which the next rung is asked too; ``"p95"`` is what 95 % of the answers so far did not need."""

SHARE = 0.05
MOST_SAVED = 5.0
"""At most one call in twenty is hedged; what was not needed can be saved up for a bad minute."""


class Hedges:
    """The allowance of second questions, and the race of two.

    Args:
        after: When to ask the next rung as well; None never does.

    Raises:
        InvalidRequestError: The time is not positive.
    """

    def __init__(self, after: HedgeAfter) -> None:
        if isinstance(after, str):
            if after != "p95":
                raise InvalidRequestError(
                    f"hedge_after_s={after!r} is neither a number nor 'p95'.", remedy="Pass seconds or 'p95'."
                )
        else:
            check_number("hedge_after_s", after, example=2)
        if after is not None and not isinstance(after, str) and not after > 0:
            raise InvalidRequestError(f"hedge_after_s={after} leaves the better rung no time.")
        self._after = after
        self._saved = 0.0

    @property
    def wanted(self) -> bool:
        """Whether there are hedges at all."""
        return self._after is not None

    def after_s(self, p95_s: float) -> float:
        """Return the seconds to wait for the better rung alone, and count the call.

        Args:
            p95_s: What 95 % of its answers do not need.
        """
        self._saved = min(MOST_SAVED, self._saved + SHARE)
        return p95_s if isinstance(self._after, str) or self._after is None else self._after

    def withdraw(self) -> bool:
        """Return whether one more call may be hedged, and count it."""
        if self._saved < 1.0 - 1e-9:  # twenty times 0.05 is not quite 1
            return False
        self._saved -= 1.0
        return True

    async def race(self, item: Item, first: Leg, second: Leg, *, after_s: float, clock: Clock) -> bool:
        """Start the first leg and, if it has not ended after a while, the second; the first good answer counts.

        Args:
            item: Gets the answer, and the account of both legs.
            first: Asks the better rung about a twin of the item.
            second: Asks the rungs below.
            after_s: Seconds that the first leg has alone.
            clock: Where time comes from.

        Returns:
            Whether the second leg was started.
        """
        loop = asyncio.get_running_loop()
        better, worse = item.twin(), item.twin()
        because: BackendError = HedgedError(
            f"It had not answered after {after_s:.2g} s, so the next rung was asked as well."
        )
        legs = {loop.create_task(first(better)): better}
        try:
            (leading,) = legs
            is_hedged = not await _ends_within(leading, after_s, clock) and self.withdraw()
            if is_hedged:
                legs[loop.create_task(second(worse))] = worse
            running = set(legs)
            while running and not any(twin.settled for leg, twin in legs.items() if leg.done()):
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for leg in [leg for leg in legs if leg.done() and not leg.cancelled()]:
                leg.result()  # a bug is raised here
        except asyncio.CancelledError as cancelled:
            because = reason_of(cancelled)
            raise
        finally:
            if left := [leg for leg in legs if not leg.done()]:
                for leg in left:
                    leg.cancel(msg=because)
                await asyncio.wait(left)
            # Whoever has the answer comes last, the better rung where both have one.
            item.adopt(*sorted(legs.values(), key=lambda twin: (twin.settled, twin is better)))
        return is_hedged


async def _ends_within(task: asyncio.Task[object], seconds: float, clock: Clock) -> bool:
    try:
        async with clock.timeout_at(clock.monotonic() + seconds):
            await wait_for_end(task)
    except TimeoutError:
        return task.done()
    return True
