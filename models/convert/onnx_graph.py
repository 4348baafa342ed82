"""A small ONNX writer: float16 weights behind Cast nodes, float32 arithmetic, the same bytes on every run.

This module decides how a graph is stored. It must not know any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Shape = Sequence[int | str]

OPSET = 17
IR_VERSION = 8
"""Both old enough for every onnxruntime since 1.12."""


class GraphWriter:
    """Collects nodes and weights in order; names follow from the order, hence are reproducible.

    Args:
        name: Name of the graph.
        half: Store convolution and matrix weights as float16; False keeps float32 and serves verification.
    """

    def __init__(self, name: str, *, half: bool) -> None:
        self._name = name
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> list[str]:
        """Append a node and return the names of its outputs."""
        stem = f"{op.lower()}_{len(self._nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=stem, **attributes))
        return names

    def constant(self, value: npt.NDArray[np.generic]) -> str:
        """Store an array as it is and return its name."""
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, value: npt.NDArray[np.floating]) -> str:
        """Store a large float array, as float16 behind a Cast where the graph is ``half``."""
        if not self._half:
            return self.constant(value.astype(np.float32))
        limit = np.finfo(np.float16).max
        if np.abs(value).max() > limit:
            raise ValueError(f"A weight of {np.abs(value).max():.3g} does not fit float16.")
        stored = self.constant(value.astype(np.float16))
        return self.node("Cast", stored, to=TensorProto.FLOAT)[0]

    def conv(
        self,
        source: str,
        weight: npt.NDArray[np.floating],
        bias: npt.NDArray[np.floating],
        *,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        group: int = 1,
    ) -> str:
        """Append a 2-D convolution.

        Args:
            source: Name of the [N, C, H, W] input.
            weight: Array [C_out, C_in / group, kernel height, kernel width].
            bias: Array [C_out]; stays float32, it is small.
            strides: Vertical and horizontal stride.
            pads: Top, left, bottom and right padding with zeros.
            group: Number of groups; C_in for a depthwise convolution.
        """
        inputs = (source, self.weight(weight), self.constant(bias.astype(np.float32)))
        kernel = list(weight.shape[2:])
        return self.node("Conv", *inputs, kernel_shape=kernel, strides=list(strides), pads=list(pads), group=group)[0]

    def to_bytes(self, *, inputs: dict[str, Shape], outputs: dict[str, tuple[str, Shape]], doc: str) -> bytes:
        """Return the finished, checked model.

        Args:
            inputs: Name to shape; a string stands for a dynamic dimension.
            outputs: Public name to (name inside the graph, shape).
            doc: What the model is and where it comes from.
        """
        nodes = list(self._nodes)
        for public, (inner, _) in outputs.items():
            nodes.append(helper.make_node("Identity", [inner], [public], name=public))
        graph = helper.make_graph(
            nodes,
            self._name,
            [_value(name, shape) for name, shape in inputs.items()],
            [_value(name, shape) for name, (_, shape) in outputs.items()],
            initializer=self._weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="vision-backends",
            doc_string=doc,
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def _value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
