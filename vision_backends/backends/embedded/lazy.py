"""Something heavy that is made when it is first needed, once, and never taken across a fork.

This module decides when things are made and given up. It must not know what they are.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lazy"]

T = TypeVar("T")


class Lazy(Generic[T]):
    """A place for one thing.

    The first `get` makes it; threads that come meanwhile wait for that one making. A forked child finds the place
    empty and makes its own: the threads that the parent's thing works with do not exist there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thing: T | None = None
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _abandon(this()))

    @property
    def made(self) -> bool:
        """Whether the thing is there."""
        return self._thing is not None

    def get(self, make: Callable[[], T]) -> T:
        """Return the thing, made by ``make`` unless it is there; whatever that raises leaves the place empty."""
        thing = self._thing
        if thing is not None:
            return thing
        with self._lock:
            if self._thing is None:
                self._thing = make()
            return self._thing

    def drop(self) -> None:
        """Give the thing up; the next `get` makes another."""
        with self._lock:
            self._thing = None


def _abandon(lazy: Lazy[Any] | None) -> None:
    """Give a forked child a fresh lock and an empty place.

    The destructor of the parent's thing would wait for ever for threads that do not exist in the child. So the thing
    is not destroyed there: its reference count is raised once more than it is ever lowered.
    """
    if lazy is None:
        return
    lazy._lock = threading.Lock()  # noqa: SLF001 — the same module
    if lazy._thing is not None:  # noqa: SLF001
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(lazy._thing))  # noqa: SLF001
        lazy._thing = None  # noqa: SLF001
