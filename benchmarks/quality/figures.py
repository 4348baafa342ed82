"""From what a rung said to its figures, and why there are none where there are none.

This module decides over which images a figure is made: those that the rung has answered and that the data set knows
the truth of. It must not know how it is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..records import Metric
from .detection import score_boxes
from .replies import SHARED, VIEWS
from .retrieval import quarters_metrics, text_metrics, without_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..datasets import Dataset, Photo
    from .captions import CaptionJudge
    from .replies import Replies

__all__ = ["figures_of", "missing"]

MAIN_FIGURES = {"describe": "CIDEr-D", "embed": "R@1 image↔image", "detect": "mAP"}


def figures_of(
    replies: Replies, photos: Sequence[Photo], dataset: Dataset, *, judge: CaptionJudge, resamples: int, seed: int
) -> list[Metric]:
    """Return the figures of one rung in one task that compare its answers with the truth.

    Args:
        replies: What it said.
        photos: What it was asked about.
        dataset: Where they are from.
        judge: Scores descriptions.
        resamples: Bootstrap samples of each interval.
        seed: Of the samples.
    """
    answered = [photo for photo in photos if (reply := replies.main(photo)) is not None and reply.declined is None]
    sampling: dict[str, int] = {"resamples": resamples, "seed": seed}
    if not answered:
        return missing(replies.task, "it answered nothing")
    if replies.task == "describe":
        metrics = captions_figures(replies, answered, judge, **sampling)
    elif replies.task == "embed":
        metrics = retrieval_figures(replies, answered, **sampling)
    else:
        metrics = detection_figures(replies, answered, dataset.labels, **sampling)
    if len(answered) == len(photos):
        return metrics
    left_out = f"{len(photos) - len(answered)} declined images are left out"
    return [
        metric.model_copy(update={"note": f"{metric.note}; {left_out}" if metric.note else left_out})
        for metric in metrics
    ]


def missing(task: str, reason: str) -> list[Metric]:
    """Return the main figure of a task without a value."""
    return [Metric(name=MAIN_FIGURES[task], value=None, implementation="–", note=reason)]


def captions_figures(
    replies: Replies, photos: Sequence[Photo], judge: CaptionJudge, *, resamples: int, seed: int
) -> list[Metric]:
    """Compare descriptions with captions."""
    told = {photo.name: photo.captions for photo in photos if photo.captions}
    if not told:
        return missing(replies.task, "the data set has no captions")
    said = {name: replies.of[name, replies.task].text or "" for name in told}
    return judge.score(said, told, resamples=resamples, seed=seed)


def retrieval_figures(replies: Replies, photos: Sequence[Photo], *, resamples: int, seed: int) -> list[Metric]:
    """Look for captions, images and quarters of images by their vectors."""
    for views in (VIEWS, (SHARED, "captions")):
        spaces = {reply.space for (_, what), reply in replies.of.items() if what in views and reply.space is not None}
        if len(spaces) > 1:
            return missing(replies.task, f"the rung changed its vector space: {', '.join(sorted(spaces))}")
    whole, first, second, shared = (
        {photo.name: found[0] for photo in photos if (found := _vectors(replies, photo.name, view))}
        for view in (*VIEWS, SHARED)
    )
    beside_texts = shared or whole
    told = {photo.name: found for photo in photos if (found := _vectors(replies, photo.name, "captions"))}
    names = [name for name in beside_texts if name in told]
    if names:
        images = np.stack([beside_texts[name] for name in names])
        texts = text_metrics(images, [np.stack(told[name]) for name in names], resamples=resamples, seed=seed)
    else:
        texts = without_texts(_why_no_texts(replies, photos))
    cut = [name for name in first if name in second]
    if not cut:
        return texts
    quarters = [np.stack([quarter[name] for name in cut]) for quarter in (first, second)]
    return [*texts, *quarters_metrics(*quarters, resamples=resamples, seed=seed)]


def detection_figures(
    replies: Replies, photos: Sequence[Photo], labels: Sequence[str], *, resamples: int, seed: int
) -> list[Metric]:
    """Compare boxes with those of the data set."""
    true = {photo.name: photo.boxes for photo in photos if photo.boxes is not None}
    if not any(true.values()):
        return missing(replies.task, "the data set has no boxes")
    found = {name: replies.of[name, replies.task].boxes or () for name in true}
    return score_boxes(found, true, labels, resamples=resamples, seed=seed)


def _vectors(replies: Replies, name: str, what: str) -> tuple[np.ndarray, ...] | None:
    reply = replies.of.get((name, what))
    return None if reply is None else reply.vectors


def _why_no_texts(replies: Replies, photos: Sequence[Photo]) -> str:
    if not any(photo.captions for photo in photos):
        return "the data set has no captions"
    reply = next((reply for (_, what), reply in replies.of.items() if what == "captions"), None)
    return f"it embeds no texts: {reply.reason}" if reply is not None else "it embeds no texts"
