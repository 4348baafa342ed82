"""Many callers at the same moment, each in a thread of its own.

This module decides that they meet, and that an error of one is no business of the others.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["at_once"]


def at_once(ask: Callable[[], object], callers: int) -> None:
    """Ask from so many threads, which begin together, and wait for all of them."""
    barrier = threading.Barrier(callers)

    def work() -> None:
        barrier.wait()
        with contextlib.suppress(Exception):
            ask()

    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
