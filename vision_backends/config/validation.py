"""Tables of keys and values, checked against the signature or model that they configure.

This module decides how a bad key or value is reported: by its name and place, never by its value, which may be a
secret. It must not know which tables there are, nor where their values come from.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import SchemaError

from vision_backends.arguments import did_you_mean
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Declared", "HiddenTable", "declared", "parse_table", "type_hints", "unknown_key", "wrong_table"]

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)


class HiddenTable(dict[str, Any]):
    """A table that shows its keys only: a value may be a secret, and tracebacks show local variables."""

    def __repr__(self) -> str:
        return f"<table of {', '.join(self) or 'nothing'}>"


def parse_table(
    make: Callable[..., Any], table: Mapping[str, Any], *, section: str, beside: Sequence[str] = ()
) -> dict[str, Any]:
    """Check a table against the keyword arguments of what it configures.

    Args:
        make: A class or function whose keyword parameters are annotated.
        table: Values as TOML or environment variables gave them; ``"20"`` becomes 20.0 where a float is wanted.
        section: How to call the table in error messages, such as ``"[openai]"``.
        beside: Keys of the same section that configure something else; suggested where they are nearest.

    Returns:
        Keywords for ``make``, only those that the table sets.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type; names the nearest valid key.
    """
    parameters = [
        parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.kind in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    if not table and all(parameter.default is not parameter.empty for parameter in parameters):
        return HiddenTable()
    try:
        hints = type_hints(make, table)
    except NameError as error:
        raise ConfigError(
            f"{section} cannot be checked: {error} in the signature that it configures.",
            remedy="Import that name at run time, not only for type checkers.",
        ) from None
    # Behind aliases, a parameter may be called like an attribute of pydantic's models.
    fields: dict[str, Any] = {
        f"value_of_{parameter.name}": (
            hints.get(parameter.name, Any),
            Field(... if parameter.default is parameter.empty else None, alias=parameter.name),
        )
        for parameter in parameters
        if parameter.name not in hints or _can_be_written(hints[parameter.name])
    }
    model = create_model("Table", __config__=_STRICT, **fields)
    try:
        parsed = model(**table)
    except ValidationError as error:
        raise wrong_table(error, model, where=lambda _: section, beside=beside) from None
    return HiddenTable((name, getattr(parsed, f"value_of_{name}")) for name in table)


class Declared(NamedTuple):
    """What a signature says about one of its keywords.

    Attributes:
        default: Its value where a table does not set it.
        metadata: What its annotation carries beside the type.
    """

    default: object
    metadata: tuple[object, ...]


def declared(make: Callable[..., Any], names: Iterable[str]) -> dict[str, Declared]:
    """Return what is declared of some keywords of a function or class."""
    parameters = inspect.signature(make).parameters
    hints = type_hints(make, names)
    return {name: Declared(parameters[name].default, getattr(hints[name], "__metadata__", ())) for name in names}


def wrong_table(
    error: ValidationError,
    model: type[BaseModel],
    *,
    where: Callable[[Sequence[str]], str],
    beside: Sequence[str] = (),
) -> ConfigError:
    """Return the error that says which key of a table is wrong; never its value, which may be a secret.

    Args:
        error: What pydantic found.
        model: What the table was checked against.
        where: Names the place that has set a key, given the keys that lead to it.
        beside: Further keys that would have been valid.
    """
    found = error.errors(include_input=False, include_url=False)
    worst = max(found, key=lambda each: len(each["loc"]))  # of a union, the member that fits best
    keys, valid = _place(worst["loc"], model)
    key = ".".join(keys)
    if worst["type"] == "extra_forbidden":
        return unknown_key(key, [*valid, *beside], where=where(keys))
    if worst["type"] == "missing":
        return ConfigError(f"{where(keys)} is missing the key {key!r}.")
    reasons = {each["msg"]: None for each in found if _place(each["loc"], model)[0] == keys}
    field = model.model_fields.get(keys[0])
    examples = field.examples if field is not None else None
    remedy = f"Write for example: {keys[0]} = {examples[0]}" if examples else None
    return ConfigError(f"{where(keys)} has a bad value for {key!r}: {'; '.join(reasons)}.", remedy=remedy)


def unknown_key(key: str, valid: Sequence[str], *, where: str) -> ConfigError:
    """Return the error that says that a key is unknown, and names the nearest valid one."""
    near = did_you_mean(key.rpartition(".")[2], valid).rstrip()
    remedy = near or f"Valid keys: {', '.join(sorted(valid)) or 'none'}."
    return ConfigError(f"{where} has an unknown key {key!r}.", remedy=remedy)


def type_hints(make: Callable[..., Any], names: Iterable[str]) -> dict[str, Any]:
    """Resolve the annotations of some parameters; the others may exist for type checkers only."""
    target = inspect.unwrap(make.__init__ if inspect.isclass(make) else make)
    annotations = getattr(target, "__annotations__", {})

    def signature() -> None:
        """Carry the annotations."""

    signature.__annotations__ = {name: annotations[name] for name in names if name in annotations}
    known = vars(collections.abc) | getattr(target, "__globals__", {})
    return typing.get_type_hints(signature, globalns=known, include_extras=True)


def _can_be_written(hint: object) -> bool:
    """Return whether a value of this type can be checked: a protocol, such as a clock, only a program can pass."""
    fields: dict[str, Any] = {"value": (hint, ...)}
    try:
        create_model("Value", __config__=_STRICT, **fields)
    except SchemaError:
        return False
    return True


def _place(loc: Sequence[int | str], model: type[BaseModel]) -> tuple[list[str], list[str]]:
    """Return the keys that lead to an error, and the keys that are valid beside the last one."""
    keys: list[str] = []
    valid: list[str] = []
    table: type[BaseModel] | None = model
    parts = iter(loc)
    for part in parts:
        fields = {field.alias or name: field for name, field in table.model_fields.items()} if table else {}
        keys, valid = [*keys, str(part)], list(fields)
        field = fields.get(str(part))
        members = _members(field.annotation) if field is not None else []
        if len(members) > 1:
            next(parts, None)  # pydantic's name for the member of the union
        tables = [member for member in members if inspect.isclass(member) and issubclass(member, BaseModel)]
        table = tables[0] if tables else None
    return keys, valid


def _members(annotation: object) -> list[object]:
    """Return the members of a union without None, or the type itself where it is not a union."""
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [member for member in typing.get_args(annotation) if member is not types.NoneType]
    return [annotation]
