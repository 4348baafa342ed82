"""From an input as the caller gave it to an opened one, whose rungs, gates and cached answers are known.

This module decides what is read and decoded for the rungs that may answer, what an input's cache keys are, and that one
bad input fails alone. What may block it does in a pool of threads. It must not know how many inputs a call has, when
the stores are read (`lookups`), nor how a rung is asked.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_backends.arguments import shown
from vision_backends.backends.requests import Account, EmbedTextRequest, check_unicode, is_embedding
from vision_backends.clock import Deadline
from vision_backends.errors import CallerError, InvalidRequestError, NotSupportedError, without_frames
from vision_backends.images.image import Opening, begin_opening
from vision_backends.images.room import ROOM
from vision_backends.images.several import SeveralOpenings
from vision_backends.images.sources import name_of
from vision_backends.routing.explain import survey
from vision_backends.routing.lookups import Lookups
from vision_backends.routing.opening import Opener, kind_of
from vision_backends.storage.cache import cache_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Model, Request
    from vision_backends.clock import Clock
    from vision_backends.engine.pools import Pool
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.images import Image, ImageLimits, ImageSource, WireRule
    from vision_backends.images.room import Share
    from vision_backends.images.several import Images
    from vision_backends.routing.attempts import Attempts
    from vision_backends.routing.call import Item, Rung
    from vision_backends.routing.opening import How, Kind
    from vision_backends.routing.recorder import CallRecorder

    Opened = tuple[list[Rung], GateSnapshot]

__all__ = ["Inputs", "Need", "opens_quickly"]

QUICK_BYTES = 4_000_000
"""An image of no more bytes is opened in a few hundredths of a second."""


KEYS_KEPT = 64
"""Kinds of requests for which is kept what all their cache keys have in common."""


class Inputs:
    """Opens the inputs of all calls, and looks up what is known of them.

    Args:
        attempts: Knows the gates.
        recorder: Where answers are kept.
        store_pool: Threads for what may have to wait for a store.
        clock: Where time comes from.
        limits: What an image may cost to read.
        deadline_s: Seconds that each input may take where the call sets no deadline of its own.
        caching: Whether answers are kept and asked for.
        tenant: Who shares the answers of servers, in place of those who have the same key.

    Attributes:
        at_once: Inputs of one list that are opened concurrently.
    """

    def __init__(
        self,
        attempts: Attempts,
        *,
        recorder: CallRecorder,
        store_pool: Pool,
        clock: Clock,
        limits: ImageLimits,
        deadline_s: float,
        caching: bool,
        tenant: str | None,
    ) -> None:
        self._attempts = attempts
        self._recorder = recorder
        self._clock = clock
        self._limits = limits
        self._deadline_s = deadline_s
        self._caching = caching
        self._opener = Opener(clock)
        self._lookups = Lookups(attempts, recorder=recorder, store_pool=store_pool)
        self.at_once = self._opener.at_once
        self._keys_of = lru_cache(maxsize=KEYS_KEPT)(partial(_keys_of, tenant))

    def open_here(self, item: Item, request: Request, backends: Sequence[Backend]) -> Opened | None:
        """Open one input and look up what is known of it, if that is quick; return how rungs and gates stand then.

        An input that cannot be used has its error then.
        """
        started = self._clock.monotonic()
        rungs = self._begin_first(item, request, backends)
        gates = self._lookups.look_here(item, request, rungs)
        item.opening_s = item.elapsed_s = self._clock.monotonic() - started
        return None if item.content is None and not item.settled else (rungs, gates)

    async def open(
        self, item: Item, request: Request, backends: Sequence[Backend], *, deadline_s: float | None
    ) -> Opened:
        """Do as `open_here` in threads, however long that takes within the deadline."""
        deadline = Deadline(self._clock, self._seconds(deadline_s) - item.opening_s)

        def complete(rungs: list[Rung], how: How, share: Share | None) -> None:
            self._complete(item, request, rungs, how, share)

        begin = partial(self._begin_first, item, request, backends)
        with self._lookups.coming():
            rungs = await self._opener.open(item, _kind(item, request), begin, complete, deadline=deadline) or []
        if item.settled:
            return rungs, self._attempts.look([])
        started = self._clock.monotonic()
        gates = await self._lookups.look([item], request, rungs)
        spent_s = self._clock.monotonic() - started
        item.opening_s += spent_s
        item.elapsed_s += spent_s
        return rungs, gates

    def _begin_first(self, item: Item, request: Request, backends: Sequence[Backend]) -> list[Rung]:
        """Read an input for the rung that will probably be asked first, and return how all of them stand."""
        rungs = survey(backends, request)
        needs = {Need.of(rung, request) for rung in rungs} or {Need()}
        if len(needs) > 1 and not isinstance(request, EmbedTextRequest):  # it depends on the gates which counts
            need = self.need(request, rungs, self._lookups.latest(rungs))
        else:
            need = needs.pop()
        self._begin(item, request, rungs, need)
        return rungs

    def _seconds(self, deadline_s: float | None) -> float:
        return self._deadline_s if deadline_s is None else deadline_s

    async def survey(self, request: Request, backends: Sequence[Backend]) -> Opened:
        """Return how rungs and gates stand for a list."""

        def look() -> Opened:
            rungs = survey(backends, request)
            return rungs, self._attempts.look(rungs)

        return await self._opener.start(look)

    def need(self, request: Request, rungs: Sequence[Rung], gates: GateSnapshot) -> Need:
        """Return what the rung needs that will be asked first."""
        if isinstance(request, EmbedTextRequest):
            return Need()
        first = next((rung for rung in rungs if self._attempts.blocked(rung, gates) is None), None)
        return Need() if first is None else Need.of(first, request)

    async def look(self, window: Sequence[Item], request: Request, rungs: Sequence[Rung]) -> GateSnapshot:
        """Return what the gates are now, and note the best cached answers to opened inputs."""
        return await self._lookups.look(window, request, rungs)

    async def open_for(
        self, item: Item, request: Request, rungs: Sequence[Rung], need: Need, *, deadline: Deadline
    ) -> None:
        """Open an input of a list, unless it is open; what is known of it is looked up later, with its window."""
        if item.settled or item.content is not None:
            return
        begin = partial(self._begin, item, request, rungs, need)

        def complete(_begun: None, how: How, share: Share | None) -> None:
            self._complete(item, request, rungs, how, share)

        await self._opener.open(item, _kind(item, request), begin, complete, deadline=deadline)

    def close(self) -> None:
        """Let idle threads end."""
        self._opener.close()

    def _begin(self, item: Item, request: Request, rungs: Sequence[Rung], need: Need) -> None:
        """Read an input; where that is quick, open it as well."""
        with _noting_error_of(item):
            if isinstance(request, EmbedTextRequest):
                item.content = _text(item.source)
                self._note_keys(item, request, rungs)
                return
            if item.opening is None:
                given = item.source
                item.names = item.names or tuple(map(name_of, given if isinstance(given, tuple) else (given,)))
                if is_embedding(request):
                    self._rewind(item)
                given, limits = item.source, self._limits
                item.opening = (
                    SeveralOpenings.begin(given, min_side_px=need.side_px, wire=need.wire, limits=limits)
                    if isinstance(given, tuple)
                    else begin_opening(given, min_side_px=need.side_px, wire=need.wire, limits=limits)
                )
            if item.opening.is_quick:
                share = ROOM.ask(item.opening.room_bytes)
                if share.is_in:
                    self._complete(item, request, rungs, Opening.decode_here, share)

    def _complete(self, item: Item, request: Request, rungs: Sequence[Rung], how: How, share: Share | None) -> None:
        """Decode an image that was read."""
        opening, item.opening = item.opening, None
        if opening is None or item.settled:  # it was late
            return
        with _noting_error_of(item, share):
            if isinstance(opening, SeveralOpenings):
                image: Image | Images = opening.images(opening.decode(how), share=share)
            else:
                image = opening.image(how(opening), share=share)
            if not item.settled:
                item.notes, item.opened_bytes = image.notes, image.memory_bytes
                item.content = image
                self._note_keys(item, request, rungs)

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

    def _note_keys(self, item: Item, request: Request, rungs: Sequence[Rung]) -> None:
        """Note the cache keys of the rungs that may answer this request, if answers are kept.

        A rung that may answer but cannot now (blocked, loading, without a key) has its cached answers all the same.
        """
        if not self._caching:
            return
        digest = item.digest
        for rung in rungs:
            if rung.model is not None and not isinstance(rung.refusal, NotSupportedError):
                key_of = self._keys_of(rung.backend.name, request, rung.model, rung.backend.account)
                item.keys[rung.backend.name] = key_of(digest)


class Need(NamedTuple):
    """What a rung needs of an image.

    Attributes:
        side_px: How long the shorter side of its pixels has to be; None for all of them.
        wire: How the image is sent, which then decides that.
    """

    side_px: int | None = None
    wire: WireRule | None = None

    @classmethod
    def of(cls, rung: Rung, request: Request) -> Need:
        """Return what a rung needs for a request."""
        return cls(rung.backend.image_px(request), rung.backend.wire_rule(request))


@contextmanager
def _noting_error_of(item: Item, share: Share | None = None) -> Iterator[None]:
    """Keep what the caller has done wrong; no room is taken then."""
    try:
        yield
    except CallerError as error:
        item.error = item.error or without_frames(error)
        if share is not None:
            share.leave()


def _keys_of(
    tenant: str | None, backend: str, request: Request, model: Model, account: Account
) -> Callable[[str], str]:
    """Return what makes the cache keys of all that is asked in the same way."""
    options = asdict(request)
    options.pop("space", None)  # the model's space is the one that counts
    options.pop("reader", None)  # which has a name
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


def opens_quickly(source: ImageSource | tuple[ImageSource, ...] | str, request: Request) -> bool:
    """Return whether reading an input takes milliseconds: a text, or a small image that is in memory."""
    if isinstance(request, EmbedTextRequest):
        return True
    if isinstance(source, tuple):
        return len(source) == 1 and opens_quickly(source[0], request)
    if isinstance(source, bytes | bytearray):
        return len(source) <= QUICK_BYTES
    if isinstance(source, str | os.PathLike):
        return False
    size = getattr(source, "nbytes", None)  # of an array
    if size is None and getattr(source, "fp", source) is None:  # a picture of Pillow's whose file is read
        size = math.prod(getattr(source, "size", (QUICK_BYTES,))) * 4
    return size is not None and size <= QUICK_BYTES


def _text(source: object) -> str:
    if not isinstance(source, str):
        raise InvalidRequestError(f"A text is a str, not {shown(source)}.", remedy="Pass a str.")
    if not source.strip():
        raise InvalidRequestError("The text is empty.", remedy="Pass at least one word.")
    check_unicode("The text", source)
    return source
