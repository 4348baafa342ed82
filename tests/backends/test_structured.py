"""Answers in a form that a caller has given."""

import json

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from vision_backends.backends.requests import AskRequest
from vision_backends.backends.structured import form_of, read_data, strict_form, values_in
from vision_backends.errors import InvalidReplyError, InvalidRequestError


class Leaf(BaseModel):
    """A form that refers to itself."""

    name: str
    leaves: "list[Leaf]" = []


def ask(schema):
    """Return a request for an answer of this form."""
    text, reader = form_of(schema)
    return AskRequest(prompt="?", schema=text, reader=reader)


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('First {"a": 1}, or rather {"a": 2}.', {"a": 2}),
        ('{"a": 1} and {"no": 2}', {"a": 1}),
        ('Of {curly} things: {"a": 1, "b": "}"}', {"a": 1, "b": "}"}),
    ],
)
def test_the_last_json_that_follows_the_schema_is_meant(text, data):
    """Wherever it stands."""
    assert read_data(text, ask(OBJECT)) == data


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("There is one.", "there is no JSON in it"),
        ("", "there is no JSON in it"),
        ("[" * 100_000, "there is no JSON in it"),
        ('{"a": "1"}', r"\$\.a: '1' is not of type 'integer'"),
        ('{"b": "x"}', "'a' is a required property"),
        ('{"a": 1', "there is no JSON in it"),
    ],
)
def test_anything_else_is_no_answer_and_says_why(text, why):
    """In one line, which a model is told."""
    with pytest.raises(InvalidReplyError, match=why) as caught:
        read_data(text, ask(OBJECT))
    assert caught.value.code == "schema_violation"


def test_prose_has_no_data():
    """Nobody has asked for any."""
    assert read_data('{"a": 1}', AskRequest(prompt="?")) is None


def test_a_form_may_refer_to_itself():
    """Within its own definitions."""
    tree = {"name": "a", "leaves": [{"name": "b", "leaves": []}]}
    assert read_data(json.dumps(tree), ask(Leaf)) == tree
    assert read_data(json.dumps(tree), ask(Leaf.model_json_schema())) == tree
    with pytest.raises(InvalidReplyError, match="leaves"):
        read_data('{"name": "a", "leaves": [{}]}', ask(Leaf))


@pytest.mark.parametrize("reference", ["https://example.com/x.json", "file:///etc/passwd", "x.json", "#/$defs/nothing"])
def test_what_is_not_in_a_schema_is_not_fetched(reference):
    """It is the caller's error, before anybody is asked."""
    with pytest.raises(InvalidRequestError, match="which is not in it"):
        form_of({"type": "object", "properties": {"x": {"anyOf": [{"$ref": reference}]}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}]}}},
        {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b", "title": "B"}}, "$defs": {"b": {}}},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"not": {}}}}},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "object"}]}}},
        {"type": "object", "$defs": {"a": {"allOf": []}}, "properties": {}},
    ],
)
def test_what_openai_cannot_keep_to_has_no_strict_form(schema):
    """Whoever wrote it gets what was written."""
    assert strict_form(schema) is None


@pytest.mark.parametrize(
    "schema", [OBJECT, Leaf.model_json_schema()["$defs"]["Leaf"] | {"$defs": Leaf.model_json_schema()["$defs"]}]
)
def test_what_follows_the_strict_form_follows_the_given_one(schema):
    """It is closed, and everything is required; defaults are left out."""
    strict = strict_form(schema)
    assert strict["additionalProperties"] is False
    assert set(strict["required"]) == set(strict["properties"])
    assert "default" not in json.dumps({**strict, "properties": list(strict["properties"].values())})
    value = {"a": 1, "b": "x"} if schema is OBJECT else {"name": "a", "leaves": [{"name": "b", "leaves": []}]}
    assert Draft202012Validator(strict).is_valid(value)
    assert Draft202012Validator(schema).is_valid(value)


def test_a_property_may_be_called_like_a_keyword():
    """Names of properties are no keywords."""
    schema = {"type": "object", "properties": {"default": {"type": "string"}, "minLength": {"type": "integer"}}}
    assert list(strict_form(schema)["properties"]) == ["default", "minLength"]


def test_values_between_words_are_looked_for_at_a_few_places_only():
    """A megabyte of brackets takes no time."""
    assert list(values_in("{ " * 500_000 + '{"a": 1}')) == []
