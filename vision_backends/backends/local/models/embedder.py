"""Images and texts as vectors in one space, with any model that has two towers: CLIP, SigLIP, SigLIP 2.

This module decides how input reaches the towers and what leaves them. It must not know where models come from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.models.reading import AS_LETTERS, as_far_as_read
from vision_backends.backends.local.runtime.loaded_model import aspect
from vision_backends.errors import InvalidReplyError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    import torch

    from vision_backends.backends.local.runtime.loaded_model import Inputs, LoadedModel
    from vision_backends.backends.local.runtime.micro_batcher import Wanted
    from vision_backends.clock import Deadline
    from vision_backends.images import Image

    Floats = npt.NDArray[np.float32]

__all__ = ["Embedder"]

FIXED_LENGTH = ("siglip",)
"""Kinds whose texts were padded to full length in training: https://huggingface.co/docs/transformers/model_doc/siglip."""


LEAST_COSINE = 0.999

STEP = 16
"""Texts are padded to a multiple of this many tokens. The padding is masked."""


class Embedder:
    """The two towers of one model.

    Args:
        loaded: A model with ``get_image_features`` and ``get_text_features``.

    Raises:
        NotReadyError: It lacks one of the towers.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        from vision_backends.backends.local.runtime.parts import ImageFeatures

        if loaded.tokenizer is None or not hasattr(loaded.model, "get_text_features"):
            message = f"{loaded.checkpoint.name} has no text tower beside its image tower."
            raise NotReadyError(message, remedy="Configure a CLIP or SigLIP model as [local] embedding_model.")
        limits = (loaded.tokenizer.model_max_length, loaded.model.config.text_config.max_position_embeddings)
        self._longest = min(limits)
        self._image = loaded.part("image", ImageFeatures(loaded.model), agrees=_alike)
        self._fixed_length = loaded.checkpoint.kind.startswith(FIXED_LENGTH)

    async def embed_images(self, images: Sequence[Image], *, deadline: Deadline) -> list[Floats]:
        """Return a vector [D] of length 1 for each image.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: There was not enough memory, or the model was busy with other calls.
            TimedOutError: The deadline passed before the last image.
        """
        loaded = self.loaded
        return _finite(
            await loaded.ask(images, prepare=loaded.prepare, alike=aspect, run=self._image_features, deadline=deadline)
        )

    async def embed_texts(
        self, texts: Sequence[str], *, truncate: bool = False, deadline: Deadline
    ) -> list[tuple[Floats, str | None]]:
        """Return a vector [D] of length 1 for each text, and a sentence on what of it was not read, if anything.

        Errors as in `embed_images`.

        Raises:
            NotSupportedError: A text is too long for the model, and may not be cut.
        """
        unread: dict[str, str | None] = {}

        def read(text: str) -> Inputs:
            inputs, unread[text] = self._read(text, truncate=truncate)
            return inputs

        vectors = await self.loaded.ask(texts, prepare=read, alike=len, run=self._text_features, deadline=deadline)
        return [(vector, unread[text]) for text, vector in zip(texts, _finite(vectors), strict=True)]

    def _image_features(self, batch: Inputs, _options: object, _wanted: Wanted) -> list[Floats | None]:
        found = self._image(batch)
        return _unit_vectors(found[0] if found else self.loaded.model.get_image_features(**self.loaded.cast(batch)))

    def _read(self, text: str, *, truncate: bool) -> tuple[Inputs, str | None]:
        """Return a text's tokens, padded to one of a few lengths so that texts share batches, and what is not read."""
        tokenizer, longest = self.loaded.tokenizer, self._longest
        with self.loaded.reading:
            reading = as_far_as_read(tokenizer, text, longest=longest, truncate=truncate)
            length = longest if self._fixed_length else min(longest, math.ceil(reading.tokens / STEP) * STEP)
            options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
            inputs = tokenizer([reading.text], **options, **AS_LETTERS)
            return dict(inputs), reading.unread

    def _text_features(self, batch: Inputs, _options: object, _wanted: Wanted) -> list[Floats | None]:
        return _unit_vectors(self.loaded.model.get_text_features(**batch))


def _unit_vectors(features: Any) -> list[Floats | None]:  # noqa: ANN401 — a tensor, or a record around one
    """Return a vector [D] of length 1 per row, on the CPU; None for one that is all zeros or not finite."""
    import torch

    rows = getattr(features, "pooler_output", features).float().cpu()
    unit = rows / rows.norm(dim=-1, keepdim=True)
    fine = torch.isfinite(unit).all(dim=-1).tolist()
    return [vector.copy() if each else None for vector, each in zip(unit.numpy(), fine, strict=True)]


def _finite(vectors: Sequence[Floats | None]) -> list[Floats]:
    found = [vector for vector in vectors if vector is not None]
    if len(found) < len(vectors):
        raise InvalidReplyError("The model computed vectors of zeros, or that are not finite.", code="not_finite")
    return found


def _alike(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> bool:
    """Tell whether another engine's vectors can replace torch's: a cosine of at least 0.999."""
    from torch.nn.functional import cosine_similarity

    return bool(cosine_similarity(expected[0], found[0]).min() >= LEAST_COSINE)
