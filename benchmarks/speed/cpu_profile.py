"""Where a process spends its CPU time, all threads together: by the module that is running.

This module decides how that is found without slowing the process down: a thread looks a few hundred times per second
how much CPU time each other thread has used since, and gives it to the module in which it is now. It must not know what
is profiled.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

__all__ = ["CpuProfile"]

EVERY_S = 0.003

SHOWN = 8
"""Modules that are told apart; all others are one."""

STANDARD = sysconfig.get_paths()["stdlib"]

ROOT = str(Path(__file__).parents[2])

THIRD_PARTY = "site-packages"


class CpuProfile:
    """Begins with `start` and ends with `stop`; in between, one more thread runs."""

    def __init__(self) -> None:
        self._used_s: dict[int, float] = {}
        self._modules: defaultdict[str, float] = defaultdict(float)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def shares(self) -> Mapping[str, float]:
        """Return the share of each module, the largest first."""
        total_s = sum(self._modules.values()) or 1.0
        shown = dict(sorted(self._modules.items(), key=lambda pair: -pair[1])[:SHOWN])
        rest_s = total_s - sum(shown.values())
        return {name: used_s / total_s for name, used_s in [*shown.items(), ("others", rest_s)]}

    def _watch(self) -> None:
        own = threading.get_ident()
        while not self._over.wait(EVERY_S):
            for thread, frame in sys._current_frames().items():  # noqa: SLF001 — made for this
                if thread != own:
                    self._note(thread, frame)

    def _note(self, thread: int, frame: FrameType) -> None:
        try:
            used_s = time.clock_gettime(time.pthread_getcpuclockid(thread))
        except OSError:
            return
        spent_s = used_s - self._used_s.get(thread, used_s)
        self._used_s[thread] = used_s
        if spent_s > 0:
            self._modules[_module_of(frame)] += spent_s


def _module_of(frame: FrameType) -> str:
    """Name the innermost module that is not of the standard library: a room of the package, or a distribution."""
    at: FrameType | None = frame
    while at is not None:
        path = at.f_code.co_filename
        if THIRD_PARTY in path:
            return Path(path.partition(THIRD_PARTY)[2].lstrip("/\\")).parts[0].removesuffix(".py")
        if path.startswith(ROOT):
            return ".".join(Path(path.removeprefix(ROOT).lstrip("/\\")).with_suffix("").parts[-3:])
        at = at.f_back
    return Path(frame.f_code.co_filename).stem
