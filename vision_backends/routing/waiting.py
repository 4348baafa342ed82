"""Calls that would rather wait for a better rung than degrade: first come, first served.

This module decides how long such a call waits, and whose turn it is when a gate passes again. The waiting ends before
the walk down the ladder begins, so the last rung always has its turn. It must not know why a rung is blocked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vision_backends.clock import pause
from vision_backends.errors import BackendError, NotSupportedError
from vision_backends.health.budget_state import BudgetReservedError
from vision_backends.routing.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.routing.call import Call, Item, Rung
    from vision_backends.routing.ladder import Ladder

__all__ = ["Waiting"]

SHORT_PAUSE_S = 0.2
"""Before a rung is asked again that has failed without saying when to come back; doubled until it answers."""

MAX_PAUSE_S = 5.0
"""How long a call pauses before it looks at a gate again: the account may have been topped up, and the gate reset."""


class Waiting:
    """The lines of those who wait for a rung.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lines = Lines(clock=clock)

    async def for_better(
        self,
        ladder: Ladder,
        rungs: Sequence[Rung],
        make_call: Callable[[GateSnapshot], Call],
        items: Sequence[Item],
        *,
        patience_s: float,
    ) -> None:
        """Ask the rungs that are worth waiting for, again and again, until they have answered or patience ends.

        Args:
            ladder: Who asks.
            rungs: How the backends stand, best first.
            make_call: Returns what is asked, as the gates are, with a deadline that begins then.
            items: Opened inputs; what is left unsettled is for the walk down the whole ladder.
            patience_s: Seconds to wait.
        """
        better = [rung for rung in rungs if not rung.backend.local and rung.refusal is None]
        if not better:
            return
        ends = self._clock.monotonic() + patience_s
        pause_s = SHORT_PAUSE_S
        while pending := [item for item in items if not item.settled]:
            async with self._lines.in_line(better[0].scope, until=ends) as leave:
                if not await self._until_one_passes(ladder, better, ends):
                    return
                call = make_call(await ladder.attempts.look_again(rungs))
                await ladder.walk(rungs, replace(call, on_admitted=leave), pending, only=better)
            better = [rung for rung in better if _is_able(rung, call.request)]
            left = sum(not item.settled for item in pending)
            if left < len(pending):  # it answers, if not as much as was asked
                pause_s = SHORT_PAUSE_S
            if not left or not better or self._clock.monotonic() + pause_s > ends:
                return
            for item in pending:
                item.forget_skipped()
            await pause(self._clock, pause_s)
            pause_s *= 2

    async def _until_one_passes(self, ladder: Ladder, better: Sequence[Rung], ends: float) -> bool:
        """Return when one of the rungs may be asked, or False when patience would end before that."""
        while True:
            gates = await ladder.attempts.look_again(better)
            pause_s = MAX_PAUSE_S
            for rung in better:
                blocked = ladder.attempts.blocked(rung, gates)
                if blocked is None or isinstance(blocked, BudgetReservedError):  # its turn waits for that
                    return True
                pause_s = min(pause_s, blocked.retry_after_s or SHORT_PAUSE_S)
            if self._clock.monotonic() + pause_s > ends:
                return False
            await pause(self._clock, pause_s)


def _is_able(rung: Rung, request: Request) -> bool:
    """Return whether a rung can still do what is asked, by all that has been found out meanwhile."""
    try:
        rung.backend.check(request)
    except NotSupportedError:
        return False
    except BackendError:  # which passes
        return True
    return True
