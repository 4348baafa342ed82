"""On which line of a file each key stands, which tomllib does not say.

This module decides where a statement of TOML begins and ends: where tomllib can read it. It must not know any key.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from vision_backends.config.places import leaves
from vision_backends.config.private_file import read_private_file
from vision_backends.config.text_file import decode_text
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.config.places import Keys, Place

__all__ = ["lines_in", "lines_of"]

MAX_LINES_PER_STATEMENT = 500
"""The time that a statement takes grows with the square of its lines."""


def lines_of(place: Place) -> dict[Keys, int]:
    """Return the line of each value that a file sets, from 1; nothing for what is no file, or cannot be read again."""
    if place.path is None:
        return {}
    try:
        text = decode_text(read_private_file(place.path))
    except (OSError, ValueError, ConfigError):
        return {}
    found = lines_in(text)
    return {
        keys[1:] if keys[0] == "backends" and keys[1:2] and keys[1] in place.nested else keys: number
        for keys, number in found.items()
    }


def lines_in(text: str) -> dict[Keys, int]:
    """Return the line of each value in a text of TOML, from 1; of values in arrays of tables, the line of the first."""
    found: dict[Keys, int] = {}
    within: Keys = ()
    for number, statement, table in _statements(text):
        given = [*leaves(table)]
        if statement.lstrip().startswith("["):
            within = given[0]
            found.setdefault(within, number)
        else:
            for keys in given:
                found.setdefault((*within, *keys), number)
    return found


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the line on which each statement begins, the statement, and what it says by itself."""
    pending: list[str] = []
    begins = 1
    for number, line in enumerate(text.split("\n"), start=1):
        pending.append(line)
        try:
            table = tomllib.loads("\n".join(pending))
        except (ValueError, RecursionError):
            if len(pending) > MAX_LINES_PER_STATEMENT:
                return
            continue
        if table:
            yield begins, "\n".join(pending), table
        pending, begins = [], number + 1
