"""Reads a TensorFlow.js graph model: model.json and its weight file, no TensorFlow needed.

This module decides what the bytes mean; it must not know ONNX or any model.
Format: https://github.com/tensorflow/tfjs/tree/master/tfjs-converter (graph model, weights manifest).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation: its TensorFlow op, its name, the tensors it reads and its attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphModel:
    """The operations in topological order, and the constants by name."""

    nodes: tuple[Node, ...]
    constants: dict[str, npt.NDArray[np.generic]]


def read_graph_model(graph: Path, *, weights: Path) -> GraphModel:
    """Read a graph model whose weights lie in one file.

    Raises:
        ValueError: The weight file is longer or shorter than the manifest says.
    """
    model = json.loads(graph.read_text(encoding="utf-8"))
    specs = [spec for group in model["weightsManifest"] for spec in group["weights"]]
    nodes = tuple(
        Node(
            op=raw["op"],
            name=raw["name"],
            inputs=tuple(raw.get("input", ())),
            attributes={key: _attribute(value) for key, value in raw.get("attr", {}).items()},
        )
        for raw in model["modelTopology"]["node"]
    )
    return GraphModel(nodes=nodes, constants=_read_constants(specs, weights.read_bytes()))


def _read_constants(specs: list[dict[str, Any]], data: bytes) -> dict[str, npt.NDArray[np.generic]]:
    constants: dict[str, npt.NDArray[np.generic]] = {}
    offset = 0
    for spec in specs:
        dtype = np.dtype(spec.get("quantization", spec)["dtype"]).newbyteorder("<")
        flat = np.frombuffer(data, dtype=dtype, count=prod(spec["shape"]), offset=offset)
        offset += flat.nbytes
        constants[spec["name"]] = flat.reshape(spec["shape"]).astype(spec["dtype"])
    if offset != len(data):
        raise ValueError(f"The weight file has {len(data)} bytes; the manifest describes {offset}.")
    return constants


def _attribute(raw: dict[str, Any]) -> Any:  # noqa: ANN401 — whatever the attribute holds
    """Unwrap one attribute, such as ``{"list": {"i": ["1", "2"]}}`` or ``{"s": "VkFMSUQ="}``."""
    kind, value = next(iter(raw.items()))
    if kind == "list":
        return [_attribute({inner: item}) for inner, items in value.items() for item in items]
    if kind == "s":
        return base64.b64decode(value).decode("ascii")
    if kind == "i":
        return int(value)
    return value
