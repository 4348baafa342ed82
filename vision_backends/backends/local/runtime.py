"""Running any loaded model: one caller at a time, within its time, and with trouble named as ours.

This module decides how models are run and how the exceptions of torch and transformers are named. It must not know
what any model computes, nor how it came into memory.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vision_backends.errors import (
    BackendError,
    CallerError,
    InvalidReplyError,
    NotReadyError,
    OverloadedError,
    TimedOutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from PIL import Image as PILImage

    from vision_backends.backends.local.checkpoint import Checkpoint
    from vision_backends.clock import Clock

__all__ = [
    "Countdown",
    "Loaded",
    "check_finite",
    "check_packages",
    "free_device_memory",
    "translated",
]

NEEDED = ("torch", "transformers", "huggingface_hub", "safetensors")
INSTALL = "pip install 'vision-backends[local]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in memory, with what prepares its input.

    Attributes:
        checkpoint: What was loaded.
        model: The model, in evaluation mode.
        image_processor: Turns PIL images into arrays.
        tokenizer: Turns texts into numbers; None where the checkpoint has none.
        processor: Both in one, for models with a chat template.
        device: Where it runs.
        lock: To be held while the model or its tokenizer runs.
    """

    checkpoint: Checkpoint
    model: Any
    image_processor: Any
    tokenizer: Any
    processor: Any
    device: str
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and buffers."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @contextmanager
    def alone(self, *, time: Countdown) -> Iterator[None]:
        """Run the model in this block, nobody else beside.

        Raises:
            TimedOutError: The time was over before.
            OverloadedError: Others held the model for all that time, or the memory was not enough.
            UnavailableError: torch or transformers failed.
        """
        import torch

        left_s = time.left_s()
        if not self.lock.acquire(timeout=left_s):
            raise OverloadedError(f"Others kept the model busy for {left_s:.3g} s.")
        try:
            with translated(self.checkpoint.name), torch.inference_mode():
                yield
        finally:
            self.lock.release()

    def prepare(self, image: PILImage.Image) -> dict[str, torch.Tensor]:
        """Return the model's input for one image, a batch of 1; runs beside the model, in the caller's thread."""
        with translated(self.checkpoint.name):
            return dict(self.image_processor(images=[image], return_tensors="pt"))

    def batches(
        self, prepared: Sequence[dict[str, torch.Tensor]]
    ) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Yield inputs of one shape as one batch on the model's device, with the places that they had.

        Nothing is padded to the size of its neighbours: so no answer depends on what else was asked with it.
        """
        import torch

        shapes: defaultdict[Any, list[int]] = defaultdict(list)
        for number, inputs in enumerate(prepared):
            shapes[inputs["pixel_values"].shape].append(number)
        for numbers in shapes.values():
            keys = prepared[numbers[0]]
            yield numbers, {key: torch.cat([prepared[n][key] for n in numbers]).to(self.device) for key in keys}


class Countdown:
    """The time that one call has.

    Args:
        timeout_s: How much that is.
        clock: Where time comes from.
    """

    def __init__(self, timeout_s: float, *, clock: Clock) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimedOutError: None are.
        """
        left_s = self._ends - self._clock.monotonic()
        if left_s <= 0:
            raise TimedOutError("The time was over before the model had done its work.")
        return left_s


def check_packages() -> None:
    """Return if everything is installed; imports nothing.

    Raises:
        NotReadyError: Something is missing; names the command.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        message = f"Not installed, but needed by local models: {', '.join(missing)}."
        raise NotReadyError(message, remedy=f"Run: {INSTALL}", code="missing_packages")


def check_finite(tensor: torch.Tensor, *, what: str) -> None:
    """Return if all numbers are finite.

    Raises:
        InvalidReplyError: The model computed infinities or NaN.
    """
    import torch

    if not bool(torch.isfinite(tensor).all()):
        raise InvalidReplyError(f"The model computed {what} that are not finite numbers.", code="not_finite")


def free_device_memory() -> None:
    """Return what torch keeps for itself on a GPU after models were dropped."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def translated(name: str, *, error: type[BackendError] = UnavailableError) -> Iterator[None]:
    """Name the exceptions of torch and transformers by this package's errors.

    Args:
        name: What was being run, for messages.
        error: What to raise for anything but a shortage of memory.
    """
    try:
        yield
    except (BackendError, CallerError):
        raise
    except Exception as cause:  # third parties raise whatever they like
        what = f"{name}: {type(cause).__name__}: {' '.join(str(cause).split())[:500]}"
        if _is_shortage(cause):
            raise OverloadedError(f"The memory was not enough for {what}", code="out_of_memory") from cause
        raise error(f"transformers failed on {what}") from cause


def _is_shortage(error: Exception) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text))
    )
