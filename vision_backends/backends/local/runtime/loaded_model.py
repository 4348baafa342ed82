"""Running any loaded model: inputs are prepared beside it, and batches keep to every caller's deadline.

This module decides how input reaches a model. It must not know what any model computes, how it was loaded, nor who is
served when (`micro_batcher` does).
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from vision_backends.backends.local.runtime.engines import PartRunner
from vision_backends.backends.local.runtime.micro_batcher import Job
from vision_backends.backends.local.runtime.parallel_map import ParallelMap
from vision_backends.backends.local.runtime.picture_shapes import fitted
from vision_backends.backends.local.runtime.precision import lower, stays_whole
from vision_backends.backends.local.runtime.torch_environment import quiet, translated
from vision_backends.clock import count
from vision_backends.errors import UNREADABLE_INPUT, NotSupportedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import torch
    from PIL import Image as PILImage

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.runtime.engines import Engines
    from vision_backends.backends.local.runtime.micro_batcher import MicroBatcher, Wanted
    from vision_backends.backends.local.runtime.parts import Tensors
    from vision_backends.clock import Deadline
    from vision_backends.errors import BackendError
    from vision_backends.images import Image

    Inputs = dict[str, torch.Tensor]
    Run = Callable[[Inputs, Any, Wanted], Sequence[Any]]

__all__ = ["LoadedModel", "aspect"]

PADDED_TO_SQUARES = frozenset({"owlv2"})
"""Kinds whose processors pad a picture before they scale it."""

AHEAD = 1
"""Batches of one caller that are queued while another runs: enough to keep the model busy."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, kw_only=True)
class LoadedModel:
    """A model in memory, with what prepares its input and the batcher that its callers share.

    Attributes:
        checkpoint: What was loaded.
        model: The model, in evaluation mode.
        image_processor: Turns PIL images into arrays.
        tokenizer: Turns texts into tokens; None where the checkpoint has none.
        processor: Both in one, for models with a chat template.
        device: Where it runs.
        dtype: The dtype that torch is to compute in, as far as this kind of model allows.
        numbers: The dtype that it does compute in, such as ``"float32"``.
        engines: Chooses the engine for each of its parts.
        batcher: Where its callers wait.
        reading: To be held while the tokenizer works, which is not thread-safe.
        parts: Parts that an engine other than torch may compute, by name.
    """

    checkpoint: Checkpoint
    model: Any
    image_processor: Any
    tokenizer: Any
    processor: Any
    device: str
    dtype: torch.dtype
    numbers: str
    engines: Engines
    batcher: MicroBatcher
    reading: threading.Lock = field(default_factory=threading.Lock)
    parts: dict[str, PartRunner] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and buffers."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def part(self, name: str, module: Any, *, agrees: Callable[[Tensors, Tensors], bool]) -> PartRunner:  # noqa: ANN401
        """Return what computes a part of the model, if an engine other than torch does that here.

        Args:
            name: Its name within the model.
            module: Computes it in torch, from pixels.
            agrees: Whether results of another engine are as good as torch's.
        """
        from PIL import Image as PILImage

        from vision_backends.backends.local.runtime.parts import Part

        side = self.checkpoint.input_px or 224
        noise = PILImage.effect_noise((side, side), 64).convert("RGB")
        example = dict(self.image_processor(images=[noise], return_tensors="pt"))
        if set(example) == {"pixel_values"}:
            part = Part(name=name, module=module.eval(), example=example["pixel_values"], agrees=agrees)
            with quiet():
                self.parts[name] = self.engines.runner(part, self.checkpoint)
        else:
            self.parts[name] = PartRunner(None, engine="torch")
        return self.parts[name]

    def settle(self) -> None:
        """Let torch compute in the chosen dtype; no part can be converted after this."""
        self.numbers = lower(self.model, kind=self.checkpoint.kind, dtype=self.dtype)

    def cast(self, batch: Inputs) -> Inputs:
        """Return a batch in the dtype that the model takes."""
        if not stays_whole(self.checkpoint.kind):
            return batch
        return {key: each.to(self.dtype) if each.is_floating_point() else each for key, each in batch.items()}

    def pixels(self, image: Image) -> PILImage.Image:
        """Return the image at the scale that the model needs, in a shape that its processor can take."""
        crops = bool(getattr(self.image_processor, "do_center_crop", False))
        pads = self.checkpoint.kind in PADDED_TO_SQUARES
        reshaped = partial(fitted, input_px=self.checkpoint.input_px, crops=crops, pads=pads)
        return image.rgb(min_side_px=self.checkpoint.image_px, reshaped=reshaped)

    def prepare(self, image: Image) -> Inputs:
        """Return the model's input for one image, a batch of 1."""
        return dict(self.image_processor(images=[self.pixels(image)], return_tensors="pt"))

    def map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        *,
        error: Callable[[str], BackendError] = UnavailableError,
        deadline: Deadline,
    ) -> ParallelMap[T, R]:
        """Start applying a function to items in threads beside the model, and translate what it raises."""

        def call(item: T) -> R:
            with translated(self.checkpoint.name, error=error):
                return function(item)

        return ParallelMap(call, items, deadline=deadline)

    async def ask(
        self,
        items: Sequence[T],
        *,
        prepare: Callable[[T], Inputs],
        alike: Callable[[T], float],
        run: Run,
        options: Hashable = None,
        deadline: Deadline,
    ) -> list[Any]:
        """Return the result of each item, computed together with waiting items of other callers.

        While the model works on one batch, the next is prepared. Inputs are never padded to the size of their
        neighbours: only those of one shape share a batch, so no answer depends on what else was asked with it.
        A cancelled caller withdraws what has not started.

        Args:
            items: Anything.
            prepare: Turns one into the model's input, a batch of 1; called in threads, for several simultaneously.
            alike: A number that is the same for items whose inputs will have one shape; they are taken in this order.
            run: Computes one result for each row of a batch.
            options: What else the results depend on; passed to ``run``.
            deadline: When to stop.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            NotSupportedError: An item cannot be turned into the model's input.
            OverloadedError: There was not enough memory, or the queue is too long for the time that is left.
            TimedOutError: The deadline passed before the last result.
        """
        results: list[Any] = [None] * len(items)
        under_way: deque[tuple[list[int], Job]] = deque()

        async def collect(most: int) -> None:
            while len(under_way) > most:
                numbers, job = under_way[0]
                for number, result in zip(numbers, await self.batcher.collect(job), strict=True):
                    results[number] = result
                count("queue", job.queue_s or 0.0)
                count("model", job.model_s)
                under_way.popleft()

        def begin(numbers: Sequence[int]) -> ParallelMap[T, Inputs]:
            return self.map(prepare, [items[number] for number in numbers], error=_not_prepared, deadline=deadline)

        order = sorted(range(len(items)), key=lambda number: alike(items[number]))
        size = self.batcher.max_batch
        groups = [order[start : start + size] for start in range(0, len(items), size)]
        coming = begin(groups[0] if groups else [])
        try:
            for group, following in zip(groups, [*groups[1:], []], strict=False):
                inputs = await coming.results()
                count("decode", coming.seconds)
                if following:
                    coming = begin(following)
                for shape, places in _by_shape(inputs).items():
                    await collect(AHEAD)
                    job = Job(
                        key=(run, options, shape),
                        run=partial(self._run, run, options),
                        inputs=[inputs[place] for place in places],
                        deadline=deadline,
                    )
                    under_way.append(([group[place] for place in places], self.batcher.submit(job)))
            await collect(0)
        finally:
            coming.cancel()
            for _, job in under_way:
                self.batcher.leave(job)
        return results

    def _run(self, run: Run, options: Hashable, inputs: Sequence[Inputs], wanted: Wanted) -> Sequence[Any]:
        """Compute one batch; in the batcher's thread."""
        import torch

        with translated(self.checkpoint.name), torch.inference_mode():
            batch = {key: torch.cat([each[key] for each in inputs]).to(self.device) for key in inputs[0]}
            return run(batch, options, wanted)


def _not_prepared(message: str) -> NotSupportedError:
    """Return the error for an input that no input of the model can be made of: it is to blame, not the model."""
    return NotSupportedError(message, code=UNREADABLE_INPUT)


def _by_shape(inputs: Sequence[Inputs]) -> dict[Hashable, list[int]]:
    """Return the indices of the inputs that have the same names, shapes and dtypes, in groups."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, each in enumerate(inputs):
        places[tuple((key, tuple(tensor.shape), tensor.dtype) for key, tensor in sorted(each.items()))].append(place)
    return places


def aspect(image: Image) -> float:
    """Return the aspect ratio, which decides the shape of a model's input if the model keeps it."""
    return image.width / image.height
