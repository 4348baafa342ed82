"""From the files of a checkpoint to a model whose weights are in memory.

This module decides how weights are read. It must not know where a model runs, nor what it computes. Transformers on its
own maps the files into memory: whoever cuts one kills this process (SIGBUS), and whoever overwrites one changes the
model under its name. So the weights are read here, tensor by tensor, and belong to the model alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.weights import find_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from vision_backends.backends.local.hub.checkpoint import Checkpoint

__all__ = ["read_model"]


def read_model(
    checkpoint: Checkpoint,
    config: Any,  # noqa: ANN401 — transformers' own
    auto: Any,  # noqa: ANN401 — the same
    *,
    dtype: torch.dtype,
    options: Mapping[str, Any],
) -> tuple[Any, Mapping[str, Any]]:
    """Return the model, in evaluation mode, and transformers' report on its weights.

    Args:
        checkpoint: What is read.
        config: Its configuration.
        auto: The class of transformers that chooses the model's, such as ``AutoModel``.
        dtype: The dtype of its weights.
        options: For every ``from_pretrained``.
    """
    import torch
    from safetensors import safe_open

    with torch.device("meta"):  # without any memory, to learn the class
        kind: Any = type(auto.from_config(config, trust_remote_code=False))
    with ExitStack() as opened:
        paths = find_weights(checkpoint.folder)
        files = [opened.enter_context(safe_open(path, framework="pt", backend="pread")) for path in paths]
        weights = {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118 — it is no dict
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported
            **options,
        )
    if model.can_generate():
        model.generation_config = _generation_config(str(checkpoint.folder), options)
    return model, report


def _generation_config(folder: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 — a record of transformers
    """Return how a checkpoint's model writes, from the place where transformers looks for it."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder, **options)
    except OSError:  # older checkpoints say it beside all else
        return GenerationConfig.from_pretrained(folder, "config.json", _from_model_config=True, **options)
