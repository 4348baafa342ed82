"""A description piece by piece: it falls back before the first piece, and never after it.

This module decides when a stream may still change its rung, how far it may be ahead of its reader, and that it ends
with its reader. It must not know what callers' options are called.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from vision_backends.errors import (
    BackendError,
    CallCancelledError,
    CallerError,
    StreamInterruptedError,
    TimedOutError,
    VisionError,
    without_frames,
)
from vision_backends.health.budget_state import BudgetReservedError
from vision_backends.types import FREE, Description, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
    from types import TracebackType

    from vision_backends.backends.requests import DescribeRequest
    from vision_backends.engine.event_loop import EventLoop
    from vision_backends.health.admission import Permit
    from vision_backends.images import Image
    from vision_backends.routing.call import Call, Item, Rung, Turn
    from vision_backends.routing.callers import Caller
    from vision_backends.routing.ladder import Ladder

    Produce = Callable[["PieceQueue"], Coroutine[Any, Any, Description]]

__all__ = ["AsyncDescriptionStream", "DescriptionStream", "PieceQueue", "StreamLadder"]

AHEAD = 16
"""Pieces that may be ready before the reader has taken them."""

END_S = 1.0
"""How long closing a stream waits for its request to end and to be booked."""


class PieceQueue:
    """Hands pieces from a task on the engine's loop to one reader, in another thread or on another loop.

    Args:
        engine: The loop of the task.
    """

    def __init__(self, engine: EventLoop) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._pieces: deque[str] = deque()
        self._room = asyncio.Event()
        self._wake: Callable[[], object] | None = None
        self.outcome: Description | BaseException | None = None

    async def put(self, piece: str) -> None:
        """Hand on a piece, once there is room for it; on the engine's loop."""
        while True:
            with self._lock:
                if len(self._pieces) < AHEAD:
                    self._pieces.append(piece)
                    wake, self._wake = self._wake, None
                    break
                self._room.clear()
            await self._room.wait()
        if wake is not None:
            wake()

    def end(self, outcome: Description | BaseException) -> None:
        """Hand on the record, or what went wrong; the last thing that comes."""
        with self._lock:
            self.outcome = outcome
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def take(self, wake: Callable[[], object]) -> str | None:
        """Return the next piece or, when there is none yet or any more, None; ``wake`` is called when that changes."""
        with self._lock:
            if not self._pieces:
                if self.outcome is None:
                    self._wake = wake
                return None
            piece = self._pieces.popleft()
            has_room = len(self._pieces) == AHEAD - 1
        if has_room:
            self._engine.call_soon(self._room.set)
        return piece


class _Stream:
    """What both kinds of streams share: the task behind them starts with the first piece and ends with its reader."""

    def __init__(self, engine: EventLoop, produce: Produce) -> None:
        self.description: Description | None = None
        self._engine = engine
        self._queue = PieceQueue(engine)
        self._produce = produce
        self._stop: Callable[[], object] | None = None
        self._over = threading.Event()
        self._is_closed = False

    def __del__(self) -> None:
        if self._stop is not None:
            self._stop()

    def _start(self) -> None:
        if self._stop is None and not self._is_closed:
            self._stop = self._engine.start(partial(_run, self._produce, self._queue, self._over))

    def _ended(self) -> bool:
        """Return whether everything was said, and keep the record; raise what went wrong, once."""
        if self._is_closed:
            return True
        outcome = self._queue.outcome
        if outcome is None:
            return False
        if isinstance(outcome, BaseException):
            self._is_closed = True
            raise outcome
        self.description = outcome
        return True

    def _cancel(self) -> bool:
        """Stop the task; return whether there is something to wait for."""
        self._is_closed = True
        if self._stop is None:
            return False
        self._stop()
        return not self._over.is_set()


async def _run(produce: Produce, queue: PieceQueue, over: threading.Event) -> None:
    """Produce the pieces, and tell the reader how it ended; the stream itself may be dropped meanwhile."""
    try:
        queue.end(await produce(queue))
    except BaseException as error:
        queue.end(error if isinstance(error, VisionError) else CallCancelledError("The stream was closed."))
        if not isinstance(error, Exception):
            raise
    finally:
        over.set()


class DescriptionStream(_Stream):
    """The pieces of a description as they come; iterate over it, and `close` it or leave its block to stop early.

    Iterating raises what `Router.describe` does as long as there was no piece, and afterwards
    `StreamInterruptedError` with the text so far.

    Attributes:
        description: The whole record with its trace once the last piece has come; None until then.
    """

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._start()
        while True:
            ready = threading.Event()
            piece = None if self._is_closed else self._queue.take(ready.set)
            if piece is not None:
                return piece
            if self._ended():
                raise StopIteration
            try:
                ready.wait()
            except BaseException:  # Ctrl-C
                self.close()
                raise

    def close(self) -> None:
        """Stop early; the backend is told, and what has come so far is booked."""
        if self._cancel():
            self._over.wait(END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncDescriptionStream(_Stream):
    """The pieces of a description as they come, for ``async for``; otherwise as `DescriptionStream`."""

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        self._start()
        loop = asyncio.get_running_loop()
        while True:
            ready: asyncio.Future[None] = loop.create_future()
            piece = None if self._is_closed else self._queue.take(partial(_set_soon, loop, ready))
            if piece is not None:
                return piece
            if self._ended():
                raise StopAsyncIteration
            try:
                await ready
            except BaseException:
                self._cancel()
                raise

    async def close(self) -> None:
        """Stop early; the backend is told, and what has come so far is booked."""
        if self._cancel():
            await asyncio.get_running_loop().run_in_executor(None, self._over.wait, END_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _set_soon(loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.call_soon_threadsafe(wake)


class StreamLadder:
    """The walk down the ladder for one stream.

    Args:
        ladder: Who answers.
        callers: What calls each backend, by its name.
    """

    def __init__(self, ladder: Ladder, callers: dict[str, Caller]) -> None:
        self._ladder = ladder
        self._attempts = ladder.attempts
        self._callers = callers

    async def walk(self, rungs: Sequence[Rung], call: Call, item: Item, queue: PieceQueue) -> None:
        """Settle one opened image, and hand on the pieces of its description as they come.

        Args:
            rungs: How the backends stand, best first.
            call: What is asked.
            item: The opened image; its answer, error and attempts are filled in.
            queue: Where the pieces go.

        Raises:
            StreamInterruptedError: The backend failed after the first piece.
        """
        for turn in self._ladder.turns(rungs, call):
            if not self._attempts.recall(turn, [item]):
                if item.answer is not None:
                    await queue.put(str(item.answer))
            elif turn.rung.refusal is not None:
                self._attempts.pass_by([item], turn, turn.rung.refusal)
            elif not await self._may_ask(turn, item):
                continue
            else:
                ask = partial(self._ask, item=item, queue=queue)
                reserved = await ask(turn)
                if reserved is not None:
                    await self._attempts.once_it_fits(turn, [item], ask, reserved)
            if item.settled:
                return

    async def _may_ask(self, turn: Turn, item: Item) -> bool:
        """Return whether a rung may be asked, once it is known what it can do."""
        if turn.rung.model is None or not turn.rung.model.probe_first:
            return True
        return await self._ladder.probing.lets_ask(turn, [item], self._attempts)

    async def _ask(self, turn: Turn, *, item: Item, queue: PieceQueue) -> BudgetReservedError | None:
        """Ask one rung if it lets the call in; return what says that a budget is reserved."""
        timeout_s = turn.timeout_s([item])
        try:
            admitted = await self._attempts.admit(turn, [item], timeout_s=timeout_s)
        except BudgetReservedError as reserved:
            return without_frames(reserved)
        if admitted is not None:
            with self._attempts.cold_starts.loading(turn):
                await self._attempt(turn, item, *admitted, timeout_s=timeout_s, queue=queue)
        return None

    async def _attempt(
        self, turn: Turn, item: Item, permit: Permit, estimate: Usage, *, timeout_s: float, queue: PieceQueue
    ) -> None:
        """Hand on what one rung says; settle the item when it has ended well."""
        attempts, backend = self._attempts, turn.rung.backend
        started = attempts.clock.monotonic()
        said: list[str] = []
        try:
            record = await self._forward(turn, item, timeout_s=timeout_s, said=said, queue=queue)
        except asyncio.CancelledError:
            known = None if backend.local or estimate == FREE else estimate
            attempts.ended_by_cancelling(partial(permit.released, usage=known))
            stopped = StreamInterruptedError("The caller has stopped listening.", partial="".join(said))
            elapsed_s = attempts.clock.monotonic() - started
            attempts.note([item], turn, "failed", stopped, elapsed_s=elapsed_s, usage=known)
            raise
        except CallerError as error:
            attempts.note([item], turn, "failed", error)
            item.error = without_frames(error)
            await attempts.ended(permit, partial(permit.released, usage=error.usage))
        except BackendError as error:
            elapsed_s = attempts.clock.monotonic() - started
            attempts.note([item], turn, "failed", error, elapsed_s=elapsed_s)
            end = partial(permit.failed, error, elapsed_s=elapsed_s, usage=error.usage)
            await attempts.ended(permit, end, error=error)
            if said:
                raise _broken_off(backend.name, "".join(said), error) from error
        else:
            elapsed_s = attempts.clock.monotonic() - started
            attempts.settle(item, turn, record, elapsed_s=elapsed_s)
            limits = backend.rate_limits(turn.call.request)
            usage = record.trace.usage
            end = partial(permit.succeeded, usage=usage, elapsed_s=elapsed_s, limits=limits)
            await attempts.ended(permit, end)

    async def _forward(
        self, turn: Turn, item: Item, *, timeout_s: float, said: list[str], queue: PieceQueue
    ) -> Description:
        """Return the record after handing on the pieces before it.

        Raises:
            BackendError: It did not come, or not in time; a bug in the backend counts as an outage.
            CallerError: The request is at fault.
        """
        clock = self._attempts.clock
        until = clock.monotonic() + timeout_s
        late = TimedOutError(f"No answer within {timeout_s:.3g} s.")
        image, request = cast("Image", item.opened), cast("DescribeRequest", turn.call.request)
        backend = turn.rung.backend
        stream = self._callers[backend.name].stream(backend, image, request, timeout_s=timeout_s)
        async with aclosing(stream) as pieces:
            while True:
                try:
                    async with clock.timeout_at(until):
                        piece = await anext(pieces)
                except TimeoutError:
                    raise late from None
                except (BackendError, CallerError, asyncio.CancelledError):
                    raise
                except BaseException as crash:
                    raise self._attempts.crashed(turn, crash) from crash
                if clock.monotonic() > until:
                    raise late
                if isinstance(piece, Description):
                    return piece
                said.append(piece)
                await queue.put(piece)


def _broken_off(backend: str, partial_text: str, error: BackendError) -> StreamInterruptedError:
    return StreamInterruptedError(
        f"{backend} broke off after {len(partial_text)} characters: {error.message}",
        partial=partial_text,
        backend=backend,
        remedy="Ask again; the next rung answers if it is still out of order.",
    )
