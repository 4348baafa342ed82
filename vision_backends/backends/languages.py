"""Which language a caller means: a BCP 47 tag, or the name of a language.

This module decides what counts as a language, since what does goes into the words that a model is told. Subtags come
from lists and closed forms, so that no sentence fits into a tag. It must not know any backend.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import Any

from vision_backends.arguments import shown
from vision_backends.errors import InvalidRequestError

__all__ = ["language_tag"]

LONGEST = 64
"""Characters of a tag or name; RFC 5646 (4.4.1) has the longest tag that is needed at 35."""

_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(-(?P<extended>[a-z]{3}))?(-(?P<script>[a-z]{4}))?(-(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?P<variants>(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*)"
    r"(-[0-9a-wy-z](-[a-z0-9]{2,8})+)*(-x(-[a-z0-9]{1,8})+)?",
    re.ASCII,
)
"""RFC 5646 (2.1) without what is reserved. Extensions and private use say nothing about which language it is."""


def language_tag(language: str) -> str:
    """Return the BCP 47 tag that a tag or the name of a language stands for, in the usual case.

    Args:
        language: Such as ``"pt-br"``, ``"German"`` or ``"français"``.

    Raises:
        InvalidRequestError: It is neither.
    """
    wanted = language.strip().lower() if len(language) <= LONGEST else ""
    found = _canonical(wanted) or _named(wanted)
    if found is None:
        raise InvalidRequestError(
            f"language={shown(language)} is neither a BCP 47 tag nor the name of a language.",
            remedy='Write for example: language="de", "pt-BR" or "German"',
        )
    return found


def _canonical(wanted: str) -> str | None:
    """Return a tag without what does not tell a language, such as extensions."""
    parts = _TAG.fullmatch(wanted)
    if parts is None:
        return None
    language, variants = parts["language"], parts["variants"].split("-")[1:]
    if variants or parts["extended"]:
        known = _read_table()["subtags"]
        if not set(known["variants"]).issuperset(variants):
            return None
        if parts["extended"]:
            if language not in known["extended"]:
                return None
            language = parts["extended"]
    script, region = (parts["script"] or "").title(), (parts["region"] or "").upper()
    return "-".join(filter(None, [language, script, region, *variants]))


def _named(wanted: str) -> str | None:
    table = _read_table()
    known = {name.lower(): tag for tag, names in table["names"].items() for name in names} | table["grandfathered"]
    found: str | None = known.get(wanted)
    return found


def _read_table() -> dict[str, Any]:
    """Read what only names and rare tags need; takes a few milliseconds."""
    return tomllib.loads(resources.files(__package__).joinpath("languages.toml").read_text("utf-8"))
