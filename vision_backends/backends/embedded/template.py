"""Evidence → a few English sentences.

A pure function. It says what was seen, how many, where, and in which colours, and quotes what was read. It never says
what people do or feel, who they are, or how things relate: nothing in the evidence supports that. Text from the image
stands in quotation marks that it cannot end, so that it is not mistaken for a statement about the image.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from vision_backends.backends.embedded.label_knowledge import DRAWN, PLACES
from vision_backends.backends.vocabulary import counted, joined, spoken, with_article

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.embedded.evidence import Evidence, SeenObject, Tones
    from vision_backends.backends.embedded.reading import TextLine

__all__ = ["compose"]

MOST_GROUPS = 4

MOST_READ_WORDS = 40
MOST_READ_CHARACTERS = 300
"""Some scripts put no spaces between words."""

QUOTES = str.maketrans(dict.fromkeys('"“”„‟«»″〝〞〟＂', "'"))

WHERE = {
    "left": " on the left",
    "centre": " in the centre",
    "right": " on the right",
    "foreground": " in the foreground",
}


def compose(evidence: Evidence, *, max_words: int | None = None) -> str:
    """Return the description.

    Args:
        evidence: What was seen.
        max_words: About how long it may be; colours go first, then places, then what is not sure or not prominent,
            then the end of the text that was read.
    """
    lengths = (
        _Length(groups=MOST_GROUPS, places=True, doubts=True, tones=True),
        _Length(groups=MOST_GROUPS, places=True, doubts=True, tones=False),
        _Length(groups=MOST_GROUPS, places=False, doubts=True, tones=False),
        _Length(groups=1, places=False, doubts=False, tones=False),
    )
    lines = evidence.text or ()
    read = _read(lines, most_words=MOST_READ_WORDS) if lines else ""
    most_words = math.inf if max_words is None else max_words
    for length in lengths:
        text = _text(evidence, length, read=read)
        if len(text.split()) <= most_words:
            return text
    bare = _text(evidence, lengths[-1], read="")
    return f"{bare} {_read(lines, most_words=most_words - len(bare.split()))}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Length:
    """What a description of some length has room for.

    Attributes:
        groups: How many kinds of objects.
        places: Where they are.
        doubts: What is only probable, where something is sure.
        tones: Colours and brightness.
    """

    groups: int
    places: bool
    doubts: bool
    tones: bool


def _text(evidence: Evidence, length: _Length, *, read: str) -> str:
    sure = _phrases([item for item in evidence.objects if item.sure], length)
    doubtful = _phrases([item for item in evidence.objects if not item.sure], length)[:1]
    hedged = [("perhaps", phrase) for phrase in doubtful]
    setting = ""
    if evidence.scene is not None:
        noun = with_article(spoken(evidence.scene.label))
        if evidence.scene.label in PLACES:
            setting = f"The setting looks like {noun}."
        elif evidence.scene.label == DRAWN:
            setting = f"The image looks like {noun}."
        elif evidence.scene.sure:
            sure.append(noun)
        else:
            hedged.insert(0, ("probably", noun))
    if sure and not length.doubts:
        hedged, setting = [], ""
    shown = _shown(sure, hedged, evidence) if sure or hedged or not setting else ""
    coloured = _coloured(evidence.tones) if length.tones else ""
    return " ".join(filter(None, [shown, setting, read, coloured]))


def _shown(sure: Sequence[str], hedged: Sequence[tuple[str, str]], evidence: Evidence) -> str:
    """Return the sentence about what is in the image, or that nothing was recognised."""
    tones, has_text = evidence.tones, bool(evidence.text)
    image = "black-and-white image" if tones.greyscale and not tones.uniform else "image"
    if sure:
        return f"The {image} shows {joined([*sure, *map(' '.join, hedged)])}."
    if hedged:
        (hedge, first), *rest = hedged
        verb = "probably shows" if hedge == "probably" else "may show"
        return f"The {image} {verb} {joined([first, *map(' '.join, rest)])}."
    if tones.uniform:
        plain = f"plain {tones.main[0]}"
        said = f"shows text on {plain}" if has_text else f"is {plain}; nothing in it was recognised"
        return f"The image {said}."
    return f"The {image} shows text." if has_text else f"Nothing in the {image} was recognised with confidence."


def _read(lines: Sequence[TextLine], *, most_words: float) -> str:
    """Return a sentence that quotes as many lines as it has room for, or the beginning of the first; "" for none."""
    quotes = [f'"{line.string.translate(QUOTES)}"' for line in lines]
    first = quotes[0].strip('"').split() if quotes else []
    phrases = chain(
        [joined(quotes)] if quotes else [],
        (joined([*quotes[:count], "more"]) for count in range(len(quotes) - 1, 0, -1)),
        (f'"{" ".join(first[:count])}…"' for count in range(len(first) - 1, 0, -1)),
    )
    for phrase in phrases:
        sentence = f"The text reads {phrase}."
        if len(sentence.split()) <= most_words and len(sentence) <= MOST_READ_CHARACTERS:
            return sentence
    return ""


def _phrases(objects: Sequence[SeenObject], length: _Length) -> list[str]:
    """Return what there is at each place, the most prominent first, the rest summed up."""
    kinds: defaultdict[str, list[SeenObject]] = defaultdict(list)
    for item in objects:
        kinds[spoken(item.label)].append(item)
    places: defaultdict[str, list[str]] = defaultdict(list)
    for noun, items in list(kinds.items())[: length.groups]:
        common = {item.place for item in items}
        where = WHERE[common.pop()] if length.places and len(common) == 1 else ""
        places[where].append(counted(noun, len(items)))
    nowhere = places.pop("", [])
    phrases = [joined(nouns) + where for where, nouns in places.items()] + nowhere
    return phrases if len(kinds) <= length.groups else [*phrases, "other things"]


def _coloured(tones: Tones) -> str:
    if tones.uniform:
        return ""
    overall = "" if tones.brightness == "normal" else f"the image is {tones.brightness} overall"
    if tones.greyscale or tones.main == ("black",):
        return f"{overall[:1].upper()}{overall[1:]}." if overall else ""
    verb = "colour is" if len(tones.main) == 1 else "colours are"
    colours = f"The main {verb} {joined(tones.main)}"
    return f"{colours}, and {overall}." if overall else f"{colours}."
