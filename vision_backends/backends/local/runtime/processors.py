"""What turns images and texts into a model's input, with PIL alone.

This module decides how transformers' processors are made without torchvision, which they require for videos, never used
here. It must not know what a model is asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.checkpoint import read_settings
from vision_backends.backends.local.runtime.rf_detr import RfDetrImages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["load_image_processor", "load_processor"]


class NoVideos(dict[str, object]):
    """Takes the place of a processor's video processor, with nothing in it, even when the processor is serialised.

    Attributes:
        num_frames: As if not configured.
        fps: The same.
    """

    num_frames = None
    fps = None


def load_image_processor(folder: Path, config: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — the same
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


def load_processor(folder: Path, config: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — transformers' own
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
        "image_processor": load_image_processor(folder, config, options),
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
