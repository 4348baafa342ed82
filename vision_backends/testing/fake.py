"""A backend whose answers, delays and errors are scripted.

This module decides what a fake answers when nobody has told it. It is a normal implementation of `Backend`, so
that tests of routers need to patch nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from vision_backends.backends.base import Backend
from vision_backends.backends.requests import Model
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.errors import NotSupportedError, TimedOutError
from vision_backends.types import FREE, TASKS, Description, Detection, Detections, Embedding, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from vision_backends.backends.requests import (
        DescribeRequest,
        DetectRequest,
        EmbedRequest,
        EmbedTextRequest,
        RateLimits,
        Request,
    )
    from vision_backends.clock import Clock
    from vision_backends.images import Image
    from vision_backends.types import Task, Usage

    Answer = Description | Embedding | Detections
    Step = Answer | BaseException | float

__all__ = ["FakeBackend", "FakeCall"]

R = TypeVar("R", Description, Embedding, Detections)

DIMENSION = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCall:
    """One call that a fake has received.

    Attributes:
        request: What was asked.
        count: How many inputs it had.
        timeout_s: How many seconds it was given.
    """

    request: Request
    count: int
    timeout_s: float


class FakeBackend(Backend):
    """Answers every task with something that depends on the input alone, unless `play` has said otherwise.

    Args:
        name: Its name on the ladder.
        tasks: What it can do; the rest is a NotSupportedError.
        local: Whether it claims to keep images on this machine.
        prompts: Whether it follows instructions.
        labels: The only labels that it can detect; None detects whatever is asked for.
        space: The vector space of its embeddings.
        credential: The account that its gates block.
        not_ready: What `check` raises; assign None to `backend.not_ready` when it has become ready.
        usage: What each answer says it has cost.
        limits: What it says of its server's rate limits.
        batch_size: Inputs per call.
        concurrency: Calls of one ``_many`` request at once.
        punctual: Whether it keeps to its ``timeout_s``; one that does not takes as long as it was told to.
        clock: Where delays come from.

    Attributes:
        calls: Every call received, in order.
        warm_ups: Every request that it was warmed up for, in order.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        tasks: Collection[Task] = TASKS,
        local: bool = True,
        prompts: bool = True,
        labels: Collection[str] | None = None,
        space: str = "fake/vectors@1",
        credential: str | None = None,
        not_ready: Exception | None = None,
        usage: Usage = FREE,
        limits: RateLimits | None = None,
        batch_size: int = 1,
        concurrency: int = 1,
        punctual: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self.local = local
        self.punctual = punctual
        self.not_ready = not_ready
        self.calls: list[FakeCall] = []
        self.warm_ups: list[Request] = []
        self._tasks = tasks
        self._prompts = prompts
        self._labels = labels
        self._space = space
        self._credential = credential
        self._usage = usage
        self._limits = limits
        self._batch_size = batch_size
        self._concurrency = concurrency
        self._clock = clock
        self._script: deque[Step] = deque()
        self._lock = threading.Lock()

    def play(self, *steps: Step, times: int = 1) -> None:
        """Script what the next calls do, one step each; afterwards it answers by itself again.

        Args:
            steps: An exception to raise, a record to answer each input with, or seconds to take.
            times: How often to play all of them.
        """
        with self._lock:
            self._script.extend(steps * times)

    @property
    def credential(self) -> str | None:
        """The account that its gates block."""
        return self._credential

    def model_for(self, request: Request) -> Model:
        """Return the same model for every task that it has."""
        if request.task not in self._tasks:
            raise self._unsupported(request)
        space = self._space if request.task in {"embed", "embed_text"} else None
        return Model(name=f"{self.name}-model", revision="1", space=space)

    def check(self, request: Request) -> None:
        """Refuse what the constructor said it cannot do."""
        if getattr(request, "prompt", None) is not None and not self._prompts:
            raise NotSupportedError(f"{self.name} follows no instructions.", backend=self.name)
        unknown = set(getattr(request, "labels", None) or ()) - set(self._labels or ())
        if self._labels is not None and unknown:
            raise NotSupportedError(f"{self.name} does not know {sorted(unknown)}.", backend=self.name)
        if self.not_ready is not None:
            raise self.not_ready

    def warm_up(self, request: Request) -> None:
        """Note the request; refuse as `check` does."""
        with self._lock:
            self.warm_ups.append(request)
        self.check(request)

    def batch_size(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """Return what the constructor was given."""
        return self._batch_size

    def concurrency(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """Return what the constructor was given."""
        return self._concurrency

    def rate_limits(self, request: Request) -> RateLimits | None:  # noqa: ARG002 — the same for all
        """Return what the constructor was given."""
        return self._limits

    def describe(self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float) -> list[Description]:
        """Say the size of each image, and the prompt."""
        said = f" to {request.prompt!r}" if request.prompt else ""
        return self._answer(
            images,
            request,
            timeout_s,
            lambda image: Description(
                text=f"{self.name} says{said}: {image.width}×{image.height} px", trace=self._trace
            ),
        )

    def embed(self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float) -> list[Embedding]:
        """Derive 8 components from the digest of each image."""
        return self._answer(images, request, timeout_s, lambda image: self._vector(image.digest))

    def embed_text(self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float) -> list[Embedding]:
        """Derive 8 components from each text."""
        return self._answer(texts, request, timeout_s, self._vector)

    def detect(self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float) -> list[Detections]:
        """Find the first label in the middle of each image."""
        label = next(iter(request.labels or self._labels or ("thing",)))
        return self._answer(images, request, timeout_s, lambda image: self._middle(image, label))

    @property
    def _trace(self) -> Trace:
        return Trace(model=f"{self.name}-model", revision="1", usage=self._usage)

    def _vector(self, content: str) -> Embedding:
        import numpy as np

        raw = np.frombuffer(hashlib.sha256(content.encode()).digest()[:DIMENSION], dtype=np.uint8)
        vector = raw.astype(np.float32) - 127.5
        return Embedding(vector=vector / np.linalg.norm(vector), space=self._space, trace=self._trace)

    def _middle(self, image: Image, label: str) -> Detections:
        width, height = image.width, image.height
        box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
        item = Detection(label=label, score=0.9, xyxy=box)
        return Detections(items=(item,), width=width, height=height, trace=self._trace)

    def _answer(
        self, inputs: Sequence[object], request: Request, timeout_s: float, answer: Callable[..., R]
    ) -> list[R]:
        if request.task not in self._tasks:
            raise self._unsupported(request)
        with self._lock:
            self.calls.append(FakeCall(request=request, count=len(inputs), timeout_s=timeout_s))
            step = self._script.popleft() if self._script else 0.0
        if isinstance(step, BaseException):
            raise step.with_traceback(None)  # played again, it would grow a longer one each time
        if isinstance(step, float | int):
            if self.punctual and step > timeout_s:
                self._clock.sleep(timeout_s)
                raise TimedOutError(f"{self.name} needs {step:g} s.", backend=self.name)
            if step:
                self._clock.sleep(step)
            return [answer(each) for each in inputs]
        return [step for _ in inputs]  # type: ignore[misc]  # scripted on purpose, even if it is the wrong record
