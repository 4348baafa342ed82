"""Labels in English: how a label is said, and which label of a vocabulary means what a caller asks for.

This module decides articles, plurals, counts, lists and synonyms. It must not know any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["counted", "joined", "match_labels", "plural", "spoken", "with_article"]

SPOKEN = {
    "hair drier": "hair dryer",
    "mouse": "computer mouse",
    "remote": "remote control",
    "tv": "TV",
}
"""Labels that say too little or nothing usual by themselves."""

NUMBERS = {2: "two", 3: "three", 4: "four"}
SEVERAL = range(5, 10)
"""Small counts are exact; detectors lose count in a crowd."""

PAIRS = frozenset(
    {"binoculars", "clogs", "jeans", "pajamas", "scissors", "skis", "sunglasses", "swim trunks", "tights"}
)
UNCOUNTABLE = frozenset(
    {
        "broccoli",
        "carbonara",
        "chain mail",
        "chocolate syrup",
        "clothing",
        "consomme",
        "corn",
        "coral fungus",
        "dough",
        "eggnog",
        "face powder",
        "food",
        "fruit",
        "furniture",
        "guacamole",
        "hair spray",
        "hay",
        "ice cream",
        "lotion",
        "mashed potatoes",
        "meatloaf",
        "parallel bars",
        "perfume",
        "rapeseed",
        "red wine",
        "sunscreen",
        "toilet paper",
        "velvet fabric",
        "wool",
    }
)
IRREGULAR = {
    "bison": "bison",
    "fish": "fish",
    "fox": "foxes",
    "goose": "geese",
    "grouse": "grouse",
    "knife": "knives",
    "leaf": "leaves",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "salmon": "salmon",
    "sheep": "sheep",
    "wolf": "wolves",
}
"""Plurals of last words; other words follow the rules."""

SOUNDS_LIKE_CONSONANT = ("eu", "one-", "uni")
SOUNDS_LIKE_VOWEL = ("hourglass",)

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

BYTE_ORDER_MARK = "\ufeff"
"""What the first label of a list begins with that was read from a file of some editors."""

ARTICLES = ("a ", "an ", "the ", "any ")


def spoken(label: str) -> str:
    """Return the usual noun for a label: "remote control" for "remote"."""
    return SPOKEN.get(label, label)


def with_article(noun: str) -> str:
    """Return a noun in the singular with what goes before it: "an umbrella", "a pair of skis", "wool"."""
    if noun in PAIRS:
        return f"a pair of {noun}"
    if noun in UNCOUNTABLE:
        return noun
    lower = noun.lower()
    vowel = lower.startswith(tuple("aeiou")) and not lower.startswith(SOUNDS_LIKE_CONSONANT)
    return f"{'an' if vowel or lower.startswith(SOUNDS_LIKE_VOWEL) else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return the plural of a noun: "people", "fire trucks", "pairs of skis"."""
    if noun in PAIRS:
        return f"pairs of {noun}"
    if noun in UNCOUNTABLE:
        return f"portions of {noun}"
    head, space, last = noun.rpartition(" ")
    return head + space + _plural_word(last)


def counted(noun: str, count: int) -> str:
    """Return a noun with its count in words: "a dog", "two dogs", "several dogs", "many dogs"."""
    if count == 1:
        return with_article(noun)
    vague = "several" if count in SEVERAL else "many"
    return f"{NUMBERS.get(count, vague)} {plural(noun)}"


def joined(parts: Sequence[str]) -> str:
    """Return a list in words: "a", "a and b", "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


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


def _plural_word(word: str) -> str:
    lower = word.lower()
    for ending, replacement in IRREGULAR.items():
        if lower == ending or (ending == "fish" and lower.endswith(ending)):
            return word[: len(word) - len(ending)] + replacement
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if lower.endswith("y") and lower[-2:-1] not in tuple("aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}s"


def _forms(word: str) -> set[str]:
    return {form.lower() for form in (word, spoken(word), plural(spoken(word)))}


def _plain(label: str) -> str:
    words = " ".join(label.removeprefix(BYTE_ORDER_MARK).lower().split()).rstrip(".")
    return next((words.removeprefix(article) for article in ARTICLES if words.startswith(article)), words)
