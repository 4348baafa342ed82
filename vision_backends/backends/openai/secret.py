"""Keys and what looks like one: never shown, and taken out of what a provider says.

This module decides what counts as a secret in a foreign text, and how such a text is made fit to show. It must not know
whose key it is, nor what the text means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from vision_backends.foreign_text import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Secret", "scrub"]

MAX_CHARS = 300
"""How much of a provider's message is passed on."""

SCRUBBED_CHARS = 50_000
"""How much of it is looked at; the rest is an image, or was meant to keep us busy."""

MIN_CHARS = 6
"""Shorter values are no secrets, and blotting them out would ruin every message."""

PLACEHOLDERS = frozenset(
    {"ollama", "openai", "lm-studio", "lmstudio", "not-needed", "no-key", "sk-no-key", "sk-no-key-required", "dummy"}
    | {"placeholder", "anything", "localhost", "api-key", "apikey", "token", "secret", "vllm", "sk-xxx", "xxxxxx"}
)
"""Keys that people write for servers that need none; they are no secrets, and are words that messages use."""

_LOOKS_SECRET = re.compile(
    r"\b(?:(?:sk|pk)[-_ ]|(?:key|Bearer)[-_ ](?![A-Z]?[a-z]{1,16}(?:[-_.][a-z]{1,16})*\.?(?![A-Za-z0-9*_\-])))"
    r"[A-Za-z0-9*_\-.]{8,}"
)
"""Plain words after "key" are none: "key provided", or the code "key_model_access_denied"."""

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]*")


class Secret:
    """A string that is shown only on request; it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself; never keep it in a variable of a frame that may raise."""
        return self._value

    def fits_a_header(self) -> bool:
        """Return True when HTTP can carry it; otherwise the HTTP library would show it in its error."""
        return self._value.isascii() and self._value.isprintable()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret cannot be pickled.")


def scrub(text: str, secrets: Iterable[Secret] = (), *, max_chars: int = MAX_CHARS) -> str:
    """Return a foreign text on one line, cut if long, without secrets, images or what looks like a key."""
    text = text[:SCRUBBED_CHARS]
    for secret in secrets:
        if len(secret.reveal()) >= MIN_CHARS and secret.reveal().lower() not in PLACEHOLDERS:
            text = text.replace(secret.reveal(), "[hidden]")
    text = _LOOKS_SECRET.sub("[hidden]", _DATA_URL.sub("[image]", text))
    return quote(text, max_chars=max_chars)
