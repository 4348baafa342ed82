"""A few images with what each rung said about them, small enough for a page.

This module decides what of an answer is shown. It must not know how it is drawn.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from vision_backends import VisionError, open_image

from ..records import Answer, Box, Example
from .replies import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..datasets import Photo
    from .replies import Replies, Reply

__all__ = ["examples_of"]

SIDE_PX = 360
"""The longer side of a thumbnail."""

JPEG_QUALITY = 80

SHOWN_SCORE = 0.5
"""What rungs report unless they are told otherwise; the figures also count boxes below it."""

NEAREST = 3


def examples_of(photos: Sequence[Photo], all_replies: Iterable[Replies], *, count: int) -> list[Example]:
    """Return the first images of a run with all answers about them.

    Args:
        photos: All that was asked about.
        all_replies: Of each rung and task.
        count: How many are wanted; one that cannot be read is left out.
    """
    everything = list(all_replies)
    examples = []
    for photo in photos[:count]:
        try:
            picture = open_image(photo.read()).rgb()
        except VisionError:
            continue
        scale = min(1.0, SIDE_PX / max(picture.size))
        answers = [_answer(each, reply, photos, photo, scale) for each in everything if (reply := each.main(photo))]
        small = picture.resize([max(1, round(side * scale)) for side in picture.size], PILImage.Resampling.LANCZOS)
        examples.append(
            Example(
                image=photo.name,
                credit=photo.credit,
                thumbnail=_data_url(small),
                width=small.width,
                height=small.height,
                captions=photo.captions,
                boxes=tuple(Box(label=box.label, xyxy=_scaled(box.xyxy, scale)) for box in photo.boxes or ()),
                answers=tuple(answers),
            )
        )
    return examples


def _answer(replies: Replies, reply: Reply, photos: Sequence[Photo], photo: Photo, scale: float) -> Answer:
    boxes = None
    if reply.boxes is not None:
        boxes = tuple(
            Box(label=label, xyxy=_scaled(xyxy, scale), score=score)
            for label, score, xyxy in reply.boxes
            if score >= SHOWN_SCORE
        )
    return Answer(
        backend=replies.backend,
        model=reply.model,
        text=reply.text,
        boxes=boxes,
        nearest=None if reply.vectors is None else _nearest(replies, photos, photo),
        declined=reply.declined and f"{reply.declined}: {reply.reason}",
        elapsed_s=reply.elapsed_s,
    )


def _nearest(replies: Replies, photos: Sequence[Photo], photo: Photo) -> tuple[str, ...]:
    """Return the names of the images that are most like one."""
    vectors = {
        each.name: reply.vectors[0]
        for each in photos
        if (reply := replies.of.get((each.name, VIEWS[0]))) is not None and reply.vectors is not None
    }
    own = vectors.pop(photo.name)
    likeness = {name: float(np.dot(own, vector)) for name, vector in vectors.items()}
    return tuple(sorted(likeness, key=lambda name: -likeness[name])[:NEAREST])


def _scaled(xyxy: tuple[float, float, float, float], scale: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = xyxy
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def _data_url(picture: PILImage.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
