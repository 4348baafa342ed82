"""The parts of models that an engine other than torch can compute: tensors in, tensors out, no choices inside.

This module decides where a model is cut. It must not know what computes the parts. It imports torch, so it must itself
be imported only when a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Tensors = tuple[torch.Tensor, ...]
    Compute = Callable[..., Tensors]

__all__ = ["Boxes", "ImageFeatures", "Part", "VisionStates"]


class ImageFeatures(nn.Module):
    """The image tower of CLIP and similar models: pixels [B, 3, H, W] to features [B, D], not normalised."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 — any model of transformers
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        features = self.model.get_image_features(pixel_values=pixel_values)
        found: torch.Tensor = getattr(features, "pooler_output", features)
        return found


class VisionStates(nn.Module):
    """BLIP's image tower: pixels [B, 3, H, W] to what its text decoder attends to [B, patches + 1, D]."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 — the same
        super().__init__()
        self.vision = model.vision_model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states."""
        states: torch.Tensor = self.vision(pixel_values=pixel_values).last_hidden_state
        return states


class Boxes(nn.Module):
    """A detector: pixels [B, 3, H, W] to logits [B, Q, C] and boxes as fractions of the image [B, Q, 4]."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 — the same
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and boxes."""
        outputs = self.model(pixel_values=pixel_values)
        return outputs.logits, outputs.pred_boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that an engine can compute.

    Attributes:
        name: Its name within its model, such as ``"image"``.
        module: Computes it in torch in 32-bit floats; takes one tensor [B, …] and returns one or more.
        example: An input like those to come, with B = 1.
        agrees: Whether results of another engine are as good as torch's.
    """

    name: str
    module: Any
    example: torch.Tensor
    agrees: Callable[[Tensors, Tensors], bool]
