"""Whether a model will fit into memory, known before it is loaded rather than when the kernel kills the process.

This module decides how much a model needs, how much is free, and how memory is given back. It must not know how models
are loaded.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.backends.local.runtime.torch_environment import free_device_memory
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.backends.local.hub.checkpoint import Checkpoint

__all__ = ["Room", "free_memory_bytes", "give_back_memory", "memory_for", "needed_bytes"]

OVERHEAD = 1.1
"""Memory that loaded weights take, as a multiple of their size. Measured, like the next two, as memory that a process
cannot give back: CLIP ViT-B/32, with 605 MB of weights, takes 653 MB; BLIP base, with 990 MB, takes 764 MB."""

CONVERTED = 2.3
"""The same where another engine keeps its own weights beside torch's, if all of them are converted: with OpenVINO
2026.4, which converts the image towers, CLIP takes 1,068 MB and BLIP 1,318 MB."""

WORK_BYTES = 300_000_000
"""Memory for computing, however small the model: D-FINE-S (41 MB) takes 252 MB more; 700 MB if OpenVINO converts it."""


class Room:
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


_room = Room()
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
    free = free_memory_bytes()
    with _room.reserve(needed, free=sys.maxsize if free is None else free) as left:
        if needed > left:
            raise _shortage(checkpoint, needed, device, f"only {left / 1e6:.0f} MB is free")
        yield


def needed_bytes(checkpoint: Checkpoint, *, bytes_per_parameter: int, converted: bool = False) -> int:
    """Return roughly how much memory a model takes."""
    return WORK_BYTES + int(checkpoint.parameters * bytes_per_parameter * (CONVERTED if converted else OVERHEAD))


def _shortage(checkpoint: Checkpoint, needed: int, device: str, limit: str) -> NotReadyError:
    message = f"{checkpoint.name} needs about {needed / 1e6:.0f} MB of memory for {device}, but {limit}."
    remedy = "Free some memory, or configure a smaller model under [local]."
    return NotReadyError(message, remedy=remedy, code="out_of_memory", retry_after_s=30.0)


def give_back_memory() -> None:
    """Return the memory of dropped models to the system: reference cycles, and what malloc and a GPU keep."""
    gc.collect()
    free_device_memory()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that can be taken without swapping or being killed; None where the system does not tell.

    Args:
        root: Where ``proc`` and ``sys`` are: Linux's estimate and the limit of the container, if there is one.
    """
    found = [_mem_available(root / "proc" / "meminfo"), _cgroup_left(root / "sys" / "fs" / "cgroup")]
    return min((value for value in found if value is not None), default=None)


def _mem_available(file: Path) -> int | None:
    """Linux's own estimate of what can be taken without swapping: proc(5), MemAvailable."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _cgroup_left(folder: Path) -> int | None:
    """What the container's limit leaves, counting the page cache as free: Linux, cgroup-v2, memory.*."""
    try:
        limit, used = (int((folder / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # no limit is written as "max"
        return None
