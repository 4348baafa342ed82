"""Where inputs are read and decoded, so that neither a disk, nor a caller's object, nor a decoder holds up other calls.

This module decides which threads do it, when an image waits for room in memory, and when decoding moves to a process of
its own: once half of the decoders are in images that they should have finished long ago. What cannot be interrupted is
left behind at the deadline, counted by its kind. It must not know what is asked about an input.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vision_backends.engine.machine_limits import processors
from vision_backends.engine.pools import Pool
from vision_backends.errors import AllBackendsFailedError, OverloadedError
from vision_backends.images.child import decode_apart
from vision_backends.images.image import KeptImage, Opening
from vision_backends.images.room import ROOM
from vision_backends.images.several import SeveralOpenings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vision_backends.clock import Clock, Deadline
    from vision_backends.images.pixels import Decoded
    from vision_backends.images.room import Share
    from vision_backends.routing.call import Item

    How = Callable[[Opening], Decoded]
    Complete = Callable[[How, Share | None], None]
    Kind = Literal["path", "url", "object", "memory"]

__all__ = ["Opener", "kind_of"]

T = TypeVar("T")

READERS = 64
"""Inputs of one kind that are read concurrently, those included whose file never answers."""

LEAST_DECODERS = 8
"""Images that are decoded concurrently in threads, at least; two per processor, as decoding releases the GIL."""

SLOWEST_FIRST: tuple[Kind, ...] = ("object", "url", "path", "memory")
"""What the images of a question may wait for, where it is more than one of these."""

LONG_S = 5.0
"""No image takes as long by what was counted: whoever does is stuck."""

READ = ("read", "Check that its disk answers and that it is not a pipe, or allow more time: deadline_s.")
WAIT = ("given room in memory", "Send fewer or smaller images at once, or allow more time: deadline_s.")
DECODE = ("decoded", "Pass a smaller image, or allow more time: deadline_s.")


class Opener:
    """Opens inputs of all calls.

    Args:
        clock: Where time comes from.

    Attributes:
        at_once: Inputs of one list that are opened concurrently, and processes that decode once too many threads hang.
        decoders: Images that are decoded concurrently in threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at_once = max(2, processors())
        self.decoders = max(LEAST_DECODERS, 2 * self.at_once)
        # What is in memory waits for nothing: more threads would only wait for each other.
        sizes: dict[Kind, int] = {"path": READERS, "url": READERS, "object": READERS, "memory": 2 * self.at_once}
        eager = {kind: size if kind == "url" else self.at_once for kind, size in sizes.items()}
        self._readers = {kind: Pool(f"read-{kind}", size=size, eager=eager[kind]) for kind, size in sizes.items()}
        self._decoders = Pool("decode", size=self.decoders, eager=self.at_once)
        self._children = Pool("decode-apart", size=self.at_once)

    def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Do something short in a thread. Errors as in `Pool.start`."""
        return self._readers["memory"].start(call)

    def close(self) -> None:
        """Let idle threads end."""
        for pool in (*self._readers.values(), self._decoders, self._children):
            pool.close()

    async def open(
        self,
        item: Item,
        kind: Kind,
        begin: Callable[[], T],
        complete: Callable[[T, How, Share | None], None],
        *,
        deadline: Deadline,
    ) -> T | None:
        """Open an input within a deadline; one that is late has its error then.

        Args:
            item: The input.
            kind: What reading it may wait for.
            begin: Reads it, and decodes it where that is quick; leaves in ``item.opening`` what is still to be decoded.
            complete: Decodes it in the given way, and keeps the given share of the room for images.
            deadline: When to stop; what has begun by then is left behind.

        Returns:
            What ``begin`` has returned; None where it was late.
        """
        started = self._clock.monotonic()
        stage = _Stage()
        try:
            if deadline.expired:
                item.error = AllBackendsFailedError(
                    "The deadline had passed before the input was read, so no backend was asked.",
                    remedy="Allow more time: deadline_s.",
                )
                return None
            async with self._clock.timeout_at(deadline.at):
                begun = await _outcome(self._readers[kind].start(begin))
                if item.opening is not None and not item.settled:
                    stage.now = WAIT
                    with _room(item.opening.room_bytes) as (share, is_in):
                        await is_in
                        stage.now = DECODE
                        with _for_a_while(share):
                            await self._decode(item, kind, partial(complete, begun), share)
                return begun
        except TimeoutError:
            done, remedy = stage.now
            item.close()
            spent_s = self._clock.monotonic() - started
            item.error = AllBackendsFailedError(
                f"The input was not {done} within {spent_s:.3g} s, so no backend was asked.", remedy=remedy
            )
        except OverloadedError as error:
            item.error = AllBackendsFailedError(
                f"The input was not {stage.now[0]}, so no backend was asked. {error.message}", remedy=error.remedy
            )
        finally:
            spent_s = self._clock.monotonic() - started
            item.opening_s += spent_s
            item.elapsed_s += spent_s
        return None

    async def _decode(self, item: Item, kind: Kind, complete: Complete, share: Share) -> None:
        """Decode an image in a thread, or where too many of those are stuck, in a process of its own."""
        opening = item.opening
        if isinstance(opening, SeveralOpenings):
            measured = None if kind == "object" else opening.measured
        else:
            measured = opening.measured if opening else None
        if measured is None:  # pixels, or a caller's own object, whose code may run
            await _outcome(self._readers[kind].start(partial(complete, Opening.decode_here, share)))
        elif measured.needs_limits or not await self._decode_in_thread(complete, share):
            await self._decode_apart(complete, share)

    async def _decode_in_thread(self, complete: Complete, share: Share) -> bool:
        """Decode an image in a thread and return whether one has begun it: none is waited for that is stuck."""
        if self._is_stuck():
            return False
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def decode() -> None:
            loop.call_soon_threadsafe(begun.set)
            complete(Opening.decode_here, share)

        running = self._decoders.start(decode)
        try:
            while not await _is_set(begun, within_s=LONG_S):
                if self._is_stuck():
                    return False
            await running
        finally:
            running.cancel()
        return True

    def _is_stuck(self) -> bool:
        return self._decoders.busy_for(LONG_S) >= self.decoders // 2

    async def _decode_apart(self, complete: Complete, share: Share) -> None:
        """Decode an image in a process of its own, which is ended with its caller."""
        child = _Child()
        try:
            await _outcome(self._children.start(partial(complete, child.decode, share)))
        finally:
            child.end()


class _Stage:
    """How far an input has come."""

    def __init__(self) -> None:
        self.now = READ


class _Child:
    """Decodes in another process, which ends with whoever waits for it; images of a question one after the other."""

    def __init__(self) -> None:
        self._is_over = False
        self._end: Callable[[], None] | None = None

    def decode(self, opening: Opening) -> Decoded:
        """Decode a file; pixels are here already."""
        return opening.decode_here() if opening.measured is None else decode_apart(opening.measured, started=self._note)

    def end(self) -> None:
        """End it; one that is only just being started ends itself."""
        self._is_over = True
        if self._end is not None:
            self._end()

    def _note(self, end: Callable[[], None]) -> None:
        self._end = end
        if self._is_over:
            end()


async def _is_set(event: asyncio.Event, *, within_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), within_s)
    return event.is_set()


async def _outcome(future: asyncio.Future[T]) -> T:
    """Wait for work in a thread, which is left behind when nobody waits for it any more."""
    try:
        return await future
    finally:
        future.cancel()


@contextmanager
def _room(size_bytes: int) -> Iterator[tuple[Share, asyncio.Future[None]]]:
    """Ask for room, which is given back at once where decoding fails or is left behind: it may never end."""
    loop = asyncio.get_running_loop()
    is_in = loop.create_future()

    def tell() -> None:
        if not is_in.done():
            is_in.set_result(None)

    share = ROOM.ask(size_bytes, told=lambda: loop.call_soon_threadsafe(tell))
    if share.is_in:
        tell()
    try:
        yield share, is_in
    except BaseException:
        share.leave()
        raise


@contextmanager
def _for_a_while(share: Share) -> Iterator[None]:
    """Let others have the room of an image that takes far too long."""
    waiting = asyncio.get_running_loop().call_later(LONG_S, share.leave)
    try:
        yield
    finally:
        waiting.cancel()


def kind_of(source: Any) -> Kind:  # noqa: ANN401 — whatever callers pass
    """Return what reading an input may wait for: a disk, a server, the caller's own code, or nothing."""
    if isinstance(source, tuple):
        kinds = {kind_of(each) for each in source}
        return next(kind for kind in SLOWEST_FIRST if kind in kinds or kind == "memory")
    if isinstance(source, str | os.PathLike):
        begun = source[:8].lower() if isinstance(source, str) else ""
        if begun.startswith("data:"):
            return "memory"
        return "url" if begun.startswith(("http://", "https://")) else "path"
    if isinstance(source, KeptImage):
        return "memory" if source.unread is None else kind_of(source.unread)
    has_file = getattr(source, "fp", None) is not None  # a picture of Pillow's that is not loaded yet
    return "object" if has_file or hasattr(source, "read") else "memory"
