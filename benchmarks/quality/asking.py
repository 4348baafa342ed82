"""Asking every rung the same things about the same images, once: what was answered and paid for is never asked again.

This module decides what is asked, in which order, and what becomes of a rung that does not answer. It must not know how
good an answer is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from vision_backends import (
    AllBackendsFailedError,
    SpaceUnavailableError,
    VisionError,
    open_image,
)
from vision_backends.backends.model_cards import coco_categories

from ..run_file import BudgetReached
from ..rungs import rung_names
from .replies import SHARED, VIEWS, Replies, Reply, reply_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image as PILImage

    from vision_backends import Router

    from ..datasets import Dataset, Photo
    from ..plan import Plan, Task
    from ..run_file import RunFile
    from .replies import Answer

    Call = Callable[["Wishes"], Sequence["Answer"]]

__all__ = ["Asker", "Question", "quarter_of"]

MIN_SCORE = 0.01
"""Below it boxes hardly change a mean average precision, which wants the doubtful ones as well."""

FIRST_CALL_S = 1800.0
"""The first call of a local rung may fetch its model."""

MAX_WAIT_S = 60.0
"""A rate limit or a short outage is waited for, rather than counted against a rung."""

LASTING = frozenset({"authentication", "model_not_found", "not_ready", "not_supported", "quota_exhausted"})
"""Reasons of a rung for not answering that will be the same for the next image."""


class Question(NamedTuple):
    """What is asked of whom.

    Attributes:
        task: The task.
        backend: What the rung calls itself.
        photo: Name of the photo.
        what: The task, one of `VIEWS`, `SHARED` or ``"captions"``.
    """

    task: Task
    backend: str
    photo: str
    what: str


class Wishes(TypedDict):
    """The options that all calls share."""

    backend: str
    deadline_s: float | None
    priority: Literal["interactive", "batch"]
    max_wait_s: float | None


PASSING = frozenset({"rate_limited", "overloaded", "unavailable", "timed_out"})
"""Reasons that may be over in a minute."""

SPENT = frozenset({"budget_exhausted", "budget_reserved"})


class Asker:
    """Asks all rungs of a plan; for one thread.

    Args:
        plan: Which rungs and tasks.
        run_file: Where replies are kept.
        router: Has all the rungs.
        dataset: What is asked about.
    """

    def __init__(self, plan: Plan, run_file: RunFile, router: Router, dataset: Dataset) -> None:
        self._plan = plan
        self._run_file = run_file
        self._router = router
        self._labels = _labels_to_ask_for(dataset)
        self._local = {rung.backend: rung.local for rung in router.status()}
        self._lasting: dict[tuple[str, str], Reply] = {}
        self._met: set[tuple[str, str]] = set()
        names = rung_names(plan, router).values()
        self.replies = {(task, name): Replies(task=task, backend=name) for task in plan.tasks for name in names}

    def ask_all(self, photos: Sequence[Photo]) -> Sequence[Photo]:
        """Ask about one photo after the other, each time all rungs, so that an early end leaves all with the same.

        Returns:
            The photos that every rung was asked about: all of them, unless the money was spent.
        """
        with self._run_file.progress("quality", total=len(photos)) as advance:
            for place, photo in enumerate(photos):
                try:
                    self._ask_about(photo, turn=place)
                except BudgetReached as reached:
                    self._run_file.stop(f"Quality: after {place} of {len(photos)} images: {reached}")
                    return photos[:place]
                advance()
        return photos

    def ask(self, question: Question, call: Call) -> Reply:
        """Ask one thing, unless it has been answered before.

        Args:
            question: What is asked of whom.
            call: Asks it.

        Raises:
            BudgetReached: It could cost more than is left.
        """
        key = "/".join(("quality", *question))
        if self._run_file.done(key):
            return Reply.from_note(self._run_file.recall(key))
        of_text = question.task == "embed" and question.what not in {*VIEWS, SHARED}
        kind = question.backend, "embed_text" if of_text else question.task
        if kind in self._lasting:
            return self._lasting[kind]
        local = self._local[question.backend]
        if not local:
            self._run_file.check_budget()
        is_first = kind not in self._met
        self._met.add(kind)
        wishes: Wishes = {
            "backend": question.backend,
            "deadline_s": FIRST_CALL_S if is_first and local else None,
            "priority": "interactive",
            "max_wait_s": None,
        }
        try:
            try:
                answers, alone = call(wishes), not is_first
            except AllBackendsFailedError as error:
                if error.attempts[-1].error not in PASSING:
                    raise
                self._run_file.spend(error.attempts[-1].usage.cost_usd or 0.0)
                answers, alone = call({**wishes, "priority": "batch", "max_wait_s": MAX_WAIT_S}), False
        except VisionError as error:
            return self._declined(error, key, kind)
        reply = reply_of(answers, timed=alone)
        self._run_file.note(key, reply.to_note(), usd=reply.usd or 0.0)
        if reply.usd is None and self._run_file.left_usd is not None:
            raise BudgetReached(f"The price of {reply.model} is unknown, so that no budget can hold.")
        return reply

    def _ask_about(self, photo: Photo, *, turn: int) -> None:
        for task in self._plan.tasks:
            rungs = [replies for (each, _), replies in self.replies.items() if each == task]
            for replies in rungs[turn % len(rungs) :] + rungs[: turn % len(rungs)]:
                for what, call in self._calls(task, photo).items():
                    question = Question(task, replies.backend, photo.name, what)
                    replies.of[photo.name, what] = self.ask(question, call)
                if task == "embed" and photo.captions:
                    self._ask_about_captions(photo, replies)

    def _calls(self, task: Task, photo: Photo) -> dict[str, Call]:
        """Return what a task asks about a photo."""
        router, labels = self._router, self._labels
        if task == "describe":
            return {task: lambda wishes: [router.describe(photo.read(), **wishes)]}
        if task == "detect":
            return {task: lambda wishes: [router.detect(photo.read(), labels=labels, min_score=MIN_SCORE, **wishes)]}
        whole, first, second = VIEWS
        return {
            whole: lambda wishes: [router.embed(photo.read(), **wishes)],
            first: lambda wishes: [router.embed(quarter_of(photo, first=True), **wishes)],
            second: lambda wishes: [router.embed(quarter_of(photo, first=False), **wishes)],
        }

    def _ask_about_captions(self, photo: Photo, replies: Replies) -> None:
        """Embed the captions in a space that the photo shares, and the photo there too if it is not there already."""
        own = replies.of[photo.name, VIEWS[0]].space
        if own is None:
            return
        space = self._space_of_texts(replies.backend, own)
        if space != own:
            question = Question("embed", replies.backend, photo.name, SHARED)
            replies.of[photo.name, SHARED] = self.ask(
                question, lambda wishes: [self._router.embed(photo.read(), space=space, **wishes)]
            )

        def call(wishes: Wishes) -> list[Answer]:
            answers: list[Answer] = []
            for each in self._router.embed_text_many(photo.captions, space=space, truncate=True, **wishes):
                if isinstance(each, VisionError):
                    raise each
                answers.append(each)
            return answers

        question = Question("embed", replies.backend, photo.name, "captions")
        replies.of[photo.name, "captions"] = self.ask(question, call)

    def _space_of_texts(self, backend: str, own: str) -> str:
        """Return the space in which texts can be compared with images: the images' own if there is none better."""
        texts, images = (
            {space for verdict in self._router.explain(task, backend=backend).verdicts for space in verdict.spaces}
            for task in ("embed_text", "embed")
        )
        return own if own in texts else min(texts & images, default=own)

    def _declined(self, error: VisionError, key: str, kind: tuple[str, str]) -> Reply:
        """Return why something was not answered; it is asked again in a resumed run, unless it was paid for."""
        attempts = error.attempts if isinstance(error, AllBackendsFailedError | SpaceUnavailableError) else ()
        attempt = attempts[-1] if attempts else None
        if attempt is not None and attempt.code in SPENT:
            raise BudgetReached(self._spent_up(attempt.message))
        usd = attempt.usage.cost_usd if attempt is not None else error.usage.cost_usd if error.usage else 0.0
        declined = attempt.error if attempt is not None and attempt.error else error.kind
        reply = Reply(declined=declined, reason=attempt.message if attempt is not None else error.message, usd=usd)
        if declined in LASTING:
            self._lasting[kind] = reply
            self._run_file.spend(usd or 0.0)
        elif usd != 0:
            self._run_file.note(key, reply.to_note(), usd=usd or 0.0)
        return reply

    def _spent_up(self, message: str | None) -> str:
        """Say that the next call could cost too much: more than is left of the run, or than the user's own limit."""
        if self._run_file.left_usd is None:
            return str(message)
        return f"The next call could cost more than the ${self._run_file.left_usd:.4g} that are left of the budget."


def quarter_of(photo: Photo, *, first: bool) -> PILImage.Image:
    """Return the upper left or the lower right quarter of a photo."""
    picture = open_image(photo.read()).rgb()
    width, height = picture.size
    across, down = max(1, width // 2), max(1, height // 2)
    return picture.crop((0, 0, across, down) if first else (width - across, height - down, width, height))


def _labels_to_ask_for(dataset: Dataset) -> list[str] | None:
    """Return the labels of a data set that are not all COCO's; None where every rung knows them."""
    return None if set(dataset.labels) <= coco_categories().keys() else list(dataset.labels)
