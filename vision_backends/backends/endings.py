"""The end of the interpreter, while daemon threads still compute.

This module decides how long the end waits for them: a thread that is stopped in the midst of native code of torch,
OpenVINO or onnxruntime takes the process down with an abort. It must not know what is computed.
"""

from __future__ import annotations

import atexit
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["awaited_at_exit"]


@contextmanager
def awaited_at_exit(timeout_s: float) -> Iterator[threading.Event]:
    """Let the interpreter's end wait until the block is left, though not longer than so many seconds.

    Yields:
        An event that is set when the end has come: whoever can stop early, should.
    """
    ending, left = threading.Event(), threading.Event()

    def wait() -> None:
        ending.set()
        left.wait(timeout_s)

    atexit.register(wait)
    try:
        yield ending
    finally:
        left.set()
        atexit.unregister(wait)
