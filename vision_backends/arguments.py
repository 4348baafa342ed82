"""What callers pass: whether it is of a kind that has a meaning.

This module decides how an argument of the wrong type is refused: with its name, its value and what to write instead. It
must not know what any argument means.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import TypeVar, cast

from vision_backends.errors import InvalidRequestError

__all__ = ["check_flag", "check_iterable", "check_number", "check_text", "did_you_mean", "iterate", "shown"]

T = TypeVar("T")

SHOWN = 80
"""Characters of a value that are shown."""


def shown(value: object) -> str:
    """Return a value and its type for a message, on one line, cut if it is long."""
    try:
        written = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 — a foreign object may raise anything
        written = "…"
    return f"{written if len(written) <= SHOWN else written[:SHOWN] + '…'} ({type(value).__name__})"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a question with the known name that is most like another one, and a space; nothing where none is.

    Args:
        name: What was written.
        known: What has a meaning.
    """
    import difflib

    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f"Did you mean {by_lower[near[0]]!r}? " if near else ""


def check_text(name: str, value: object, *, example: str) -> None:
    """Return if a value is a text or None.

    Args:
        name: The argument.
        value: What was passed.
        example: What to write instead.

    Raises:
        InvalidRequestError: It is something else.
    """
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(f"{name}={shown(value)} is not text.", remedy=f"Write for example: {name}={example}")


def check_number(name: str, value: object, *, example: float, whole: bool = False, optional: bool = True) -> None:
    """Return if a value is a number, of Python or numpy, or None.

    Args:
        name: The argument.
        value: What was passed.
        example: What to write instead.
        whole: Whether it has to be an integer.
        optional: Whether it may be None.

    Raises:
        InvalidRequestError: It is something else.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if value is None and optional:
        return
    if not (is_number and (not whole or float(cast("float", value)).is_integer())):
        kind = "whole number" if whole else "number"
        raise InvalidRequestError(
            f"{name}={shown(value)} is not a {kind}.", remedy=f"Write for example: {name}={example}"
        )


def check_flag(name: str, value: object) -> None:
    """Return if a value is True or False.

    Raises:
        InvalidRequestError: It is something else, such as a text, which would always count as True.
    """
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name}={shown(value)} is neither True nor False.", remedy="Pass one of them.")


def iterate(name: str, values: Iterable[T], *, remedy: str) -> list[T]:
    """Return the values of a list, generator or the like; arguments and errors as for `check_iterable`."""
    check_iterable(name, values, remedy=remedy)
    return list(values)


def check_iterable(name: str, values: object, *, remedy: str) -> None:
    """Return if something is a list, generator or the like.

    Args:
        name: How to call it in messages.
        values: What was passed.
        remedy: What to pass.

    Raises:
        InvalidRequestError: It is a single text, bytes, a file, or nothing that can be iterated over.
    """
    single = isinstance(values, str | bytes | bytearray | memoryview) or hasattr(values, "__fspath__")
    if single or hasattr(values, "read") or not isinstance(values, Iterable):
        raise InvalidRequestError(f"{name} is a single {type(values).__name__}, not a list.", remedy=remedy)
