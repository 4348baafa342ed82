"""The walk down the ladder: who is asked next, again, or as well.

This module decides the order of the rungs' turns, retries and hedges. It must not know what a gate, a cache or a
backend's answer is made of; `attempts` does.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.errors import HedgedError
from vision_backends.routing.call import Turn
from vision_backends.routing.concurrency import spread
from vision_backends.routing.hedging import Errand
from vision_backends.routing.retries import SHORT_PAUSE_S, Retries
from vision_backends.routing.single_flight import Flights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends.routing.attempts import Attempts
    from vision_backends.routing.call import Call, Item, Rung
    from vision_backends.routing.hedging import Hedges

__all__ = ["Ladder"]

MARGIN = 1.5
MARGIN_S = 0.05
"""What is kept back for the next rung beyond what it usually takes: for a slow moment, and for getting to it."""


class Ladder:
    """Asks backends in order until every item has its answer.

    Args:
        attempts: Makes the single attempts.
        hedges: When the next rung is asked as well.
    """

    def __init__(self, attempts: Attempts, *, hedges: Hedges) -> None:
        self.attempts = attempts
        self._hedges = hedges
        self._flights = Flights()
        self._retries = Retries()

    def walk(self, rungs: Sequence[Rung], call: Call, items: Sequence[Item]) -> None:
        """Ask rung after rung until every item is settled or nobody is left to ask.

        Args:
            rungs: How the backends stand, best first.
            call: What is asked.
            items: Opened inputs; their answers, errors and attempts are filled in.
        """
        for turn in self.turns(rungs, call):
            pending = self.attempts.recall(turn, items)
            if not pending:
                return
            if turn.rung.refusal is not None:
                self.attempts.pass_by(pending, turn, turn.rung.refusal)
                continue
            if len(pending) == 1 and self._hedges.wanted and turn.spare and call.patience_s is None:
                if self._race(turn, rungs[turn.place + 1 :], pending[0]):
                    return
                continue
            size = max(1, turn.rung.backend.batch_size(call.request))
            chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
            # The first goes alone: should the backend turn out to be dead, one request has found it out.
            self._ask_once(turn, chunks[0])
            spread(partial(self._ask_once, turn), chunks[1:], threads=turn.rung.backend.concurrency(call.request))

    def turns(self, rungs: Sequence[Rung], call: Call) -> Iterator[Turn]:
        """Yield the turn of each rung, with what is kept back for the next one that could be asked."""
        for place, rung in enumerate(rungs):
            spare = next((below for below in rungs[place + 1 :] if below.refusal is None), None)
            kept_s = 0.0 if spare is None else self.attempts.expected_s(spare, call.request) * MARGIN + MARGIN_S
            yield Turn(rung=rung, place=place, call=call, spare=spare, kept_s=kept_s)

    def _race(self, turn: Turn, below: Sequence[Rung], item: Item) -> bool:
        """Ask a rung and, while it still thinks after a while, those below as well; the first good answer counts.

        Returns:
            Whether those below were asked.
        """
        call = replace(turn.call, tick=lambda _count: None)  # the item is settled once, whoever settles it
        first, second = item.twin(), item.twin()
        after_s = self._hedges.after_s(self.attempts.expected_s(turn.rung, call.request, percent=95))
        ask = partial(self._ask_once, replace(turn, call=call), [first])
        errand = Errand(ask, on_left=lambda: self.attempts.book_late(turn, [first]))
        hedged = not errand.wait(after_s) and self._hedges.withdraw()
        if hedged:
            self.walk(below, call, [second])
        if hedged and second.answer is not None and errand.leave():
            slow = HedgedError(f"It had not answered after {after_s:.2g} s, so the next rung was asked as well.")
            self.attempts.note([item], turn, "failed", slow, elapsed_s=after_s)
            item.adopt(second)
        else:
            errand.wait()
            item.adopt(*((second, first) if first.settled else (first, second)))
        turn.call.tick(int(item.settled))
        return hedged

    def _ask_once(self, turn: Turn, items: Sequence[Item]) -> None:
        """Ask, unless somebody else is asking the same this very moment: then wait for their answer."""
        key = self.attempts.flight_key(turn, items)
        if key is None:
            self._ask(turn, items)
            return
        with self._flights.join(key, timeout_s=turn.timeout_s(items)) as first:
            if first or self.attempts.recall(turn, items):
                self._ask(turn, items)

    def _ask(self, turn: Turn, items: Sequence[Item]) -> None:
        """Ask once, and again where that is worth its price or the caller has the time."""
        self._retries.deposit()
        error = self.attempts.make(turn, items)
        if error is None or turn.rung.backend.local:
            return
        if turn.call.patience_s is not None:
            self._persist(turn, items)
            return
        spare = turn.spare is not None and self.attempts.blocked(turn.spare) is None
        pause_s = self._retries.pause_s(error, remaining_s=turn.timeout_s(items), spare=spare)
        if pause_s is not None:
            self.attempts.clock.sleep(pause_s)
            self.attempts.make(turn, items)

    def _persist(self, turn: Turn, items: Sequence[Item]) -> None:
        """Ask again and again, ever more rarely, as long as the caller's patience lasts."""
        ends = self.attempts.clock.monotonic() + (turn.call.patience_s or 0.0)
        pause_s = SHORT_PAUSE_S
        while self.attempts.clock.monotonic() + pause_s <= ends:
            self.attempts.clock.sleep(pause_s)
            if self.attempts.make(turn, items) is None:
                return
            pause_s *= 2
