"""Whether a model sees: pictures of one colour, which only a model that sees them can name again and again.

This module decides what is asked, which answers are right, when enough is known, and which way of asking for JSON the
model has followed meanwhile. It must not know how a question travels, nor where a finding is kept.

Each picture has a colour at random that none before it had: who always says the same is right at most once, and who
guesses twice in a row is right in one of thirty cases.
"""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.prompts import THINKING_TOKENS
from vision_backends.backends.openai.protocol import Ask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from vision_backends.backends.openai.findings import Sight
    from vision_backends.backends.openai.settings import Settings

__all__ = ["COLOURS", "MAX_QUESTIONS", "Probe", "identity_of"]

MAX_QUESTIONS = 3

ENOUGH = 2
"""Right answers that show that a model sees, and wrong ones that show that it does not."""

SIDE_PX = 128

ANSWER_TOKENS = 256
"""Limit of an answer; the word itself takes a few, a model that talks first a hundred."""

TOLERANCE = 48
"""How far each of red, green and blue may be off in an answer that names the colour by numbers."""

COLOURS: Mapping[str, tuple[tuple[int, int, int], str]] = {
    "red": ((255, 0, 0), r"red|crimson|scarlet|rot|rouge|rojo|rosso|红"),
    "green": ((0, 160, 0), r"green|emerald|gr[uü]n|vert|verde|绿"),
    "blue": ((0, 0, 255), r"blue|navy|cobalt|azure|ultramarine|blau|bleu|azul|蓝"),
    "yellow": ((255, 255, 0), r"yellow|lemon|gelb|jaune|amarillo|giallo|黄"),
    "orange": ((255, 140, 0), r"orange|amber|tangerine|naranja|橙"),
    "purple": ((128, 0, 160), r"purple|violet|magenta|lila|violett|morado|紫"),
}
"""The colours: red, green and blue from 0 to 255, and the words for each, in a few languages."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
    "additionalProperties": False,
}

LOOK = "You look at an image for somebody who cannot see it."

QUESTION = "Which colour fills this image? Answer with its name, one English word."

AS_JSON = 'Answer as JSON: {"colour": "…"}'

_BLIND = re.compile(
    r"\b(?:no|any|without an?) (?:image|picture|photo)"
    r"|(?:can(?:no|')t|can not|cannot|unable to|not able to|do(?:es)? not|don't) (?:\w+ ){0,2}(?:see|view|access)"
    r"|text[- ](?:only|based)",
    re.IGNORECASE,
)
"""What a model says that knows that it sees nothing."""

_HEX = re.compile(r"#([0-9a-f]{6})\b", re.IGNORECASE)


@dataclass(slots=True)
class Probe:
    """What is known so far about whether a model sees.

    Attributes:
        random: Chooses the colours.
        identity: Which weights are asked, as the server tells; None as long as it was not asked for that.
        by_schema: Whether JSON is asked for by a schema next, or else in words.
        is_json: Whether an answer was the JSON that was asked for.
        asked: The colours that were shown, the last one last.
        right: How many answers were right.
        wrong: How many were not.
    """

    random: Random
    identity: str | None = None
    by_schema: bool = True
    is_json: bool = False
    asked: list[str] = field(default_factory=list)
    right: int = 0
    wrong: int = 0

    @property
    def sight(self) -> Sight | None:
        """What was found out; None as long as more has to be asked."""
        if self.right >= ENOUGH:
            return "sees"
        if self.wrong >= ENOUGH:
            return "blind"
        return "unclear" if len(self.asked) >= MAX_QUESTIONS else None

    def go_on(self) -> None:
        """Choose the colour of the next picture, which is none of those before."""
        self.asked.append(self.random.choice([each for each in COLOURS if each not in self.asked]))

    def ask(self, settings: Settings) -> Ask:
        """Return the question about the picture whose turn it is."""
        thinking = 0 if settings.effort in {None, "none"} else THINKING_TOKENS
        return Ask(
            model=settings.model,
            instructions=LOOK,
            question=QUESTION if self.by_schema else f"{QUESTION} {AS_JSON}",
            image_urls=(_picture(COLOURS[self.asked[-1]][0]),),
            detail=settings.detail,
            max_tokens=ANSWER_TOKENS + thinking,
            effort=settings.effort,
            schema=SCHEMA if self.by_schema else None,
        )

    def hear(self, text: str) -> None:
        """Take an answer to the last question into account."""
        said, is_json = _colour_in(text)
        if _names(self.asked[-1], said):
            self.right += 1
        elif _BLIND.search(text):
            self.wrong = ENOUGH
        else:
            self.wrong += 1
        self.is_json = self.is_json or is_json
        self.by_schema = self.by_schema and self.is_json

    def cannot(self) -> None:
        """Note that the server has said itself that its model sees nothing."""
        self.wrong = ENOUGH


def identity_of(entry: Mapping[str, Any]) -> str:
    """Return which weights a server has behind a name, as far as its list of models tells.

    Most say when they were asked; Ollama, whose models belong to its library, when the model was fetched.
    """
    volatile = {"permission"} if entry.get("owned_by") == "library" else {"permission", "created"}
    kept = {key: value for key, value in entry.items() if key not in volatile}
    return json.dumps(kept, sort_keys=True, default=str)[:1000]


def _colour_in(text: str) -> tuple[str, bool]:
    """Return what an answer says of the colour, and whether it is the JSON that was asked for."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1])
    except ValueError:
        return text, False
    if isinstance(found, dict) and isinstance(found.get("colour"), str):
        return found["colour"], True
    return text, False


def _names(colour: str, said: str) -> bool:
    """Return whether an answer names a colour, and no other."""
    named = {name for name, (_, words) in COLOURS.items() if re.search(rf"(?<![a-z])(?:{words})", said.lower())}
    if named:
        return named == {colour}
    wanted = COLOURS[colour][0]
    numbers = _HEX.search(said)
    return numbers is not None and all(
        abs(part - meant) <= TOLERANCE for part, meant in zip(bytes.fromhex(numbers[1]), wanted, strict=True)
    )


def _picture(colour: tuple[int, int, int]) -> str:
    """Return a picture of one colour as a data URL."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (SIDE_PX, SIDE_PX), colour).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
