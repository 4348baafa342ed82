"""The same work on many pieces at once.

This module decides that nobody has to wait for the others' pieces when one fails or the caller is interrupted:
unlike those of ``concurrent.futures``, these threads hold up neither Ctrl-C nor the end of the interpreter.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Errand", "spread"]

P = TypeVar("P")


def spread(work: Callable[[P], object], pieces: Sequence[P], *, threads: int) -> None:
    """Do the work on every piece, on so many at once.

    Args:
        work: Called with each piece, in the caller's context variables.
        pieces: Begun in this order.
        threads: How many run at once; with one, everything happens in the caller's thread.

    Raises:
        BaseException: The first that the work has raised; pieces that were not begun by then are left out.
    """
    if threads <= 1 or len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    waiting = iter(pieces)
    lock = threading.Lock()
    errors: list[BaseException] = []
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            with lock:
                piece = next(waiting, stopped)
            if piece is stopped:
                return
            try:
                work(piece)  # type: ignore[arg-type]  # not the sentinel
            except BaseException as error:  # noqa: BLE001 — raised again in the caller's thread
                errors.append(error)
                stopped.set()

    crew = [
        threading.Thread(target=copy_context().run, args=(run,), name="vision-many", daemon=True)
        for _ in range(min(threads, len(pieces)))
    ]
    try:
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    finally:
        stopped.set()
    if errors:
        raise errors[0]


class Errand:
    """One piece of work in a thread of its own, which can be waited for or left to itself.

    Args:
        work: What to do, in the caller's context variables.
        on_left: Called in that thread when the work is done and nobody waits for it any more.
    """

    def __init__(self, work: Callable[[], object], *, on_left: Callable[[], object]) -> None:
        self._work = work
        self._on_left = on_left
        self._done = threading.Event()
        self._claim = threading.Lock()
        threading.Thread(target=copy_context().run, args=(self._run,), name="vision-errand", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether it is done, after waiting for it; without a time, as long as it takes."""
        return self._done.wait(timeout_s)

    def leave(self) -> bool:
        """Stop waiting for it; return False when it is just done."""
        return self._claim.acquire(blocking=False)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            if not self._claim.acquire(blocking=False):
                self._on_left()
            self._done.set()
