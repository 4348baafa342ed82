"""Identical calls at the same time: one of them asks, the others wait for its answer.

This module decides who goes first. It must not know what is asked, nor where answers are kept.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Flights"]


class Flights:
    """The keys that somebody is asking for right now. Safe for many threads."""

    def __init__(self) -> None:
        self._flying: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @contextmanager
    def join(self, key: str, *, timeout_s: float) -> Iterator[bool]:
        """Fly alone if nobody else has this key in the air; otherwise wait until they have landed.

        Args:
            key: What is asked for.
            timeout_s: How long to wait for others.

        Yields:
            True to the first, who is to ask; False to those who have waited and shall look for the answer first.
        """
        with self._lock:
            landed = self._flying.get(key)
            if landed is None:
                own = self._flying[key] = threading.Event()
        if landed is not None:
            landed.wait(timeout_s)
            yield False
            return
        try:
            yield True
        finally:
            with self._lock:
                del self._flying[key]
            own.set()
