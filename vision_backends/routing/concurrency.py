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

__all__ = ["spread"]

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
