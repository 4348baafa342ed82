"""Which words of a closed vocabulary a caller's words mean.

This module decides when a closed vocabulary can answer a question about labels. It must not know any detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.backends.english import plural, spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["match_labels"]

SYNONYMS = {
    "aeroplane": "airplane",
    "bike": "bicycle",
    "diningtable": "dining table",
    "doughnut": "donut",
    "fridge": "refrigerator",
    "hair dryer": "hair drier",
    "human": "person",
    "mobile phone": "cell phone",
    "motorbike": "motorcycle",
    "plane": "airplane",
    "pottedplant": "potted plant",
    "smartphone": "cell phone",
    "sofa": "couch",
    "television": "tv",
    "tvmonitor": "tv",
}
"""Other words for COCO's, among them how other data sets write them."""
ARTICLES = ("a ", "an ", "the ", "any ")


def match_labels(labels: Sequence[str], *, known: Iterable[str]) -> dict[str, str | None]:
    """Return for each label asked for the word of the vocabulary that means it, or None.

    "A dog", "dogs" and "Dog" all mean "dog"; "sofa" means "couch".

    Args:
        labels: What a caller asks for.
        known: The vocabulary.
    """
    words = {form: word for word in known for form in _forms(word)}
    for synonym, word in SYNONYMS.items():
        if word in words:
            words |= {form: words[word] for form in (synonym, plural(synonym)) if form not in words}
    return {label: words.get(_plain(label)) for label in labels}


def _forms(word: str) -> set[str]:
    return {form.lower() for form in (word, spoken(word), plural(spoken(word)))}


def _plain(label: str) -> str:
    words = " ".join(label.lower().split()).rstrip(".")
    return next((words.removeprefix(article) for article in ARTICLES if words.startswith(article)), words)
