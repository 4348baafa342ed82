"""One copy of a model in memory, and one fetch of it, however many rungs use it.

This module decides when two rungs mean the same thing, given a key that says so, and that only one of them makes it. It
must not know what a model is, nor what it takes to load or fetch one.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from vision_backends.engine.threads import after_fork_in_child, make_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from vision_backends.engine.threads import Lock

__all__ = ["Shared", "Turns"]

T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    lock: Lock = field(default_factory=make_lock)
    users: int = 0


class Turns:
    """Blocks of which only one runs at a time for each key, whatever thread it is in."""

    def __init__(self) -> None:
        self._renew()
        after_fork_in_child(self, Turns._renew)

    def _renew(self) -> None:
        self._lock = make_lock()
        self._turns: dict[Hashable, _Turn] = {}

    @contextmanager
    def alone(self, key: Hashable) -> Iterator[None]:
        """Run a block when no other with this key runs."""
        with self._lock:
            turn = self._turns.setdefault(key, _Turn())
            turn.users += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    self._turns.pop(key, None)


class Shared(Generic[T]):
    """What is in memory, by key, as long as somebody has it. A forked child has none of it: its threads are gone."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._renew()
        after_fork_in_child(self, Shared._renew)

    def _renew(self) -> None:
        self._lock = make_lock()
        self._things: WeakValueDictionary[Hashable, T] = WeakValueDictionary()
        self._holders: WeakKeyDictionary[T, WeakSet[object]] = WeakKeyDictionary()

    def take(self, key: Hashable, make: Callable[[], T | None], *, holder: object) -> T | None:
        """Return what somebody else has under this key, or else make it; None where ``make`` returns that.

        Args:
            key: Everything that tells two things apart.
            make: Makes it; whatever it raises is raised here.
            holder: Who has it from now on, until they `leave` it or are gone.
        """
        with self._turns.alone(key):
            with self._lock:
                thing = self._things.get(key)
            if thing is None:
                thing = make()
            if thing is not None:
                with self._lock:
                    self._things[key] = thing
                    self._holders.setdefault(thing, WeakSet()).add(holder)
            return thing

    def leave(self, thing: T, holder: object) -> bool:
        """Note that a holder has it no longer; return whether nobody else has it either."""
        with self._lock:
            holders = self._holders.get(thing, WeakSet())
            holders.discard(holder)
            return not holders

    def holders(self, thing: T) -> int:
        """Return how many have it."""
        with self._lock:
            return len(self._holders.get(thing, ()))
