"""Labels of any words, looked for with a detector of 80 kinds, a classifier and the joint space.

A box is one of the detector's, named by the label that is likest to both its part of the image and the detector's word:
a table full of coffee is no espresso. What fits only the image as a whole is no box. This module decides which label is
said of which, and how sure that is. It must not know which labels the detector has words for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vision_backends.backends.embedded.joint_space import weighed
from vision_backends.types import ImageLabel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.joint_space import JointSpace
    from vision_backends.types import Detection

    Floats = npt.NDArray[np.float32]

__all__ = ["find_labels"]

EVEN_SCORE = 0.5
"""From here on a thing is seldom taken for another. A box that is less sure, where such are asked for, does not stand
for what the image as a whole says of its label."""

EVEN_LIKENESS = 0.35
"""The cosine that counts as this score. Of cut-outs of animals, food and things, 6 % are this like to the name of
another thing of their group, 0.4 % to one of another group, and 45 % to their own
(``benchmarks/checks/joint_space.py``)."""

SAME_THING = 0.5
"""So like to the detector's word a label must be for its box. Of pairs of words, "kitten" and "cat", "pedestrian" and
"person", "stove" and "oven" are; "road" and "car", "rider" and "bicycle", "flower" and "potted plant" are not, but
"cattle" and "horse" are."""

MOST_CROPS = 8
"""Each costs one pass of the classifier."""


def find_labels(
    image: PILImage.Image,
    labels: Sequence[str],
    *,
    joint: JointSpace,
    objects: Sequence[Detection],
    scale: tuple[float, float],
    min_score: float,
    truncate: bool,
) -> tuple[list[Detection], list[ImageLabel]]:
    """Return the boxes that labels name, and the labels that fit the image and have none.

    Args:
        image: RGB pixels, at any scale.
        labels: What to look for.
        joint: The space in which images and labels are compared.
        objects: What the detector has found, down to a score of `SURE_SCORE` and of ``min_score``.
        scale: Pixels of ``image`` for each pixel that boxes are in, across and down.
        min_score: Lowest score to report.
        truncate: Whether the rest of a label may be left out that is longer than is read.

    Raises:
        NotReadyError: A model file is missing or damaged.
        NotSupportedError: A label has no word that is known, or is too long.
    """
    wanted = np.stack([joint.embed_text(label, truncate=truncate) for label in labels])
    boxes: list[Detection] = []
    boxed = (item for item in objects if item.score >= min_score)
    for item in sorted(boxed, key=lambda item: -item.score * item.area_px)[:MOST_CROPS]:
        left, top, right, bottom = item.xyxy
        crop = (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])
        seen, said = joint.embed_part(image, crop, item), joint.embed_text(item.label)
        scores = _scores(wanted @ seen) * (wanted @ said >= SAME_THING)
        best = int(scores.argmax())
        score = min(item.score, float(scores[best]))
        if score >= min_score:
            boxes.append(replace(item, label=labels[best], score=score, category_id=None))
    placed = {box.label for box in boxes if box.score >= EVEN_SCORE}
    whole = joint.embed(image, objects=weighed(objects, area_px=image.width * image.height / math.prod(scale)), looks=2)
    scores = _scores(wanted @ whole).tolist()
    return boxes, [
        ImageLabel(label=label, score=score)
        for label, score in zip(labels, scores, strict=True)
        if label not in placed and score >= min_score
    ]


def _scores(cosines: Floats) -> Floats:
    """Return scores in [0, 1] for likenesses: an even one where `EVEN_LIKENESS` is, in two straight lines."""
    return np.interp(cosines, [0.0, EVEN_LIKENESS, 1.0], [0.0, EVEN_SCORE, 1.0]).astype(np.float32)
