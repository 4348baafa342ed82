"""The precision in which a model computes: 32-bit floats, or 16-bit ones where the hardware has them and is faster.

This module decides the dtype per device and per kind of model. It must not know how models are loaded or run. On a CPU
the processor must have instructions for bfloat16, and a short measurement, made once and remembered, must show that
they pay off: emulated bfloat16 is several times slower than 32-bit floats. Vectors in bfloat16 keep a cosine of 0.9999
to those in 32-bit floats (CLIP ViT-B/32).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.local.runtime.tuning_cache import TuningCache, processor_name
from vision_backends.engine.machine_limits import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

__all__ = ["Dtype", "choose_dtype", "lower", "measure_share", "stays_whole"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What ``[local] dtype`` may be."""

MIXED = {
    "conditional_detr": ("backbone", "encoder"),
    "d_fine": ("backbone", "encoder"),
    "deformable_detr": ("backbone",),
    "detr": ("backbone", "encoder"),
    "lw_detr": ("backbone",),
    "owlv2": ("owlv2.vision_model.encoder", "owlv2.text_model.encoder"),
    "owlvit": ("owlvit.vision_model.encoder", "owlvit.text_model.encoder"),
    "rf_detr": ("backbone",),
    "rt_detr": ("backbone", "encoder"),
    "rt_detr_v2": ("backbone", "encoder"),
    "table-transformer": ("backbone", "encoder"),
    "yolos": ("vit",),
}
"""Kinds of detectors, with the parts that may compute in 16 bits, which are most of the work.

What comes after them computes the coordinates of boxes: a fraction of an image's side in 16 bits is off by up to 1/250.
Many kinds also sample the image at computed positions, for which that is too coarse, and where torch's ``grid_sample``
returns NaN on a CPU. A kind of detector that is not named here stays in 32 bits, and so does Grounding DINO, whose
image and text parts are interwoven."""

GAIN = 0.9
"""The largest fraction of the time in 32-bit floats at which 16-bit ones are worth their rounding errors."""

SHAPES = ((50, 768, 3072), (400, 768, 3072))
"""Rows, inputs and outputs of the linear layers that are timed: ViT-B/32's, for one image and a batch of 8."""

ROUNDS = 5


def choose_dtype(
    wanted: Dtype,
    *,
    device: str,
    tuning_cache: TuningCache,
    has_bfloat16: Callable[[str], bool] | None = None,
    measure: Callable[[torch.dtype], float] | None = None,
) -> torch.dtype:
    """Return the dtype to compute in.

    Args:
        wanted: As configured; ``"auto"`` decides by what the device supports and what is faster.
        device: Where, such as ``"cpu"``.
        tuning_cache: Where the measurement is kept.
        has_bfloat16: Tells whether a device supports bfloat16; by default torch is asked.
        measure: As `measure_share`, which is the default.
    """
    import torch

    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    real = (has_bfloat16 or _has_bfloat16)(device)
    if device == "cpu":
        return torch.bfloat16 if real and _pays(tuning_cache, measure or measure_share) else torch.float32
    return torch.bfloat16 if real else torch.float16


def _has_bfloat16(device: str) -> bool:
    """Tell whether a device has its own instructions to multiply bfloat16."""
    import torch

    if device.startswith("cuda"):
        with torch.cuda.device(device):  # torch tells about the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False  # only the newest of Apple's chips and systems have them; all have float16
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    older = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # before torch 2.11
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") or older())


def stays_whole(kind: str) -> bool:
    """Tell whether a kind of model may compute in one dtype throughout: any but detectors."""
    from transformers.models.auto import modeling_auto

    closed, opened = (
        getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")
        for task in ("OBJECT_DETECTION", "ZERO_SHOT_OBJECT_DETECTION")
    )
    return kind not in MIXED and kind not in closed and kind not in opened


def lower(model: Any, *, kind: str, dtype: torch.dtype) -> str:  # noqa: ANN401 — any model of transformers
    """Let a model compute in another dtype, as far as its kind allows.

    Returns:
        What it computes in, such as ``"bfloat16"`` or ``"bfloat16+float32"``.
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    if stays_whole(kind):
        _lower_weights(model, dtype)
        return name
    if dtype == torch.float32 or kind not in MIXED:
        return "float32"
    inner = getattr(model, "model", model)
    for part in map(inner.get_submodule, MIXED[kind]):
        _lower_weights(part, dtype)
        _translate(part, into=dtype, out=torch.float32)
    return f"{name}+float32"


def _lower_weights(module: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 — torch has no types
    """Convert weights to another dtype, as transformers does when it loads them in it.

    Buffers that are computed rather than loaded keep theirs, such as the angles that encode positions: in 16 bits,
    those of distant tokens stand for other positions.
    """
    import torch

    whole = set(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        whole |= set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for path, part in module.named_modules():
        loaded = {name for name in part._buffers if name not in part._non_persistent_buffers_set}  # noqa: SLF001
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            is_weight = name in loaded or isinstance(tensor, torch.nn.Parameter)
            if is_weight and tensor.is_floating_point() and whole.isdisjoint([*path.split("."), name]):
                tensor.data = tensor.data.to(dtype)


def _translate(module: Any, *, into: torch.dtype, out: torch.dtype) -> None:  # noqa: ANN401 — torch has no types
    """Cast the floats that enter a module to its dtype, and those that leave it to another."""

    def enter(_module: object, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return _cast(positional, into), _cast(named, into)

    def leave(_module: object, _inputs: object, outputs: Any) -> Any:  # noqa: ANN401 — whatever it returns
        return _cast(outputs, out)

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave)


def _cast(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 — nested as the module likes
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


def _pays(tuning_cache: TuningCache, measure: Callable[[torch.dtype], float]) -> bool:
    """Tell whether bfloat16 is faster here: measured in 0.1 s, once per processor, torch version and thread count."""
    import torch

    state = {
        "processor": processor_name(),
        "cores": processors(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }
    known = tuning_cache.read("bfloat16", state=state)
    share = None if known is None else known.get("share")
    if not isinstance(share, float) or not 0.0 < share < math.inf:
        share = measure(torch.bfloat16)
        tuning_cache.write("bfloat16", {"share": share}, state=state)
    return share <= GAIN


def measure_share(dtype: torch.dtype, *, now: Callable[[], float] = time.perf_counter) -> float:
    """Return how long linear layers take in a dtype, as a fraction of the time in 32-bit floats.

    The two take turns, and the fastest round of each counts, so that a busy moment affects both.

    Args:
        dtype: The dtype to compare.
        now: The clock, in seconds.
    """
    import torch

    def seconds(work: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
        started = now()
        for states, weights in work:
            torch.nn.functional.linear(states, weights)
        return now() - started

    with torch.inference_mode():  # ones: random state is the application's, and loads swap the initialisers
        work = [(torch.ones(rows, inputs), torch.ones(outputs, inputs)) for rows, inputs, outputs in SHAPES]
        lowered = [(states.to(dtype), weights.to(dtype)) for states, weights in work]
        turns = [(seconds(work), seconds(lowered)) for _ in range(1 + ROUNDS)][1:]  # the first one warms up
    return min(low for _, low in turns) / min(full for full, _ in turns)
