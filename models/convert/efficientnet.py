"""EfficientNet-Lite0: PyTorch state dict → ONNX.

The architecture is the published one (https://github.com/tensorflow/tpu, efficientnet/lite): no squeeze and
excitation, ReLU6, fixed stem and head, TensorFlow's "SAME" padding. Batch norms are folded into the
convolutions before them. This module decides the graph; it must not know how an image becomes its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx_graph import GraphWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Array = npt.NDArray[np.floating]
    StateDict = Mapping[str, Array]

INPUT_PX = 224
CLASSES = 1000
FEATURES = 1280
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of inverted-residual blocks; only the first one strides."""

    blocks: int
    kernel: int
    stride: int


STAGES = (
    Stage(blocks=1, kernel=3, stride=1),
    Stage(blocks=2, kernel=3, stride=2),
    Stage(blocks=2, kernel=5, stride=2),
    Stage(blocks=3, kernel=3, stride=2),
    Stage(blocks=3, kernel=5, stride=1),
    Stage(blocks=4, kernel=5, stride=2),
    Stage(blocks=1, kernel=3, stride=1),
)


def same_pads(size: int, *, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's "SAME" padding before and after one axis; the odd pixel goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Builder:
    """Writes the graph from input to output, keeping track of the size of the feature map."""

    def __init__(self, weights: StateDict, *, half: bool) -> None:
        self._weights = weights
        self._writer = GraphWriter("efficientnet-lite0", half=half)
        self._size = INPUT_PX

    def run(self) -> bytes:
        """Build the whole network."""
        tensor = self._conv("image", "_conv_stem", norm="_bn0", stride=2)
        index = 0
        for stage in STAGES:
            for position in range(stage.blocks):
                stride = stage.stride if position == 0 else 1
                tensor = self._block(tensor, f"_blocks.{index}", stride=stride, residual=position > 0)
                index += 1
        tensor = self._conv(tensor, "_conv_head", norm="_bn1")
        pooled = self._writer.node("GlobalAveragePool", tensor)[0]
        features = self._writer.node("Flatten", pooled, axis=1)[0]
        matrix = self._writer.weight(self._weights["_fc.weight"])
        bias = self._writer.constant(self._weights["_fc.bias"].astype(np.float32))
        logits = self._writer.node("Gemm", features, matrix, bias, transB=1)[0]
        return self._writer.to_bytes(
            inputs={"image": ("batch", 3, INPUT_PX, INPUT_PX)},
            outputs={
                "logits": (logits, ("batch", CLASSES)),
                "features": (features, ("batch", FEATURES)),
            },
            doc="EfficientNet-Lite0 224, Apache-2.0; converted, modified. See NOTICE.",
        )

    def _block(self, source: str, prefix: str, *, stride: int, residual: bool) -> str:
        tensor = source
        if f"{prefix}._expand_conv.weight" in self._weights:
            tensor = self._conv(tensor, f"{prefix}._expand_conv", norm=f"{prefix}._bn0")
        tensor = self._conv(tensor, f"{prefix}._depthwise_conv", norm=f"{prefix}._bn1", stride=stride)
        tensor = self._conv(tensor, f"{prefix}._project_conv", norm=f"{prefix}._bn2", clip=False)
        return self._writer.node("Add", tensor, source)[0] if residual else tensor

    def _conv(self, source: str, prefix: str, *, norm: str, stride: int = 1, clip: bool = True) -> str:
        weight, bias = self._folded(prefix, norm)
        before, after = same_pads(self._size, kernel=weight.shape[2], stride=stride)
        tensor = self._writer.conv(
            source,
            weight,
            bias,
            strides=(stride, stride),
            pads=(before, before, after, after),
            group=weight.shape[0] if "depthwise" in prefix else 1,
        )
        self._size = -(-self._size // stride)
        return self._relu6(tensor) if clip else tensor

    def _relu6(self, source: str) -> str:
        bounds = (self._writer.constant(np.array(bound, dtype=np.float32)) for bound in (0, 6))
        return self._writer.node("Clip", source, *bounds)[0]

    def _folded(self, prefix: str, norm: str) -> tuple[Array, Array]:
        """Return a convolution's weight and bias with its batch norm folded in, computed in float64."""
        weight = self._weights[f"{prefix}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        return weight * scale[:, None, None, None], beta - mean * scale


def convert(weights: StateDict, *, half: bool) -> bytes:
    """Return EfficientNet-Lite0 as ONNX.

    Input ``image`` float32 [N, 3, 224, 224], red-green-blue, (x − 127) / 128. Outputs ``logits`` [N, 1000]
    before the softmax and ``features`` [N, 1280], the average-pooled head.

    Args:
        weights: The state dict as numpy arrays.
        half: Store the weights as float16.
    """
    return _Builder(weights, half=half).run()
