"""Keeping the API key out of sight: a string that does not print itself, and the scrubbing of other people's texts.

This module decides what may be shown of a secret or of a provider's message. It must not know what either is for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Secret", "scrub"]

MAX_CHARS = 300
"""How much of a provider's message is passed on."""

MIN_CHARS = 6
"""Shorter values are no secrets, and blotting them out would ruin every message."""

_LOOKS_SECRET = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][A-Za-z0-9*_\-.]{8,}")
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]*")


class Secret:
    """A string that shows itself only to who asks for it; it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself; never keep it in a variable of a frame that may raise."""
        return self._value

    def fits_a_header(self) -> bool:
        """Return True when HTTP can carry it; otherwise the error of whoever tries would show it."""
        return self._value.isascii() and self._value.isprintable()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret is not pickled.")


def scrub(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return a foreign text on one line, without secrets, whatever looks like a key, or images; cut if long."""
    for secret in secrets:
        if len(secret.reveal()) >= MIN_CHARS:
            text = text.replace(secret.reveal(), "[hidden]")
    text = _LOOKS_SECRET.sub("[hidden]", _DATA_URL.sub("[image]", text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
