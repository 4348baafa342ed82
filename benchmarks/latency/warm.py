"""Single warm calls, one after the other: the rungs take turns, so that a busy moment of the machine meets all alike.

This module decides the order of the calls. It must not know what is made of their times.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from .subjects import Declined, Sample, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends import Router

    from ..datasets import Photo
    from ..plan import Plan
    from ..run_file import RunFile
    from .subjects import Subject

__all__ = ["measure_warm", "warm_samples"]


def measure_warm(
    plan: Plan, router: Router, run_file: RunFile, subjects: Sequence[Subject], photos: Sequence[Photo]
) -> None:
    """Ask every rung once in each round, in an order drawn anew for each, all about the same photo.

    Each call is in the run file before the next one begins. A rung that will answer no more is left out from then on.
    """
    with run_file.progress("latency, warm", total=plan.rounds) as advance:
        for turn in range(plan.rounds):
            order = list(subjects)
            Random(f"{plan.seed}/{turn}").shuffle(order)  # noqa: S311 — no secret
            for subject in order:
                if subject.declined is None and not run_file.done(_key(subject, turn)):
                    _measure_one(subject, turn, router, run_file, photos[turn % len(photos)])
            advance()


def warm_samples(plan: Plan, run_file: RunFile, subject: Subject) -> tuple[list[Sample], list[str]]:
    """Return what is in the run file of a rung's answered calls, and why others failed, in the order of the calls."""
    keys = [_key(subject, turn) for turn in range(plan.rounds)]
    notes: list[dict[str, Any]] = [run_file.recall(key) for key in keys if run_file.done(key)]
    answered = [Sample(**note) for note in notes if "declined" not in note]
    return answered, [note["declined"] for note in notes if "declined" in note]


def _measure_one(subject: Subject, turn: int, router: Router, run_file: RunFile, photo: Photo) -> None:
    try:
        _, sample = ask(subject, router, run_file, photo)
    except Declined as declined:
        subject.give_up(declined)
        run_file.note(_key(subject, turn), {"declined": str(declined)})
    else:
        run_file.note(_key(subject, turn), sample.to_note(), usd=sample.usd or 0.0)


def _key(subject: Subject, turn: int) -> str:
    return f"latency/warm/{subject.key}/{turn}"
