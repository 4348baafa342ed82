"""The local rung as far as it goes in this version: its place on the ladder and its settings.

This module decides which models the rung will run. It must not pretend to run them: until the runtime is here,
every request is told so, and the next rung answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

from vision_backends.backends.base import Backend
from vision_backends.backends.requests import DetectRequest, Model
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from vision_backends.backends.requests import Request

__all__ = ["LocalBackend"]


class LocalBackend(Backend):
    """Hugging Face models on this machine; not ready in this version.

    Args:
        device: ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``.
        caption_model: Model or folder for descriptions.
        embedding_model: Model or folder for embeddings of images and texts.
        detection_model: Model or folder for COCO's objects.
        open_vocabulary_model: Model or folder for labels of any kind.
        download: When weights may be fetched.
    """

    name = "local"

    def __init__(
        self,
        *,
        device: Literal["auto", "cuda", "mps", "cpu"] = "auto",
        caption_model: str = "Salesforce/blip-image-captioning-base",
        embedding_model: str = "sentence-transformers/clip-ViT-B-32",
        detection_model: str = "ustc-community/dfine-small-coco",
        open_vocabulary_model: str = "IDEA-Research/grounding-dino-tiny",
        download: Literal["never", "background", "wait"] = "background",
    ) -> None:
        self._device = device
        self._download = download
        self._caption_model = caption_model
        self._embedding_model = embedding_model
        self._detection_model = detection_model
        self._open_vocabulary_model = open_vocabulary_model

    def model_for(self, request: Request) -> Model:
        """Return the configured model for a task."""
        if request.task == "describe":
            return Model(name=self._caption_model)
        if isinstance(request, DetectRequest):
            return Model(name=self._open_vocabulary_model if request.labels else self._detection_model)
        return Model(name=self._embedding_model, space=self._embedding_model)

    def check(self, request: Request) -> NoReturn:
        """Say that this version cannot run local models.

        Raises:
            NotReadyError: Always.
        """
        raise NotReadyError(
            f"This version does not run local models yet, so {self.model_for(request).name} cannot be asked.",
            backend=self.name,
            code="not_in_this_version",
        )
