"""Calls that would rather wait than degrade: first come, first served, behind a gate that will pass again.

This module decides who of the waiting is next. It must not know gates or backends, and calls that cannot wait
never come here.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

__all__ = ["Lines"]

K = TypeVar("K", bound="Hashable")


class Lines(Generic[K]):
    """One line of waiting calls for each key. Safe for many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: defaultdict[K, deque[object]] = defaultdict(deque)

    def is_empty(self, key: K) -> bool:
        """Return whether nobody waits for a key."""
        with self._changed:
            return not self._lines.get(key)

    @contextmanager
    def stand(self, key: K, *, timeout_s: float) -> Iterator[bool]:
        """Stand in line until everybody who came before has left it.

        Args:
            key: What is waited for.
            timeout_s: Patience, in seconds of real time.

        Yields:
            True at the head of the line, which is kept until the block ends; False when patience has ended first.
        """
        ticket = object()
        with self._changed:
            line = self._lines[key]
            line.append(ticket)
            first = self._changed.wait_for(lambda: line[0] is ticket, timeout=min(timeout_s, threading.TIMEOUT_MAX))
        try:
            yield first
        finally:
            with self._changed:
                line.remove(ticket)
                if not line:
                    self._lines.pop(key, None)
                self._changed.notify_all()
