"""How good the answers of each rung are, on the same images.

This module decides what is measured of whom, and over which images. It must not know how a figure is computed.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ..datasets import open_dataset
from ..records import Contestant, QualityResult
from ..rungs import introduce, open_router
from .asking import Asker
from .captions import CaptionJudge
from .clipscore import JUDGE, score_fit
from .examples import examples_of
from .figures import figures_of, missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends import Router

    from ..datasets import Dataset, Photo
    from ..plan import Plan
    from ..records import Metric
    from ..run_file import RunFile
    from .replies import Replies

__all__ = ["measure"]


def measure(plan: Plan, run_file: RunFile) -> None:
    """Ask all rungs about the images of the data set, and write how good the answers are.

    With ``random_weights`` the local rung is left out: what it says then means nothing.

    Raises:
        BudgetReached: Nothing is left to begin with.
        ConfigError: A rung cannot be made.
        InvalidRequestError: The data set cannot be read.
    """
    dataset = open_dataset(plan.dataset, limit=plan.limit, seed=plan.seed)
    run_file.name_photos(dataset.fingerprint())
    measured = plan
    if plan.random_weights and JUDGE in plan.backends:
        measured = plan.without(JUDGE)
        for task in plan.tasks:
            contestant = Contestant(backend=JUDGE, task=task, random_weights=True)
            why = missing(task, "random weights: its time is real, its quality is not measured")
            result = QualityResult(
                contestant=contestant, dataset=dataset.name, images=0, answered=0, metrics=tuple(why)
            )
            run_file.add_quality(result)
    if not measured.backends:
        return
    with open_router(measured, run_file) as router:
        asker = Asker(measured, run_file, router, dataset)
        photos = asker.ask_all(dataset.photos)
        if not photos:
            return
        with CaptionJudge() as judge, run_file.progress("scoring", total=len(asker.replies)) as advance:
            for replies in asker.replies.values():
                metrics = figures_of(replies, photos, dataset, judge=judge, resamples=plan.resamples, seed=plan.seed)
                if replies.task == "describe":
                    metrics += _fit(replies, photos, plan=plan, asker=asker, router=router)
                run_file.add_quality(_result(replies, photos, dataset, metrics, router=router))
                advance()
    for example in examples_of(photos, asker.replies.values(), count=plan.examples):
        run_file.add_example(example)


def _fit(replies: Replies, photos: Sequence[Photo], *, plan: Plan, asker: Asker, router: Router) -> list[Metric]:
    """Return how well descriptions fit their images, of a rung that has described some."""
    said = {photo: text for photo in photos if (text := replies.of[photo.name, replies.task].text) is not None}
    if not said:
        return []
    return [score_fit(asker, router, said, backend=replies.backend, resamples=plan.resamples, seed=plan.seed)]


def _result(
    replies: Replies, photos: Sequence[Photo], dataset: Dataset, metrics: Sequence[Metric], *, router: Router
) -> QualityResult:
    answers = [reply for photo in photos if (reply := replies.main(photo)) is not None and reply.declined is None]
    costs = [reply.usd for reply in replies.of.values()]
    times = [reply.elapsed_s for reply in answers if reply.elapsed_s is not None]
    return QualityResult(
        contestant=introduce(
            router,
            backend=replies.backend,
            task=replies.task,
            model=answers[0].model if answers else None,
            revision=answers[0].revision if answers else None,
        ),
        dataset=dataset.name,
        images=len(photos),
        answered=len(answers),
        declined=replies.declined(photos),
        reason=replies.first_reason(photos),
        metrics=tuple(metrics),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        median_s=median(times) if times else None,
    )
