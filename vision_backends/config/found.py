"""What a file may set that was found in the working directory: little, and each setting says so itself.

A folder may come from anybody: a cloned repository, an unpacked archive, a share. This module decides how a setting
declares that such a file may set it, and how everything else is refused; what declares nothing is refused. It must not
know which settings there are.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["FREELY", "ONLY_LOWER", "OnlyIf", "Refusal", "ordered", "refusal_of", "untrusted"]

SHOWN_KEYS = 8
SHOWN_CHARACTERS = 60
"""How much of a stranger's file an error repeats."""


@dataclass(frozen=True, slots=True)
class OnlyIf:
    """Declares, in the annotation of a setting, that a file that was found may set it under a condition.

    Attributes:
        words: What the value may be, after "it may only be".
        holds: Tells of a value, and of the one that would be in force without the file, whether it is that.
    """

    words: str
    holds: Callable[[Any, Any], bool]


def _not_above(value: Any, without: Any) -> bool:  # noqa: ANN401 — any number, or None for no limit
    return value is not None and value <= (math.inf if without is None else without)


ONLY_LOWER = OnlyIf("as low as without the file, or lower", _not_above)
"""For limits, times and switches that are on; None, before, is no limit."""

FREELY = OnlyIf("anything", lambda _value, _without: True)
"""For the style of answers, which costs nothing and sends nothing."""


def ordered(*values: object) -> OnlyIf:
    """Return the condition that a value comes no later in a list than the one in force; what is not in it, never."""

    def holds(value: object, without: object) -> bool:
        return value in values and (without not in values or values.index(value) <= values.index(without))

    return OnlyIf(f"what it is without the file, or what comes before that: {', '.join(map(str, values))}", holds)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A key that a file that was found may not set.

    Attributes:
        keys: The keys that lead to it.
        words: What its value may be; None where it may not be set at all.
    """

    keys: tuple[str, ...]
    words: str | None = None

    def __str__(self) -> str:
        key = repr(".".join(self.keys))  # which escapes what would drive a terminal
        return key if len(key) <= SHOWN_CHARACTERS else f"{key[:SHOWN_CHARACTERS]}…"


def refusal_of(keys: tuple[str, ...], metadata: Iterable[object], value: object, without: object) -> Refusal | None:
    """Return why a file that was found may not set a key to a value, or None where it may.

    Args:
        keys: The keys that lead to it.
        metadata: What its annotation declares.
        value: What the file sets.
        without: What would be in force without the file.
    """
    declared = [each for each in metadata if isinstance(each, OnlyIf)]
    if not declared:
        return Refusal(keys)
    return next((Refusal(keys, each.words) for each in declared if not each.holds(value, without)), None)


def untrusted(file: str, refusals: Sequence[Refusal], *, changed: bool) -> ConfigError:
    """Return the error that names the keys, and the ways to let the file set them.

    Args:
        file: The file, as a person would name it.
        refusals: At least one.
        changed: Whether the file was trusted before it was changed.
    """
    shown = [f"{each}{f' (it may only be {each.words})' if each.words else ''}" for each in refusals[:SHOWN_KEYS]]
    if len(refusals) > SHOWN_KEYS:
        shown.append(f"{len(refusals) - SHOWN_KEYS} more")
    why = "it was trusted, but has changed since" if changed else "it was only found in the working directory"
    return ConfigError(
        f"{file} may not set {', '.join(shown)}: {why}.",
        remedy=f"Read it; then run: vision trust {shlex.quote(file)}",
    )
