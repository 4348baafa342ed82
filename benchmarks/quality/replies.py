"""What rungs have said: one reply to each question, as records that a run's file can keep.

This module decides what is remembered of an answer. It must not know how it was asked for, nor how good it is.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_backends import Description, Detections, Embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..datasets import Photo
    from ..plan import Task

    Answer = Description | Embedding | Detections
    Vector = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["SHARED", "VIEWS", "Replies", "Reply", "reply_of"]

VIEWS = ("whole", "first", "second")
"""What is embedded of an image: all of it, and two opposite quarters."""

SHARED = "shared"
"""All of an image once more, in the space of texts, where a rung has another one for images alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of one question.

    Attributes:
        text: A description.
        boxes: Rows of label, score and the four coordinates.
        vectors: Of an image, or of each caption.
        space: Where the vectors live.
        declined: Kind of the error; None when it was answered.
        reason: Why it was declined, in a sentence.
        elapsed_s: Seconds; None when it had to wait for something, or was a rung's first.
        usd: What it has cost; None when nobody says.
        model: Who answered.
        revision: Its version.
    """

    text: str | None = None
    boxes: tuple[tuple[str, float, tuple[float, float, float, float]], ...] | None = None
    vectors: tuple[Vector, ...] | None = None
    space: str | None = None
    declined: str | None = None
    reason: str | None = None
    elapsed_s: float | None = None
    usd: float | None = None
    model: str | None = None
    revision: str | None = None

    def to_note(self) -> dict[str, Any]:
        """Return what a run file can keep."""
        note = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        if self.vectors is not None:
            note["vectors"] = [b64encode(vector.astype("<f4").tobytes()).decode() for vector in self.vectors]
        return note

    @classmethod
    def from_note(cls, note: dict[str, Any]) -> Reply:
        """Return what a run file has kept."""
        kept = dict(note)
        if "boxes" in kept:
            kept["boxes"] = tuple((label, score, tuple(xyxy)) for label, score, xyxy in kept["boxes"])
        if "vectors" in kept:
            kept["vectors"] = tuple(np.frombuffer(b64decode(text), dtype="<f4") for text in kept["vectors"])
        return cls(**kept)


@dataclass(slots=True, kw_only=True)
class Replies:
    """All that one rung said in one task.

    Attributes:
        task: The task.
        backend: What the rung calls itself.
        of: By name of the photo and question: ``"describe"``, ``"detect"``, one of `VIEWS`, `SHARED` or ``"captions"``.
    """

    task: Task
    backend: str
    of: dict[tuple[str, str], Reply] = field(default_factory=dict)

    def main(self, photo: Photo) -> Reply | None:
        """Return the reply that counts as the answer about a photo; None when it was not asked about."""
        return self.of.get((photo.name, VIEWS[0] if self.task == "embed" else self.task))

    def any_answer(self) -> Reply | None:
        """Return an answer that is not declined."""
        return next((reply for reply in self.of.values() if reply.declined is None), None)

    def declined(self, photos: Sequence[Photo]) -> dict[str, int]:
        """Return how often each reason kept an image from being answered."""
        replies = [self.main(photo) for photo in photos]
        return dict(Counter(reply.declined for reply in replies if reply is not None and reply.declined is not None))

    def first_reason(self, photos: Sequence[Photo]) -> str | None:
        """Return why the first image that was not answered was not; None where all were."""
        replies = [self.main(photo) for photo in photos]
        return next((reply.reason for reply in replies if reply is not None and reply.declined is not None), None)


def reply_of(answers: Sequence[Answer], *, timed: bool) -> Reply:
    """Return what is remembered of answers: one, or those to the captions of one image.

    Args:
        answers: At least one.
        timed: Whether the time that they took tells anything.
    """
    answer = answers[0]
    trace = answer.trace
    costs = [each.trace.usage.cost_usd for each in answers]
    reply: dict[str, Any] = {
        "elapsed_s": trace.elapsed_s if timed else None,
        "usd": None if None in costs else sum(cost for cost in costs if cost is not None),
        "model": trace.model,
        "revision": trace.revision,
    }
    if isinstance(answer, Description):
        return Reply(text=answer.text, **reply)
    if isinstance(answer, Detections):
        return Reply(boxes=tuple((box.label, box.score, box.xyxy) for box in answer), **reply)
    vectors = tuple(each.vector for each in answers if isinstance(each, Embedding))
    return Reply(vectors=vectors, space=answer.space, **reply)
