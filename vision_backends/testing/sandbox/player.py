"""Plays scripts and chaos to requests as they arrive, and records what was played.

This module decides which of several plans a request belongs to. It must not know what a fault does.
"""

from __future__ import annotations

import threading

from vision_backends.testing.sandbox.faults import HEALTHY, Fault
from vision_backends.testing.sandbox.script import Chaos, Script, Step

__all__ = ["Player"]


class Player:
    """The plans being played; safe to use from many threads.

    The newest plan that has something for a request plays it; when a plan has run out, the one before it goes on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracks: list[_Track] = []
        self._played: list[Step] = []

    def play(self, plan: Script | Chaos) -> None:
        """Play a plan from the next request on."""
        with self._lock:
            self._tracks.append(_Track(plan))

    def heal(self) -> None:
        """Drop every plan; what was recorded is kept."""
        with self._lock:
            self._tracks.clear()

    def reset(self) -> None:
        """Drop every plan and what was recorded."""
        with self._lock:
            self._tracks.clear()
            self._played.clear()

    def next(self, path: str, model: str | None) -> Fault:
        """Return the fault that this request meets."""
        with self._lock:
            offers = (track.take(path, model) for track in reversed(self._tracks))
            fault = next((offer for offer in offers if offer is not None), HEALTHY)
            self._tracks = [track for track in self._tracks if not track.is_over()]
            self._record(fault)
        return fault

    def recorded(self) -> Script:
        """Return what has been played so far, as a script that plays the same to the same requests."""
        with self._lock:
            return Script(tuple(self._played))

    def _record(self, fault: Fault) -> None:
        if self._played and self._played[-1].fault == fault:
            last = self._played.pop()
            self._played.append(Step(fault, (last.times or 0) + 1))
        else:
            self._played.append(Step(fault))


class _Track:
    """One plan and how far it has been played."""

    def __init__(self, plan: Script | Chaos) -> None:
        self._plan = plan
        self._index = 0
        self._used = 0

    def is_over(self) -> bool:
        return isinstance(self._plan, Script) and self._index >= len(self._plan.steps)

    def take(self, path: str, model: str | None) -> Fault | None:
        """Return the fault that the plan has for a request; None if it has none."""
        if isinstance(self._plan, Chaos):
            fault = self._plan.fault_at(self._index)
            self._index += 1
            return fault if fault.matches(path, model) else HEALTHY
        if self.is_over():
            return None
        step = self._plan.steps[self._index]
        if not step.fault.matches(path, model):
            return None
        self._used += 1
        if step.times is not None and self._used >= step.times:
            self._index, self._used = self._index + 1, 0
            if self._plan.repeat and self.is_over():
                self._index = 0
        return step.fault
