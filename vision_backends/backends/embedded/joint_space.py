"""One vector space for texts and images, made of what the two models of this rung can name.

A text is the vector of its words. An image is the mean of the vectors of the words for what is seen in it, each
weighted by how sure that is: ConSE (Norouzi et al. 2014, https://arxiv.org/abs/1312.5650), here with a detector's
objects beside a classifier's classes. So the space knows subjects: no attribute, relation or count.

This module decides how images get there. It must not know what is searched for in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vision_backends.backends.embedded.evidence import CENTRE_SHARE, SURE_SCORE
from vision_backends.backends.embedded.label_knowledge import GENERA, KINDS
from vision_backends.backends.embedded.session import Lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.models import Classifier, Detector
    from vision_backends.backends.embedded.word_vectors import WordVectors
    from vision_backends.types import Detection

    Box = tuple[float, float, float, float]
    Floats = npt.NDArray[np.float32]

__all__ = ["JointSpace", "weighed"]

SORT_WEIGHT = 0.5
"""Beside its own name a class has that of its sort, so that an Egyptian Mau is found as a cat. Chosen, as all of the
recipe, by searching cut-outs of animals and things with their names (``benchmarks/checks/joint_space.py``), not on the
photos that its figures are of."""

TOO_BROAD = frozenset({"animal", "vehicle"})
"""These make all animals alike: the right one of 345 cut-outs comes first for 29.1 instead of 29.4 % of the names."""


class JointSpace:
    """Turns images into vectors that can be compared with those of `WordVectors`.

    Args:
        words: The vectors of words.
        detector: Finds the objects.
        classifier: Names the whole.
        names: The classifier's class names.
        categories: The detector's labels.
    """

    def __init__(
        self,
        words: WordVectors,
        *,
        detector: Detector,
        classifier: Classifier,
        names: Sequence[str],
        categories: Sequence[str],
    ) -> None:
        self._words = words
        self._detector = detector
        self._classifier = classifier
        self._names = (*names, *categories)
        self._place = {label: len(names) + index for index, label in enumerate(categories)}
        self._vectors: Lazy[tuple[Floats, Floats]] = Lazy()

    def embed(
        self,
        image: PILImage.Image,
        *,
        whole: Floats | None = None,
        objects: Sequence[tuple[str, float]] | None = None,
        looks: int = 1,
    ) -> Floats:
        """Return the L2-normalised vector of an image, [D].

        Each class weighs its probability, each object that is sure its score times the square root of its share of the
        area.

        Args:
            image: RGB pixels, at any scale.
            whole: The classifier's probabilities for all of it, where they are known.
            objects: What `weighed` returns of the objects in it, where they are known.
            looks: With 2 the classifier looks at the image's centre as well, for the mean of both; such vectors are not
                those of the space as others know it.

        Raises:
            NotReadyError: A file is missing or damaged.
        """
        width, height = image.size
        side = CENTRE_SHARE * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        views = [(0.0, 0.0, float(width), float(height)), (left, top, left + side, top + side)][:looks]
        known = [] if whole is None else [whole]
        seen = known + [self._classifier.classify(image, box=box) for box in views[len(known) :]]
        probabilities: Floats = np.mean(seen, axis=0)
        if objects is None:
            found = self._detector.detect(image, width=width, height=height, min_score=SURE_SCORE)
            objects = weighed(found, area_px=width * height)
        return self._mixed(probabilities, objects)

    def embed_part(self, image: PILImage.Image, box: Box, item: Detection) -> Floats:
        """Return the L2-normalised vector of a part of an image in which an object was found, [D].

        Args:
            image: RGB pixels, at any scale.
            box: The part, in pixels of ``image``.
            item: The object, which fills it.

        Raises:
            NotReadyError: A file is missing or damaged.
        """
        return self._mixed(self._classifier.classify(image, box=box), [(item.label, item.score)])

    def embed_text(self, text: str, *, truncate: bool = False) -> Floats:
        """Return the L2-normalised vector of a text, [D]. Errors as in `WordVectors.embed`."""
        return self._words.embed(text, truncate=truncate)[0]

    def _mixed(self, probabilities: Floats, objects: Sequence[tuple[str, float]]) -> Floats:
        """Return the mean of the vectors of what is seen without the mean of all, which says nothing; normalised."""
        vectors, mean = self._vectors.get(self._embed_names)
        weights = np.zeros(len(self._names), dtype=np.float32)
        weights[: len(probabilities)] = probabilities
        for label, weight in objects:
            weights[self._place[label]] += weight
        # einsum, since a matrix product may wake BLAS threads that then spin beside the models.
        vector: Floats = np.einsum("n,nd->d", weights / weights.sum(), vectors) - mean
        vector /= np.linalg.norm(vector)
        return vector

    def _embed_names(self) -> tuple[Floats, Floats]:
        """Return the vector of each class and label, [names, D], and their mean, [D]."""
        vectors = np.stack([self._words.embed(name)[0] for name in self._names])
        for sort, classes in (KINDS | GENERA).items():
            if sort not in TOO_BROAD:
                vectors[list(classes)] += SORT_WEIGHT * self._words.embed(sort)[0]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors, vectors.mean(axis=0)


def weighed(objects: Sequence[Detection], *, area_px: float) -> list[tuple[str, float]]:
    """Return the labels of objects that are sure, with their weights in the vector of an image of an area."""
    sure = (item for item in objects if item.score >= SURE_SCORE)
    return [(item.label, item.score * math.sqrt(item.area_px / area_px)) for item in sure]
