"""Answers in a form that a caller has given: in which words it is asked for, and how it is read.

This module decides what is a schema, whether a text holds JSON that follows it, and what a model is told that has not
kept to it. It must not know any model or server.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vision_backends.arguments import shown
from vision_backends.backends.requests import check_unicode
from vision_backends.errors import InvalidReplyError, InvalidRequestError
from vision_backends.foreign_text import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vision_backends.backends.requests import AskRequest
    from vision_backends.types import Reply

__all__ = ["ask_again", "form_of", "in_words", "read_data", "strict_form", "values_in", "with_instance"]

PLACES = 64
"""At how many brackets in a sentence a value is looked for."""

SHOWN_AGAIN = 4000
"""Characters of an answer that a model is shown once more."""

STRICT_KEYS = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs"),
        *("title", "description", "default", "pattern", "format", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
"""What a schema may hold that OpenAI keeps to by force (developers.openai.com/api/docs/guides/structured-outputs,
2026-11); a default is left out there."""

_BRACKET = re.compile(r"[{\[]")
_CODE = re.compile(r"```\w*\s(.*?)```", re.DOTALL)


def form_of(schema: object) -> tuple[str, type[Any] | None]:
    """Return the JSON schema that a caller has given, as JSON, and the class of pydantic's if it was one.

    Raises:
        InvalidRequestError: It is not a schema.
    """
    kind: type[Any] | None = None
    given = schema
    if isinstance(schema, type) and callable(getattr(schema, "model_json_schema", None)):
        kind, given = schema, schema.model_json_schema()  # type: ignore[attr-defined]
    if not isinstance(given, dict):
        raise InvalidRequestError(
            f"schema={shown(schema)} is not a schema.", remedy="Pass a JSON schema as a dict, or a class of pydantic's."
        )
    try:
        text = json.dumps(given, allow_nan=False)
        check_unicode("The schema", json.dumps(given, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The schema is not JSON: {error}.", remedy="Pass plain values.") from error
    _check_schema(json.loads(text))
    return text, kind


def in_words(schema: str) -> str:
    """Return the sentence that asks for an answer in this form."""
    return f"Answer with JSON alone, which follows this schema: {schema}"


def ask_again(request: AskRequest, text: str, error: InvalidReplyError) -> AskRequest:
    """Return the question to a model whose answer had another form.

    Raises:
        InvalidReplyError: It would be longer than any that may be asked.
    """
    words = f"\n\nYour answer was:\n{text[:SHOWN_AGAIN]}\n\n{error.message} Answer once more, with JSON alone."
    try:
        return replace(request, prompt=request.prompt + words)
    except InvalidRequestError:
        raise error from None


def read_data(text: str, request: AskRequest) -> Any:  # noqa: ANN401 — any JSON
    """Return the last JSON value in a text that follows the schema of a request; None where it has none.

    It may stand alone, in a code block or in a sentence.

    Raises:
        InvalidReplyError: There is none; says what is wrong with the last one.
    """
    if request.schema is None:
        return None
    schema = json.loads(request.schema)
    flaw = "there is no JSON in it"
    for value in reversed([*values_in(text)]):
        found = _flaw(value, schema, request.reader)
        if found is None:
            return value
        flaw = flaw if flaw != "there is no JSON in it" else found
    message = f"The answer does not follow the schema: {quote(flaw, max_chars=200)}."
    raise InvalidReplyError(message, code="schema_violation")


def with_instance(reply: Reply, reader: type[Any]) -> Reply:
    """Return a reply whose data is an instance of a class of pydantic's.

    Raises:
        InvalidReplyError: It cannot be made of it.
    """
    try:
        return replace(reply, data=_instance(reader, reply.data))
    except ValueError as error:
        message = f"The answer is not a {reader.__name__}: {quote(_first_of(error), max_chars=200)}."
        remedy = "Its backend has to read it by vision_backends.backends.structured.read_data."
        raise InvalidReplyError(message, remedy=remedy, backend=reply.trace.backend, code="schema_violation") from error


def strict_form(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a schema of which every object is closed and every property required; None where it cannot be so written.

    What follows it follows the given one as well.
    """
    if not set(schema) <= STRICT_KEYS or ("$ref" in schema and len({*schema} - {"$ref", "$defs"}) > 0):
        return None
    made = {key: value for key, value in schema.items() if key != "default"}
    for key in ("properties", "$defs"):
        if key in made:
            parts = {name: strict_form(part) for name, part in made[key].items()}
            if None in parts.values():
                return None
            made[key] = parts
    if isinstance(made.get("items"), dict):
        made["items"] = strict_form(made["items"])
    if "anyOf" in made:
        made["anyOf"] = [strict_form(part) for part in made["anyOf"]]
    if made.get("items", made) is None or None in made.get("anyOf", ()):
        return None
    if "properties" in made or made.get("type") == "object":
        if "properties" not in made or made.get("additionalProperties", False) is not False:
            return None
        made |= {"additionalProperties": False, "required": list(made["properties"])}
    return made


def values_in(text: str, *, is_part: Callable[[object], bool] | None = None) -> Iterator[object]:
    """Yield the JSON of a text that is nothing else, or of its code blocks, or the objects and lists between words.

    Args:
        text: The text.
        is_part: Whether a value between words can only be a part of what was meant, and is left out.
    """
    found = False
    for whole in (text, *_CODE.findall(text)):
        try:
            yield json.loads(whole)
        except (ValueError, RecursionError):
            continue
        found = True
    decoder, at = json.JSONDecoder(), 0
    for _ in range(0 if found else PLACES):
        bracket = _BRACKET.search(text, at)
        if bracket is None:
            return
        try:
            value, at = decoder.raw_decode(text, bracket.start())
        except ValueError:
            at = bracket.end()
        except RecursionError:
            return
        else:
            if is_part is None or not is_part(value):
                yield value


def _check_schema(schema: dict[str, Any]) -> None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        validator_for(schema).check_schema(schema)
        root = Registry().resolver_with_root(Resource.from_contents(schema, default_specification=DRAFT202012))
        for reference in _references(schema):
            root.lookup(reference)
    except SchemaError as error:
        raise InvalidRequestError(
            f"The schema is not a JSON schema: {quote(error.message)}.", remedy="See https://json-schema.org."
        ) from error
    except Unresolvable as missing:
        raise InvalidRequestError(
            f"The schema refers to {quote(str(missing.ref))}, which is not in it.",
            remedy="Put it into $defs; nothing is fetched.",
        ) from missing


def _references(schema: object) -> Iterator[str]:
    """Yield what a schema refers to."""
    parts = schema.items() if isinstance(schema, dict) else enumerate(schema if isinstance(schema, list) else ())
    for key, part in parts:
        if key in {"$ref", "$dynamicRef"} and isinstance(part, str):
            yield part
        else:
            yield from _references(part)


def _flaw(value: object, schema: dict[str, Any], reader: type[Any] | None) -> str | None:
    """Return what is wrong with a value; None if it is what is wanted."""
    if reader is not None:
        try:
            _instance(reader, value)
        except ValueError as error:  # which that of pydantic's is
            return _first_of(error)
        return None
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry

    checker = validator_for(schema)(schema, registry=Registry())  # which fetches nothing
    flaw = best_match(checker.iter_errors(value))
    return None if flaw is None else f"{flaw.json_path}: {flaw.message}"


def _instance(reader: Any, value: object) -> Any:  # noqa: ANN401 — a class of pydantic's, and an instance of it
    return reader.model_validate_json(json.dumps(value))


def _first_of(error: ValueError) -> str:
    errors = error.errors() if hasattr(error, "errors") else []
    if not errors:
        return str(error)
    return f"{'.'.join(map(str, errors[0]['loc'])) or '$'}: {errors[0]['msg']}"
