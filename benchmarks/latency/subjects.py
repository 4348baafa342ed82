"""Who is measured: each rung in each task, and what becomes of one that does not answer.

This module decides how a rung is asked and what is kept of its answer. It must not know what is made of that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vision_backends import AllBackendsFailedError, VisionError

from ..records import Contestant
from ..run_file import BudgetReached
from ..rungs import introduce, rung_names
from .stage import CAPTION_WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends import Description, Detections, Embedding, Router

    from ..datasets import Photo
    from ..plan import Task
    from ..run_file import RunFile
    from .stage import Stage

    Answer = Description | Embedding | Detections

__all__ = ["Declined", "Sample", "Subject", "ask", "check_budget", "meet"]

FIRST_CALL_S = 1800.0
"""The first call may fetch a model, or convert it for a faster engine."""

LASTING = frozenset({"authentication", "model_not_found", "not_ready", "not_supported", "quota_exhausted"})
"""Reasons for not answering that will be the same for the next call."""

SPENT = frozenset({"budget_exhausted", "budget_reserved"})


class Declined(Exception):  # noqa: N818 — a rung may decline; nothing is wrong
    """A rung did not answer; the text says why.

    Attributes:
        lasting: Whether it will not answer the next call either.
        spent: Whether that is because there is no money left.
    """

    def __init__(self, why: str, *, lasting: bool, spent: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting
        self.spent = spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is kept of one answered call.

    Attributes:
        elapsed_s: Seconds that the caller waited.
        timing: Where they went, like ``vision_backends.Timing``; None where nobody has measured it.
        usd: What it has cost; None where nobody says.
    """

    elapsed_s: float
    timing: dict[str, float | None] | None
    usd: float | None

    def to_note(self) -> dict[str, Any]:
        """Return what a run file can keep."""
        return {"elapsed_s": self.elapsed_s, "timing": self.timing, "usd": self.usd}


@dataclass(slots=True, kw_only=True)
class Subject:
    """One rung in one task.

    Attributes:
        name: What the ladder calls the rung.
        backend: What it calls itself.
        task: What it is asked for.
        paid: Whether its answers may cost money.
        options: What is asked for besides.
        contestant: Who it is.
        declined: Why it is not measured any more; None while it is.
        spent: Whether that is because there is no money left.
    """

    name: str
    backend: str
    task: Task
    paid: bool
    options: Mapping[str, Any]
    contestant: Contestant
    declined: str | None = None
    spent: bool = False

    def give_up(self, declined: Declined) -> None:
        """Leave it out from now on, if it will not answer any more."""
        if declined.lasting:
            self.declined, self.spent = str(declined), declined.spent

    @property
    def key(self) -> str:
        """What identifies it in a run file."""
        return f"{self.name}/{self.task}"


def meet(stage: Stage, router: Router, run_file: RunFile, photo: Photo) -> list[Subject]:
    """Ask each rung once in each task, which loads its models, and return who they are."""
    plan, local = stage.plan, {rung.backend: rung.local for rung in router.status()}
    subjects = []
    for name, backend in rung_names(plan, router).items():
        for task in plan.tasks:
            learned_nothing = name == "local" and task in stage.models
            subject = Subject(
                name=name,
                backend=backend,
                task=task,
                paid=not local[backend] and not (stage.sandboxed and name == "openai"),
                options={"max_words": CAPTION_WORDS} if learned_nothing and task == "describe" else {},
                contestant=Contestant(backend=backend, task=task),
            )
            try:
                answer, sample = ask(
                    subject, router, run_file, photo, deadline_s=FIRST_CALL_S if local[backend] else None
                )
            except Declined as declined:
                subject.declined, subject.spent = str(declined), declined.spent
                subject.contestant = introduce(router, backend=backend, task=task)
            else:
                subject.contestant = _introduce(subject, stage, router, answer)
                run_file.note(f"latency/met/{subject.key}", sample.to_note(), usd=sample.usd or 0.0)
            subjects.append(subject)
    return subjects


def ask(
    subject: Subject, router: Router, run_file: RunFile, photo: Photo, *, deadline_s: float | None = None
) -> tuple[Answer, Sample]:
    """Ask a rung once, and return its answer and what is kept of it. Nothing is booked.

    Raises:
        Declined: It did not answer, or was not asked because it could cost more than is left.
    """
    check_budget(subject, run_file)
    method = getattr(router, subject.task)
    source = photo.read()
    started = time.perf_counter()
    try:
        answer: Answer = method(source, backend=subject.backend, deadline_s=deadline_s, **subject.options)
    except VisionError as error:
        raise _declined(error) from error
    elapsed_s = time.perf_counter() - started
    timing, usd = answer.trace.timing, answer.trace.usage.cost_usd
    if usd is None and subject.paid and run_file.left_usd is not None:
        why = f"The price of {answer.trace.model} is unknown, so that no budget can hold."
        raise Declined(why, lasting=True, spent=True)
    return answer, Sample(elapsed_s=elapsed_s, timing=None if timing is None else timing.to_dict(), usd=usd)


def check_budget(subject: Subject, run_file: RunFile) -> None:
    """Return if a rung's next answer may be paid.

    Raises:
        Declined: It may not.
    """
    if subject.paid:
        try:
            run_file.check_budget()
        except BudgetReached as reached:
            raise Declined(str(reached), lasting=True, spent=True) from reached


def _declined(error: VisionError) -> Declined:
    attempts = error.attempts if isinstance(error, AllBackendsFailedError) else ()
    last = attempts[-1] if attempts else None
    kind, message = (last.error, last.message) if last is not None else (error.kind, error.message)
    spent = last is not None and last.code in SPENT
    return Declined(message or str(kind), lasting=spent or kind in LASTING, spent=spent)


def _introduce(subject: Subject, stage: Stage, router: Router, answer: Answer) -> Contestant:
    trace, backend, task = answer.trace, subject.backend, subject.task
    found = introduce(router, backend=backend, task=task, model=trace.model, revision=trace.revision)
    published = stage.models.get(task) if subject.name == "local" else None
    if published is None:
        return found
    known = introduce(router, backend=backend, task=task, model=published, random_weights=True)
    return known.model_copy(update={name: getattr(found, name) for name in ("engine", "device", "dtype")})
