"""Where a run is measured: the machine, what is installed, and the commit.

This module decides which facts are told; none of them says whose machine it is. It must not know what is measured.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import vision_backends

from .records import Machine

__all__ = ["commit_of_checkout", "look_at_machine"]

PACKAGES = (
    "vision-backends",
    "onnxruntime",
    "openai",
    "openvino",
    "torch",
    "transformers",
    "sentence-transformers",
    "numpy",
    "pillow",
    "pycocotools",
    "pycocoevalcap",
)
"""What the figures depend on."""

GIT_S = 10.0


def look_at_machine() -> Machine:
    """Return the facts of this machine."""
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        accelerators=_accelerators(),
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
    )


def commit_of_checkout() -> str | None:
    """Return the commit of the checkout that the package runs from, marked where files differ; None outside one."""
    root = Path(vision_backends.__file__).resolve().parents[1]
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root:
        return None  # installed; a repository around the environment is somebody else's
    return f"{commit}-dirty" if _git(root, "status", "--porcelain") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 — whichever git the user has
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _accelerators() -> tuple[str, ...]:
    """Name the accelerators that torch sees; it is asked only where the local rung has been imported anyway."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ()
    if torch.cuda.is_available():
        return tuple(torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count()))
    return ("mps",) if torch.backends.mps.is_available() else ()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
