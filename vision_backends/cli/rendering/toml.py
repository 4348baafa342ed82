"""Tables of settings as TOML that a person reads and may paste into a file.

This module decides how values are written, and where their comments stand. It must not know what any key means.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Line", "dotted", "to_toml", "toml_value", "wrapped"]

WIDTH = 80

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Line(NamedTuple):
    """One key and its value.

    Attributes:
        keys: The keys that lead to it.
        value: As JSON knows values; what is None, or an empty table, is only said not to be set.
        comment: What stands behind it, or above it where the line would be too long.
        hidden: Whether the whole line is a comment, so that nobody pastes it by mistake.
    """

    keys: tuple[str, ...]
    value: Any
    comment: str = ""
    hidden: bool = False


def to_toml(lines: Iterable[Line]) -> Iterator[str]:
    """Yield the lines of a file, table by table; what stands in none comes first."""
    tables: dict[tuple[str, ...], list[Line]] = {(): []}
    for line in lines:
        tables.setdefault(line.keys[:-1], []).append(line)
    for table, members in tables.items():
        if table:
            yield ""
            yield f"[{dotted(table)}]"
        for line in members:
            if not _is_unset(line.value):
                yield from _written(line)
        unset = [dotted(line.keys[-1:]) for line in members if _is_unset(line.value)]
        if unset:
            yield from wrapped(f"Not set: {', '.join(unset)}.")


def wrapped(comment: str) -> list[str]:
    """Return a comment in lines that a terminal shows as they are."""
    return textwrap.wrap(
        comment, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _written(line: Line) -> Iterator[str]:
    text = f"{'# ' if line.hidden else ''}{dotted(line.keys[-1:])} = {toml_value(line.value)}"
    if not line.comment:
        yield text
    elif len(text) + len(line.comment) + 4 <= WIDTH:
        yield f"{text}  # {line.comment}"
    else:
        yield from wrapped(line.comment)
        yield text


def _is_unset(value: object) -> bool:
    return value is None or value == {}


def dotted(keys: Sequence[str]) -> str:
    """Return keys as TOML writes them: ``backends."a:B"``."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else _quoted(key) for key in keys)


def toml_value(value: Any) -> str:  # noqa: ANN401 — any TOML value
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{dotted([key])} = {toml_value(each)}' for key, each in value.items())}}}"
    return repr(value)


def _quoted(text: str) -> str:
    """Write a basic string of TOML, whose escapes are those of JSON and one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
