"""Records as JSON-able values, and back.

This module decides how a record is written down, that what was written says in which version, and what is refused when
it is read again. It must not know any particular record: it goes by their fields and annotations.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from vision_backends.arguments import shown
from vision_backends.errors import InvalidRequestError, VisionError, caller_error

__all__ = ["SCHEMA_VERSION", "Record", "VersionedRecord", "read_record", "to_versioned"]

SCHEMA_VERSION = 1
"""Raise it when what was written before can no longer be read as it is, or would be misread by older releases."""

PLAIN = (str, int, float, NoneType)
"""Values that are written down as they are."""

R = TypeVar("R")
Reader = Callable[[Any], Any]


class _UnreadableError(ValueError):
    """A value that does not belong where it stands.

    Args:
        wanted: What belongs there.
        value: What stands there.
    """

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.value = value
        self.path = ""

    def below(self, name: str) -> _UnreadableError:
        """Return the error with one more step of the way to the value."""
        self.path = f"{name}{'' if self.path.startswith('[') or not self.path else '.'}{self.path}"
        return self


class Record:
    """A dataclass whose instances are written down, and read again."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return to_values(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read again what `to_dict` returned, from JSON too; keys that the record does not have are passed over.

        Raises:
            InvalidRequestError: A field is missing or cannot have its value, or a later version wrote it.
        """
        return read_record(cls, values)


class VersionedRecord(Record):
    """A record that is stored by itself, and so says in which version it was written."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values, with the version of how they are written: ``schema_version``."""
        return to_versioned(self)


def to_values(record: Any) -> dict[str, Any]:  # noqa: ANN401 — any dataclass
    """Return the fields of a record as JSON-able values."""
    values = {spec.name: getattr(record, spec.name) for spec in fields(record)}
    return {name: value if isinstance(value, PLAIN) else _value(value) for name, value in values.items()}


def to_versioned(record: Any) -> dict[str, Any]:  # noqa: ANN401 — any dataclass
    """Return the fields of a record, after the version of how they are written."""
    return {"schema_version": SCHEMA_VERSION} | to_values(record)


def read_record(kind: type[R], values: object, *, hints: Mapping[str, Any] | None = None) -> R:
    """Return the record that was written down; keys that it does not have are passed over.

    Args:
        kind: Its class.
        values: What `to_values` or `to_versioned` made of it.
        hints: What stands for annotations of fields that are written otherwise.

    Raises:
        InvalidRequestError: A field is missing or has a value that it cannot have, or a later version wrote them.
    """
    name = kind.__name__
    if not isinstance(values, Mapping):
        remedy = f"Pass what {name}.to_dict() returned; text is read by json.loads first."
        raise InvalidRequestError(f"{name}.from_dict() takes a mapping, not {shown(values)}.", remedy=remedy)
    version = values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise InvalidRequestError(
            f"A {name} of schema_version {shown(version)} cannot be read: this release knows {SCHEMA_VERSION}.",
            remedy="Read it with the release that wrote it, or a later one.",
        )
    try:
        return _record_reader(kind, hints or {})(values)  # type: ignore[no-any-return]  # a record of that kind
    except _UnreadableError as error:
        where = f"{name}.{error.path}" if error.path else name
        raise InvalidRequestError(
            f"{where} is to be {error.wanted}, not {shown(error.value)}.",
            remedy=f"Pass what {name}.to_dict() returned, unchanged.",
        ) from error


def _value(value: Any) -> Any:  # noqa: ANN401 — whatever a record holds
    if is_dataclass(value) and not isinstance(value, type):
        return to_values(value)
    if isinstance(value, tuple | list):
        return [_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, VisionError):
        return {"kind": value.kind, "message": value.message, "remedy": value.remedy}
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _record_reader(kind: type[Any], hints: Mapping[str, Any]) -> Reader:
    """Return what makes a record of a mapping; annotations are looked at once, however many it reads."""
    written = {spec.name: spec.type for spec in fields(kind) if spec.name not in hints}
    known = get_type_hints(SimpleNamespace(__annotations__=written), vars(sys.modules[kind.__module__])) | dict(hints)
    readers = {spec.name: _reader(known[spec.name]) for spec in fields(kind)}
    required = [spec.name for spec in fields(kind) if spec.default is MISSING and spec.default_factory is MISSING]
    return partial(_read_fields, kind, readers, required)


def _read_fields(kind: type[Any], readers: Mapping[str, Reader], required: list[str], values: object) -> Any:  # noqa: ANN401 — the record
    if not isinstance(values, Mapping):
        raise _UnreadableError(f"a mapping with the fields of {kind.__name__}", values)
    absent = next((name for name in required if name not in values), None)
    if absent is not None:
        raise _UnreadableError("there", None).below(absent)
    given = {}
    for name, read in readers.items():
        if name in values:
            try:
                given[name] = read(values[name])
            except _UnreadableError as error:
                raise error.below(name) from None
    try:
        return kind(**given)
    except ValueError as error:  # what the record itself refuses
        raise _UnreadableError(f"a valid {kind.__name__} ({error})", values) from error


def _reader(hint: Any) -> Reader:  # noqa: ANN401 — an annotation
    """Return what checks a value against an annotation, and turns lists into tuples and mappings into records."""
    if hint is Any:
        return lambda value: value
    if hint in {Path, VisionError}:
        return _read_path if hint is Path else _read_error
    if get_origin(hint) is not None:
        return _reader_of_generic(get_origin(hint), get_args(hint))
    return _record_reader(hint, {}) if hasattr(hint, "__dataclass_fields__") else partial(_read_plain, hint)


def _reader_of_generic(origin: Any, of: tuple[Any, ...]) -> Reader:  # noqa: ANN401 — the parts of an annotation
    if origin in {Union, UnionType}:
        return partial(_read_either, [_reader(each) for each in of])
    if origin is Literal:
        return partial(_read_choice, of)
    if origin in {Mapping, dict}:
        return partial(_read_mapping, _reader(of[1]))
    if origin is list:
        read = partial(_read_tuple, _reader(of[0]), None)
        return lambda value: list(read(value))
    length = len(of) if origin is tuple and of[-1] is not ... else None
    return partial(_read_tuple, _reader(of[0]), length)


def _read_either(readers: list[Reader], value: object) -> Any:  # noqa: ANN401 — what one of them returns
    failed = None
    for read in readers:
        try:
            return read(value)
        except _UnreadableError as error:
            failed = failed or error
    raise failed or AssertionError("A union has members.")


def _read_choice(choices: tuple[object, ...], value: object) -> object:
    if not isinstance(value, str) or value not in choices:
        raise _UnreadableError(f"one of {', '.join(map(repr, choices))}", value)
    return value


def _read_tuple(read: Reader, length: int | None, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or length not in {None, len(value)}:
        raise _UnreadableError("a list" if length is None else f"a list of {length}", value)
    items = []
    for place, item in enumerate(value):
        try:
            items.append(read(item))
        except _UnreadableError as error:
            raise error.below(f"[{place}]") from None
    return tuple(items)


def _read_mapping(read: Reader, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _UnreadableError("a mapping", value)
    read_items = {}
    for key, item in value.items():
        try:
            read_items[key] = read(item)
        except _UnreadableError as error:
            raise error.below(str(key)) from None
    return read_items


def _read_path(value: object) -> Path:
    return Path(_read_plain(str, value))


def _read_error(value: object) -> VisionError:
    """Return an error that was kept with an answer; only those of callers are."""
    if not isinstance(value, Mapping) or not isinstance(value.get("message"), str):
        raise _UnreadableError("a mapping with kind, message and remedy", value)
    return caller_error(value.get("kind"), value["message"], remedy=value.get("remedy"))


def _read_plain(kind: type[Any], value: Any) -> Any:  # noqa: ANN401 — a value of that kind
    if kind is float and type(value) is int:  # JSON has one kind of number
        try:
            return float(value)
        except OverflowError as error:
            raise _UnreadableError("a number", value) from error
    if type(value) is not kind:
        raise _UnreadableError("None" if kind is NoneType else f"of type {kind.__name__}", value)
    return value
