"""NanoDet-g: TensorFlow.js graph model → ONNX.

The source graph came from PyTorch through ONNX and TensorFlow, so it is full of transposes, explicit pads and
separate bias additions. None of them survives here: every tensor is followed as a *view* of an [N, C, H, W]
tensor (which axis went where, how much padding is pending), and padding and bias move into the convolution
that consumes or produces them. This module decides that mapping; it must not know how boxes are decoded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx_graph import GraphWriter

if TYPE_CHECKING:
    from tfjs import GraphModel, Node

INPUT_PX = 416
CLASSES = 80
SIDE_BINS = 44  # 4 sides of 11 bins
NCHW = (0, 1, 2, 3)
NHWC = (0, 2, 3, 1)  # the source's axis i is axis NHWC[i] of the stored tensor
NO_PADS = ((0, 0),) * 4
SCORE_OUTPUTS = ("Identity", "Identity_1", "Identity_2")  # strides 8, 16, 32
SIDE_OUTPUTS = ("Identity_3", "Identity_4", "Identity_5")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one tensor of the source is stored.

    Attributes:
        name: The stored tensor; [N, C, H, W], or [N, C, H × W] at the outputs.
        axes: Axis i of the source's tensor is axis ``axes[i]`` of the stored one.
        size: Height and width of the stored tensor.
        pads: Padding (before, after) of each stored axis that the source has and the stored tensor lacks.
        pad_value: What it pads with.
    """

    name: str
    size: tuple[int, int]
    axes: tuple[int, ...] = NCHW
    pads: tuple[tuple[int, int], ...] = NO_PADS
    pad_value: float = 0.0


class _Translator:
    """Walks the source graph once and writes the ONNX graph."""

    def __init__(self, model: GraphModel, *, half: bool) -> None:
        self._constants = model.constants
        self._writer = GraphWriter("nanodet-g", half=half)
        self._views: dict[str, View] = {}
        self._uses = Counter(source for node in model.nodes for source in node.inputs)
        self._unbiased: dict[str, Node] = {}  # convolutions that wait for their bias

    def run(self, nodes: tuple[Node, ...]) -> bytes:
        """Translate every node and return the model."""
        for node in nodes:
            translate = getattr(self, f"_{node.op.lower()}", None)
            if translate is None:
                raise NotImplementedError(f"{node.name} is a {node.op}, which this graph should not contain.")
            translate(node)
        scores, sides = (self._join(names) for names in (SCORE_OUTPUTS, SIDE_OUTPUTS))
        return self._writer.to_bytes(
            inputs={"image": ("batch", 3, "height", "width")},
            outputs={
                "scores": (scores, ("batch", CLASSES, "points")),
                "sides": (sides, ("batch", SIDE_BINS, "points")),
            },
            doc="NanoDet-g 416, Apache-2.0; converted, modified. See NOTICE.",
        )

    def _join(self, names: tuple[str, ...]) -> str:
        return self._writer.node("Concat", *(self._views[name].name for name in names), axis=2)[0]

    def _placeholder(self, node: Node) -> None:
        self._views[node.name] = View(name="image", size=(INPUT_PX, INPUT_PX))

    def _ignore(self, node: Node) -> None:
        """Constants are read where they are used; the rest computes shapes, which are known."""

    _const = _sparsetodense = _addv2 = _ignore

    def _identity(self, node: Node) -> None:
        self._views[node.name] = self._views[node.inputs[0]]

    def _transpose(self, node: Node) -> None:
        view = self._views[node.inputs[0]]
        order = self._constants[node.inputs[1]]
        self._views[node.name] = replace(view, axes=tuple(view.axes[axis] for axis in order))

    def _pad(self, node: Node) -> None:
        view = self._views[node.inputs[0]]
        pads = list(NO_PADS)
        for axis, (before, after) in zip(view.axes, self._constants[node.inputs[1]].tolist(), strict=True):
            pads[axis] = (before, after)
        value = float(self._constants[node.inputs[2]]) if len(node.inputs) > 2 else 0.0
        self._views[node.name] = replace(view, pads=tuple(pads), pad_value=value)

    _padv2 = _pad

    def _conv2d(self, node: Node) -> None:
        self._expect(node.attributes["padding"] == "VALID" and node.attributes["dilations"] == [1, 1, 1, 1], node)
        self._expect(self._uses[node.name] == 1, node)
        self._unbiased[node.name] = node

    def _add(self, node: Node) -> None:
        conv = self._unbiased.pop(node.inputs[0], None)
        if conv is not None:
            self._views[node.name] = self._biased_conv(conv, bias=node.inputs[1])
            return
        left, right = (self._plain(source, node) for source in node.inputs)
        self._expect((left.axes, left.size) == (right.axes, right.size), node)
        self._views[node.name] = replace(left, name=self._writer.node("Add", left.name, right.name)[0])

    def _biased_conv(self, node: Node, *, bias: str) -> View:
        view = self._views[node.inputs[0]]
        self._expect(view.axes == NHWC and view.pad_value == 0 and view.pads[:2] == NO_PADS[:2], node)
        kernel = self._constants[node.inputs[1]].transpose(3, 2, 0, 1)  # HWIO → OIHW
        strides = tuple(node.attributes["strides"][1:3])
        (top, bottom), (left, right) = view.pads[2:]
        name = self._writer.conv(
            view.name, kernel, self._constants[bias], strides=strides, pads=(top, left, bottom, right)
        )
        return View(name=name, size=_window_size(view, kernel.shape[2:], strides), axes=NHWC)

    def _leakyrelu(self, node: Node) -> None:
        view = self._plain(node.inputs[0], node)
        name = self._writer.node("LeakyRelu", view.name, alpha=node.attributes["alpha"])[0]
        self._views[node.name] = replace(view, name=name)

    def _maxpool(self, node: Node) -> None:
        view = self._views[node.inputs[0]]
        lowest = float(np.finfo(np.float16).min)  # the least value that the stored weights can hold
        self._expect(view.axes == NHWC and view.pad_value <= lowest, node)
        kernel, strides = (tuple(node.attributes[key][1:3]) for key in ("ksize", "strides"))
        (top, bottom), (left, right) = view.pads[2:]
        name = self._writer.node(
            "MaxPool", view.name, kernel_shape=kernel, strides=strides, pads=(top, left, bottom, right)
        )[0]
        self._views[node.name] = View(name=name, size=_window_size(view, kernel, strides), axes=NHWC)

    def _concatv2(self, node: Node) -> None:
        views = [self._plain(source, node) for source in node.inputs[:-1]]
        self._expect(len({(view.axes, view.size) for view in views}) == 1, node)
        axis = views[0].axes[int(self._constants[node.inputs[-1]])]
        name = self._writer.node("Concat", *(view.name for view in views), axis=axis)[0]
        self._views[node.name] = replace(views[0], name=name)

    def _resizebilinear(self, node: Node) -> None:
        view = self._plain(node.inputs[0], node)
        half_pixel = node.attributes["half_pixel_centers"] and not node.attributes["align_corners"]
        self._expect(view.axes == NHWC and half_pixel, node)
        height, width = self._constants[node.inputs[1]].tolist()
        scales = np.array([1, 1, height / view.size[0], width / view.size[1]], dtype=np.float32)
        name = self._writer.node(
            "Resize",
            view.name,
            "",
            self._writer.constant(scales),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )[0]
        self._views[node.name] = replace(view, name=name, size=(height, width))

    def _splitv(self, node: Node) -> None:
        view = self._plain(node.inputs[0], node)
        sizes = self._constants[node.inputs[1]].astype(np.int64)
        axis = view.axes[int(self._constants[node.inputs[2]])]
        self._expect(axis == 1, node)
        parts = self._writer.node("Split", view.name, self._writer.constant(sizes), outputs=sizes.size, axis=axis)
        for index, part in enumerate(parts):
            self._views[f"{node.name}:{index}" if index else node.name] = replace(view, name=part)

    def _sigmoid(self, node: Node) -> None:
        view = self._plain(node.inputs[0], node)
        self._views[node.name] = replace(view, name=self._writer.node("Sigmoid", view.name)[0])

    def _reshape(self, node: Node) -> None:
        """Flatten [N, C, H, W] to [N, C, H × W]: the only reshape in the graph, at its six outputs."""
        view = self._plain(node.inputs[0], node)
        self._expect(view.axes == NCHW, node)
        shape = self._writer.constant(np.array([0, 0, -1], dtype=np.int64))
        name = self._writer.node("Reshape", view.name, shape)[0]
        self._views[node.name] = View(name=name, size=view.size, axes=(0, 1, 2))

    def _plain(self, source: str, node: Node) -> View:
        view = self._views[source]
        self._expect(view.pads == NO_PADS, node)
        return view

    def _expect(self, holds: bool, node: Node) -> None:  # noqa: FBT001 — an assertion
        if not holds:
            raise ValueError(f"{node.name} ({node.op}) is not of the kind that this conversion covers.")


def _window_size(view: View, kernel: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    height, width = (
        (side + sum(pads) - extent) // stride + 1
        for side, pads, extent, stride in zip(view.size, view.pads[2:], kernel, strides, strict=True)
    )
    return height, width


def convert(model: GraphModel, *, half: bool) -> bytes:
    """Return NanoDet-g as ONNX.

    Input ``image`` float32 [N, 3, H, W], sides multiples of 32, blue-green-red, normalised. Outputs ``scores``
    [N, 80, points] (after the sigmoid) and ``sides`` [N, 44, points] (left, top, right, bottom × 11 bins), the points
    row by row for the strides 8, 16 and 32. The source is of one size; nothing in it but the shapes depends on that.

    Args:
        model: The source graph.
        half: Store the weights as float16, which the source does too: nothing is lost.
    """
    return _Translator(model, half=half).run(model.nodes)
