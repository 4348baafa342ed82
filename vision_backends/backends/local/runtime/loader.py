"""From a checkpoint to a model in memory: a device, the weights, and what prepares the model's input.

This module decides how transformers is told to load. It must not know what any model computes.

Models run with the attention that transformers chooses (sdpa where the model has it). Torch's process-wide settings,
such as the matmul precision, belong to the application and are left as they are, with one exception: for a fraction of
a second, while transformers builds a 16-bit model, torch's default dtype for new tensors is a 16-bit one.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.runtime.engines import EngineName, Engines, may_convert
from vision_backends.backends.local.runtime.precision import Dtype, choose_dtype, stays_whole
from vision_backends.backends.local.runtime.torch_environment import (
    free_device_memory,
    limit_threads,
    quiet,
    translated,
)
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.local.runtime.weights import read_model
from vision_backends.engine.threads import after_fork_in_child, make_lock
from vision_backends.errors import ConfigError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Hashable

    import torch

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.runtime.loaded_model import LoadedModel

__all__ = ["BATCH", "LoaderSettings", "Placement", "load", "placement_for", "was_forked_while_loading"]

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

BATCH = 8
"""Inputs per batch; a larger one gains little on a CPU, and a caller waits for all of it."""


class _Loading:
    """The lock that is held while a model is loaded.

    Attributes:
        was_forked: Whether this process was forked while another thread held it: the locks of the modules that it was
            importing, and those of torch, are held for ever here.
    """

    def __init__(self) -> None:
        self._lock = make_lock()
        self._is_held = False
        self.was_forked = False
        after_fork_in_child(self, _Loading._after_fork)

    def _after_fork(self) -> None:
        self.was_forked = self.was_forked or self._is_held
        self._lock = make_lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False
        self._lock.release()


_loading = _Loading()
"""One load at a time in the whole process: transformers swaps torch's global initialisers while it loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings:
    """How models are loaded and run, as configured.

    Attributes:
        device: As configured: ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:<n>"``.
        dtype: As configured.
        engine: As configured.
        threads: Threads per model; None for as many as torch has, and no more than there are processors.
        max_queue: Inputs that may wait for one model.
        max_memory_bytes: Most memory that one model may take; None for what is free.
        tuning_cache: Where measurements of this machine are kept.

    Raises:
        ConfigError: A value is not valid.
    """

    device: str = "auto"
    dtype: Dtype = "auto"
    engine: EngineName = "auto"
    threads: int | None = None
    max_queue: int = 64
    max_memory_bytes: int | None = None
    tuning_cache: TuningCache = field(default_factory=TuningCache)

    @property
    def shared_by(self) -> Hashable:
        """What two rungs have in common that can share one loaded model, beside its placement."""
        return self.engine, self.dtype == "float32", self.threads, self.max_queue, self.tuning_cache.configured

    def __post_init__(self) -> None:
        if not DEVICE.fullmatch(self.device):
            valid = '"auto", "cpu", "mps", "cuda" or "cuda:<number>"'
            raise ConfigError(f"[local] has a bad value for 'device': {self.device!r}.", remedy=f"Write {valid}.")
        least_one = {"threads": self.threads, "max_queue": self.max_queue, "max_memory_bytes": self.max_memory_bytes}
        for name, value in least_one.items():
            if value is not None and value < 1:
                raise ConfigError(f"[local] {name} = {value} is less than 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one model runs, and in which dtype.

    Attributes:
        device: Such as ``"cuda:1"``.
        dtype: The dtype that torch is to compute in, as far as this kind of model allows.
        loaded_as: The dtype in which the weights are loaded.
        converted: Whether another engine may convert parts of it, for which they have to be 32-bit floats.
    """

    device: str
    dtype: torch.dtype
    loaded_as: torch.dtype
    converted: bool


def placement_for(checkpoint: Checkpoint, settings: LoaderSettings, *, has_parts: bool) -> Placement:
    """Return where a model will run, and limit the calling thread to the model's number of threads.

    Args:
        checkpoint: What will be loaded.
        settings: What is configured.
        has_parts: Whether another engine could compute parts of it.

    Raises:
        NotReadyError: There is no such device.
    """
    with _loading, translated(checkpoint.name, error=NotReadyError):
        import torch

        limit_threads(settings.threads)
        device = _choose_device(torch, settings.device)
        dtype = choose_dtype(settings.dtype, device=device, tuning_cache=settings.tuning_cache)
        converted = has_parts and may_convert(settings.engine, device=device)
        at_once = stays_whole(checkpoint.kind) and not converted
        return Placement(device=device, dtype=dtype, loaded_as=dtype if at_once else torch.float32, converted=converted)


def was_forked_while_loading() -> bool:
    """Return whether this process was forked while a model was being loaded, so that it can load none itself."""
    return _loading.was_forked


def load(
    checkpoint: Checkpoint, placement: Placement, *, auto_class: str, settings: LoaderSettings, chat: bool = False
) -> LoadedModel:
    """Load a checkpoint from its folder: only safetensors, no code from the checkpoint, no network.

    Call `LoadedModel.settle` once its parts have been converted.

    Args:
        checkpoint: As `read_checkpoint` returned it.
        placement: As `placement_for` returned it.
        auto_class: The transformers class that loads it, such as ``"AutoModel"``.
        settings: What is configured.
        chat: Whether to load the processor with its chat template as well.

    Raises:
        NotReadyError: It cannot be loaded, or its weights are not those of its configuration.
        OverloadedError: There was not enough memory.
    """
    from vision_backends.backends.local.runtime.loaded_model import LoadedModel
    from vision_backends.backends.local.runtime.loading_report import blamed_on, check_weights
    from vision_backends.backends.local.runtime.micro_batcher import MicroBatcher
    from vision_backends.backends.local.runtime.processors import load_config, load_processors

    options = {"local_files_only": True, "trust_remote_code": False}
    with _loading, translated(checkpoint.name, error=NotReadyError):
        import torch
        import transformers

        with quiet():
            config = load_config(checkpoint, options)
            processor, images, tokenizer = load_processors(checkpoint, config, options, chat=chat)
            auto = getattr(transformers, auto_class)
            fits = type(config) in auto._model_mapping  # noqa: SLF001 — there is no public way to ask
            with blamed_on(checkpoint, "config.json", code="inconsistent") if fits else nullcontext():
                model, report = read_model(checkpoint, config, auto, dtype=placement.loaded_as, options=options)
            check_weights(checkpoint, model, report)
        return LoadedModel(
            checkpoint=checkpoint,
            model=model.eval().requires_grad_(requires_grad=False).to(placement.device),
            image_processor=images,
            tokenizer=tokenizer,
            processor=processor,
            device=placement.device,
            dtype=placement.dtype,
            numbers=str(placement.loaded_as).removeprefix("torch."),
            engines=Engines(
                settings.engine,
                device=placement.device,
                threads=torch.get_num_threads(),
                full=settings.dtype == "float32",
                tuning_cache=settings.tuning_cache,
            ),
            batcher=MicroBatcher(
                checkpoint.name,
                max_batch=BATCH,
                max_waiting=settings.max_queue,
                begin=partial(limit_threads, settings.threads),
                free=free_device_memory,
            ),
        )


def _choose_device(torch: Any, wanted: str) -> str:  # noqa: ANN401 — the module
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = wanted.partition(":")
    there = torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count() if kind == "cuda" else True
    if not there or (kind == "mps" and not torch.backends.mps.is_available()):
        message = f"This machine, or this build of torch, has no device {wanted!r}."
        raise NotReadyError(message, remedy='Set [local] device = "auto".', code="no_device")
    return wanted
