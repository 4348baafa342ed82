"""From a list of inputs to a list of answers or errors, in order; a single input is a list of one.

This module decides how a long list is cut into windows, that one bad input fails alone, and that one list of
embeddings lives in one space. What may block (opening inputs, looking answers up) it does in a pool of threads, for a
single input in one go. It must not know what callers' options are called, nor how a rung is asked.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from vision_backends.arguments import shown
from vision_backends.backends.requests import EmbedRequest, EmbedTextRequest
from vision_backends.clock import Deadline
from vision_backends.engine.pools import Pool
from vision_backends.errors import (
    TEXT_TOO_LONG,
    AllBackendsFailedError,
    CallerError,
    InvalidRequestError,
    NotSupportedError,
    SpaceUnavailableError,
    VisionError,
)
from vision_backends.images import open_image
from vision_backends.routing.call import Call
from vision_backends.routing.explain import survey
from vision_backends.routing.trace import complete, note
from vision_backends.storage.cache import cache_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.images import ImageLimits
    from vision_backends.routing.call import Answer, Item, Rung
    from vision_backends.routing.ladder import Ladder
    from vision_backends.routing.recorder import CallRecorder
    from vision_backends.routing.waiting import Waiting

    Opened = tuple[list[Rung], GateSnapshot]

__all__ = ["Pipeline", "failure"]

WINDOW = 32
"""Inputs that are open at the same time; bounds the memory of a long list."""

OPENERS = max(2, os.cpu_count() or 1)
"""Inputs of one list that are opened concurrently, beside the backend's work; decoding releases the GIL."""

THREADS = 64
"""Inputs of all calls that are opened concurrently, those included whose file never answers."""


class Pipeline:
    """Runs calls of any length.

    Args:
        ladder: Who answers.
        waiting: Where calls wait that would rather not degrade.
        recorder: Where calls are written down and answers are kept.
        clock: Where time comes from.
        limits: What an image may cost to read.
        deadline_s: Seconds that each input may take where the call sets no deadline of its own.
        caching: Whether answers are kept and asked for.
    """

    def __init__(
        self,
        ladder: Ladder,
        *,
        waiting: Waiting,
        recorder: CallRecorder,
        clock: Clock,
        limits: ImageLimits,
        deadline_s: float,
        caching: bool,
    ) -> None:
        self._ladder = ladder
        self._waiting = waiting
        self._recorder = recorder
        self._clock = clock
        self._limits = limits
        self._deadline_s = deadline_s
        self._caching = caching
        self._pool = Pool("open", size=THREADS)

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
    ) -> list[Answer | VisionError]:
        """Return an answer or an error for each item, in order.

        Args:
            items: The inputs, not yet opened.
            request: What is asked of each.
            backends: Who may be asked, best first.
            opened: What `open_here` has returned for the only input, where that was called before.
            deadline_s: Seconds for all of them together; None gives each the configured time.
            patience_s: Seconds to wait for a better rung to recover; None takes the next one immediately.
            progress: Told about every settled input.
        """
        budget = _TimeBudget(clock=self._clock, each_s=self._deadline_s, whole_s=deadline_s, patience_s=patience_s)
        tick = _counter(len(items), progress)
        with self._recorder.call(request.task, items):
            if len(items) == 1:
                rungs, gates = opened or await self.open(items[0], request, backends)
                tick(int(items[0].settled))
            else:
                rungs, gates = await self._pool.start(partial(self._survey, request, backends))
            spaces = _by_space(rungs) if len(items) > 1 and _is_embedding(request) else [rungs]
            for place, group in enumerate(spaces):
                below = [rung for later in spaces[place + 1 :] for rung in later]
                if place:
                    gates = await self._ladder.attempts.look_again(rungs)
                retreat = any(self._ladder.attempts.blocked(rung, gates) is None for rung in below)
                if await self._pass(items, request, group, gates, tick=tick, budget=budget, retreat=retreat):
                    break
                if not retreat:
                    self._give_up(items, below, gates)
                    break
                for item in items:
                    item.discard("It could not answer the whole list, and one list is one vector space.")
        return [_outcome(item, request) for item in items]

    def open_here(self, item: Item, request: Request, backends: Sequence[Backend]) -> Opened:
        """Open one input, look up what is known of it, and return how rungs and gates stand; may block.

        An input that cannot be used has its error then.
        """
        rungs, gates = self._survey(request, backends)
        self._open(item, request, rungs, self._side_px(request, rungs, gates))
        return rungs, gates

    async def open(self, item: Item, request: Request, backends: Sequence[Backend]) -> Opened:
        """Do as `open_here` in one job for a thread."""
        return await self._pool.start(partial(self.open_here, item, request, backends))

    def close(self) -> None:
        """Let idle threads end."""
        self._pool.close()

    def _survey(self, request: Request, backends: Sequence[Backend]) -> Opened:
        rungs = survey(backends, request)
        return rungs, self._ladder.attempts.look(rungs)

    def _side_px(self, request: Request, rungs: Sequence[Rung], gates: GateSnapshot) -> int | None:
        """Return how long the shorter side has to be for the rung that will be asked first."""
        if isinstance(request, EmbedTextRequest):
            return None
        first = next((rung for rung in rungs if self._ladder.attempts.blocked(rung, gates) is None), None)
        return None if first is None else first.backend.image_px(request)

    async def _pass(
        self,
        items: Sequence[Item],
        request: Request,
        rungs: Sequence[Rung],
        gates: GateSnapshot,
        *,
        tick: Callable[[int], None],
        budget: _TimeBudget,
        retreat: bool,
    ) -> bool:
        """Take all items down these rungs; with ``retreat``, stop at the first window with a gap."""
        settled = True
        async for number, window in self._opened(items, request, rungs, gates, tick):
            if number:
                gates = await self._ladder.attempts.look_again(rungs)
            started = self._clock.monotonic()
            pending = [item for item in window if not item.settled]
            make_call = partial(budget.call, request, count=len(window), tick=tick)
            if budget.patience_s is not None:
                await self._waiting.for_better(self._ladder, rungs, make_call, pending, patience_s=budget.patience_s)
                gates = await self._ladder.attempts.look_again(rungs)
            await self._ladder.walk(rungs, make_call(gates), pending)
            for item in pending:
                item.elapsed_s += self._clock.monotonic() - started
            unsettled = sum(not item.settled for item in window)
            settled = settled and not unsettled
            if retreat and unsettled:
                break
            tick(unsettled)
            for item in window:
                item.content = None
        return settled

    async def _opened(
        self,
        items: Sequence[Item],
        request: Request,
        rungs: Sequence[Rung],
        gates: GateSnapshot,
        tick: Callable[[int], None],
    ) -> AsyncIterator[tuple[int, Sequence[Item]]]:
        """Yield window after window with its number and its inputs opened, the next one being opened meanwhile."""
        if len(items) == 1:
            yield 0, items
            return
        side_px = self._side_px(request, rungs, gates)
        windows = [items[start : start + WINDOW] for start in range(0, len(items), WINDOW)]
        places = asyncio.Semaphore(OPENERS)

        async def open_one(item: Item) -> None:
            async with places:
                if not item.settled and item.content is None:
                    await self._pool.start(partial(self._open, item, request, rungs, side_px))
                    tick(int(item.settled))

        def begin(window: Sequence[Item]) -> asyncio.Future[list[None]]:
            return asyncio.gather(*map(open_one, window))

        coming = begin(windows[0]) if windows else None
        try:
            for number, (window, following) in enumerate(zip_longest(windows, windows[1:], fillvalue=())):
                if coming is not None:
                    await coming
                coming = begin(following)
                yield number, window
        finally:
            if coming is not None:
                coming.cancel()

    def _open(self, item: Item, request: Request, rungs: Sequence[Rung], side_px: int | None) -> None:
        """Open an input, and look up the best cached answer to it."""
        started = self._clock.monotonic()
        try:
            if isinstance(request, EmbedTextRequest):
                item.content = _text(item.source)
            else:
                image = open_image(item.source, min_side_px=side_px, limits=self._limits)
                item.content, item.notes = image, image.notes
            if self._caching:
                self._look_up(item, request, rungs)
        except CallerError as error:
            item.error = error
        item.opening_s = self._clock.monotonic() - started
        item.elapsed_s += item.opening_s

    def _look_up(self, item: Item, request: Request, rungs: Sequence[Rung]) -> None:
        """Note the cache keys of the rungs that may answer this request, and the best of their answers.

        A rung that may answer but cannot now (blocked, loading, without a key) has its cached answers all the same.
        """
        options = asdict(request)
        options.pop("space", None)  # the model's space is the one that counts
        if not options.get("truncate"):
            options.pop("truncate", None)
        digest = item.digest
        for rung in rungs:
            if rung.model is None or isinstance(rung.refusal, NotSupportedError):
                continue
            key = cache_key(
                task=request.task,
                content=digest,
                backend=rung.backend.name,
                model=asdict(rung.model),
                options=options,
            )
            item.keys[rung.backend.name] = key
            if not item.recalled or _is_embedding(request):  # a list may have to change its space
                kept = self._recorder.recall(key)
                if kept is not None:
                    item.recalled[rung.backend.name] = kept

    def _give_up(self, items: Sequence[Item], below: Sequence[Rung], gates: GateSnapshot) -> None:
        """Note on what is left why the rungs of other spaces did not answer either."""
        left = [item for item in items if not item.settled]
        for rung in below:
            blocked = self._ladder.attempts.blocked(rung, gates)
            if blocked is not None:
                note(left, rung, "skipped", error=blocked, at=self._clock.time())


def _outcome(item: Item, request: Request) -> Answer | VisionError:
    answer = complete(item)
    if answer is not None:  # even one that is empty: finding nothing is an answer
        return answer
    return item.error or failure(item, request)


class _TimeBudget:
    """How long a call may take: all of it together, or else each input by itself, and waiting on top."""

    def __init__(self, *, clock: Clock, each_s: float, whole_s: float | None, patience_s: float | None) -> None:
        self._clock = clock
        self._each_s = each_s if whole_s is None else whole_s
        self.patience_s = patience_s
        self._whole = None if whole_s is None else Deadline(clock, whole_s + (patience_s or 0.0))

    def call(self, request: Request, gates: GateSnapshot, *, count: int, tick: Callable[[int], None]) -> Call:
        """Return what is asked of the next ``count`` inputs."""
        deadline = self._whole or Deadline(self._clock, self._each_s * count)
        return Call(request=request, gates=gates, deadline=deadline, each_s=self._each_s, tick=tick)


def _is_embedding(request: Request) -> bool:
    return isinstance(request, EmbedRequest | EmbedTextRequest)


def _by_space(rungs: Sequence[Rung]) -> list[list[Rung]]:
    """Return the rungs in groups that share a vector space, best first."""
    groups: dict[str | None, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(rung.model.space if rung.model else None, []).append(rung)
    return list(groups.values())


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """Return a function that adds to what is done and tells ``progress``."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        if progress is not None and count:
            done += count
            progress(done, total)

    return tick


def _text(source: object) -> str:
    if not isinstance(source, str):
        raise InvalidRequestError(f"A text is a str, not {shown(source)}.", remedy="Pass a str.")
    if not source.strip():
        raise InvalidRequestError("The text is empty.", remedy="Pass at least one word.")
    return source


def failure(item: Item, request: Request) -> VisionError:
    """Return the error for an item that no rung has answered."""
    space = getattr(request, "space", None)
    if space is not None:
        for attempt in item.attempts:
            if attempt.code == TEXT_TOO_LONG:  # the only rung with this space would always refuse it
                return InvalidRequestError(attempt.message or "The text is too long.", remedy=attempt.remedy)
        return SpaceUnavailableError(
            f"No backend can produce vectors of {space!r} now.",
            attempts=item.attempts,
            remedy="Wait for its backend, or embed everything again in another space.",
        )
    return AllBackendsFailedError(f"No backend could answer {request.task}.", attempts=item.attempts)
