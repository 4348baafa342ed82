"""Images and texts as vectors of one space, by any model with two towers: CLIP, SigLIP, SigLIP 2.

This module decides how input reaches the towers and what leaves them. It must not know where models come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.runtime import check_finite
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.local.runtime import Countdown, Loaded

    Floats = npt.NDArray[np.float32]

__all__ = ["Embedder"]

FIXED_LENGTH = ("siglip",)
"""Kinds whose texts were padded to full length in training: https://huggingface.co/docs/transformers/model_doc/siglip."""


class Embedder:
    """The two towers of one model.

    Args:
        loaded: A model with ``get_image_features`` and ``get_text_features``.

    Raises:
        NotReadyError: It has not both towers.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        if loaded.tokenizer is None or not hasattr(loaded.model, "get_text_features"):
            message = f"{loaded.checkpoint.name} has no tower for texts beside that for images."
            raise NotReadyError(message, remedy="Configure a CLIP or SigLIP model as [local] embedding_model.")

    def embed_images(self, images: Sequence[PILImage.Image], *, time: Countdown) -> list[Floats]:
        """Return a vector [D] of length 1 for each RGB image.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: The memory or the time to get hold of the model was not enough.
            TimedOutError: The time was over before the last image.
        """
        prepared = [self.loaded.prepare(image) for image in images]
        vectors: dict[int, Floats] = {}
        for numbers, batch in self.loaded.batches(prepared):
            with self.loaded.alone(time=time):
                found = _normalised(self.loaded.model.get_image_features(**batch))
            vectors |= dict(zip(numbers, found, strict=True))
        return [vectors[number] for number in range(len(images))]

    def embed_texts(self, texts: Sequence[str], *, time: Countdown) -> list[Floats]:
        """Return a vector [D] of length 1 for each text; what is longer than the model reads is cut off.

        Errors as in `embed_images`.
        """
        loaded = self.loaded
        longest = min(loaded.tokenizer.model_max_length, loaded.model.config.text_config.max_position_embeddings)
        padding = "max_length" if loaded.checkpoint.kind.startswith(FIXED_LENGTH) else "longest"
        with loaded.alone(time=time):
            inputs = loaded.tokenizer(
                list(texts), padding=padding, truncation=True, max_length=longest, return_tensors="pt"
            )
            return _normalised(loaded.model.get_text_features(**inputs.to(loaded.device)))


def _normalised(features: Any) -> list[Floats]:  # noqa: ANN401 — a tensor, or a record around one
    vectors = getattr(features, "pooler_output", features)
    check_finite(vectors, what="vectors")
    vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    return list(vectors.cpu().numpy())
