"""Weights in the order in which oneDNN reads them, where that is faster on this processor.

This module decides which linear layers are replaced. It must not know what any model computes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["prepack"]

SAMPLES = 4
"""How many of the largest layers are measured: together they are more than a processor's cache holds."""

MOST_ROWS = 128
"""As many rows are measured at most: more take longer, and compare no differently."""

ROUNDS = 3
GAIN = 1.05
"""What the clock has to say at least for the faster way: below that it may be noise, and packed weights cannot be
shared with an embedding that uses the same table."""


def prepack(module: nn.Module, *, rows: Sequence[int], clock: Callable[[], float] = time.perf_counter) -> bool:
    """Replace the linear layers of a module by packed ones, if these are faster here.

    That is measured on its largest layers, which takes a fraction of a second. Results are the same but for rounding.
    Weights can no longer be read from a packed layer, nor can it be moved or saved.

    Args:
        module: In evaluation mode; changed in place.
        rows: Numbers of rows [rows, in] that its layers mostly get at once.
        clock: Where time comes from, in seconds.

    Returns:
        Whether they were replaced.
    """
    found = [(part, name, layer) for part in module.modules() for name, layer in part.named_children()]
    linears = [(part, name, layer) for part, name, layer in found if isinstance(layer, nn.Linear) and _packs(layer)]
    if not linears or not _is_faster([layer for _, _, layer in linears], rows, clock):
        return False
    for part, name, layer in linears:
        part.register_module(name, _Packed(layer, max(rows)))
    return True


class _Packed(nn.Module):
    """A linear layer whose weights only oneDNN can read.

    Args:
        linear: The layer.
        rows: How many rows it is to be best at; it takes any number.

    Raises:
        RuntimeError: This processor lacks the instructions for such weights.
    """

    bias: torch.Tensor | None
    weight: torch.Tensor

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)  # noqa: SLF001 — no other way
        self.register_buffer("bias", getattr(linear.bias, "data", None), persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return [..., out] for [..., in]."""
        pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 — the same
        found: torch.Tensor = pointwise(states, self.weight, self.bias, "none", [], "")
        return found


def _packs(layer: nn.Linear) -> bool:
    """Tell whether it is a linear layer and nothing more: what is derived from one may have its weights read."""
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    weight = layer.weight
    return there and type(layer) is nn.Linear and weight.device.type == "cpu" and weight.is_floating_point()


@torch.inference_mode()
def _is_faster(linears: Sequence[nn.Linear], rows: Sequence[int], clock: Callable[[], float]) -> bool:
    plain = sorted(linears, key=lambda linear: linear.weight.numel(), reverse=True)[:SAMPLES]
    try:
        packed = [_Packed(linear, max(rows)) for linear in plain]
    except RuntimeError:
        return False
    inputs = [
        torch.ones(min(count, MOST_ROWS), linear.in_features).to(linear.weight.dtype)
        for linear in plain
        for count in rows
    ]

    def took_s(layers: Sequence[nn.Module]) -> float:
        began = clock()
        for number, states in enumerate(inputs):
            layers[number // len(rows)](states)
        return clock() - began

    times_s = [(took_s(plain), took_s(packed)) for _ in range(1 + ROUNDS)][1:]  # the first one warms up
    plain_s, packed_s = (min(each) for each in zip(*times_s, strict=True))
    return bool(plain_s > GAIN * packed_s)
