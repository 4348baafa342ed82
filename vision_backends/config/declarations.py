"""What a class says about the keys of the table that configures it: type, default, and the words of its docstring.

This module decides how a signature and a docstring of Google's style become keys with a JSON schema each. It must not
know which tables there are.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from vision_backends.config.validation import type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Key", "described", "keys_of", "without_null"]

_SECTION = re.compile(r"(?ms)^ *(?:Args|Attributes):\n(.*?)(?=^ *(?:Raises|Returns|Yields):|\Z)")
_ENTRY = re.compile(r"(?ms)^(?P<indent> *)(?P<name>\w+): (?P<text>.*?)(?=^(?P=indent)\w+: |\Z)")

_ELSEWHERE = re.compile(r"As (there\b|of `)")
"""How a docstring refers to that of another class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a table.

    Attributes:
        name: The key.
        schema: The JSON schema of its values; TOML has no null.
        default: Its value where the table does not set it, as JSON knows values; None where it has none.
        text: What it means, in one paragraph; empty where nothing says so.
    """

    name: str
    schema: dict[str, Any]
    default: Any = None
    text: str = ""


def keys_of(make: Callable[..., Any]) -> tuple[Key, ...]:
    """Return the keys that a class or function takes from a file, in its order; what only programs can pass is none."""
    texts = described(make)
    found = []
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind not in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
            continue
        schema = _schema_of(make, parameter.name)
        if schema is not None:
            default = _as_json(_default_of(make, parameter))
            found.append(Key(name=parameter.name, schema=schema, default=default, text=texts.get(parameter.name, "")))
    return tuple(found)


def described(owner: object) -> dict[str, str]:
    """Return what a docstring says of each argument or attribute, each in one paragraph of plain text.

    What a class says only to be as in the class that it is made of is said by that one.
    """
    texts: dict[str, str] = {}
    for each in reversed(owner.__mro__) if inspect.isclass(owner) else (owner,):
        section = _SECTION.search(inspect.cleandoc(each.__doc__ or ""))
        for entry in _ENTRY.finditer(section[1]) if section else ():
            text = " ".join(entry["text"].replace("``", "").split())
            if entry["name"] not in texts or not _ELSEWHERE.match(text):
                texts[entry["name"]] = text
    return texts


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that does not offer null, which TOML cannot write."""
    some = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    if not some:
        return rest
    return {**some[0], **rest} if len(some) == 1 else {"anyOf": some, **rest}


def _schema_of(make: Callable[..., Any], name: str) -> dict[str, Any] | None:
    """Return the schema of a parameter's values, which is empty where they may be anything; None where no file can."""
    try:
        hint = type_hints(make, [name]).get(name, Any)
    except NameError:  # a name that exists for type checkers only
        return {}
    try:
        return without_null(TypeAdapter(hint).json_schema())
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return None


def _default_of(make: Callable[..., Any], parameter: inspect.Parameter) -> object:
    if is_dataclass(make):
        spec = next(each for each in fields(make) if each.name == parameter.name)
        return None if spec.default is MISSING else spec.default
    return None if parameter.default is parameter.empty else parameter.default


def _as_json(value: object) -> Any:  # noqa: ANN401 — any value of JSON
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None
