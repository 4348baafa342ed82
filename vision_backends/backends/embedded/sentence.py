"""Evidence → one or two English sentences.

A pure function. It says what was seen, how many, where, and in which colours. It never says what anybody does or
feels, who somebody is, or how things relate: nothing in the evidence supports that.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.backends.embedded.classes import PLACES
from vision_backends.backends.words import counted, joined, spoken, with_article

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.embedded.colours import Tones
    from vision_backends.backends.embedded.evidence import Evidence, SeenObject

__all__ = ["compose"]

MOST_GROUPS = 4

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
        max_words: About how long it may be; colours go first, then places, then what is not sure or not prominent.
    """
    lengths = (
        _Length(groups=MOST_GROUPS, places=True, doubts=True, tones=True),
        _Length(groups=MOST_GROUPS, places=True, doubts=True, tones=False),
        _Length(groups=MOST_GROUPS, places=False, doubts=True, tones=False),
        _Length(groups=1, places=False, doubts=False, tones=False),
    )
    texts = [_text(evidence, length) for length in lengths]
    fitting = (text for text in texts if max_words is None or len(text.split()) <= max_words)
    return next(fitting, texts[-1])


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


def _text(evidence: Evidence, length: _Length) -> str:
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
    sentences = [_shown(sure, probably, perhaps, evidence.tones, setting=setting), setting]
    if length.tones:
        sentences.append(_coloured(evidence.tones))
    return " ".join(filter(None, sentences))


def _shown(sure: Sequence[str], probably: Sequence[str], perhaps: Sequence[str], tones: Tones, *, setting: str) -> str:
    image = "black-and-white image" if tones.greyscale and not tones.uniform else "image"
    if sure:
        hedged = [*(f"probably {noun}" for noun in probably), *(f"perhaps {phrase}" for phrase in perhaps)]
        return f"The {image} shows {joined([*sure, *hedged])}."
    if probably:
        return f"The {image} probably shows {joined([*probably, *(f'perhaps {phrase}' for phrase in perhaps)])}."
    if perhaps:
        return f"The {image} may show {joined(perhaps)}."
    if tones.uniform:
        return f"The image is plain {tones.main[0]}; nothing in it was recognised."
    return "" if setting else f"Nothing in the {image} was recognised with confidence."


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
