"""What the sandbox says: deterministic answers made from the prompt and the pixels that really arrived.

This module decides the text of an answer and its count of tokens. It must not know how an endpoint writes them down.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.testing.sandbox.schema import conforming

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.testing.sandbox.pictures import Picture

__all__ = ["Answer", "Prompt", "compose", "text_tokens"]

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What was asked, whichever endpoint it came through.

    Attributes:
        model: Model of the request.
        text: All texts, one per line.
        pictures: All images in their order.
        schema: The JSON schema that the answer must conform to.
        json_mode: Whether the answer must be some JSON object.
        max_tokens: Most tokens of the answer, which is cut there.
        stream: Whether an event stream was asked for.
    """

    model: str
    text: str
    pictures: tuple[Picture, ...] = ()
    schema: Mapping[str, Any] | None = None
    json_mode: bool = False
    max_tokens: int | None = None
    stream: bool = False

    @property
    def image_tokens(self) -> int:
        """Tokens of all images."""
        return sum(picture.tokens for picture in self.pictures)

    @property
    def input_tokens(self) -> int:
        """Tokens of texts and images."""
        return text_tokens(self.text) + self.image_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is said.

    Attributes:
        text: The answer, or the words of the refusal.
        finish: Why it ends.
        refusal: Whether the text is a refusal.
        failed: Error code of a failed response, which only ``/v1/responses`` has.
        counted: Whether the reply carries ``usage``.
    """

    text: str
    finish: Literal["stop", "length", "content_filter"] = "stop"
    refusal: bool = False
    failed: str | None = None
    counted: bool = True

    @property
    def output_tokens(self) -> int:
        """Tokens of the text."""
        return text_tokens(self.text)

    @property
    def words(self) -> list[str]:
        """The text in the pieces in which it is streamed."""
        return re.findall(r"\s*\S+\s*", self.text)


def text_tokens(text: str) -> int:
    """Return the number of tokens of a text: one per four characters, rounded up."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def compose(prompt: Prompt) -> Answer:
    """Return the answer to a prompt; the same prompt with the same images has the same answer."""
    description = _describe(prompt)
    schema = prompt.schema or (_schema_in(prompt.text) if prompt.json_mode else None)
    if schema is not None:
        seed = "|".join([prompt.text, *(picture.sha256 for picture in prompt.pictures)])
        value = conforming(schema, seed=seed, prompt=prompt.text, description=description)
        answer = Answer(text=json.dumps(value))
    elif prompt.json_mode:
        answer = Answer(text=json.dumps({"answer": description}))
    else:
        answer = Answer(text=description)
    limit = prompt.max_tokens
    if limit is not None and answer.output_tokens > limit:
        answer = replace(answer, text=answer.text[: limit * _CHARACTERS_PER_TOKEN], finish="length")
    return answer


def _describe(prompt: Prompt) -> str:
    asked = hashlib.sha256(prompt.text.encode()).hexdigest()[:8]
    seen = " and ".join(
        f"a {picture.width}×{picture.height} px {picture.format} image of mean colour {picture.colour} "
        f"(content {picture.sha256[:8]})"
        for picture in prompt.pictures
    )
    return f"The sandbox sees {seen or 'no image'}, asked {asked}."


def _schema_in(text: str) -> Mapping[str, Any] | None:
    """Return the JSON schema that is written out in a prompt, as clients of simpler servers do it."""
    decoder = json.JSONDecoder()
    for brace in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, brace.start())
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("properties"), dict):
            return value
    return None
