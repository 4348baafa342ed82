"""The end of the interpreter, while daemon threads still compute.

This module decides when the end has come and how long it waits for them: a thread that is stopped in the midst of
native code of torch, OpenVINO or onnxruntime takes the process down with an abort. It must not know what is computed.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["awaited_at_exit", "ending_error", "interpreter_ends"]


def interpreter_ends() -> bool:
    """Tell whether only daemon threads are left; a script whose other threads work on has not ended."""
    if threading.main_thread().is_alive():
        return False
    return all(thread.daemon or not thread.is_alive() for thread in threading.enumerate())


def ending_error() -> NotReadyError:
    """Return what those hear who want something while the interpreter ends."""
    return NotReadyError("The interpreter ends, so nothing is begun any more.", code="ending")


class _End:
    """Whom the end waits for, all together.

    They share one hook: Python keeps the place of every hook that it ever had, and looks through all of them.
    """

    def __init__(self) -> None:
        self._blocks: dict[threading.Event, tuple[float, int]] = {}
        self._hooked = False

    def enter(self, *, timeout_s: float) -> threading.Event:
        """Begin to be awaited, so many seconds at most; until `leave`."""
        left = threading.Event()
        self._blocks[left] = (timeout_s, os.getpid())
        if not self._hooked:
            self._hooked = True
            atexit.register(self._wait)
        return left

    def leave(self, left: threading.Event) -> None:
        """Be awaited no more."""
        self._blocks.pop(left)
        left.set()

    def _wait(self) -> None:
        came = time.monotonic()
        for left, (timeout_s, process) in self._blocks.copy().items():
            if process == os.getpid():  # a forked child has not the threads of its parent
                left.wait(max(0.0, came + timeout_s - time.monotonic()))


_end = _End()
"""One for the whole process, as is the interpreter."""


@contextmanager
def awaited_at_exit(timeout_s: float) -> Iterator[None]:
    """Let the interpreter's end wait until the block is left, though not longer than so many seconds.

    Raises:
        NotReadyError: The end has come already, and may wait for nobody any more.
    """
    left = _end.enter(timeout_s=timeout_s)
    try:
        if interpreter_ends():  # asked after entering, as the end looks only once at who is there
            raise ending_error()
        yield
    finally:
        _end.leave(left)
