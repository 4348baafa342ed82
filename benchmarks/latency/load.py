"""Many callers at once on one router, each asking again as soon as it has its answer.

This module decides how long they ask and what is counted. It must not know how a rung bears it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from ..percentiles import percentiles
from ..records import Load
from .subjects import Declined, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends import Router

    from ..datasets import Photo
    from ..plan import Plan
    from ..run_file import RunFile
    from .subjects import Subject

__all__ = ["loads_of", "measure_loads"]

PAID_CALLS = 3
"""Of each caller, where they cost money."""

PAUSE_S = 1.0
"""What a caller waits after a failure: a blocked gate refuses thousands of calls a second."""


def measure_loads(
    plan: Plan, router: Router, run_file: RunFile, subjects: Sequence[Subject], photos: Sequence[Photo]
) -> None:
    """Let a rising number of callers ask each rung, one rung at a time, in an order drawn anew for each number."""
    with run_file.progress("latency, many callers", total=len(plan.concurrency) * len(subjects)) as advance:
        for callers in plan.concurrency:
            order = list(subjects)
            Random(f"{plan.seed}/{callers}").shuffle(order)  # noqa: S311 — no secret
            for subject in order:
                key = _key(subject, callers)
                if subject.declined is None and not run_file.done(key):
                    router.reset(subject.backend)  # what was too much for it before is no fault of now
                    crowd = _Crowd(subject, router, run_file, photos, callers=callers)
                    load = crowd.ask(seconds=plan.load_s)
                    run_file.note(key, None if load is None else load.model_dump(), usd=crowd.usd)
                    if crowd.declined is not None:
                        subject.give_up(crowd.declined)
                advance()


def loads_of(plan: Plan, run_file: RunFile, subject: Subject) -> tuple[Load, ...]:
    """Return what is in the run file of a rung."""
    notes: list[dict[str, Any] | None] = [
        run_file.recall(_key(subject, callers)) for callers in plan.concurrency if run_file.done(_key(subject, callers))
    ]
    return tuple(Load.model_validate(note) for note in notes if note is not None)


class _Crowd:
    """Some callers of one rung; counts what they get.

    Attributes:
        usd: What they have spent.
        declined: Why the rung will not answer any more; None while it does.
    """

    def __init__(
        self, subject: Subject, router: Router, run_file: RunFile, photos: Sequence[Photo], *, callers: int
    ) -> None:
        self.usd = 0.0
        self.declined: Declined | None = None
        self._subject = subject
        self._router = router
        self._run_file = run_file
        self._photos = photos
        self._callers = callers
        self._lock = Lock()
        self._stop = Event()
        self._seconds: list[float] = []
        self._failed = 0
        self._ended_s = 0.0

    def ask(self, *, seconds: float) -> Load | None:
        """Ask so long and wait for the last answers; None when there was none.

        Where answers are free every caller first makes one call that is not counted: the first batch of a new size may
        take longer.
        """
        with ThreadPoolExecutor(self._callers, thread_name_prefix="caller") as pool:
            try:
                if not self._subject.paid:
                    self._each(pool, until_s=0.0)
                    self._seconds.clear()
                    self._failed = 0
                started_s = time.perf_counter()
                self._each(pool, until_s=started_s + seconds)
            finally:
                self._stop.set()  # an interrupt shall not wait for callers who go on asking
        if not self._seconds:
            return None
        times = percentiles(self._seconds)
        return Load(
            concurrency=self._callers,
            images_per_s=len(self._seconds) / (self._ended_s - started_s),
            p50_s=times.p50_s,
            p90_s=times.p90_s,
            p99_s=times.p99_s,
            calls=len(self._seconds) + self._failed,
            failed=self._failed,
        )

    def _each(self, pool: ThreadPoolExecutor, *, until_s: float) -> None:
        """Let every caller ask at least once, and then until a time."""
        for future in [pool.submit(self._call, place, until_s) for place in range(self._callers)]:
            future.result()

    def _call(self, place: int, until_s: float) -> None:
        turn = place
        for _ in range(PAID_CALLS if self._subject.paid else 1_000_000):
            photo = self._photos[turn % len(self._photos)]
            turn += self._callers
            self._call_once(photo)
            if self._stop.is_set() or self.declined or self._overspent or time.perf_counter() >= until_s:
                return

    @property
    def _overspent(self) -> bool:
        """Whether what has been spent here, and is not booked yet, is all that was left."""
        left_usd = self._run_file.left_usd
        return left_usd is not None and self._subject.paid and self.usd >= left_usd

    def _call_once(self, photo: Photo) -> None:
        try:
            _, sample = ask(self._subject, self._router, self._run_file, photo)
        except Declined as declined:
            with self._lock:
                self._failed += not declined.spent
                self.declined = declined if declined.lasting else self.declined
            self._stop.wait(PAUSE_S)
            return
        with self._lock:
            self._seconds.append(sample.elapsed_s)
            self.usd += sample.usd or 0.0
            self._ended_s = time.perf_counter()


def _key(subject: Subject, callers: int) -> str:
    return f"latency/load/{subject.key}/{callers}"
