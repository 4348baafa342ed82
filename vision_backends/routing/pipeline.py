"""From a list of inputs to a list of answers or errors, in order; a single input is a list of one.

This module decides that a list is opened and asked about window by window, that one bad input fails alone, and that
one list of embeddings lives in one space. What may block (opening inputs, looking answers up) it does in a pool of
threads, for a single input in one go. It must not know what callers' options are called, nor how a rung is asked.
"""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from vision_backends.arguments import shown
from vision_backends.backends.requests import Account, EmbedRequest, EmbedTextRequest, check_unicode
from vision_backends.clock import Deadline
from vision_backends.errors import (
    TEXT_TOO_LONG,
    AllBackendsFailedError,
    CallerError,
    InvalidRequestError,
    NotSupportedError,
    SpaceUnavailableError,
    VisionError,
)
from vision_backends.images.image import Opening, begin_opening
from vision_backends.images.room import ROOM
from vision_backends.routing.call import Call
from vision_backends.routing.explain import survey
from vision_backends.routing.opening import Opener, kind_of
from vision_backends.routing.trace import complete, note
from vision_backends.routing.windows import WINDOW, Windows
from vision_backends.storage.cache import cache_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.images import ImageLimits, ImageSource
    from vision_backends.images.room import Share
    from vision_backends.routing.call import Answer, Item, Rung
    from vision_backends.routing.ladder import Ladder
    from vision_backends.routing.opening import How, Kind
    from vision_backends.routing.recorder import CallRecorder
    from vision_backends.routing.waiting import Waiting

    Opened = tuple[list[Rung], GateSnapshot]

__all__ = ["Pipeline", "failure", "opens_quickly"]

T = TypeVar("T")

QUICK_BYTES = 4_000_000
"""An image of no more bytes is opened in a few hundredths of a second."""


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
        tenant: str | None,
    ) -> None:
        self._ladder = ladder
        self._waiting = waiting
        self._recorder = recorder
        self._clock = clock
        self._limits = limits
        self._deadline_s = deadline_s
        self._caching = caching
        self._tenant = tenant
        self._opener = Opener(clock)

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
        with self._recorder.call(request.task, items) as write, _closing(items):
            done = _Done(len(items), write=write, progress=progress)
            if len(items) == 1:
                rungs, gates = opened or await self.open(items[0], request, backends, deadline_s=deadline_s)
                done([item for item in items if item.settled])
            else:
                rungs, gates = await self._opener.start(partial(self._survey, request, backends))
            spaces = _by_space(rungs) if len(items) > 1 and _is_embedding(request) else [rungs]
            for place, group in enumerate(spaces):
                below = [rung for later in spaces[place + 1 :] for rung in later]
                if place:
                    gates = await self._ladder.attempts.look_again(rungs)
                retreat = any(self._ladder.attempts.blocked(rung, gates) is None for rung in below)
                if await self._pass(items, request, group, gates, done=done, budget=budget, retreat=retreat):
                    break
                if not retreat:
                    self._give_up(items, below, gates)
                    break
                for item in items:
                    item.discard("It could not answer the whole list, and one list is one vector space.")
                done.start_over(items)
        return [_outcome(item, request) for item in items]

    def open_here(self, item: Item, request: Request, backends: Sequence[Backend]) -> Opened | None:
        """Open one input and look up what is known of it, if that is quick; return how rungs and gates stand then.

        An input that cannot be used has its error then.
        """
        started = self._clock.monotonic()
        opened = self._begin_first(item, request, backends)
        item.opening_s = item.elapsed_s = self._clock.monotonic() - started
        return None if item.content is None and not item.settled else opened

    async def open(
        self, item: Item, request: Request, backends: Sequence[Backend], *, deadline_s: float | None
    ) -> Opened:
        """Do as `open_here` in threads, however long that takes within the deadline."""
        deadline = Deadline(self._clock, self._seconds(deadline_s) - item.opening_s)

        def complete(opened: Opened, how: How, share: Share | None) -> None:
            self._complete(item, request, opened[0], how, share)

        begin = partial(self._begin_first, item, request, backends)
        opened = await self._opener.open(item, _kind(item, request), begin, complete, deadline=deadline)
        return opened or ([], self._ladder.attempts.look([]))

    def _begin_first(self, item: Item, request: Request, backends: Sequence[Backend]) -> Opened:
        rungs = survey(backends, request)
        sides_px = {rung.backend.image_px(request) for rung in rungs} or {None}
        if len(sides_px) > 1 and not isinstance(request, EmbedTextRequest):  # it depends on the gates which counts
            gates = self._ladder.attempts.look(rungs)
            self._begin(item, request, rungs, self._side_px(request, rungs, gates))
            return rungs, gates
        self._begin(item, request, rungs, sides_px.pop(), recalls=False)
        gates, kept = self._recorder.in_one_go(
            lambda: (self._ladder.attempts.look(rungs), self._recalled(item, request))
        )
        item.recalled |= kept
        return rungs, gates

    def _seconds(self, deadline_s: float | None) -> float:
        return self._deadline_s if deadline_s is None else deadline_s

    def close(self) -> None:
        """Let idle threads end."""
        self._opener.close()

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
        done: _Done,
        budget: _TimeBudget,
        retreat: bool,
    ) -> bool:
        """Take all items down these rungs; with ``retreat``, stop at the first window with a gap."""
        settled = True
        async for number, window in self._opened(items, request, rungs, gates, done, budget):
            if number:
                gates = await self._ladder.attempts.look_again(rungs)
            started = self._clock.monotonic()
            pending = [item for item in window if not item.settled]
            opening_s = items[0].opening_s if len(items) == 1 else 0.0  # those of a list are opened meanwhile
            make_call = partial(budget.call, request, count=len(window), on_settled=done, spent_s=opening_s)
            if budget.patience_s is not None:
                await self._waiting.for_better(self._ladder, rungs, make_call, pending, patience_s=budget.patience_s)
                gates = await self._ladder.attempts.look_again(rungs)
            await self._ladder.walk(rungs, make_call(gates), pending)
            for item in pending:
                item.elapsed_s += self._clock.monotonic() - started
            unsettled = [item for item in window if not item.settled]
            settled = settled and not unsettled
            if retreat and unsettled:
                break
            done(unsettled)
            for item in window:
                item.close()
        return settled

    async def _opened(
        self,
        items: Sequence[Item],
        request: Request,
        rungs: Sequence[Rung],
        gates: GateSnapshot,
        done: _Done,
        budget: _TimeBudget,
    ) -> AsyncIterator[tuple[int, Sequence[Item]]]:
        """Yield window after window with its number and its inputs opened, the next one being opened meanwhile."""
        if len(items) == 1:
            yield 0, items
            return
        side_px = self._side_px(request, rungs, gates)
        size = max(WINDOW, *(self._at_once(rung, request) for rung in rungs), WINDOW)

        def complete(item: Item, _begun: None, how: How, share: Share | None) -> None:
            self._complete(item, request, rungs, how, share)

        async def open_one(item: Item) -> None:
            if not item.settled and item.content is None:
                begin = partial(self._begin, item, request, rungs, side_px)
                deadline = budget.of_opening()
                await self._opener.open(item, _kind(item, request), begin, partial(complete, item), deadline=deadline)
                done([each for each in (item,) if each.settled])

        windows = Windows(items, open_one, size=size, at_once=self._opener.at_once)
        following = asyncio.create_task(windows.open())
        try:
            number = 0
            while window := await following:
                following = asyncio.create_task(windows.open())
                yield number, window
                number += 1
        finally:
            following.cancel()

    @staticmethod
    def _at_once(rung: Rung, request: Request) -> int:
        """Return how many texts a rung takes at once; images are bounded by their memory."""
        if not isinstance(request, EmbedTextRequest):
            return 0
        return rung.backend.batch_size(request) * rung.backend.concurrency(request)

    def _begin(
        self, item: Item, request: Request, rungs: Sequence[Rung], side_px: int | None, *, recalls: bool = True
    ) -> None:
        """Read an input; where that is quick, open it as well."""
        with _noting_error_of(item):
            if isinstance(request, EmbedTextRequest):
                item.content = _text(item.source)
                self._look_up(item, request, rungs, recalls=recalls)
                return
            if item.opening is None:
                if _is_embedding(request):
                    self._rewind(item)
                item.opening = begin_opening(item.source, min_side_px=side_px, limits=self._limits)
            if item.opening.is_quick:
                share = ROOM.ask(item.opening.room_bytes)
                if share.is_in:
                    self._complete(item, request, rungs, Opening.decode_here, share, recalls=recalls)

    def _complete(
        self,
        item: Item,
        request: Request,
        rungs: Sequence[Rung],
        how: How,
        share: Share | None,
        *,
        recalls: bool = True,
    ) -> None:
        """Decode an image that was read, and look up the best cached answer to it."""
        opening, item.opening = item.opening, None
        if opening is None or item.settled:  # it was late
            return
        with _noting_error_of(item, share):
            image = opening.image(how(opening), share=share)
            if not item.settled:
                item.notes, item.opened_bytes = image.notes, image.memory_bytes
                item.content = image
                self._look_up(item, request, rungs, recalls=recalls)

    def _rewind(self, item: Item) -> None:
        """Have a file where it stood when it was opened first: a list may be embedded again in another space."""
        file: Any = item.source
        if not hasattr(file, "read"):
            return
        if item.position is not None:
            file.seek(item.position)
            return
        try:
            item.position = file.tell()
            file.seek(item.position)
        except (AttributeError, OSError, ValueError):  # a socket, a pipe
            item.position = None
            item.source = file.read(self._limits.max_bytes + 1)

    def _look_up(self, item: Item, request: Request, rungs: Sequence[Rung], *, recalls: bool) -> None:
        """Note an input's cache keys and, unless that is done together with the gates, its best cached answer."""
        if self._caching:
            self._note_keys(item, request, rungs)
        if recalls:
            item.recalled |= self._recalled(item, request)

    def _note_keys(self, item: Item, request: Request, rungs: Sequence[Rung]) -> None:
        """Note the cache keys of the rungs that may answer this request.

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
                account=self._sharers(rung.backend.account),
            )
            item.keys[rung.backend.name] = key

    def _recalled(self, item: Item, request: Request) -> dict[str, bytes]:
        """Return the best cached answer to an input, by the name of its rung."""
        every = _is_embedding(request)  # a list may have to change its space
        if not item.keys or (item.recalled and not every):
            return {}
        kept = self._recorder.recall(list(item.keys.values()), every=every)
        return {name: kept[key] for name, key in item.keys.items() if key in kept}

    def _sharers(self, account: Account) -> tuple[str, ...]:
        """Return who may have an answer of an account, in the terms of a cache key; nobody is named for free ones."""
        if account == Account():
            return ()
        if self._tenant is not None:
            return account.server, "tenant", self._tenant
        return account.server, "secret", account.secret

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


@contextmanager
def _noting_error_of(item: Item, share: Share | None = None) -> Iterator[None]:
    """Keep what the caller has done wrong; no room is taken then."""
    try:
        yield
    except CallerError as error:
        item.error = item.error or error
        if share is not None:
            share.leave()


def _kind(item: Item, request: Request) -> Kind:
    return "memory" if isinstance(request, EmbedTextRequest) else kind_of(item.source)


def opens_quickly(source: ImageSource | str, request: Request) -> bool:
    """Return whether reading an input takes milliseconds: a text, or a small image that is in memory."""
    if isinstance(request, EmbedTextRequest):
        return True
    if isinstance(source, bytes | bytearray):
        return len(source) <= QUICK_BYTES
    if isinstance(source, str | os.PathLike):
        return False
    size = getattr(source, "nbytes", None)  # of an array
    if size is None and getattr(source, "fp", source) is None:  # a picture of Pillow's whose file is read
        size = math.prod(getattr(source, "size", (QUICK_BYTES,))) * 4
    return size is not None and size <= QUICK_BYTES


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

    def of_opening(self) -> Deadline:
        """Return when an input of a list has to be open whose reading begins now; the others need time as well."""
        whole_s = self._each_s if self._whole is None else self._whole.remaining_s / 2
        return Deadline(self._clock, min(self._each_s, whole_s))

    def call(
        self,
        request: Request,
        gates: GateSnapshot,
        *,
        count: int,
        on_settled: Callable[[Sequence[Item]], None],
        spent_s: float = 0.0,
    ) -> Call:
        """Return what is asked of the next ``count`` inputs, of whose time a part is spent."""
        deadline = self._whole or Deadline(self._clock, self._each_s * count - spent_s)
        return Call(request=request, gates=gates, deadline=deadline, each_s=self._each_s, on_settled=on_settled)


def _is_embedding(request: Request) -> bool:
    return isinstance(request, EmbedRequest | EmbedTextRequest)


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


def _text(source: object) -> str:
    if not isinstance(source, str):
        raise InvalidRequestError(f"A text is a str, not {shown(source)}.", remedy="Pass a str.")
    if not source.strip():
        raise InvalidRequestError("The text is empty.", remedy="Pass at least one word.")
    check_unicode("The text", source)
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
