"""Which of the detector's words a caller's words mean.

This module decides when a closed vocabulary can answer a question about labels. It must not know the detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.backends.embedded.words import plural, spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["match_labels"]

SYNONYMS = {
    "aeroplane": "airplane",
    "bike": "bicycle",
    "doughnut": "donut",
    "fridge": "refrigerator",
    "hair dryer": "hair drier",
    "human": "person",
    "mobile phone": "cell phone",
    "motorbike": "motorcycle",
    "plane": "airplane",
    "smartphone": "cell phone",
    "sofa": "couch",
    "television": "tv",
}
ARTICLES = ("a ", "an ", "the ", "any ")


def match_labels(labels: Sequence[str], *, known: Iterable[str]) -> dict[str, str | None]:
    """Return for each label asked for the word of the vocabulary that means it, or None.

    "A dog", "dogs" and "Dog" all mean "dog"; "sofa" means "couch".

    Args:
        labels: What a caller asks for.
        known: The vocabulary.
    """
    meanings = {form: word for word in known for form in _forms(word)}
    meanings |= {plural(synonym): word for synonym, word in SYNONYMS.items()} | SYNONYMS
    return {label: meanings.get(_plain(label)) for label in labels}


def _forms(word: str) -> set[str]:
    return {word, spoken(word).lower(), plural(spoken(word)).lower()}


def _plain(label: str) -> str:
    words = " ".join(label.lower().split()).rstrip(".")
    return next((words.removeprefix(article) for article in ARTICLES if words.startswith(article)), words)
