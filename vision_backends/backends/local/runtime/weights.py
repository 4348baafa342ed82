"""From the files of a checkpoint to a model whose weights are in memory.

This module decides how weights are read. It must not know where a model runs, nor what it computes. Transformers on its
own maps the files into memory: whoever cuts one kills this process (SIGBUS), and whoever overwrites one changes the
model under its name. So the weights are read here, tensor by tensor, and belong to the model alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from vision_backends.backends.local.hub.checkpoint import Checkpoint

__all__ = ["read_model"]


def read_model(
    checkpoint: Checkpoint, *, auto_class: str, dtype: torch.dtype, options: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """Return the model, in evaluation mode, and transformers' report on its weights.

    Args:
        checkpoint: What is read.
        auto_class: The class of transformers that chooses the model's, such as ``"AutoModel"``.
        dtype: The dtype of its weights.
        options: For every ``from_pretrained``.
    """
    import torch
    import transformers
    from safetensors import safe_open

    folder = str(checkpoint.folder)
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    with torch.device("meta"):  # without any memory, to learn the class
        kind: Any = type(getattr(transformers, auto_class).from_config(config, trust_remote_code=False))
    with ExitStack() as opened:
        files = [
            opened.enter_context(safe_open(path, framework="pt", backend="pread")) for path in checkpoint.weight_files
        ]
        weights = {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118 — it is no dict
        model, report = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True, **options
        )
    if model.can_generate():
        model.generation_config = _generation_config(folder, options)
    return model, report


def _generation_config(folder: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — a record of transformers
    """Return how a checkpoint's model writes, from the place where transformers looks for it."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder, **options)
    except OSError:  # older checkpoints say it beside all else
        return GenerationConfig.from_pretrained(folder, "config.json", _from_model_config=True, **options)
