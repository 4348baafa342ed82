"""How well a description fits its image when nobody has written a caption: CLIPScore.

J. Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image Captioning, 2021 (arXiv:2104.08718)::

    2.5 × max(cos(image, "A photo depicts " + description), 0)

with CLIP ViT-B/32, here that of the local rung. Figures of another model cannot be compared with those of the paper;
the note names the model. This module decides who is asked for the vectors. It must not know who described the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..records import Metric
from .asking import Question
from .bootstrap import interval_of_mean
from .replies import VIEWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends import Router

    from ..datasets import Photo
    from .asking import Asker
    from .replies import Reply

__all__ = ["clip_score", "score_fit"]

JUDGE = "local"
"""The rung whose vectors are used."""

WEIGHT = 2.5

PREFIX = "A photo depicts "


def score_fit(
    asker: Asker, router: Router, said: Mapping[Photo, str], *, backend: str, resamples: int, seed: int
) -> Metric:
    """Return how well descriptions fit their images.

    Args:
        asker: Asks for the vectors, once.
        router: Has the local rung, or has not.
        said: A description for each photo.
        backend: Who described them.
        resamples: Bootstrap samples.
        seed: Of the samples.
    """
    if JUDGE not in {rung.backend for rung in router.status()}:
        return _without("it takes the vectors of the local rung, which is not among --backends")
    scores = []
    model = None
    for photo, text in said.items():
        image, caption = _look_and_read(asker, router, photo, text, backend=backend)
        if image.vectors is None or caption.vectors is None:
            return _without(_reason(image, caption))
        scores.append(clip_score(image.vectors[0], caption.vectors[0]))
        model = image.model
    return Metric(
        name="CLIPScore",
        value=float(np.mean(scores)),
        interval=interval_of_mean(np.array(scores), resamples=resamples, seed=seed),
        implementation=f"vision-backends, local rung with {model}",
        note=f"reference-free, by {model}",
    )


def clip_score(image: np.typing.ArrayLike, text: np.typing.ArrayLike) -> float:
    """Return the score of one image and text, given their vectors of length 1."""
    cosine = float(np.dot(np.asarray(image, dtype=np.float64), np.asarray(text, dtype=np.float64)))
    return WEIGHT * max(cosine, 0.0)


def _look_and_read(asker: Asker, router: Router, photo: Photo, text: str, *, backend: str) -> tuple[Reply, Reply]:
    """Return the vectors of a photo and of what a rung said about it."""
    image = asker.ask(
        Question("embed", JUDGE, photo.name, VIEWS[0]), lambda wishes: [router.embed(photo.read(), **wishes)]
    )
    caption = asker.ask(
        Question("embed", JUDGE, photo.name, f"said by {backend}"),
        lambda wishes: [router.embed_text(f"{PREFIX}{text}", space=image.space, truncate=True, **wishes)],
    )
    return image, caption


def _reason(*replies: Reply) -> str:
    return next(f"the local rung declined: {reply.reason}" for reply in replies if reply.vectors is None)


def _without(reason: str) -> Metric:
    return Metric(name="CLIPScore", value=None, implementation="vision-backends, local rung", note=reason)
