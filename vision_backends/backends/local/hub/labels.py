"""The names of a detector's classes, wherever and however its configuration has written them.

This module decides which names count. It must not know how many classes the weights have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.flaws import FlawError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NO_CLASS", "class_names"]

NO_CLASS = "N/A"
"""DETR's name for the class numbers that COCO left out."""

MOST_DIGITS = 9
"""Of the number of a class: no model has a billion of them."""

SHOWN = 40
"""How many characters of what is no number are shown."""

TABLES = ("id2label", "label2id")
"""The tables of names, the one that counts first."""


def class_names(config: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each class by its number: 0, 1, 2 and so on without a gap.

    A list and a table that is the wrong way round mean only one thing, and are read as that. Of the two tables the
    first that names every class is taken.

    Raises:
        FlawError: None does: classes without a name would never be reported, or as ``LABEL_0``.
    """
    reasons = []  # not the errors: each would keep this frame, and all frames above it, in a circle
    for table in TABLES:
        try:
            return _complete(_by_number(config.get(table), table), table, count=config.get("num_labels"))
        except FlawError as flaw:
            reasons.append(flaw.why)
    raise _flaw(reasons[0])


def _by_number(table: object, name: str) -> dict[int, Any]:
    if isinstance(table, list):
        return dict(enumerate(table))
    if not isinstance(table, dict) or not table:
        raise _flaw(f"config.json has no names of classes ({name})")
    pairs = list(table.items())
    if not all(map(_is_number, table)) and all(map(_is_number, table.values())):
        pairs = [(number, label) for label, number in pairs]
    odd = next((number for number, _ in pairs if not _is_number(number)), None)
    if odd is not None:
        raise _flaw(f"{name} of config.json has {odd[:SHOWN]!r} for the number of a class")
    found = {int(number): label for number, label in pairs}
    if len(found) < len(pairs):
        raise _flaw(f"{name} of config.json has several names for one class")
    return found


def _is_number(value: object) -> bool:
    digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS
    return digits or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _complete(names: Mapping[int, Any], table: str, *, count: object) -> dict[int, str]:
    if isinstance(count, int) and count != len(
        names
    ):  # and transformers would name that many classes LABEL_0 and so on
        raise _flaw(f"{table} of config.json has {len(names)} names, and num_labels is {count}")
    for number in range(len(names)):
        if number not in names:
            raise _flaw(f"{table} of config.json has {len(names)} names, but none for class {number}")
        label = names[number]
        if not isinstance(label, str) or not label.strip():
            raise _flaw(f"{table} of config.json names class {number} {label!r}, which is not text")
        if label == f"LABEL_{number}":
            raise _flaw(f"{table} of config.json names class {number} {label!r}, which is not a name")
    if all(label == NO_CLASS for label in names.values()):
        raise _flaw(f"{table} of config.json names no class")
    return {number: names[number] for number in range(len(names))}


def _flaw(why: str) -> FlawError:
    return FlawError(why, code="no_labels")
