"""How much memory the images of a process may take at the same time: while they are decoded, and until their call ends.

This module decides who waits for whom: whoever asks first goes first. It must not know what an image is, nor how long
somebody may wait.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from vision_backends.engine.threads import Mailbox, after_fork_in_child, make_lock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_BYTES", "ROOM", "Room", "Share", "wait_for"]

MAX_BYTES = 1_000_000_000
"""Six images of 40 megapixels that are kept, or one of them in the format that takes most; 80 photos of a phone."""


class Room:
    """Memory that is shared out. Safe for many threads, and where Python collects garbage in the middle of anything.

    Args:
        max_bytes: How much there is; whoever asks for more gets all of it, alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.generation = 0
        self.renew()
        after_fork_in_child(self, Room.renew)

    def renew(self) -> None:
        """Forget everybody, as in a forked child: what the parent's threads hold is theirs."""
        self.generation += 1
        self._lock = make_lock()
        self._used_bytes = 0
        self._waiting: deque[Share] = deque()
        self._changes: deque[tuple[Share, int]] = deque()  # not yet accounted for; appending needs no lock

    @property
    def used_bytes(self) -> int:
        """How much is taken now."""
        return self._used_bytes

    def ask(self, size_bytes: int, *, told: Callable[[], object] | None = None, at_once: bool = False) -> Share:
        """Return a share, which is in now or later.

        Args:
            size_bytes: How much memory is needed.
            told: Called once it is in, if it is not so now, by whichever thread makes room.
            at_once: For whoever holds a share already, and must not wait for others that do.
        """
        share = Share(self, min(size_bytes, self._max_bytes), told)
        with self._lock:
            self._account()
            if at_once or (not self._waiting and self._used_bytes + share.size_bytes <= self._max_bytes):
                share.is_in = True
                self._used_bytes += share.size_bytes
            elif told is not None:
                self._waiting.append(share)
        self._settle()
        return share

    def change(self, share: Share, by_bytes: int) -> None:
        """Note that a share takes more or less from now on, and let in who has room then."""
        if share.generation == self.generation:
            self._changes.append((share, by_bytes))
            self._settle()

    def _settle(self) -> None:
        while self._changes and self._lock.acquire(blocking=False):  # else its holder looks again
            try:
                self._account()
                let_in = self._let_in() if self._waiting else []
            finally:
                self._lock.release()
            for each in let_in:
                each.tell()

    def _account(self) -> None:
        while self._changes:
            share, by_bytes = self._changes.popleft()
            if share.is_in:
                self._used_bytes += by_bytes

    def _let_in(self) -> list[Share]:
        let_in = []
        while self._waiting:
            first = self._waiting[0]
            if not first.is_left and self._used_bytes + first.size_bytes > self._max_bytes:
                break
            self._waiting.popleft()
            if not first.is_left:
                first.is_in = True
                self._used_bytes += first.size_bytes
                let_in.append(first)
        return let_in


class Share:
    """A part of a room. It is given back when it is left, at the latest when nothing refers to it any more.

    Attributes:
        size_bytes: How much of it.
        is_in: Whether it may be used.
        is_left: Whether it was given back.
        generation: Of which process it is.
    """

    __slots__ = ("_room", "_told", "generation", "is_in", "is_left", "size_bytes")

    def __init__(self, room: Room, size_bytes: int, told: Callable[[], object] | None) -> None:
        self._room = room
        self._told = told
        self.generation = room.generation
        self.size_bytes = size_bytes
        self.is_in = self.is_left = False

    def resize(self, size_bytes: int) -> None:
        """Take more or less of it from now on."""
        if not self.is_left:
            by_bytes, self.size_bytes = size_bytes - self.size_bytes, size_bytes
            self._room.change(self, by_bytes)

    def leave(self) -> None:
        """Give it back, or do not wait for it any more; harmless twice."""
        if not self.is_left:
            self.is_left = True
            self._room.change(self, -self.size_bytes)

    def tell(self) -> None:
        """Say that it is in."""
        if self._told is not None:
            with suppress(RuntimeError):  # the loop of whoever waited has ended
                self._told()

    def __del__(self) -> None:
        if not self.is_left:
            self.leave()


ROOM = Room(MAX_BYTES)
"""One for the whole process, as is its memory."""


def wait_for(size_bytes: int) -> Share:
    """Return a share once it is in, blocking until then."""
    told: Mailbox[None] = Mailbox()
    share = ROOM.ask(size_bytes, told=lambda: told.put(None))
    if not share.is_in:
        told.get()
    return share
