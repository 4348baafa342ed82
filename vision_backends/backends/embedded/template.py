"""Evidence → a few English sentences.

A pure function. It says what was seen, how many, where, and in which colours, and quotes what was read. It never says
what anybody does or feels, who somebody is, or how things relate: nothing in the evidence supports that. Text from
the image stands in quotation marks that it cannot end, so that nobody takes it for a statement about the image.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from vision_backends.backends.embedded.label_knowledge import PLACES
from vision_backends.backends.english import counted, joined, spoken, with_article

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.embedded.colours import Tones
    from vision_backends.backends.embedded.evidence import Evidence, SeenObject
    from vision_backends.backends.embedded.ocr import TextLine

__all__ = ["compose"]

MOST_GROUPS = 4

MOST_READ_WORDS = 40
MOST_READ_CHARACTERS = 300
"""Some writings have no spaces between words."""

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
    texts = [_text(evidence, length, read=_read(lines, most_words=MOST_READ_WORDS)) for length in lengths]
    if max_words is None:
        return texts[0]
    bare = _text(evidence, lengths[-1], read="")
    shortest = f"{bare} {_read(lines, most_words=max_words - len(bare.split()))}".rstrip()
    return next((text for text in texts if len(text.split()) <= max_words), shortest)


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
    seen = [item for item in evidence.objects if item.sure]
    doubtful = [item for item in evidence.objects if not item.sure]
    sure = _phrases(seen, length)
    perhaps = _phrases(doubtful, length)[:1]
    probably: list[str] = []
    setting = ""
    if evidence.scene is not None:
        noun = with_article(spoken(evidence.scene.label))
        if evidence.scene.label in PLACES:
            setting = f"The setting looks like {noun}."
        else:
            (sure if evidence.scene.sure else probably).append(noun)
    if sure and not length.doubts:
        perhaps, probably, setting = [], [], ""
    shown = _shown(sure, probably, perhaps, evidence.tones)
    if not shown and not setting:
        shown = _bare(evidence.tones, text=bool(evidence.text))
    coloured = _coloured(evidence.tones) if length.tones else ""
    return " ".join(filter(None, [shown, setting, read, coloured]))


def _shown(sure: Sequence[str], probably: Sequence[str], perhaps: Sequence[str], tones: Tones) -> str:
    image = _image(tones)
    if sure:
        hedged = [*(f"probably {noun}" for noun in probably), *(f"perhaps {phrase}" for phrase in perhaps)]
        return f"The {image} shows {joined([*sure, *hedged])}."
    if probably:
        return f"The {image} probably shows {joined([*probably, *(f'perhaps {phrase}' for phrase in perhaps)])}."
    if perhaps:
        return f"The {image} may show {joined(perhaps)}."
    return ""


def _bare(tones: Tones, *, text: bool) -> str:
    """Return what is said where no object and no scene was recognised."""
    image = _image(tones)
    if tones.uniform:
        plain = f"plain {tones.main[0]}"
        return f"The image shows text on {plain}." if text else f"The image is {plain}; nothing in it was recognised."
    return f"The {image} shows text." if text else f"Nothing in the {image} was recognised with confidence."


def _image(tones: Tones) -> str:
    return "black-and-white image" if tones.greyscale and not tones.uniform else "image"


def _read(lines: Sequence[TextLine], *, most_words: int) -> str:
    """Return a sentence that quotes as many lines as it has room for, or the beginning of the first; "" for none."""
    quotes = [f'"{line.string.translate(QUOTES)}"' for line in lines]
    first = quotes[0].strip('"').split() if quotes else []
    phrases = chain(
        [joined(quotes)] if quotes else [],
        (joined([*quotes[:count], "more"]) for count in range(len(quotes) - 1, 0, -1)),
        (f'"{" ".join(first[:count])}…"' for count in range(len(first) - 1, 0, -1)),
    )
    sentences = (f"The text reads {phrase}." for phrase in phrases)
    return next((each for each in sentences if _within(each, most_words)), "")


def _within(sentence: str, most_words: int) -> bool:
    return len(sentence.split()) <= most_words and len(sentence) <= MOST_READ_CHARACTERS


def _phrases(objects: Sequence[SeenObject], length: _Length) -> list[str]:
    """Return what there is at each place, the most prominent first, the rest summed up."""
    kinds: defaultdict[str, list[SeenObject]] = defaultdict(list)
    for item in objects:
        kinds[spoken(item.label)].append(item)
    places: defaultdict[str, list[str]] = defaultdict(list)
    for noun, items in list(kinds.items())[: length.groups]:
        places[_where(items) if length.places else ""].append(counted(noun, len(items)))
    nowhere = places.pop("", [])
    phrases = [joined(nouns) + where for where, nouns in places.items()] + nowhere
    return phrases if len(kinds) <= length.groups else [*phrases, "other things"]


def _where(items: Sequence[SeenObject]) -> str:
    places = {item.place for item in items}
    return WHERE[places.pop()] if len(places) == 1 else ""


def _coloured(tones: Tones) -> str:
    if tones.uniform:
        return ""
    overall = "" if tones.brightness == "normal" else f"the image is {tones.brightness} overall"
    if tones.greyscale or tones.main == ("black",):
        return f"{overall[:1].upper()}{overall[1:]}." if overall else ""
    verb = "colour is" if len(tones.main) == 1 else "colours are"
    colours = f"The main {verb} {joined(tones.main)}"
    return f"{colours}, and {overall}." if overall else f"{colours}."
