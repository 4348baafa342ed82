"""What transformers reads beside the weights: the configuration, and what turns images and texts into a model's input.

This module decides how processors are made with PIL alone, without torchvision, which they require for videos, never
used here; and which file is to blame where one cannot be made. It must not know what a model is asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.checkpoint import TOKENIZERS, layout_of
from vision_backends.backends.local.hub.flaws import read_settings
from vision_backends.backends.local.runtime.loading_report import blamed_on
from vision_backends.backends.local.runtime.rf_detr import RfDetrImages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vision_backends.backends.local.hub.checkpoint import Checkpoint

__all__ = ["load_config", "load_processors"]

WORDS = (*TOKENIZERS, "tokenizer_config.json")
"""A checkpoint with any of these has a tokenizer."""


class NoVideos(dict[str, object]):
    """Takes the place of a processor's video processor, with nothing in it, even when the processor is serialised.

    Attributes:
        num_frames: As if not configured.
        fps: The same.
    """

    num_frames = None
    fps = None


def load_config(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — transformers' own
    """Return the configuration of a checkpoint's model, with the names that `Checkpoint.labels` has for its classes.

    Args:
        checkpoint: As it was read.
        options: For ``from_pretrained``.

    Raises:
        NotReadyError: It cannot be used.
    """
    import transformers

    library: Any = transformers  # some of it has no types
    with blamed_on(checkpoint, "config.json"):
        if not checkpoint.labels or checkpoint.kind not in library.CONFIG_MAPPING:
            return library.AutoConfig.from_pretrained(str(checkpoint.folder), **options)
        labels = dict(checkpoint.labels)
        names = {"id2label": labels, "label2id": {name: number for number, name in labels.items()}}
        return library.CONFIG_MAPPING[checkpoint.kind].from_dict({**checkpoint.config, **names})


def load_processors(
    checkpoint: Checkpoint,
    config: Any,  # noqa: ANN401 — the same
    options: Mapping[str, Any],
    *,
    chat: bool,
) -> tuple[Any, Any, Any]:
    """Return what reads a conversation, images and texts; None for what the checkpoint has not, or is not wanted.

    Args:
        checkpoint: As it was read.
        config: The configuration of its model.
        options: For every ``from_pretrained``.
        chat: Whether a conversation is to be read.

    Raises:
        NotReadyError: A file of them cannot be used.
    """
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer  # it has no types
    folder, processor, tokenizer = checkpoint.folder, None, None
    there = [name for name in WORDS if (folder / name).is_file()]
    if there:
        with blamed_on(checkpoint, " or ".join(there)):
            tokenizer = auto.from_pretrained(str(folder), **options)
    settings = next(name for name in layout_of("processor") if (folder / name).is_file())
    with blamed_on(checkpoint, settings):
        if chat:
            processor = _load_processor(folder, config, options)
        images = processor.image_processor if processor else _load_image_processor(folder, config, options)
    return processor, images, tokenizer


def _load_image_processor(folder: Path, config: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — the same
    """Return what prepares images for a checkpoint.

    Args:
        folder: Where its files are.
        config: The configuration of its model.
        options: For ``from_pretrained``.
    """
    from transformers import AutoImageProcessor

    if config.model_type == "rf_detr":
        return RfDetrImages(json.loads(read_settings(folder / "preprocessor_config.json")))
    auto: Any = AutoImageProcessor  # it has no types
    return auto.from_pretrained(folder, backend="pil", **options)


def _load_processor(folder: Path, config: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — transformers' own
    """Return a checkpoint's processor for images and texts.

    Args:
        folder: Where its files are.
        config: The configuration of its model.
        options: For every ``from_pretrained``.
    """
    import transformers

    library: Any = transformers  # some of it has no types
    kind = library.PROCESSOR_MAPPING.get(type(config), None)
    if kind is None or "video_processor" not in kind.get_attributes():
        return library.AutoProcessor.from_pretrained(folder, backend="pil", **options)
    parts = {
        "image_processor": _load_image_processor(folder, config, options),
        "tokenizer": library.AutoTokenizer.from_pretrained(folder, **options),
        "video_processor": NoVideos(),
    }
    settings, _ = kind.get_processor_dict(str(folder), **options)
    return _without_videos(kind).from_args_and_dict([parts[name] for name in kind.get_attributes()], settings)


def _without_videos(kind: Any) -> Any:  # noqa: ANN401 — a class of transformers
    """Return a subclass that accepts `NoVideos` as its video processor."""

    def check(self: Any, name: str, part: object) -> Any:  # noqa: ANN401 — transformers' own
        return type(part) if isinstance(part, NoVideos) else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
