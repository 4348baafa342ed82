"""How many processors and how much memory this process may use, wherever the limit is set: by machine or container.

This module decides which limits count: the processors that the process may run on, and on Linux the quota and the
memory limit of every control group that it is in, version 1 or 2, from its own up to the outermost one that can be
seen. The tightest one wins. It must not know what the processors or the memory are for.

Formats: proc(5), cgroups(7) and https://docs.kernel.org/admin-guide/cgroup-v2.html,
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FreeMemory", "free_memory", "processors"]

ROOT = Path("/")

UNLIMITED = 2**60
"""Version 1 has no word for "no limit" but a number close to 2^63, or 2^64 on older kernels."""

CPU_PERIOD_US = 100_000
"""The kernel's default."""

_ESCAPED = re.compile(r"\\([0-7]{3})")

Controller = Literal["memory", "cpu"]


class FreeMemory(NamedTuple):
    """Memory that can be taken without swapping or being killed.

    Attributes:
        size_bytes: How much that is.
        limit: What sets the limit, to be followed by "leaves"; empty for the machine's own memory.
    """

    size_bytes: int
    limit: str = ""


class _Mount(NamedTuple):
    """A mounted hierarchy of control groups: its version, which of its groups is its root here, and where that is."""

    version: int
    top: str
    folder: Path


class _Group(NamedTuple):
    """A control group that this process is in."""

    version: int
    folder: Path


def processors(root: Path = ROOT) -> int:
    """Return how many processors this process may use, at least 1; a quota of one and a half counts as two.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    quotas = (_cpu_quota(group) for group in _groups("cpu", root))
    return max(1, min(_usable_processors(), *(math.ceil(quota) for quota in quotas if quota is not None), sys.maxsize))


def free_memory(root: Path = ROOT) -> FreeMemory | None:
    """Return the memory that can be taken without swapping or being killed; None where the system does not tell.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [_mem_available(root), _address_space_left(root), *(_memory_left(each) for each in _groups("memory", root))]
    return min((each for each in found if each is not None), default=None)


def _usable_processors() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_quota(group: _Group) -> float | None:
    """Return how many processors' time a control group may use; None for any number."""
    if group.version == 1:
        quota = _number(group.folder / "cpu.cfs_quota_us")
        period = _number(group.folder / "cpu.cfs_period_us")
    else:
        quota, period, *_ = *(_as_number(word) for word in _read(group.folder / "cpu.max").split()), None, None
    return None if quota is None else quota / (period or CPU_PERIOD_US)


def _mem_available(root: Path) -> FreeMemory | None:
    """Linux's own estimate of what can be taken without swapping."""
    kilobytes = _numbers(root / "proc" / "meminfo").get("MemAvailable:")
    return None if kilobytes is None else FreeMemory(kilobytes * 1024)


def _address_space_left(root: Path) -> FreeMemory | None:
    """What ``ulimit -v`` leaves, which counts memory that is reserved as well."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _as_number((_read(root / "proc" / "self" / "statm").split() or [""])[0])
    if limit == resource.RLIM_INFINITY or pages is None:
        return None
    left = max(0, limit - pages * resource.getpagesize())
    return FreeMemory(left, f"the limit of {limit / 1e6:.0f} MB on this process's address space (ulimit -v)")


def _memory_left(group: _Group) -> FreeMemory | None:
    """What the limit of a control group leaves, counting the page cache as free, except for files that are in use."""
    folder, stat = group.folder, _numbers(group.folder / "memory.stat")
    if group.version == 1:
        limits = [_number(folder / "memory.limit_in_bytes"), stat.get("hierarchical_memory_limit")]
        used = _number(folder / "memory.usage_in_bytes")
        cached = [stat.get(f"total_{name}", stat.get(name, 0)) for name in ("inactive_file", "active_file")]
        mapped = stat.get("total_mapped_file", stat.get("mapped_file", 0))
    else:
        limits = [
            _number(folder / name) for name in ("memory.max", "memory.high")
        ]  # beyond the latter it all but stops
        used = _number(folder / "memory.current")
        cached = [stat.get(name, 0) for name in ("inactive_file", "active_file")]
        mapped = stat.get("file_mapped", 0)
    limit = min((each for each in limits if each is not None and each < UNLIMITED), default=None)
    if limit is None:
        return None
    in_use = max(0, (used or 0) - max(0, sum(cached) - mapped))
    return FreeMemory(max(0, limit - in_use), f"the limit of {limit / 1e6:.0f} MB of this process's control group")


def _groups(controller: Controller, root: Path) -> Iterator[_Group]:
    """Yield the control groups that limit this process, as far as they can be seen; the innermost first."""
    own = _own_groups(controller, root)
    mounts = [mount for mount in _mounts(controller, root) if mount.version in own]
    # A container may also see the groups of others, such as those of containers that it runs itself.
    containing = [each for each in mounts if each.top.startswith("/..") or _is_within(own[each.version], each.top)]
    for mount in containing or mounts:
        folder = _visible(mount, own[mount.version])
        while folder != mount.folder:
            yield _Group(mount.version, folder)
            folder = folder.parent
        yield _Group(mount.version, mount.folder)


def _visible(mount: _Mount, name: str) -> Path:
    """Return the folder of a group within a mount, or else of the innermost one around it.

    In a namespace, or where only a part of the hierarchy is mounted, the outer part of the name may be missing. So of
    all ends of the name, the longest one that is there counts.
    """
    group = PurePosixPath(name)
    parts = group.relative_to(mount.top if _is_within(name, mount.top) else "/").parts if name.startswith("/") else ()
    if ".." in parts or mount.top.startswith("/.."):  # it is outside of what its namespace shows
        return mount.folder
    ends = (mount.folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end.is_dir()), mount.folder)


def _own_groups(controller: Controller, root: Path) -> dict[int, str]:
    """Return the names of the groups of this process, by version: proc(5), ``/proc/self/cgroup``."""
    lines = [line.split(":", 2) for line in _read(root / "proc" / "self" / "cgroup").splitlines()]
    rows = [(names.split(","), group) for _, names, group in (line for line in lines if len(line) == 3)]
    found = {2 if names == [""] else 1: group for names, group in rows if names == [""] or controller in names}
    return found or {1: "/", 2: "/"}


def _mounts(controller: Controller, root: Path) -> Iterator[_Mount]:
    """Yield where the groups of a controller can be seen: proc(5), ``/proc/self/mountinfo``."""
    text = _read(root / "proc" / "self" / "mountinfo")
    if not text:
        usual = root / "sys" / "fs" / "cgroup"
        yield from (_Mount(2, "/", usual), _Mount(1, "/", usual / controller))
    for line in text.splitlines():
        here, _, there = line.partition(" - ")
        words, (kind, _, options, *_) = here.split(" "), (*there.split(" "), "", "", "")
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            top, place = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), word) for word in words[3:5])
            yield _Mount(2 if kind == "cgroup2" else 1, top, root / place.lstrip("/"))


def _is_within(group: str, top: str) -> bool:
    return PurePosixPath(group).is_relative_to(top)


def _numbers(file: Path) -> dict[str, int]:
    """Return the numbers of a file that has a name and a number in each line."""
    rows = (line.split() for line in _read(file).splitlines())
    found = ((row[0], _as_number(row[1])) for row in rows if len(row) > 1)
    return {name: number for name, number in found if number is not None}


def _number(file: Path) -> int | None:
    return _as_number(_read(file).strip())


def _as_number(word: str) -> int | None:
    """Return a number; None for anything else, such as "max" and −1, which both mean that there is no limit."""
    return int(word) if word.isascii() and word.isdigit() else None


def _read(file: Path) -> str:
    """Return what one of the kernel's files says; nothing where there is no such file."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
