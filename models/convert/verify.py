"""Compares the converted models with independent implementations of their sources.

NanoDet runs in TensorFlow.js, the runtime that its source was published for; EfficientNet-Lite0 runs as plain
PyTorch that applies its batch norms one by one. This module only measures; `build.py` prints.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import efficientnet
import nanodet
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import torch

    Array = npt.NDArray[np.float32]

TFJS = "@tensorflow/tfjs@4.22.0"
PHOTO = Path(__file__).resolve().parents[2] / "benchmarks" / "photos" / "raccoon.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far one output of a converted model lies from its source.

    Attributes:
        output: Which output.
        largest: Largest absolute difference.
        cosine_distance: 1 − cosine between the two, all values taken as one vector.
    """

    output: str
    largest: float
    cosine_distance: float

    def __str__(self) -> str:
        return f"{self.output:<9} largest difference {self.largest:.1e}, 1 − cosine {self.cosine_distance:.1e}"


def read_photo(px: int) -> npt.NDArray[np.uint8]:
    """Return a photo stretched to ``px`` × ``px`` as [H, W, 3], red-green-blue."""
    from PIL import Image

    with Image.open(PHOTO) as photo:
        return np.asarray(photo.convert("RGB").resize((px, px)))


def nanodet_input(photo: npt.NDArray[np.uint8]) -> Array:
    """Return NanoDet's input [1, 3, H, W]; https://github.com/RangiLyu/nanodet, config/nanodet-g.yml."""
    mean, std = np.array([[103.53, 116.28, 123.675], [57.375, 57.12, 58.395]], dtype=np.float32)
    return ((photo[..., ::-1] - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)


def efficientnet_input(photo: npt.NDArray[np.uint8]) -> Array:
    """Return EfficientNet-Lite's input [1, 3, H, W]."""
    return ((photo.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None]


def compare(model: bytes, image: Array, expected: Mapping[str, Array]) -> list[Agreement]:
    """Run an ONNX model on one input [1, 3, H, W] and compare each named output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    actual = session.run(list(expected), {"image": image})
    return [
        Agreement(
            output=name,
            largest=float(np.abs(got - want).max()),
            cosine_distance=1 - _cosine(got.ravel().astype(np.float64), want.ravel().astype(np.float64)),
        )
        for (name, want), got in zip(expected.items(), actual, strict=True)
    ]


def _cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def run_tfjs(graph: Path, *, weights: Path, image: Array, folder: Path) -> dict[str, Array]:
    """Return NanoDet's outputs as TensorFlow.js computes them; installs it into ``folder`` when needed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules").exists():
        command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder), TFJS]
        subprocess.run(command, check=True)
    image.astype("<f4").tofile(folder / "input.f32")
    script = Path(__file__).with_name("run_tfjs.mjs").resolve()
    arguments = [graph.resolve(), weights.resolve(), "input.f32", "."]
    subprocess.run(["node", str(script), *map(str, arguments)], cwd=folder, check=True)

    def read(names: tuple[str, ...], *, channels: int) -> Array:
        parts = [np.fromfile(folder / f"{name}.f32", dtype="<f4").reshape(1, -1, channels) for name in names]
        return np.concatenate(parts, axis=1).transpose(0, 2, 1)

    return {
        "scores": read(nanodet.SCORE_OUTPUTS, channels=nanodet.CLASSES),
        "sides": read(nanodet.SIDE_OUTPUTS, channels=nanodet.SIDE_BINS),
    }


def run_torch(weights: Mapping[str, torch.Tensor], image: Array) -> dict[str, Array]:
    """Return EfficientNet-Lite0's outputs as PyTorch computes them, unfolded, in float32."""
    import torch
    from torch.nn import functional

    def conv(x: torch.Tensor, name: str, norm: str, *, stride: int = 1, clip: bool = True) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        rows, columns = (efficientnet.same_pads(size, kernel=kernel.shape[2], stride=stride) for size in x.shape[2:])
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        x = functional.conv2d(functional.pad(x, (*columns, *rows)), kernel, stride=stride, groups=groups)
        statistics = [weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = functional.batch_norm(x, *statistics, training=False, eps=efficientnet.BATCH_NORM_EPSILON)
        return functional.relu6(x) if clip else x

    strides = [
        stage.stride if position == 0 else 1 for stage in efficientnet.STAGES for position in range(stage.blocks)
    ]
    with torch.inference_mode():
        x = conv(torch.from_numpy(image), "_conv_stem", "_bn0", stride=2)
        for index, stride in enumerate(strides):
            source, block = x, f"_blocks.{index}"
            if f"{block}._expand_conv.weight" in weights:
                x = conv(x, f"{block}._expand_conv", f"{block}._bn0")
            x = conv(x, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
            x = conv(x, f"{block}._project_conv", f"{block}._bn2", clip=False)
            x = x + source if x.shape == source.shape else x
        features = conv(x, "_conv_head", "_bn1").mean(dim=(2, 3))
        logits = functional.linear(features, weights["_fc.weight"], weights["_fc.bias"])
    return {"logits": logits.numpy(), "features": features.numpy()}
