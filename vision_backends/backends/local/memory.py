"""Whether a model will fit into the memory, known before it is loaded rather than when the kernel kills the process.

This module decides how much a model needs and how much there is. It must not know how models are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from vision_backends.backends.local.checkpoint import Checkpoint

__all__ = ["check_memory", "free_memory_bytes"]

BYTES_PER_PARAMETER = 4
OVERHEAD = 1.3
"""An assumption, not a measurement: what activations and a shard in transit take over the weights."""


def check_memory(checkpoint: Checkpoint, *, device: str, max_bytes: int | None) -> None:
    """Return if a model will fit into the memory, as far as that can be known before.

    Args:
        checkpoint: What is to be loaded.
        device: Where; memory of a GPU is not looked at here, as it reports its own shortage.
        max_bytes: How much it may take; None for what is free on this machine.

    Raises:
        NotReadyError: It will not fit.
    """
    needed = int(checkpoint.parameters * BYTES_PER_PARAMETER * OVERHEAD)
    free = free_memory_bytes() if max_bytes is None else max_bytes
    if free is not None and needed > free:
        where = "may be used" if max_bytes is not None else "is free"
        message = (
            f"{checkpoint.name} needs about {needed / 1e6:.0f} MB of memory for {device}, "
            f"but only {free / 1e6:.0f} MB {where}."
        )
        remedy = "Free some, or configure a smaller model under [local]."
        raise NotReadyError(message, remedy=remedy, code="out_of_memory", retry_after_s=30.0)


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that can be taken without swapping or being killed; None where nobody says.

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
