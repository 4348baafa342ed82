"""The JSON schema of vision.toml, by which editors complete and check the file.

This module decides how what the settings and the backends' constructors declare reads as one schema. It must not
declare any key itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vision_backends.config import settings
from vision_backends.config.declarations import described, keys_of, without_null
from vision_backends.config.settings import BUILT_IN, KINDS, LIMITS, RUNG_NAME, Settings, class_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from vision_backends.config.declarations import Key

__all__ = ["backend_keys", "config_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

ABOUT = "The configuration of vision-backends; every key is optional."

KIND = (
    'What the rung is: "openai" (any OpenAI-compatible server), "local", "embedded", an entry point, or '
    '"package.module:Class"; the other keys are its own.'
)


def config_schema() -> dict[str, Any]:
    """Return the schema as JSON knows values."""
    schema = _cleaned(Settings.model_json_schema())
    tables = {kind: _table_of(kind, place) for kind, place in KINDS.items()}
    built_in = {name: {"$ref": f"#/$defs/{name}"} for name in BUILT_IN}
    named = {
        "description": "Rungs with names of their own: a table [backends.NAME] with a kind for each.",
        "type": "object",
        "properties": built_in,
        "additionalProperties": {"$ref": "#/$defs/rung"},
    }
    return {
        "$schema": DIALECT,
        "title": "vision.toml",
        "description": ABOUT,
        "type": "object",
        "properties": {
            **_with_texts(schema["properties"], Settings),
            **built_in,
            "backends": named,
            "accounts": _accounts(),
        },
        "additionalProperties": False,
        "$defs": {**{name: _described(name, each) for name, each in schema["$defs"].items()}, **tables}
        | {"rung": _rung(tables)},
    }


def backend_keys(make: type) -> tuple[Key, ...]:
    """Return the keys of a backend's table: those of its constructor, and the limits that any may have."""
    return (*keys_of(make), *_limit_keys())


def _limit_keys() -> Iterator[Key]:
    for key in keys_of(class_at(LIMITS)):
        is_amount = key.schema.get("type") in {"integer", "number"}
        yield replace(key, schema={**key.schema, "exclusiveMinimum": 0}) if is_amount else key


def _accounts() -> dict[str, Any]:
    """Return the schema of the limits that several rungs share; an account has none itself."""
    return {
        "description": "Limits that several rungs share: a table [accounts.NAME], which rungs name as their account.",
        "type": "object",
        "propertyNames": {"pattern": f"^{RUNG_NAME.pattern}$"},
        "additionalProperties": {
            "description": "What all rungs together may take that name this account.",
            "type": "object",
            "properties": {key.name: _property(key) for key in _limit_keys() if key.name != "account"},
            "additionalProperties": False,
        },
    }


def _table_of(kind: str, place: str) -> dict[str, Any]:
    """Return the schema of the table of a built-in backend; its kind may stand in it."""
    keys = {key.name: _property(key) for key in backend_keys(class_at(place))}
    return {
        "description": f"A rung of the kind {kind}.",
        "type": "object",
        "properties": {"kind": {"description": KIND, "enum": [kind, place]}, **keys},
        "additionalProperties": False,
    }


def _property(key: Key) -> dict[str, Any]:
    text = {"description": key.text} if key.text else {}
    default = {} if key.default is None else {"default": key.default}
    return {**text, **key.schema, **default}


def _rung(tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of ``[backends.NAME]``, whose kind says which table it is; of other kinds nothing is known.

    Editors that complete keys do not look behind ``if``; for them, the keys of all kinds are listed.
    """
    offered: dict[str, Any] = {}
    for table in tables.values():
        for name, key in table["properties"].items():
            offered.setdefault(name, {"description": key["description"]} if "description" in key else {})
    kinds: dict[str, Any] = {"anyOf": [{"enum": [*tables]}, {"type": "string", "minLength": 1}]}
    return {
        "description": "A rung with a name of its own.",
        "type": "object",
        "properties": {**offered, "kind": {"description": KIND, **kinds}},
        "allOf": [
            {
                "if": {"properties": {"kind": table["properties"]["kind"]}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind, table in tables.items()
        ],
    }


def _described(name: str, table: dict[str, Any]) -> dict[str, Any]:
    model: type[BaseModel] = getattr(settings, name)
    first = (model.__doc__ or name).partition("\n")[0].replace("``", "")
    return {**table, "description": first, "properties": _with_texts(table["properties"], model)}


def _with_texts(properties: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    texts = described(model)
    return {name: {"description": texts[name], **each} if name in texts else each for name, each in properties.items()}


def _cleaned(schema: Any) -> Any:  # noqa: ANN401 — any part of a schema
    """Return a schema without pydantic's titles, and without null."""
    if isinstance(schema, list):
        return [_cleaned(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: _cleaned(each)
        for key, each in schema.items()
        if key not in {"title", "examples"} or isinstance(each, dict)
    }
    return without_null(kept)
