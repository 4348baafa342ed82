"""In which numbers a model computes: 32-bit floats, or 16-bit ones where they are real and faster.

This module decides the type of numbers per device and per kind of model. It must not know how models are loaded or run.
On a CPU the processor has to have instructions for bfloat16, and a short measurement, made once and remembered, has to
show that they pay: emulated ones are several times slower than 32-bit floats. Against those, vectors keep a cosine of
0.9999 (CLIP ViT-B/32).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.local.remembered import Remembered, processor_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

__all__ = ["Dtype", "choose_dtype", "lower", "measure_share", "stays_whole"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What ``[local] dtype`` may be."""

MIXED = {
    "d_fine": ("backbone", "encoder"),
    "rt_detr": ("backbone", "encoder"),
    "rt_detr_v2": ("backbone", "encoder"),
    "rf_detr": ("backbone",),
    "lw_detr": ("backbone",),
    "deformable_detr": ("backbone",),
}
"""Kinds that sample their image at computed places, with the parts that come before. In 16 bits torch's
``grid_sample`` gives NaN on a CPU, and places are too coarse anywhere; so only those parts, which are most of the work,
compute in 16 bits."""

WHOLE_IN_32 = ("grounding-dino", "mm-grounding-dino")
"""Kinds whose image and text parts are too interwoven for that."""

GAIN = 0.9
"""The largest share of the time in 32-bit floats at which 16-bit ones are worth their rounding."""

SHAPES = ((50, 768, 3072), (400, 768, 3072))
"""Rows, inputs and outputs of the linear layers that are timed: ViT-B/32's, for one image and a batch of 8."""

ROUNDS = 5


def choose_dtype(
    wanted: Dtype,
    *,
    device: str,
    remembered: Remembered,
    has_bfloat16: Callable[[str], bool] | None = None,
    measure: Callable[[torch.dtype], float] | None = None,
) -> torch.dtype:
    """Return the type of numbers to compute in.

    Args:
        wanted: As configured; ``"auto"`` decides by what the device can and what is faster.
        device: Where, such as ``"cpu"``.
        remembered: Where the measurement is kept.
        has_bfloat16: Tells what a device can; by default torch is asked.
        measure: As `measure_share`, which is the default.
    """
    import torch

    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    real = (has_bfloat16 or _has_bfloat16)(device)
    if device == "cpu":
        return torch.bfloat16 if real and _pays(remembered, measure or measure_share) else torch.float32
    return torch.bfloat16 if real else torch.float16


def _has_bfloat16(device: str) -> bool:
    """Tell whether a device multiplies bfloat16 by instructions of its own."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False  # only the newest of Apple's chips and systems have them; all have float16
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    older = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # before torch 2.11
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") or older())


def stays_whole(kind: str) -> bool:
    """Tell whether all of a kind of model may compute in the same numbers, so that it can be loaded in them."""
    return kind not in MIXED and kind not in WHOLE_IN_32


def lower(model: Any, *, kind: str, dtype: torch.dtype) -> str:  # noqa: ANN401 — any model of transformers
    """Let a model compute in other numbers, as far as that is good for its kind.

    Returns:
        What it computes in, such as ``"bfloat16"`` or ``"bfloat16+float32"``.
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    if stays_whole(kind):
        model.to(dtype)
        return name
    if dtype == torch.float32 or kind in WHOLE_IN_32:
        return "float32"
    inner = getattr(model, "model", model)
    for part in (getattr(inner, each, None) for each in MIXED[kind]):
        if part is not None:
            part.to(dtype)
            _translate(part, into=dtype, out=torch.float32)
    return f"{name}+float32"


def _translate(module: Any, *, into: torch.dtype, out: torch.dtype) -> None:  # noqa: ANN401 — torch has no types
    """Turn the floats that enter a module into its type, and those that leave it into another."""

    def enter(_module: object, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return _cast(positional, into), _cast(named, into)

    def leave(_module: object, _inputs: object, outputs: Any) -> Any:  # noqa: ANN401 — whatever it returns
        return _cast(outputs, out)

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave)


def _cast(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 — nested as modules like
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):  # the records of transformers are dicts with attributes
        for key, inner in list(value.items()):
            value[key] = _cast(inner, dtype)
        return value
    if isinstance(value, list | tuple):
        return type(value)(_cast(inner, dtype) for inner in value)
    return value


def _pays(remembered: Remembered, measure: Callable[[torch.dtype], float]) -> bool:
    """Tell whether bfloat16 is faster here: measured in about 0.1 s, once for a processor, torch and threads."""
    import torch

    state = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }
    known = remembered.read("bfloat16", state=state)
    if known is None or not isinstance(known.get("share"), int | float):
        known = {"share": measure(torch.bfloat16)}
        remembered.write("bfloat16", known, state=state)
    return float(known["share"]) <= GAIN


def measure_share(dtype: torch.dtype, *, now: Callable[[], float] = time.perf_counter) -> float:
    """Return how long linear layers take in some numbers, as a share of the time in 32-bit floats.

    The two take turns, and of each the fastest round counts, so that a busy moment meets both sides.

    Args:
        dtype: The numbers to compare.
        now: The clock, in seconds.
    """
    import torch

    def seconds(work: Sequence[tuple[torch.nn.Module, torch.Tensor]]) -> float:
        started = now()
        for layer, inputs in work:
            layer(inputs)
        return now() - started

    with torch.inference_mode():
        layers = [(torch.nn.Linear(inputs, outputs), torch.randn(rows, inputs)) for rows, inputs, outputs in SHAPES]
        lowered = [(torch.nn.Linear(a, b).to(dtype), torch.randn(rows, a).to(dtype)) for rows, a, b in SHAPES]
        turns = [(seconds(layers), seconds(lowered)) for _ in range(1 + ROUNDS)][1:]  # the first one warms up
    return min(low for _, low in turns) / min(full for full, _ in turns)
