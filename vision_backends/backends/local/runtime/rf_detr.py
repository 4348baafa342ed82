"""Images for RF-DETR, whose own processor requires torchvision: scaled without antialiasing, as in its training.

This module decides what RF-DETR sees, and how its answers are read. It must not know who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from PIL import Image as PILImage

__all__ = ["RfDetrImages"]

INTERPOLATION = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for resampling filters, and torch's names for them."""


class RfDetrImages:
    """Does what RfDetrImageProcessor of transformers does, to one image after another.

    Args:
        settings: The content of ``preprocessor_config.json``.

    Raises:
        NotReadyError: It expects images of varying size, which no published model does.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        size = settings.get("size", {})
        if "height" not in size or "width" not in size:
            message = f"This RF-DETR expects images of the size {size}, not of one height and width."
            raise NotReadyError(message, remedy="Configure another model as [local] detection_model.")
        self._size = (size["height"], size["width"])
        self._mode = INTERPOLATION[settings.get("resample", 2)]
        self._factor = settings.get("rescale_factor", 1 / 255)
        self._mean = settings.get("image_mean", [0.485, 0.456, 0.406])
        self._std = settings.get("image_std", [0.229, 0.224, 0.225])

    def __call__(self, *, images: Sequence[PILImage.Image], return_tensors: str = "pt") -> dict[str, torch.Tensor]:
        """Return the model's input [N, 3, H, W] for RGB images; always as torch tensors."""
        import torch

        del return_tensors
        return {"pixel_values": torch.stack([self._prepared(image) for image in images])}

    def post_process_object_detection(
        self,
        outputs: Any,  # noqa: ANN401 — any record
        *,
        threshold: float,
        target_sizes: Sequence[tuple[int, int]],
    ) -> Any:  # noqa: ANN401 — as transformers returns it
        """Return labels, scores and boxes in pixels: the best pairs of a query and a class, as many as queries."""
        from transformers import DeformableDetrImageProcessorPil

        return DeformableDetrImageProcessorPil().post_process_object_detection(
            outputs, threshold=threshold, target_sizes=list(target_sizes), top_k=outputs.logits.shape[1]
        )

    def _prepared(self, image: PILImage.Image) -> torch.Tensor:
        import numpy as np
        import torch
        from torch.nn.functional import interpolate

        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() * self._factor
        smooth = {} if self._mode.startswith("nearest") else {"align_corners": False}
        scaled = interpolate(pixels[None], self._size, mode=self._mode, **smooth)[0]
        mean, std = (torch.tensor(three, dtype=torch.float32)[:, None, None] for three in (self._mean, self._std))
        return (scaled - mean) / std
