"""The names of a rung in errors: what its ladder calls it, and which table of vision.toml is its own.

This module decides whose table and keys an error names once it leaves a backend, which writes those of its kind. It
must not know any concrete backend.
"""

from __future__ import annotations

import re
from functools import lru_cache, wraps
from json import dumps
from typing import TYPE_CHECKING, ParamSpec

from vision_backends.backends.base import Backend
from vision_backends.errors import BackendError, VisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["in_own_words", "table_of", "tell_rung", "tell_table"]

P = ParamSpec("P")

CLASSES_KEPT = 64
"""Classes of backends whose names are known without looking through their bases again."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
"""What TOML takes as a key without quotation marks."""


def table_of(name: str, *, kind: str) -> str:
    """Return the table of vision.toml that configures a rung, as messages write it: ``[backends.azure]``.

    Args:
        name: The rung's.
        kind: The name that its class has, whose table is its own.
    """
    if name == kind:
        return f"[{name}]"
    return f"[backends.{name if _BARE_KEY.fullmatch(name) else dumps(name)}]"


def tell_rung(error: VisionError, backend: Backend) -> None:
    """Have an error speak of the rung that it comes from: by its name, and of the user's own table.

    A backend writes the table of its kind into its messages, as ``[openai] model``, and need not know how a ladder
    calls it; this is for the places where an error leaves the rung. A second time changes nothing.
    """
    if isinstance(error, BackendError):
        error.backend = backend.name
    kinds = _kinds(type(backend))
    if kinds:
        tell_table(error, type(backend), table=table_of(backend.name, kind=kinds[-1]))


def in_own_words(initialize: Callable[P, None]) -> Callable[P, None]:
    """Have the errors of a constructor speak of the table of the class that is made, which may be a variety of its own.

    No ladder has given it a name yet. Their tracebacks end here, as the variables of the frames below may hold keys.
    """

    @wraps(initialize)
    def told(*args: P.args, **keywords: P.kwargs) -> None:
        try:
            initialize(*args, **keywords)
        except VisionError as error:
            made = type(args[0])
            if issubclass(made, Backend) and _kinds(made):
                tell_table(error, made, table=_own_table(made))
            del args, keywords
            raise error.with_traceback(None) from error.__cause__

    return told


@lru_cache(maxsize=CLASSES_KEPT)
def _kinds(made: type[Backend]) -> Sequence[str]:
    """Return the name of a class and of those that it is a variety of, as ``azure`` of ``openai``, its own first."""
    return tuple(dict.fromkeys(name for each in made.__mro__ if isinstance(name := vars(each).get("name"), str)))


def _own_table(made: type[Backend]) -> str:
    kinds = _kinds(made)
    return table_of(kinds[0], kind=kinds[-1])


def tell_table(error: VisionError, made: type[Backend], *, table: str) -> None:
    """Replace the table of a kind by another in the words of an error; ``vision-backends[local]`` is an extra.

    Args:
        error: It.
        made: Of which class the backend is.
        table: The user's own table.
    """
    kinds = _kinds(made)
    if not kinds or table == f"[{kinds[0]}]":
        return
    tables = "|".join(map(re.escape, (*kinds, _own_table(made)[1:-1])))
    mention = re.compile(rf"(?<![\w.-])\[(?:{tables})(?=[].])")
    keys = re.compile(rf"\b({'|'.join(made.renamed_keys)})\b(?=,| and | in \[| = )") if made.renamed_keys else None

    def told(words: str) -> str:
        if keys is not None and mention.search(words):
            words = keys.sub(lambda found: made.renamed_keys[found[1]], words)
        return mention.sub(lambda _: table[:-1], words)

    error.message = told(error.message)
    error.args = (error.message, *error.args[1:])
    error.remedy = error.remedy and told(error.remedy)
