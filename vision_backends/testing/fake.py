"""Backends whose answers, delays and errors are scripted.

This module decides what a fake answers when nothing is scripted. Fakes are normal implementations of `Backend` and
`AsyncBackend`, so that tests of routers need to patch nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from contextlib import closing, suppress
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vision_backends.backends.base import AsyncBackend, Backend
from vision_backends.backends.requests import Model
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.errors import NotSupportedError
from vision_backends.types import FREE, TASKS, Description, Detection, Detections, Embedding, Reply, Trace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Generator, Sequence

    from vision_backends.backends.requests import (
        AskRequest,
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

    Answer = Description | Embedding | Detections | Reply
    Part = str | float | BaseException
    Step = Answer | Part | Sequence[Part]

__all__ = ["FakeAsyncBackend", "FakeBackend", "FakeCall"]

DIMENSION = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCall:
    """One call that a fake received.

    Attributes:
        request: What was asked.
        count: How many inputs it had.
        timeout_s: The seconds it was given.
        model: Which of its models was asked.
    """

    request: Request
    count: int
    timeout_s: float
    model: str | None = field(default=None, compare=False)


class FakeBackend(Backend):
    """Answers every task with something that depends on the input alone, unless `play` has scripted otherwise.

    A delay takes as long as scripted, whatever the ``timeout_s`` of the call.

    Args:
        name: Its name on the ladder.
        model: The name of its model; by default it is named after the fake.
        other_models: The models with which it answers where a call names them.
        tasks: The tasks that it supports; others raise NotSupportedError.
        local: Whether it claims to keep images on this machine.
        prompts: Whether it follows instructions.
        labels: The only labels that it can detect; None allows all.
        space: The vector space of its embeddings.
        credential: The account that its gates block.
        not_ready: What `check` raises; assign None to `backend.not_ready` to make it ready.
        usage: The usage in the trace of each answer.
        limits: What it reports as its server's rate limits.
        batch_size: Inputs per call.
        concurrency: Simultaneous calls for one ``_many`` request.
        clock: What delays are measured by; a `FakeClock` is advanced by them.

    Attributes:
        calls: Every call received, in order.
        cancelled: Every call that was abandoned before its end: its stream was closed or its coroutine cancelled.
        warm_ups: Every request that it was warmed up for, in order.

    Examples:
        >>> from vision_backends import RateLimitedError
        >>> from vision_backends.testing import FakeBackend
        >>> best = FakeBackend("best")
        >>> best.play(RateLimitedError("Too many requests.", retry_after_s=5))
        >>> with Router([best, FakeBackend("last")]) as ladder:
        ...     answer = ladder.describe("cat.jpg")
        >>> answer.trace.backend, answer.trace.degraded, len(best.calls)
        ('last', True, 1)
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        model: str | None = None,
        other_models: Collection[str] = (),
        tasks: Collection[Task] = (*TASKS, "ask"),
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
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self.local = local
        self.not_ready = not_ready
        self.calls: list[FakeCall] = []
        self.cancelled: list[FakeCall] = []
        self.warm_ups: list[Request] = []
        self._named_model = model
        self._other_models = other_models
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
        """Script what the next calls do, one step each; after these it answers by itself again.

        Args:
            steps: An exception to raise, a record to answer each input with, a text to describe each image with,
                seconds to take, or a sequence of texts, seconds and exceptions: the pieces of a stream, the pauses
                before them, and the error that ends it.
            times: How often to play all of them.
        """
        with self._lock:
            self._script.extend(steps * times)

    @property
    def credential(self) -> str | None:
        """The account that its gates block."""
        return self._credential

    def model_for(self, request: Request) -> Model:
        """Return the same model for every task that it supports."""
        if request.task not in self._tasks:
            raise self._unsupported(request)
        space = self._space if request.task in {"embed", "embed_text"} else None
        return Model(name=self._model, revision="1", space=space)

    def with_model(self, model: str, request: Request) -> Backend:
        """Return the same fake with another of its models, in whose own space it embeds."""
        if model == self._model or model not in self._other_models:
            return super().with_model(model, request)
        other = copy(self)
        other._named_model, other._space = model, f"{self.name}/{model}@1"  # noqa: SLF001 — of its own class
        return other

    @property
    def _model(self) -> str:
        return self._named_model or f"{self.name}-model"

    def check(self, request: Request) -> None:
        """Refuse what the constructor excluded."""
        if getattr(request, "prompt", None) is not None and not self._prompts:
            raise NotSupportedError(f"{self.name} does not follow instructions.", backend=self.name)
        unknown = set(getattr(request, "labels", None) or ()) - set(self._labels or ())
        if self._labels is not None and unknown:
            raise NotSupportedError(f"{self.name} does not know {sorted(unknown)}.", backend=self.name)
        if self.not_ready is not None:
            raise self.not_ready

    def warm_up(self, request: Request) -> None:
        """Record the request; refuse as `check` does."""
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
        """Name the size of each image, and the prompt."""
        return self._answer(images, request, timeout_s)

    def describe_stream(
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> Generator[str, None, Description]:
        """Yield the pieces that were scripted, or else the whole text as one."""
        with closing(self._perform([image], request, timeout_s)) as acts:
            for act in acts:
                if isinstance(act, str):
                    yield act
                elif isinstance(act, list):
                    return act[0]  # type: ignore[no-any-return]  # as scripted
                else:
                    self._clock.sleep(act)
        raise AssertionError("A call always ends with its answers.")

    def embed(self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float) -> list[Embedding]:
        """Derive 8 components from the digest of each image."""
        return self._answer(images, request, timeout_s)

    def embed_text(self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float) -> list[Embedding]:
        """Derive 8 components from each text."""
        return self._answer(texts, request, timeout_s)

    def ask(self, questions: Sequence[Sequence[Image]], request: AskRequest, *, timeout_s: float) -> list[Reply]:
        """Name the prompt and the size of each image, or make up data that follows the schema."""
        return self._answer(questions, request, timeout_s)

    def detect(self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float) -> list[Detections]:
        """Find the first label in the middle of each image."""
        return self._answer(images, request, timeout_s)

    def _answer(self, inputs: Sequence[Any], request: Request, timeout_s: float) -> list[Any]:
        with closing(self._perform(inputs, request, timeout_s)) as acts:
            for act in acts:
                if isinstance(act, list):
                    return act
                if not isinstance(act, str):
                    self._clock.sleep(act)
        raise AssertionError("A call always ends with its answers.")

    def _perform(
        self, inputs: Sequence[Any], request: Request, timeout_s: float
    ) -> Generator[float | str | list[Any], None, None]:
        """Yield what one call does, step by step: seconds to wait, pieces of text, and finally the list of answers."""
        if request.task not in self._tasks:
            raise self._unsupported(request)
        call = FakeCall(request=request, count=len(inputs), timeout_s=timeout_s, model=self._model)
        with self._lock:
            self.calls.append(call)
            step = self._script.popleft() if self._script else ()
        said = ""
        answers: list[Any] = []
        try:
            for part in step if isinstance(step, tuple | list) else (step,):
                if isinstance(part, BaseException):
                    raise part.with_traceback(None)  # played again, it would grow a longer one each time
                if isinstance(part, str):
                    said += part
                    yield part
                elif isinstance(part, float | int):
                    if part:
                        yield part
                else:
                    answers = [part for _ in inputs]  # as scripted, even if it is the wrong kind of record
            if not answers:
                answers = [self._said(said, request) if said else self._record(each, request) for each in inputs]
            if not said and isinstance(answers[0], Description):
                yield answers[0].text
        except GeneratorExit:
            self.cancelled.append(call)
            raise
        yield answers

    def _record(self, content: Any, request: Any) -> Answer:  # noqa: ANN401 — an image or a text, and a request for it
        if request.task == "describe":
            said = f" to {request.prompt!r}" if request.prompt else ""
            return self._say(f"{self.name} says{said}: {content.width}×{content.height} px")
        if request.task == "ask":
            return self._reply(content, request)
        if request.task == "detect":
            return self._middle(content, next(iter(request.labels or self._labels or ("thing",))))
        return self._vector(content if isinstance(content, str) else content.digest)

    def _said(self, text: str, request: Request) -> Answer:
        return Reply(text=text, trace=self._trace) if request.task == "ask" else self._say(text)

    def _say(self, text: str) -> Description:
        return Description(text=text, trace=self._trace)

    def _reply(self, images: Sequence[Image], request: AskRequest) -> Reply:
        sizes = ", ".join(f"{image.width}×{image.height} px" for image in images)
        said, data = f"{self.name} says to {request.prompt!r}: {sizes}", None
        if request.schema is not None:
            from vision_backends.testing.sandbox.schema import conforming

            data = conforming(json.loads(request.schema), seed=said, description=said)
            said = json.dumps(data)
        return Reply(text=said, data=data, trace=self._trace)

    def _middle(self, image: Image, label: str) -> Detections:
        width, height = image.width, image.height
        box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
        item = Detection(label=label, score=0.9, xyxy=box)
        return Detections(items=(item,), width=width, height=height, trace=self._trace)

    def _vector(self, content: str) -> Embedding:
        import numpy as np

        raw = np.frombuffer(hashlib.sha256(content.encode()).digest()[:DIMENSION], dtype=np.uint8)
        vector = raw.astype(np.float32) - 127.5
        return Embedding(vector=vector / np.linalg.norm(vector), space=self._space, trace=self._trace)

    @property
    def _trace(self) -> Trace:
        return Trace(model=self._model, revision="1", usage=self._usage)


class FakeAsyncBackend(FakeBackend, AsyncBackend):
    """A `FakeBackend` whose tasks are coroutines.

    A delay is a timer of the clock: with a `FakeClock` it ends when the test advances that far, and until then the call
    can be cancelled.

    Examples:
        >>> from vision_backends import UnavailableError
        >>> from vision_backends.testing import FakeAsyncBackend
        >>> hosted = FakeAsyncBackend("hosted", local=False)
        >>> hosted.play(UnavailableError("The server is down."))
        >>> with Router([hosted, FakeAsyncBackend("last")]) as ladder:
        ...     print(ladder.detect("cat.jpg").trace.backend)
        last
    """

    async def describe(  # type: ignore[override]  # the same methods as coroutines, here and below
        self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float
    ) -> list[Description]:
        """Name the size of each image, and the prompt."""
        return await self._answer_later(images, request, timeout_s)

    async def describe_stream(  # type: ignore[override]
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> AsyncGenerator[str | Description, None]:
        """Yield the pieces that were scripted, or else the whole text as one, and finally the record."""
        with closing(self._perform([image], request, timeout_s)) as acts:
            for act in acts:
                if isinstance(act, str):
                    yield act
                elif isinstance(act, list):
                    yield act[0]
                else:
                    await self._pause(act)

    async def embed(  # type: ignore[override]
        self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Derive 8 components from the digest of each image."""
        return await self._answer_later(images, request, timeout_s)

    async def embed_text(  # type: ignore[override]
        self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Derive 8 components from each text."""
        return await self._answer_later(texts, request, timeout_s)

    async def ask(  # type: ignore[override]
        self, questions: Sequence[Sequence[Image]], request: AskRequest, *, timeout_s: float
    ) -> list[Reply]:
        """Name the prompt and the size of each image, or make up data that follows the schema."""
        return await self._answer_later(questions, request, timeout_s)

    async def detect(  # type: ignore[override]
        self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float
    ) -> list[Detections]:
        """Find the first label in the middle of each image."""
        return await self._answer_later(images, request, timeout_s)

    async def _answer_later(self, inputs: Sequence[Any], request: Request, timeout_s: float) -> list[Any]:
        with closing(self._perform(inputs, request, timeout_s)) as acts:
            for act in acts:
                if isinstance(act, list):
                    return act
                if not isinstance(act, str):
                    await self._pause(act)
        raise AssertionError("A call always ends with its answers.")

    async def _pause(self, seconds: float) -> None:
        import asyncio

        with suppress(TimeoutError):
            async with self._clock.timeout_at(self._clock.monotonic() + seconds):
                await asyncio.get_running_loop().create_future()
