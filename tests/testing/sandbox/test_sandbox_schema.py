"""Values that conform to a JSON schema."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.testing.sandbox.schema import conforming, labels_in

LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "string", "maxLength": 3},
        {"type": "integer", "minimum": 3, "maximum": 9},
        {"type": "integer"},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "boolean"},
        {"type": "null"},
        {"type": ["string", "null"]},
        {"const": 7},
        {"anyOf": [{"type": "null"}, {"type": "integer"}]},
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "minItems": st.integers(0, 3)}),
        st.dictionaries(st.sampled_from(["label", "score", "x1", "x2", "text"]), inner, max_size=4).map(
            lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
        ),
    ),
    max_leaves=8,
)


def conforms(value, schema):
    """Return whether a value conforms, for the subset above."""
    if "anyOf" in schema:
        return any(conforms(value, choice) for choice in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(CHECKS[kind](value, schema) for kind in kinds)


def _in_range(value, schema):
    return schema.get("minimum", value) <= value <= schema.get("maximum", value)


CHECKS = {
    "string": lambda value, schema: isinstance(value, str) and len(value) <= schema.get("maxLength", len(value)),
    "integer": lambda value, schema: type(value) is int and _in_range(value, schema),
    "number": lambda value, schema: isinstance(value, int | float) and _in_range(value, schema),
    "boolean": lambda value, _: isinstance(value, bool),
    "null": lambda value, _: value is None,
    "array": lambda value, schema: (
        isinstance(value, list)
        and len(value) >= schema["minItems"]
        and all(conforms(item, schema["items"]) for item in value)
    ),
    "object": lambda value, schema: (
        isinstance(value, dict)
        and set(value) == set(schema["properties"])
        and all(conforms(item, schema["properties"][key]) for key, item in value.items())
    ),
}


@given(schema=SCHEMAS, seed=st.text(max_size=4))
def test_any_schema_is_answered_by_a_value_that_conforms(schema, seed):
    """Whatever is nested in whatever, and the same each time."""
    value = conforming(schema, seed=seed, description="words")
    assert conforms(value, schema)
    assert conforming(schema, seed=seed, description="words") == value


def test_references_are_followed_and_cycles_end():
    """``$ref`` to ``$defs``, and a schema that contains itself."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "id": {"const": 1}}}
    value = conforming({"$ref": "#/$defs/node", "$defs": {"node": node}}, seed="")
    assert value["next"]["id"] == 1


@pytest.mark.parametrize("names", [("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom")])
@given(seed=st.integers())
def test_boxes_have_an_inside(names, seed):
    """Named corners, and lists of four, are in order with a distance between them."""
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
    x1, y1, x2, y2 = conforming(schema, seed=str(seed)).values()
    a, b, c, d = conforming(
        {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}, seed=str(seed)
    )
    assert 0 <= x1 <= x2 - 20 <= 980
    assert 0 <= y1 <= y2 - 20 <= 980
    assert (a < c, b < d) == (True, True)


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ('Find "a red scooter" and "cat".', ("a red scooter", "cat")),
        ('["cat", "dog", "cat"]', ("cat", "dog")),
        ("Labels: cat, red dog.\nAnswer soon.", ("cat", "red dog")),
        ("Find everything.", ()),
    ],
)
def test_labels_are_taken_from_the_prompt(prompt, labels):
    """Quoted, or in a list that says what it is."""
    assert labels_in(prompt) == labels


def test_labels_of_the_prompt_are_used_where_the_schema_lists_none():
    """And common ones where the prompt has none either."""
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    assert conforming(schema, seed="", prompt='Find "zebra".') == {"label": "zebra"}
    assert conforming(schema, seed="")["label"] in {"person", "bicycle", "car", "dog", "chair"}
