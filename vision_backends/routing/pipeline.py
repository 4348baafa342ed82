"""From a list of inputs to a list of answers or errors, in order; a single input is a list of one.

This module decides that a list is opened and asked about window by window, that one bad input fails alone, and that
one list of embeddings lives in one space. What may block (opening inputs, looking answers up) it does in a pool of
threads, for a single input in one go. It must not know what callers' options are called, nor how a rung is asked.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vision_backends.arguments import shown
from vision_backends.backends.requests import Account, EmbedRequest, EmbedTextRequest, check_unicode
from vision_backends.clock import Deadline
from vision_backends.errors import (
    TEXT_TOO_LONG,
    UNREADABLE_INPUT,
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
from vision_backends.routing.places import FIRST_PLACES, ListPlaces
from vision_backends.routing.trace import complete, note
from vision_backends.routing.windows import MOST_OPEN, WINDOW, Windows
from vision_backends.storage.cache import cache_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Model, Request
    from vision_backends.clock import Clock
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.images import ImageLimits, ImageSource, WireRule
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


KEYS_KEPT = 64
"""Kinds of requests for which is kept what all their cache keys have in common."""


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
        self._opener = Opener(clock)
        self._keys_of = lru_cache(maxsize=KEYS_KEPT)(partial(_keys_of, tenant))

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
            opened: What `open_here` has returned for the only input, where that was called before.
            deadline_s: Seconds for all of them together; None gives each the configured time.
            patience_s: Seconds to wait for a better rung to recover; None takes the next one immediately.
            progress: Told about every settled input.
            places: Those of the list that these inputs are a part of; by default they are all of it.
        """
        if places is None and len(items) > 1:
            places = ListPlaces()
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
                take = partial(self._pass, done=done, budget=budget, retreat=retreat, places=places)
                if await take(items, request, group, gates):
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
        needs = {_Need.of(rung, request) for rung in rungs} or {_Need()}
        if len(needs) > 1 and not isinstance(request, EmbedTextRequest):  # it depends on the gates which counts
            gates = self._ladder.attempts.look(rungs)
            self._begin(item, request, rungs, self._need(request, rungs, gates))
            return rungs, gates
        self._begin(item, request, rungs, needs.pop(), recalls=False)
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

    def _need(self, request: Request, rungs: Sequence[Rung], gates: GateSnapshot) -> _Need:
        """Return what the rung needs that will be asked first."""
        if isinstance(request, EmbedTextRequest):
            return _Need()
        first = next((rung for rung in rungs if self._ladder.attempts.blocked(rung, gates) is None), None)
        return _Need() if first is None else _Need.of(first, request)

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
        places: ListPlaces | None,
    ) -> bool:
        """Take all items down these rungs; with ``retreat``, stop at the first window with a gap."""

        async def take(window: Sequence[Item], gates: GateSnapshot, *, spent_s: float = 0.0) -> bool:
            started = self._clock.monotonic()
            pending = [item for item in window if not item.settled]
            make_call = partial(
                budget.call, request, count=len(window), on_settled=done, spent_s=spent_s, places=places
            )
            if budget.patience_s is not None:
                await self._waiting.for_better(self._ladder, rungs, make_call, pending, patience_s=budget.patience_s)
                gates = await self._ladder.attempts.look_again(rungs)
            await self._ladder.walk(rungs, make_call(gates), pending)
            for item in pending:
                item.elapsed_s += self._clock.monotonic() - started
            unsettled = [item for item in window if not item.settled]
            if not (retreat and unsettled):
                done(unsettled)
                for item in window:
                    item.close()
            return not unsettled

        if len(items) == 1:
            return await take(items, gates, spent_s=items[0].opening_s)

        async def look_and_take(window: Sequence[Item]) -> bool:
            look = partial(self._look, window, request, rungs)
            return await take(window, await self._opener.start(partial(self._recorder.in_one_go, look)))

        in_order = retreat or budget.patience_s is not None
        need = self._need(request, rungs, gates)
        windows = self._windows(items, request, rungs, need, done=done, budget=budget, in_order=in_order)
        return await windows.take(look_and_take, in_order=in_order, stops=retreat)

    def _windows(
        self,
        items: Sequence[Item],
        request: Request,
        rungs: Sequence[Rung],
        need: _Need,
        *,
        done: _Done,
        budget: _TimeBudget,
        in_order: bool,
    ) -> Windows:
        """Return what opens the inputs of a list."""

        def complete(item: Item, _begun: None, how: How, share: Share | None) -> None:
            self._complete(item, request, rungs, how, share, recalls=False)

        async def open_one(item: Item) -> None:
            if not item.settled and item.content is None:
                begin = partial(self._begin, item, request, rungs, need, recalls=False)
                deadline = budget.of_opening()
                await self._opener.open(item, _kind(item, request), begin, partial(complete, item), deadline=deadline)
                done([each for each in (item,) if each.settled])

        sizes = [(rung.backend.batch_size(request), rung.backend.concurrency(request)) for rung in rungs]
        if in_order:
            size = max([MOST_OPEN, *(batch * min(FIRST_PLACES, calls) for batch, calls in sizes)])
        else:
            size = max([WINDOW, *(batch * math.ceil(WINDOW / batch) for batch, _ in sizes)])
        most = max([MOST_OPEN, 2 * size, *(2 * batch * calls for batch, calls in sizes)])
        return Windows(items, open_one, size=size, most=most, at_once=self._opener.at_once)

    def _look(self, window: Sequence[Item], request: Request, rungs: Sequence[Rung]) -> GateSnapshot:
        """Return what the gates are now, and note the best cached answers to opened inputs; may block."""
        for item in window:
            if not item.settled:
                item.recalled |= self._recalled(item, request)
        return self._ladder.attempts.look(rungs)

    def _begin(self, item: Item, request: Request, rungs: Sequence[Rung], need: _Need, *, recalls: bool = True) -> None:
        """Read an input; where that is quick, open it as well."""
        with _noting_error_of(item):
            if isinstance(request, EmbedTextRequest):
                item.content = _text(item.source)
                self._look_up(item, request, rungs, recalls=recalls)
                return
            if item.opening is None:
                if _is_embedding(request):
                    self._rewind(item)
                item.opening = begin_opening(item.source, min_side_px=need.side_px, wire=need.wire, limits=self._limits)
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
        digest = item.digest
        for rung in rungs:
            if rung.model is not None and not isinstance(rung.refusal, NotSupportedError):
                key_of = self._keys_of(rung.backend.name, request, rung.model, rung.backend.account)
                item.keys[rung.backend.name] = key_of(digest)

    def _recalled(self, item: Item, request: Request) -> dict[str, bytes]:
        """Return the best cached answer to an input, by the name of its rung."""
        every = _is_embedding(request)  # a list may have to change its space
        if not item.keys or (item.recalled and not every):
            return {}
        kept = self._recorder.recall(list(item.keys.values()), every=every)
        return {name: kept[key] for name, key in item.keys.items() if key in kept}

    def _give_up(self, items: Sequence[Item], below: Sequence[Rung], gates: GateSnapshot) -> None:
        """Note on what is left why the rungs of other spaces did not answer either."""
        left = [item for item in items if not item.settled]
        for rung in below:
            blocked = self._ladder.attempts.blocked(rung, gates)
            if blocked is not None:
                note(left, rung, "skipped", error=blocked, at=self._clock.time())


class _Need(NamedTuple):
    """What a rung needs of an image.

    Attributes:
        side_px: How long the shorter side of its pixels has to be; None for all of them.
        wire: How the image is sent, which then decides that.
    """

    side_px: int | None = None
    wire: WireRule | None = None

    @classmethod
    def of(cls, rung: Rung, request: Request) -> _Need:
        return cls(rung.backend.image_px(request), rung.backend.wire_rule(request))


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


def _keys_of(
    tenant: str | None, backend: str, request: Request, model: Model, account: Account
) -> Callable[[str], str]:
    """Return what makes the cache keys of all that is asked in the same way."""
    options = asdict(request)
    options.pop("space", None)  # the model's space is the one that counts
    if not options.get("truncate"):
        options.pop("truncate", None)
    return cache_keys(
        task=request.task,
        backend=backend,
        model=asdict(model),
        options=options,
        account=_sharers(account, tenant=tenant),
    )


def _sharers(account: Account, *, tenant: str | None) -> tuple[str, ...]:
    """Return who may have an answer of an account, in the terms of a cache key; nobody is named for free ones."""
    if account == Account():
        return ()
    if tenant is not None:
        return account.server, "tenant", tenant
    return account.server, "secret", account.secret


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
        places: ListPlaces | None,
    ) -> Call:
        """Return what is asked of the next ``count`` inputs, of whose time a part is spent."""
        deadline = self._whole or Deadline(self._clock, self._each_s * count - spent_s)
        return Call(
            request=request,
            gates=gates,
            deadline=deadline,
            each_s=self._each_s,
            on_settled=on_settled,
            places=places,
        )


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
