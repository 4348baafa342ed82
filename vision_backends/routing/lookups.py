"""What is known of inputs before a rung is asked: how the gates stand, and the answers that are in the cache.

This module decides that the stores are read once for all calls that want to know something at the same time: while one
reading is under way, those that come wait for the next, and where more are about to come, for a moment. It must not
know how an input is opened, nor how a rung is asked.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vision_backends.backends.requests import AskRequest, is_embedding
from vision_backends.backends.structured import with_instance
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.errors import InvalidReplyError, OverloadedError
from vision_backends.storage.bounded import StoreTime, shared_store_time
from vision_backends.storage.cache import decode
from vision_backends.types import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends.backends.requests import Request
    from vision_backends.engine.pools import Pool
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.routing.attempts import Attempts
    from vision_backends.routing.call import Item, Rung
    from vision_backends.routing.recorder import CallRecorder

__all__ = ["Lookups"]

MOST_ITEMS = 64
"""Inputs that are looked up in one go, more where a single list brings them."""

MOMENT_S = 0.003
"""How long a call waits for others whose inputs are being opened: two changes of threads take a tenth of that."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Wanted:
    """What one call wants to know.

    Attributes:
        items: Its opened inputs, into which their cached answers are put.
        request: What is asked of each.
        rungs: Who may answer.
        time: What the call may still wait for its stores.
        told: Given the gates, on the event loop.
    """

    items: Sequence[Item]
    request: Request
    rungs: Sequence[Rung]
    time: StoreTime | None
    told: asyncio.Future[GateSnapshot]


class Lookups:
    """Looks things up for all calls.

    Args:
        attempts: Knows the gates.
        recorder: Where answers are kept.
        store_pool: Threads for what may have to wait for a store.
    """

    def __init__(self, attempts: Attempts, *, recorder: CallRecorder, store_pool: Pool) -> None:
        self._attempts = attempts
        self._recorder = recorder
        self._store_pool = store_pool
        self._latest: GateSnapshot | None = None
        self._begin()
        after_fork_in_child(self, Lookups._begin)

    def _begin(self) -> None:
        self._waiting: deque[_Wanted] = deque()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._reading: asyncio.Future[GateSnapshot] | None = None
        self._moment: asyncio.TimerHandle | None = None
        self._opening = 0

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Have other calls know of one that opens its input in the block, and will then look."""
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    def latest(self, rungs: Sequence[Rung]) -> GateSnapshot:
        """Return how the gates of some rungs stood when they were last looked at in this process; may block.

        Those that never were are looked at now. It is good enough for a guess which rung will be asked.
        """
        latest = self._latest
        if latest is None or not all(rung.scope.account in latest.accounts for rung in rungs):
            latest = self._latest = self._attempts.look(rungs)
        return latest

    def look_here(self, item: Item, request: Request, rungs: Sequence[Rung]) -> GateSnapshot:
        """Do as `look` for one input, in this thread."""
        return self._read_in_one_go([([item], request)], rungs)

    async def look(self, items: Sequence[Item], request: Request, rungs: Sequence[Rung]) -> GateSnapshot:
        """Return how the gates of some rungs stand, and note the best cached answers to opened inputs.

        What is returned may say more than was asked for.
        """
        if not (self._recorder.blocking or self._attempts.blocking):
            return self._read_in_one_go([(items, request)], rungs)
        told: asyncio.Future[GateSnapshot] = asyncio.get_running_loop().create_future()
        wanted = _Wanted(items=items, request=request, rungs=rungs, time=StoreTime.of_call(), told=told)
        if wanted.time is not None and wanted.time.is_short:  # it waits for nobody else, and keeps nobody from waiting
            return await self._store_pool.start(partial(self._read_together, [wanted]))
        self._waiting.append(wanted)
        self._read_soon(told.get_loop())
        return await told

    def _read_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read, unless that is under way: now, or in a moment where others are about to come."""
        if self._loop is None or self._loop() is not loop:  # nothing of another, which has ended, will ever end
            self._loop, self._reading, self._moment = weakref.ref(loop), None, None
            self._waiting = deque(wanted for wanted in self._waiting if wanted.told.get_loop() is loop)
        if self._reading is not None and not self._reading.done():
            return
        if not self._opening or len(self._waiting) >= MOST_ITEMS:
            self._read_next()
        elif self._moment is None:
            self._moment = loop.call_later(MOMENT_S, self._read_next)

    def _read_next(self) -> None:
        """Begin to read for those that have waited longest."""
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        together: list[_Wanted] = []
        count = 0
        while self._waiting and (not together or count + len(self._waiting[0].items) <= MOST_ITEMS):
            wanted = self._waiting.popleft()
            if not wanted.told.cancelled():
                together.append(wanted)
                count += len(wanted.items)
        if not together:
            return
        try:
            self._reading = self._store_pool.start(partial(self._read_together, together))
            self._reading.add_done_callback(partial(self._tell, together))
        except (OverloadedError, RuntimeError) as error:  # no thread can be started, or the router is closed
            for wanted in together:
                wanted.told.set_exception(error)

    def _tell(self, together: Sequence[_Wanted], reading: asyncio.Future[GateSnapshot]) -> None:
        error = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        for wanted in together:
            if wanted.told.done():
                continue
            if error is None:
                wanted.told.set_result(reading.result())
            else:
                wanted.told.set_exception(error)
        if self._waiting:
            self._read_soon(reading.get_loop())

    def _read_together(self, together: Sequence[_Wanted]) -> GateSnapshot:
        """Read for some calls, in a thread, for as long as the least patient of them may wait."""
        rungs = list({rung.scope: rung for wanted in together for rung in wanted.rungs}.values())
        with shared_store_time([wanted.time for wanted in together]):
            return self._read_in_one_go([(wanted.items, wanted.request) for wanted in together], rungs)

    def _read_in_one_go(self, asked: Sequence[tuple[Sequence[Item], Request]], rungs: Sequence[Rung]) -> GateSnapshot:
        def read() -> GateSnapshot:
            self._recall(asked)
            return self._attempts.look(rungs)

        gates = self._latest = self._recorder.in_one_go(read)
        return gates

    def _recall(self, asked: Sequence[tuple[Sequence[Item], Request]]) -> None:
        """Note the best cached answers to inputs that have none noted yet, by the name of their rungs."""
        open_items = [
            (item, request)
            for items, request in asked
            for item in items
            # One of a list of embeddings may have to be answered in another space later.
            if item.keys and not item.settled and (not item.recalled or is_embedding(request))
        ]
        keys = list(dict.fromkeys(key for item, _ in open_items for key in item.keys.values()))
        kept = self._recorder.recall(keys) if keys else {}
        for item, request in open_items if kept else ():
            found = {name: kept[key] for name, key in item.keys.items() if key in kept}
            if isinstance(request, AskRequest) and request.reader is not None:
                found = {name: answer for name, answer in found.items() if _has_form(answer, request.reader)}
            item.recalled |= found


def _has_form(answer: bytes, reader: type[Any]) -> bool:
    """Return whether a kept answer is one that a class still takes, whose rules may have changed since."""
    reply = decode(answer)
    try:
        return isinstance(reply, Reply) and with_instance(reply, reader) is not None
    except InvalidReplyError:
        return False
