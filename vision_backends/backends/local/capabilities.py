"""What a model can be asked to do, as far as its files tell before it is loaded.

This module decides which requests are refused and how. It must not know where models come from, nor how they run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from vision_backends.backends.local.models.families import captioning
from vision_backends.backends.vocabulary import match_labels
from vision_backends.errors import NotSupportedError
from vision_backends.foreign_text import quote

if TYPE_CHECKING:
    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.requests import DescribeRequest, EmbedRequest, EmbedTextRequest

__all__ = ["ClosedVocabulary", "check_caption", "check_space"]


def check_caption(request: DescribeRequest, checkpoint: Checkpoint) -> None:
    """Return if a model can write what is asked for.

    Raises:
        NotSupportedError: It only writes captions in English, and cannot follow instructions.
    """
    if captioning(checkpoint.kind) is None:
        return
    name = checkpoint.name
    if request.prompt is not None:
        remedy = "Leave prompt= out, or configure an image-text-to-text model as [local] caption_model."
        raise NotSupportedError(f"{name} writes captions and cannot follow a prompt.", remedy=remedy)
    if request.language is not None and request.language.lower().split("-")[0] != "en":
        message = f"{name} writes English only, not {request.language!r}."
        raise NotSupportedError(message, remedy='Ask for language="en".')


def check_space(request: EmbedRequest | EmbedTextRequest, space: str) -> None:
    """Return if vectors of a space are what is asked for.

    Raises:
        NotSupportedError: They are not.
    """
    if request.space not in {None, space}:
        message = f"It makes vectors of {space!r}, not of {request.space!r}."
        raise NotSupportedError(message)


class ClosedVocabulary:
    """The classes that a detector was trained on, and which of them a caller means.

    Args:
        checkpoint: A detector's.

    Attributes:
        checkpoint: The same.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        from vision_backends.backends.local.models.detector import vocabulary

        self._names = [name for name, _ in vocabulary(checkpoint.labels).values()]
        self._match = lru_cache(maxsize=64)(self._matched)  # every check repeats this, and matching spellings is slow

    def wanted(self, labels: tuple[str, ...]) -> dict[str, str]:
        """Return the names to report, each with the caller's word for it.

        Raises:
            NotSupportedError: A label is none of the classes.
        """
        meanings = self._match(labels)
        unknown = [label for label, name in meanings.items() if name is None]
        if unknown:
            which = quote(", ".join(map(repr, unknown)))
            message = f"None of the {len(self._names)} classes of {self.checkpoint.name} matches {which}."
            remedy = "Configure a model that takes any label as [local] open_vocabulary_model."
            raise NotSupportedError(message, remedy=remedy)
        return {name: label for label, name in reversed(meanings.items()) if name is not None}

    def _matched(self, labels: tuple[str, ...]) -> dict[str, str | None]:
        return match_labels(labels, known=self._names)
