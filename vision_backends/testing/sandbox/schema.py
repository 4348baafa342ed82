"""From a JSON schema to one deterministic value that conforms to it, with plausible boxes where it asks for boxes.

This module decides what such a value looks like. It must not know the endpoint, nor what the schema is for.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["conforming", "labels_in"]

_LABEL_KEYS = frozenset({"label", "name", "class", "class_name", "category", "object"})
_SCORE_KEYS = frozenset({"score", "confidence", "probability"})
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_COORDINATES = 4
_SIDES_PER_RANGE = 50
"""The range of the coordinates, divided by the shortest side that a box may have."""

_COMMON = ("person", "bicycle", "car", "dog", "chair")
_MAX_DEPTH = 24


def conforming(schema: Mapping[str, Any], *, seed: str, prompt: str = "", description: str = "") -> Any:  # noqa: ANN401 — any JSON
    """Return a JSON value that conforms to a schema; the same arguments give the same value.

    Args:
        schema: The schema, within the subset that strict structured outputs allow.
        seed: What the choices depend on.
        prompt: Where labels are taken from if the schema does not list them.
        description: What goes into string properties that are not labels.
    """
    rng = random.Random(seed)  # noqa: S311 — replayable on purpose, protects nothing
    return _Writer(schema, rng, labels_in(prompt) or _COMMON, description).value(schema)


def labels_in(prompt: str) -> tuple[str, ...]:
    """Return the labels that a prompt names: its quoted strings, else a list after ``labels:`` or ``objects:``."""
    quoted = re.findall(r'"([^"\n{}]{1,80})"', prompt)
    if not quoted and (listed := re.search(r"(?:labels|objects|classes)[^:\n]*:([^\n]+)", prompt, re.IGNORECASE)):
        quoted = [part.strip(" .") for part in listed[1].split(",")]
    return tuple(dict.fromkeys(filter(None, quoted)))


@dataclass(frozen=True, slots=True)
class _Writer:
    root: Mapping[str, Any]
    rng: random.Random
    labels: Sequence[str]
    description: str

    def value(self, schema: Mapping[str, Any], *, key: str = "", depth: int = 0) -> Any:  # noqa: ANN401 — any JSON
        schema = self._resolve(schema)
        if choices := [schema["const"]] if "const" in schema else schema.get("enum"):
            return self.rng.choice(choices)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if depth > _MAX_DEPTH or kind == "null":
            return None
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth=depth),
            "array": lambda: self._array(schema, key=key, depth=depth),
            "integer": lambda: self._number(schema, key=key, whole=True),
            "number": lambda: self._number(schema, key=key, whole=False),
            "boolean": lambda: self.rng.random() < 0.5,
        }
        return makers.get(kind, lambda: self._text(schema, key=key))()

    def _object(self, schema: Mapping[str, Any], *, depth: int) -> dict[str, Any]:
        parts = {name: self._resolve(part) for name, part in schema.get("properties", {}).items()}
        made = {name: self.value(part, key=name, depth=depth + 1) for name, part in parts.items()}
        for x1, y1, x2, y2 in _CORNERS:
            for low, high in ((x1, x2), (y1, y2)):
                if low in parts and parts.get(low) == parts.get(high):
                    made[low], made[high] = _apart(made[low], made[high], parts[low])
        return made

    def _text(self, schema: Mapping[str, Any], *, key: str) -> str:
        text = self.rng.choice(self.labels) if key in _LABEL_KEYS else self.description
        return text[: schema.get("maxLength")]

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            if "$ref" in schema:
                target: Any = self.root
                for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
                    target = target.get(step, {}) if step else target
                schema = target
            elif choices := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
                schema = next((choice for choice in choices if choice.get("type") != "null"), choices[0])
            else:
                break
        if isinstance(kinds := schema.get("type"), list):
            schema = {**schema, "type": next((kind for kind in kinds if kind != "null"), "null")}
        return schema

    def _array(self, schema: Mapping[str, Any], *, key: str, depth: int) -> list[Any]:
        least = schema.get("minItems", min(1, schema.get("maxItems", 1)))
        count = self.rng.randint(least, max(least, min(schema.get("maxItems", 4), least + 3)))
        items = self._resolve(schema.get("items", {"type": "string"}))
        made = [self.value(items, key=key, depth=depth + 1) for _ in range(count)]
        if count == _COORDINATES:
            made[0], made[2] = _apart(made[0], made[2], items)
            made[1], made[3] = _apart(made[1], made[3], items)
        return made

    def _number(self, schema: Mapping[str, Any], *, key: str, whole: bool) -> float:
        low, high = _bounds(schema, whole=whole)
        if key in _SCORE_KEYS:
            high = high if "maximum" in schema or not whole else 100
            low += (high - low) // 2 if whole else (high - low) / 2
        if whole:
            return self.rng.randint(int(low), int(high))
        return min(max(round(self.rng.uniform(low, high), 2), low), high)


def _bounds(schema: Mapping[str, Any], *, whole: bool) -> tuple[float, float]:
    usual = (0, 1000) if whole else (0.0, 1.0)
    low, high = schema.get("minimum", usual[0]), schema.get("maximum", usual[1])
    return (low, max(low, high)) if "minimum" in schema else (min(low, high), high)


def _apart(a: Any, b: Any, schema: Mapping[str, Any]) -> tuple[Any, Any]:  # noqa: ANN401 — any JSON
    """Return two coordinates in order, with a gap between them, so that no box is empty."""
    if schema.get("type") not in {"integer", "number"} or {"const", "enum"} & set(schema):
        return a, b
    whole = schema["type"] == "integer"
    least, most = _bounds(schema, whole=whole)
    gap = (most - least) / _SIDES_PER_RANGE
    gap = int(gap) if whole else gap
    low, high = sorted((a, b))
    if high - low >= gap:
        return low, high
    return (low - gap, high) if low - gap >= least else (low, low + gap)
