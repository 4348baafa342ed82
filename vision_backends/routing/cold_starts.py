"""What it takes a rung to give its first answer in this process: it may have to be loaded.

This module decides how long a rung is expected to take, how much of a deadline is kept back for one below, and when the
last rung begins to load. It must not know how a rung is asked.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.clock import pause
from vision_backends.engine.threads import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.engine.pools import Pool
    from vision_backends.health.admission import AdmissionControl
    from vision_backends.health.policy import Scope
    from vision_backends.routing.call import Call, Rung, Turn
    from vision_backends.routing.warm_up import WarmUps
    from vision_backends.storage.notes import Notes

__all__ = ["ColdStarts"]

FIRST_ANSWERS = "first answers"
"""Under which name the time that a local rung needs to load is noted."""

LOADS_AFTER_S = 0.5
"""Answers that come sooner need no other rung, and cost nobody a model's memory; nor do those that take hardly longer
than nine of ten, as long as a good part of the deadline is left to load it."""

MARGIN = 1.5
MARGIN_S = 0.05
"""What a rung is given beyond what it usually takes, before another is loaded or when time is kept back for it: for a
slow moment, and for getting to it."""

COLD_SHARE = 0.25
MAX_COLD_S = 5.0
"""What is kept back for a rung that has not answered in this process yet, whatever its usual time: nobody knows how
long loading takes when the machine is busy with something else."""


class ColdStarts:
    """How long rungs take, and which of them are still to be loaded; runs on the event loop, but for `look`.

    Args:
        health: Knows how long the last calls took, and how they ended.
        warm_ups: Makes a rung ready that may soon be needed.
        loads_ahead: Whether the last rung is loaded while a better one is asked.
        notes: What was learned about each backend, by its name.
        store_pool: Threads for what may have to wait for a store.
        clock: Where time comes from.
    """

    def __init__(
        self,
        *,
        health: AdmissionControl,
        warm_ups: WarmUps,
        loads_ahead: bool,
        notes: Mapping[str, Notes],
        store_pool: Pool,
        clock: Clock,
    ) -> None:
        self._health = health
        self._warm_ups = warm_ups
        self._loads_ahead = loads_ahead
        self._notes = notes
        self._store_pool = store_pool
        self._clock = clock
        self._first_s: dict[Scope, float] = {}
        self._unanswered: defaultdict[str, dict[object, float]] = defaultdict(dict)
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._ended_at: dict[str, float] = {}
        after_fork_in_child(self, lambda own: own._unanswered.clear())  # noqa: SLF001 — its own

    def look(self, rungs: Sequence[Rung]) -> None:
        """Read how long the first answers of local rungs took the last time; may block."""
        for rung in rungs:
            if rung.backend.local and rung.scope not in self._first_s:
                kept = self._notes[rung.backend.name].about(FIRST_ANSWERS).get(_name(rung), 0.0)
                self._first_s[rung.scope] = kept if isinstance(kept, float) else 0.0

    def was_well(self, rung: Rung) -> bool | None:
        """Return whether a rung's last call here was answered; None before the first."""
        return self._health.well.get(rung.scope)

    def expected_s(self, rung: Rung, request: Request, *, percent: float = 90.0) -> float:
        """Return the seconds that this percentage of a rung's calls are known or expected to take.

        What has not answered in this process yet may have to be loaded: that took so long the last time.
        """
        first_s = self._first_s.get(rung.scope, 0.0) if self._health.well.get(rung.scope) is None else 0.0
        return self._health.expected_s(rung.scope, max(rung.backend.expected_s(request), first_s), percent=percent)

    def kept_s(self, rung: Rung, call: Call) -> float:
        """Return what is kept back for a rung below; more for one that may have to be loaded on a busy machine."""
        usual_s = self.expected_s(rung, call.request) * MARGIN + MARGIN_S
        if not rung.backend.local or self._health.well.get(rung.scope) is not None:
            return usual_s
        return max(usual_s, min(COLD_SHARE * call.deadline.remaining_s, MAX_COLD_S))

    @contextmanager
    def loading(self, turn: Turn) -> Iterator[None]:
        """Have the last rung loaded, if it has not answered in this process yet, and the block takes longer than usual.

        That is a sign only where no other call ends meanwhile: many that were begun together wait for each other.
        """
        rung = turn.last
        if rung is None or not self._loads_ahead or self._health.well.get(rung.scope) is not None:
            yield
            return
        name, call = rung.backend.name, object()
        unanswered = self._unanswered[name]
        if not unanswered:
            self._ended_at[name] = self._clock.monotonic()
            self._loading[name] = asyncio.create_task(self._load(turn, rung, unanswered))
        unanswered[call] = self._clock.monotonic()
        try:
            yield
        finally:
            del unanswered[call]
            self._ended_at[name] = self._clock.monotonic()
            if not unanswered:
                self._loading.pop(name).cancel()

    def note_first(self, rung: Rung, request: Request, elapsed_s: float) -> None:
        """Note that a local rung took longer than it says for its first answer in this process, for the next one.

        A short time after a long one may have had a warm-up before it.
        """
        if not rung.backend.local or self._health.well.get(rung.scope) is not None:
            return
        before = self._first_s.get(rung.scope, 0.0)
        seconds = max(elapsed_s, before * 0.8)
        usual_s = rung.backend.expected_s(request)
        if seconds > usual_s and not 0.9 * before <= seconds <= 1.25 * before:
            values = {_name(rung): round(seconds, 3)}
            with suppress(RuntimeError):  # the router is closed
                self._store_pool.submit(partial(self._notes[rung.backend.name].note, FIRST_ANSWERS, values))

    async def _load(self, turn: Turn, rung: Rung, unanswered: Mapping[object, float]) -> None:
        """Load a rung once a call that may need it is unanswered for longer than usual, in which none has ended."""
        patience_s = LOADS_AFTER_S
        while unanswered:
            since = max(min(unanswered.values()), self._ended_at[rung.backend.name])
            left_s = since + patience_s - self._clock.monotonic()
            if left_s <= 0:
                usual_s = self.expected_s(turn.rung, turn.call.request) * MARGIN + MARGIN_S
                before_s, patience_s = patience_s, min(usual_s, COLD_SHARE * turn.call.deadline.remaining_s)
                if patience_s <= before_s:
                    self._warm_ups.begin_unless_tried(rung.backend, turn.call.request)
                    return
            else:
                await pause(self._clock, left_s)


def _name(rung: Rung) -> str:
    return f"{rung.scope.model} {rung.scope.task}"
