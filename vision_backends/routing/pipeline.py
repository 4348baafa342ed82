"""From a list of inputs to a list of answers or errors, in order.

This module decides that a list is opened and asked about window by window, that one list of embeddings lives in one
space, and how much of the time each part of a list has. It must not know what callers' options are called, how an input
is opened, nor how a rung is asked.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.backends.requests import EmbedTextRequest, is_embedding
from vision_backends.clock import Deadline
from vision_backends.errors import (
    TEXT_TOO_LONG,
    UNREADABLE_INPUT,
    AllBackendsFailedError,
    InvalidRequestError,
    NotSupportedError,
    SpaceUnavailableError,
    VisionError,
)
from vision_backends.routing.call import Call
from vision_backends.routing.places import FIRST_PLACES, ListPlaces
from vision_backends.routing.trace import complete, note
from vision_backends.routing.windows import MOST_OPEN, WINDOW, Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.routing.call import Answer, Item, Rung
    from vision_backends.routing.inputs import Inputs, Opened
    from vision_backends.routing.ladder import Ladder
    from vision_backends.routing.recorder import CallRecorder
    from vision_backends.routing.waiting import Waiting

__all__ = ["Pipeline", "failure"]


class Pipeline:
    """Runs calls of any length.

    Args:
        ladder: Who answers.
        inputs: Opens what is asked about.
        waiting: Where calls wait that would rather not degrade.
        recorder: Where calls are written down.
        clock: Where time comes from.
        deadline_s: Seconds that each input may take where the call sets no deadline of its own.
    """

    def __init__(
        self,
        ladder: Ladder,
        *,
        inputs: Inputs,
        waiting: Waiting,
        recorder: CallRecorder,
        clock: Clock,
        deadline_s: float,
    ) -> None:
        self._ladder = ladder
        self._inputs = inputs
        self._waiting = waiting
        self._recorder = recorder
        self._clock = clock
        self._deadline_s = deadline_s

    async def run(
        self,
        items: Sequence[Item],
        request: Request,
        backends: Sequence[Backend],
        *,
        opened: Opened | None = None,
        deadline_s: float | None,
        patience_s: float | None,
        progress: Callable[[int, int], None] | None,
        places: ListPlaces | None = None,
    ) -> list[Answer | VisionError]:
        """Return an answer or an error for each item, in order.

        Args:
            items: The inputs, not yet opened.
            request: What is asked of each.
            backends: Who may be asked, best first.
            opened: What `Inputs.open_here` has returned for the only input, where that was called before.
            deadline_s: Seconds for all of them together; None gives each the configured time.
            patience_s: Seconds to wait for a better rung to recover; None takes the next one immediately.
            progress: Told about every settled input.
            places: Those of the list that these inputs are a part of; by default they are all of it.
        """
        budget = _TimeBudget(clock=self._clock, each_s=self._deadline_s, whole_s=deadline_s, patience_s=patience_s)
        with self._recorder.call(request, items) as write, _closing(items):
            done = _Done(len(items), write=write, progress=progress)
            if len(items) == 1:
                run = _Run(request=request, budget=budget, done=done, places=places)
                await self._run_one(items[0], run, backends, opened)
            else:
                run = _Run(request=request, budget=budget, done=done, places=places or ListPlaces())
                await self._run_list(items, run, backends)
        return [_outcome(item, request) for item in items]

    async def _run_one(self, item: Item, run: _Run, backends: Sequence[Backend], opened: Opened | None) -> None:
        if opened is None:
            opened = await self._inputs.open(item, run.request, backends, deadline_s=run.budget.given_s)
        rungs, gates = opened
        if item.settled:
            run.done([item])
        else:
            await self._walk([item], run, rungs, gates, spent_s=item.opening_s)

    async def _run_list(self, items: Sequence[Item], run: _Run, backends: Sequence[Backend]) -> None:
        """Take all items down the rungs of one space after the other, until one can answer all of them."""
        rungs, gates = await self._inputs.survey(run.request, backends)
        blocked = self._ladder.attempts.blocked
        spaces = _by_space(rungs) if is_embedding(run.request) else [rungs]
        for place, group in enumerate(spaces):
            below = [rung for later in spaces[place + 1 :] for rung in later]
            if place:
                gates = await self._ladder.attempts.look_again(rungs)
            retreat = any(blocked(rung, gates) is None for rung in below)
            if await self._pass(items, run, group, gates, retreat=retreat):
                return
            if not retreat:
                self._give_up(items, below, gates)
                return
            for item in items:
                item.discard("It could not answer the whole list, and one list is one vector space.")
            run.done.start_over(items)

    async def _pass(
        self, items: Sequence[Item], run: _Run, rungs: Sequence[Rung], gates: GateSnapshot, *, retreat: bool
    ) -> bool:
        """Take all items down these rungs; with ``retreat``, stop at the first window with a gap."""
        request = run.request
        need = self._inputs.need(request, rungs, gates)

        async def open_one(item: Item) -> None:
            was_settled = item.settled
            await self._inputs.open_for(item, request, rungs, need, deadline=run.budget.of_opening())
            if item.settled and not was_settled:
                run.done([item])

        async def look_and_walk(window: Sequence[Item]) -> bool:
            return await self._walk(
                window, run, rungs, await self._inputs.look(window, request, rungs), retreat=retreat
            )

        in_order = retreat or run.budget.patience_s is not None
        sizes = [(rung.backend.batch_size(request), rung.backend.concurrency(request)) for rung in rungs]
        if in_order:
            size = max([MOST_OPEN, *(batch * min(FIRST_PLACES, calls) for batch, calls in sizes)])
        else:
            size = max([WINDOW, *(batch * math.ceil(WINDOW / batch) for batch, _ in sizes)])
        most = max([MOST_OPEN, 2 * size, *(2 * batch * calls for batch, calls in sizes)])
        windows = Windows(items, open_one, size=size, most=most, at_once=self._inputs.at_once)
        return await windows.take(look_and_walk, in_order=in_order, stops=retreat)

    async def _walk(
        self,
        items: Sequence[Item],
        run: _Run,
        rungs: Sequence[Rung],
        gates: GateSnapshot,
        *,
        spent_s: float = 0.0,
        retreat: bool = False,
    ) -> bool:
        """Take some opened items down these rungs, and return whether all are settled.

        With ``retreat`` those that are not are left open, for the rungs of another space.
        """
        started = self._clock.monotonic()
        pending = [item for item in items if not item.settled]
        make_call = partial(run.call, count=len(items), spent_s=spent_s)
        if run.budget.patience_s is not None:
            await self._waiting.for_better(self._ladder, rungs, make_call, pending, patience_s=run.budget.patience_s)
            gates = await self._ladder.attempts.look_again(rungs)
        await self._ladder.walk(rungs, make_call(gates), pending)
        elapsed_s = self._clock.monotonic() - started
        unsettled = []
        for item in pending:
            item.elapsed_s += elapsed_s
            if not item.settled:
                unsettled.append(item)
        if unsettled and not retreat:
            run.done(unsettled)
        return not unsettled

    def _give_up(self, items: Sequence[Item], below: Sequence[Rung], gates: GateSnapshot) -> None:
        """Note on what is left why the rungs of other spaces did not answer either."""
        left = [item for item in items if not item.settled]
        for rung in below:
            blocked = self._ladder.attempts.blocked(rung, gates)
            if blocked is not None:
                note(left, rung, "skipped", error=blocked, at=self._clock.time())


@contextmanager
def _closing(items: Sequence[Item]) -> Iterator[None]:
    """Let go of all inputs at the end, however it comes."""
    try:
        yield
    finally:
        for item in items:
            item.close()


def _outcome(item: Item, request: Request) -> Answer | VisionError:
    answer = complete(item)
    if answer is not None:  # even one that is empty: finding nothing is an answer
        return answer
    error, item.error = item.error, None  # whoever raises it refers to the item
    return error or failure(item, request)


class _TimeBudget:
    """How long a call may take: all of it together, or else each input by itself, and waiting on top."""

    def __init__(self, *, clock: Clock, each_s: float, whole_s: float | None, patience_s: float | None) -> None:
        self._clock = clock
        self.given_s = whole_s
        self.each_s = each_s if whole_s is None else whole_s
        self.patience_s = patience_s
        self._whole = None if whole_s is None else Deadline(clock, whole_s + (patience_s or 0.0))

    def of_opening(self) -> Deadline:
        """Return when an input of a list has to be open whose reading begins now; the others need time as well."""
        whole_s = self.each_s if self._whole is None else self._whole.remaining_s / 2
        return Deadline(self._clock, min(self.each_s, whole_s))

    def of_call(self, *, count: int, spent_s: float) -> Deadline:
        """Return the deadline of the next ``count`` inputs, of whose time a part is spent."""
        return self._whole or Deadline(self._clock, self.each_s * count - spent_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What is the same for all inputs of a call, or of a part of a list.

    Attributes:
        request: What is asked of each.
        budget: How long that may take.
        done: Told which inputs are settled.
        places: How many may be under way at each rung; None for an input of its own.
    """

    request: Request
    budget: _TimeBudget
    done: _Done
    places: ListPlaces | None

    def call(self, gates: GateSnapshot, *, count: int, spent_s: float) -> Call:
        """Return what is asked of the next ``count`` inputs, of whose time a part is spent."""
        return Call(
            request=self.request,
            gates=gates,
            deadline=self.budget.of_call(count=count, spent_s=spent_s),
            each_s=self.budget.each_s,
            on_settled=self.done,
            places=self.places,
        )


def _by_space(rungs: Sequence[Rung]) -> list[list[Rung]]:
    """Return the rungs in groups that share a vector space, best first."""
    groups: dict[str | None, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(rung.model.space if rung.model else None, []).append(rung)
    return list(groups.values())


class _Done:
    """Writes down what is settled, and tells ``progress`` how many there are: forwards, and in the end all."""

    def __init__(
        self, total: int, *, write: Callable[[Sequence[Item]], None], progress: Callable[[int, int], None] | None
    ) -> None:
        self._total = total
        self._write = write
        self._progress = progress
        self._count = self._told = 0

    def __call__(self, items: Sequence[Item]) -> None:
        """Note that some items have ended, with an answer or without."""
        if not items:
            return
        self._write(items)
        for item in items:
            item.close()  # its memory is for the next
        self._count += len(items)
        if self._progress is not None and self._count > self._told:
            self._told = self._count
            self._progress(self._told, self._total)

    def start_over(self, items: Sequence[Item]) -> None:
        """Count anew, from those that are still settled."""
        self._count = sum(item.settled for item in items)


def failure(item: Item, request: Request) -> VisionError:
    """Return the error for an item that no rung has answered."""
    space = getattr(request, "space", None)
    if space is not None:
        refusals = {TEXT_TOO_LONG, UNREADABLE_INPUT} if isinstance(request, EmbedTextRequest) else {TEXT_TOO_LONG}
        for attempt in item.attempts:
            if attempt.code in refusals:  # the only rung with this space would always refuse it
                return InvalidRequestError(attempt.message or "The text cannot be read.", remedy=attempt.remedy)
        remedy = "Wait for its backend, or embed everything again in another space."
        if all(attempt.error == NotSupportedError.kind for attempt in item.attempts):
            remedy = next((attempt.remedy for attempt in item.attempts if attempt.remedy), remedy)
        return SpaceUnavailableError(
            f"No backend can produce vectors of {space!r} now.", attempts=item.attempts, remedy=remedy
        )
    return AllBackendsFailedError(f"No backend could answer {request.task}.", attempts=item.attempts)
