"""Running any loaded model: inputs prepared beside it, batches within everybody's time.

This module decides how input reaches a model. It must not know what any model computes, how it came into memory, nor
who is served when (`micro_batcher` does).
"""

from __future__ import annotations

import threading
import time as real_time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from vision_backends.backends.local.runtime.engines import PartRunner
from vision_backends.backends.local.runtime.micro_batcher import Order
from vision_backends.backends.local.runtime.precision import lower, stays_whole
from vision_backends.backends.local.runtime.torch_environment import quiet, translated
from vision_backends.backends.timing import count
from vision_backends.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from concurrent.futures import Future

    import torch
    from PIL import Image as PILImage

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.runtime.engines import Engines
    from vision_backends.backends.local.runtime.micro_batcher import Lane, Wanted
    from vision_backends.backends.local.runtime.parts import Tensors
    from vision_backends.clock import Countdown
    from vision_backends.images import Image

    Inputs = dict[str, torch.Tensor]
    Run = Callable[[Inputs, Any, Wanted], Sequence[Any]]

__all__ = ["Loaded", "aspect", "check_finite"]

AHEAD = 1
"""Batches of one caller that wait while another runs: enough that the model never waits for the next."""

PREPARERS = 2
"""Threads that decode and scale images beside the model; both release the interpreter lock."""

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Loaded:
    """A model in memory, with what prepares its input and the lane of those who want it to run.

    Attributes:
        checkpoint: What was loaded.
        model: The model, in evaluation mode.
        image_processor: Turns PIL images into arrays.
        tokenizer: Turns texts into numbers; None where the checkpoint has none.
        processor: Both in one, for models with a chat template.
        device: Where it runs.
        dtype: The type of numbers that torch computes in, where its kind of model may.
        numbers: What it does compute in, such as ``"float32"``.
        engines: Chooses who computes the parts of it.
        lane: Where its callers wait.
        reading: To be held while the tokenizer works, which is not safe for many threads.
        parts: Parts that another engine than torch may compute, by name.
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
    lane: Lane
    reading: threading.Lock = field(default_factory=threading.Lock)
    parts: dict[str, PartRunner] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and buffers."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def part(self, name: str, module: Any, *, agrees: Callable[[Tensors, Tensors], bool]) -> PartRunner:  # noqa: ANN401
        """Return what computes a part of the model, if another engine than torch does that here.

        Args:
            name: Its name within the model.
            module: Computes it by torch, from pixels.
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
        """Let torch compute in the chosen numbers; no part can be converted after this."""
        self.numbers = lower(self.model, kind=self.checkpoint.kind, dtype=self.dtype)

    def cast(self, batch: Inputs) -> Inputs:
        """Return a batch in the numbers that the model takes."""
        if not stays_whole(self.checkpoint.kind):
            return batch
        return {key: each.to(self.dtype) if each.is_floating_point() else each for key, each in batch.items()}

    def pixels(self, image: Image) -> PILImage.Image:
        """Return the picture at the scale that the model needs."""
        return image.rgb(min_side_px=self.checkpoint.image_px)

    def prepare(self, image: Image) -> Inputs:
        """Return the model's input for one image, a batch of 1."""
        return dict(self.image_processor(images=[self.pixels(image)], return_tensors="pt"))

    def ask(
        self,
        items: Sequence[T],
        *,
        prepare: Callable[[T], Inputs],
        alike: Callable[[T], float],
        run: Run,
        options: Hashable = None,
        time: Countdown,
    ) -> list[Any]:
        """Return the result of each item, computed together with what other callers have waiting.

        While the model works on one batch, the next is prepared. Inputs are never padded to the size of their
        neighbours: only those of one shape share a batch, so no answer depends on what else was asked with it.

        Args:
            items: Anything.
            prepare: Turns one into the model's input, a batch of 1; runs beside the model, on several at once.
            alike: A number that is the same for items whose inputs will have one shape; they are taken in this order.
            run: Computes one result for each row of a batch.
            options: What else the results depend on; handed to ``run``.
            time: When to stop.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: The memory was not enough, or others have so much waiting that there is no time left.
            TimedOutError: The time was over before the last result.
        """
        results: list[Any] = [None] * len(items)
        decode_s: list[float] = []
        under_way: deque[tuple[list[int], Order]] = deque()

        def collect(most: int) -> None:
            while len(under_way) > most:
                numbers, order = under_way[0]
                for number, result in zip(numbers, self.lane.collect(order), strict=True):
                    results[number] = result
                count("queue", order.queue_s or 0.0)
                count("model", order.model_s)
                under_way.popleft()

        def timed(item: T) -> Inputs:
            started = real_time.perf_counter()
            inputs = prepare(item)
            decode_s.append(real_time.perf_counter() - started)
            return inputs

        try:
            order_of_work = sorted(range(len(items)), key=lambda number: alike(items[number]))
            for numbers, inputs in self._prepared(items, order_of_work, timed, time):
                for shape, places in _by_shape(inputs).items():
                    collect(AHEAD)
                    order = Order(
                        key=(run, options, shape),
                        run=partial(self._run, run, options),
                        inputs=[inputs[place] for place in places],
                        time=time,
                    )
                    under_way.append(([numbers[place] for place in places], self.lane.submit(order)))
            collect(0)
            count("decode", sum(decode_s))
        finally:
            for _, order in under_way:
                self.lane.leave(order)
        return results

    def _run(self, run: Run, options: Hashable, inputs: Sequence[Inputs], wanted: Wanted) -> Sequence[Any]:
        """Compute one batch; in the lane's thread."""
        import torch

        with translated(self.checkpoint.name), torch.inference_mode():
            batch = {key: torch.cat([each[key] for each in inputs]).to(self.device) for key in inputs[0]}
            return run(batch, options, wanted)

    def _prepared(
        self, items: Sequence[T], order_of_work: Sequence[int], prepare: Callable[[T], Inputs], time: Countdown
    ) -> Iterator[tuple[list[int], list[Inputs]]]:
        """Yield the inputs of so many items as make a batch, with their places; the next ones are made meanwhile."""

        def make(item: T) -> Inputs:
            time.left_s()
            with translated(self.checkpoint.name):
                return prepare(item)

        if len(items) == 1:
            yield [0], [make(items[0])]
            return
        size = self.lane.max_batch
        groups = [list(order_of_work[start : start + size]) for start in range(0, len(items), size)]
        pool = ThreadPoolExecutor(PREPARERS, thread_name_prefix="vision-prepare")

        def begin(numbers: Sequence[int]) -> list[Future[Inputs]]:
            return [pool.submit(make, items[number]) for number in numbers]

        try:
            coming = begin(groups[0]) if groups else []
            for place, numbers in enumerate(groups):
                made = [future.result() for future in coming]
                coming = begin(groups[place + 1]) if place + 1 < len(groups) else []
                yield numbers, made
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _by_shape(inputs: Sequence[Inputs]) -> dict[Hashable, list[int]]:
    """Return the places of the inputs that have the same names, shapes and types."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, each in enumerate(inputs):
        places[tuple((key, tuple(tensor.shape), tensor.dtype) for key, tensor in sorted(each.items()))].append(place)
    return places


def aspect(image: Image) -> float:
    """Return width by height, which decides the shape of the input of models that keep it."""
    return image.width / image.height


def check_finite(tensor: torch.Tensor, *, what: str, but_minus_infinity: bool = False) -> None:
    """Return if all numbers are finite, but perhaps for −∞, by which scores say "never".

    Raises:
        InvalidReplyError: The model computed infinities or NaN.
    """
    import torch

    good = torch.isfinite(tensor)
    if but_minus_infinity:
        good |= tensor.isneginf()
    if not bool(good.all()):
        raise InvalidReplyError(f"The model computed {what} that are not finite numbers.", code="not_finite")
