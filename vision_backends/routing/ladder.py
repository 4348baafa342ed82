"""The walk down the ladder: who is asked next, again, or as well.

This module decides the order of the rungs' turns, retries and hedges. It must not know what a gate, a cache or a
backend's answer is made of; `attempts` does.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.clock import pause
from vision_backends.errors import InvalidReplyError, OverloadedError, RateLimitedError, UnavailableError
from vision_backends.routing.call import Turn
from vision_backends.routing.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends.errors import BackendError
    from vision_backends.routing.attempts import Attempts
    from vision_backends.routing.call import Call, Item, Rung
    from vision_backends.routing.hedging import Hedges
    from vision_backends.routing.places import ListPlaces
    from vision_backends.routing.probing import Probing

__all__ = ["Ladder"]

MAX_PAUSE_S = 2.0
PAUSE_SHARE = 0.25
"""A server that asks for more patience than this, or than this part of the time left, is passed over instead."""

SHORTEST_PAUSE_S = 0.06
"""Gates are blocked for no less, whatever a server asks for."""

SHORT_PAUSE_S = 0.2
"""Before asking again after an outage."""

HICCUPS = frozenset({500, 502, 504, 520})
"""Statuses of a server that may be well again immediately, as after a connection that was reset."""


class Ladder:
    """Asks backends in order until every item has its answer.

    Args:
        attempts: Makes the single attempts.
        hedges: When the next rung is asked as well.
        probing: Finds out what a rung can do of which little is known.
    """

    def __init__(self, attempts: Attempts, *, hedges: Hedges, probing: Probing) -> None:
        self.attempts = attempts
        self.probing = probing
        self._hedges = hedges

    async def walk(
        self, rungs: Sequence[Rung], call: Call, items: Sequence[Item], *, only: Sequence[Rung] | None = None
    ) -> None:
        """Ask rung after rung until every item is settled or no rung is left.

        Args:
            rungs: How the backends stand, best first.
            call: What is asked.
            items: Opened inputs; their answers, errors and attempts are filled in.
            only: Those of the rungs that are asked; by default all.
        """
        for turn in self.turns(rungs, call):
            if only is not None and turn.rung not in only:
                continue
            pending = self.attempts.recall(turn, items)
            if not pending:
                return
            refusal = self.attempts.refusal(turn, pending)
            if refusal is not None:
                self.attempts.pass_by(pending, turn, refusal)
                continue
            model = turn.rung.model
            unknown = model is not None and model.probe_first
            if unknown and not await self.probing.lets_ask(turn, pending, self.attempts):
                continue
            if len(pending) == 1 and self._hedges.wanted and turn.spare is not None and only is None:
                if await self._hedge(turn, rungs[turn.place + 1 :], pending[0]):
                    return
            elif call.places is None:
                with self.attempts.cold_starts.loading(turn):
                    await self._ask(turn, pending)
            else:
                await self._ask_all(turn, pending, call.places)

    def turns(self, rungs: Sequence[Rung], call: Call) -> Iterator[Turn]:
        """Yield the turn of each rung, with what is kept back for the next that could be asked and for the last."""
        for place, rung in enumerate(rungs):
            below = [each for each in rungs[place + 1 :] if each.refusal is None]
            kept_s = sum([self.attempts.cold_starts.kept_s(each, call) for each in below[:1] + below[1:][-1:]])
            yield Turn(
                rung=rung,
                place=place,
                call=call,
                spare=below[0] if below else None,
                last=below[-1] if below else None,
                kept_s=kept_s,
            )

    async def _ask_all(self, turn: Turn, items: Sequence[Item], places: ListPlaces) -> None:
        """Ask for items of a list in batches of the backend's size, as many at the same time as there are places."""
        size = max(1, turn.rung.backend.batch_size(turn.call.request))
        if len(items) <= size:
            await self._ask_in_place(turn, items, places)
            return
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(items), size):
                group.create_task(self._ask_in_place(turn, items[start : start + size], places))

    async def _ask_in_place(self, turn: Turn, items: Sequence[Item], places: ListPlaces) -> None:
        """Ask once there is a place, and have the list learn from it how many there should be."""
        backend, request = turn.rung.backend, turn.call.request
        with await places.at(backend.name, partial(self._places, turn)).take() as place:
            with self.attempts.cold_starts.loading(turn):
                place.error = await self._ask(turn, items)
            last = items[0].attempts[-1] if items[0].attempts else None
            if last is not None and last.outcome == "answered":
                place.answered_after_s, place.limits = last.elapsed_s, backend.rate_limits(request)

    def _places(self, turn: Turn) -> Places:
        backend = turn.rung.backend
        ceiling = partial(self.attempts.most_running, turn.rung)
        return Places(backend.concurrency(turn.call.request), grows=not backend.local, ceiling=ceiling)

    async def _ask(self, turn: Turn, items: Sequence[Item]) -> BackendError | None:
        """Ask once, and a second time where that is worth its price; return what it has failed with at last."""
        was_well = self.attempts.cold_starts.was_well(turn.rung)
        error = await self.attempts.make(turn, items)
        if error is None or turn.rung.backend.local:
            return error
        pause_s = self._pause_s(error, turn, items, was_well=was_well)
        if pause_s is None:
            return error
        await pause(self.attempts.clock, pause_s)
        return await self.attempts.make(turn, items)

    def _pause_s(
        self, error: BackendError, turn: Turn, items: Sequence[Item], *, was_well: bool | None
    ) -> float | None:
        """Return the seconds to wait before the second and last attempt, or None to go on to the next rung.

        One hiccup of a server that was well is not worth a worse answer, but a second in a row is an outage.
        """
        remaining_s = turn.timeout_s(items)
        if isinstance(error, RateLimitedError | OverloadedError):
            pause_s = error.retry_after_s
            if pause_s is None or pause_s > min(MAX_PAUSE_S, remaining_s * PAUSE_SHARE):
                return None
            return max(pause_s, SHORTEST_PAUSE_S)
        if not isinstance(error, UnavailableError | InvalidReplyError) or remaining_s <= SHORT_PAUSE_S:
            return None
        if turn.spare is None or self.attempts.blocked(turn.spare, turn.call.gates) is not None:
            return None if was_well is False else SHORT_PAUSE_S
        is_hiccup = error.status in HICCUPS or error.code in {"connection_failed", "reply_cut"}
        return SHORT_PAUSE_S if was_well and is_hiccup else None

    async def _hedge(self, turn: Turn, below: Sequence[Rung], item: Item) -> bool:
        """Ask a rung and, while it still thinks after a while, those below as well; return whether they were."""
        call = replace(turn.call, on_settled=lambda _items: None)  # the item counts once, whichever rung settles it
        after_s = self._hedges.after_s(self.attempts.cold_starts.expected_s(turn.rung, call.request, percent=95))
        try:
            return await self._hedges.race(
                item,
                lambda twin: self._ask(replace(turn, call=call), [twin]),
                lambda twin: self.walk(below, call, [twin]),
                after_s=after_s,
                clock=self.attempts.clock,
            )
        finally:
            turn.call.on_settled([item] if item.settled else [])
