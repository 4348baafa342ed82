"""Whether a model will fit into memory, known before it is loaded rather than when the kernel kills the process.

This module decides how much a model needs, whether that is free, and how memory is given back. It must not know how
models are loaded.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vision_backends.backends.local.runtime.torch_environment import free_device_memory
from vision_backends.engine.machine_limits import FreeMemory, free_memory
from vision_backends.errors import NotReadyError
from vision_backends.freed_memory import return_freed_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.backends.local.hub.checkpoint import Checkpoint

__all__ = ["LoadReservations", "check_room_for_torch", "give_back_memory", "memory_for", "needed_bytes"]

OVERHEAD = 1.1
"""Memory that loaded weights take, as a multiple of their size. Measured, like the next two, as memory that a process
cannot give back: CLIP ViT-B/32, with 605 MB of weights, takes 655 MB."""

CONVERTED = 2.3
"""The same where another engine keeps its own weights beside torch's, if all of them are converted: with OpenVINO
2026.4, which converts the image towers, CLIP takes 1,310 MB."""

WORK_BYTES = 300_000_000
"""Memory for computing, however small the model: D-FINE-S (41 MB) takes 252 MB more; 700 MB if OpenVINO converts it."""


TORCH_BYTES = 280_000_000
"""Memory that importing torch and a model of transformers takes, apart from their files, which can be read again:
measured with torch 2.13 and transformers 5.24."""

SMALLEST_BYTES = 2
"""Bytes of a number in the smallest form in which a model is loaded."""


class LoadReservations:
    """How much memory is left for one more load while others are under way. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads = 0
        self._left = 0

    @contextmanager
    def reserve(self, needed: int, *, free: int) -> Iterator[int]:
        """Reserve memory for a load in this block, if it fits beside those under way.

        Free memory shows what a load has taken already, but not what it will still take. So what was free when the
        first of them began is counted, less all that they have reserved.

        Args:
            needed: Bytes that the load will take.
            free: Bytes that are free now.

        Yields:
            Bytes that were left for it; if these are fewer than it needs, nothing is reserved.
        """
        with self._lock:
            left = free if self._loads == 0 else min(self._left, free)
            kept = needed if needed <= left else 0
            self._left = left - kept
            self._loads += 1
        try:
            yield left
        except BaseException:
            with self._lock:
                self._left += kept  # a failed load holds no memory
            raise
        finally:
            with self._lock:
                self._loads -= 1


_reservations = LoadReservations()
"""One for the whole process, as is the memory."""


@contextmanager
def memory_for(
    checkpoint: Checkpoint,
    *,
    device: str,
    max_bytes: int | None,
    bytes_per_parameter: int = 4,
    converted: bool = False,
) -> Iterator[None]:
    """Reserve memory for a model while it is loaded in this block.

    Args:
        checkpoint: What is loaded.
        device: Where it will run. Weights pass through main memory on their way to a GPU, too; the GPU's own memory is
            not checked, as torch reports when it runs out.
        max_bytes: How much it may take; None for whatever is free.
        bytes_per_parameter: 4 for 32-bit floats, 2 for 16-bit ones.
        converted: Whether parts of it are tried on an engine that keeps its own weights.

    Raises:
        NotReadyError: It will not fit.
    """
    needed = needed_bytes(checkpoint, bytes_per_parameter=bytes_per_parameter, converted=converted)
    if max_bytes is not None and needed > max_bytes:
        raise _shortage(checkpoint, needed, device, f"only {max_bytes / 1e6:.0f} MB may be used")
    free = free_memory() or FreeMemory(sys.maxsize)
    with _reservations.reserve(needed, free=free.size_bytes) as left:
        if needed > left:
            raise _shortage(checkpoint, needed, device, _what_is_left(free, left))
        yield


def check_room_for_torch(checkpoint: Checkpoint) -> None:
    """Return unless even the smallest form of a model could not be loaded because torch has to be imported as well.

    Importing torch alone may be too much for a small container, whose kernel would end the process without a word.

    Raises:
        NotReadyError: It will not fit.
    """
    free = None if "torch" in sys.modules else free_memory()
    needed = TORCH_BYTES + needed_bytes(checkpoint, bytes_per_parameter=SMALLEST_BYTES)
    if free is not None and needed > free.size_bytes:
        raise _shortage(checkpoint, needed, "torch and the model", _what_is_left(free, free.size_bytes))


def needed_bytes(checkpoint: Checkpoint, *, bytes_per_parameter: int, converted: bool = False) -> int:
    """Return roughly how much memory a model takes."""
    return WORK_BYTES + int(checkpoint.parameters * bytes_per_parameter * (CONVERTED if converted else OVERHEAD))


def _what_is_left(free: FreeMemory, left_bytes: int) -> str:
    left = f"{left_bytes / 1e6:.0f} MB"
    return f"{free.limit} leaves only {left}" if free.limit else f"only {left} is free"


def _shortage(checkpoint: Checkpoint, needed: int, device: str, limit: str) -> NotReadyError:
    message = f"{checkpoint.name} needs about {needed / 1e6:.0f} MB of memory for {device}, but {limit}."
    remedy = "Free some memory, or configure a smaller model under [local]."
    return NotReadyError(message, remedy=remedy, code="out_of_memory", retry_after_s=30.0)


def give_back_memory() -> None:
    """Return the memory of dropped models to the system: reference cycles, and what malloc and a GPU keep."""
    gc.collect()
    free_device_memory()
    return_freed_memory()
