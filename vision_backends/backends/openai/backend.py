"""The rung that asks OpenAI, or any server that speaks its language.

This module decides how each task becomes questions to the server and how answers become records. It must not know
error codes, the shape of requests, or how bytes travel.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vision_backends.backends.base import AsyncBackend
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai.base_url import BaseUrl
from vision_backends.backends.openai.boxes import read_boxes
from vision_backends.backends.openai.chat import Chat
from vision_backends.backends.openai.client import Client
from vision_backends.backends.openai.cost_estimates import estimate
from vision_backends.backends.openai.embeddings import read_vectors, text_body
from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.backends.openai.image_embeddings import DirectImages
from vision_backends.backends.openai.model_families import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL, Detail, effort_of
from vision_backends.backends.openai.prices import PriceList, Tokens, split_usage
from vision_backends.backends.openai.prompts import ask_for_boxes, ask_for_description, encode_url
from vision_backends.backends.openai.protocol import Conversation
from vision_backends.backends.openai.responses import Responses
from vision_backends.backends.openai.secret import Secret
from vision_backends.backends.openai.settings import Settings
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.clock import SYSTEM_CLOCK, Clock, Deadline, Stopwatch
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import (
    ConfigError,
    InvalidReplyError,
    NotReadyError,
    NotSupportedError,
    TimedOutError,
    UnavailableError,
    VisionError,
)
from vision_backends.types import Description, Detections, Embedding, Trace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.backends.openai.protocol import Ask, Said
    from vision_backends.backends.requests import Model, RateLimits, Request
    from vision_backends.images import Image
    from vision_backends.types import Usage

    Vectors = npt.NDArray[np.float32]

__all__ = ["OpenAIBackend"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"

TEXTS_PER_CALL = 256
"""Of the 2,048 that OpenAI takes, so that one failure costs little."""

A = TypeVar("A", Description, Embedding, Detections)

EXPECTED_S = {"describe": 3.0, "embed": 4.0, "embed_text": 0.5, "detect": 6.0}


class OpenAIBackend(AsyncBackend):
    """Describes, embeds and detects with OpenAI or an OpenAI-compatible server. Imports aiohttp at its first call.

    Args:
        api_key: The key; compatible servers may need none.
        base_url: Where the API begins, usually with ``/v1`` at the end.
        organization: OpenAI's id of the organization that pays.
        project: OpenAI's id of the project.
        model: Describes and detects; it has to see images.
        embedding_model: Embeds.
        embedding_dimensions: Length of the vectors; by default the model's own.
        api: ``"auto"`` is the Responses API at OpenAI and Chat Completions elsewhere.
        timeout_s: Seconds that one call may take, whatever the router allows.
        detail: How closely the model looks: ``"low"``, ``"high"``, ``"original"``, or ``"auto"``, which lets the
            model decide and can cost several times as much as ``"high"``.
        reasoning_effort: How much the model thinks before it answers; ``"auto"`` is as little as it can,
            ``"default"`` its own choice.
        image_embeddings: ``"describe"`` embeds the description of an image; ``"direct"`` sends the image to
            ``/embeddings`` of a compatible server, after proving once that the vectors follow the pixels.
        max_image_px: Limit of the longer side of what is sent; by default all that the model looks at.
        concurrency: Calls of one ``_many`` request at once.
        prices: Model → ``{"input": …, "output": …}`` in USD per million tokens; wins over the shipped list.
        error_codes: This server's own error codes (or types, or statuses) → kind of error, such as
            ``{"budget_gone": "quota_exhausted"}``; wins over the built-in table.
        headers: Sent with every request; taken to be secret.
        clock: Where time comes from.

    Raises:
        ConfigError: A value has no meaning.
    """

    name = "openai"
    local = False

    def __init__(  # noqa: PLR0913 — one keyword for each key of the [openai] table
        self,
        *,
        api_key: str | None = None,
        base_url: str = DEFAULT_BASE_URL,
        organization: str | None = None,
        project: str | None = None,
        model: str = DEFAULT_MODEL,
        embedding_model: str = DEFAULT_EMBEDDING_MODEL,
        embedding_dimensions: int | None = None,
        api: Literal["auto", "chat", "responses"] = "auto",
        timeout_s: float = 20.0,
        detail: Detail = "high",
        reasoning_effort: str = "auto",
        image_embeddings: Literal["describe", "direct"] = "describe",
        max_image_px: int | None = None,
        concurrency: int = 8,
        prices: Mapping[str, Mapping[str, float]] | None = None,
        error_codes: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        secret = Secret((api_key or "").strip())
        hidden = {name: Secret(value) for name, value in (headers or {}).items()}
        del api_key, headers  # so that no traceback shows them
        if not secret.fits_a_header() or not all(value.fits_a_header() for value in hidden.values()):
            raise ConfigError("[openai] api_key or a header has characters that a header cannot carry.")
        if not timeout_s > 0 or concurrency < 1:
            raise ConfigError(f"[openai] timeout_s = {timeout_s} and concurrency = {concurrency} must be positive.")
        server = BaseUrl.parse(base_url)
        self._settings = Settings(
            base_url=server,
            api=("responses" if server.official else "chat") if api == "auto" else api,
            model=model,
            embedding_model=embedding_model,
            embedding_dimensions=embedding_dimensions,
            image_embeddings=image_embeddings,
            detail=detail,
            effort=effort_of(model, reasoning_effort),
            max_image_px=max_image_px,
        )
        self._key = secret
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._clock = clock
        self._prices = PriceList.load(prices)
        self._client = Client(
            server,
            api_key=secret,
            taxonomy=Taxonomy(host=server.host, extra=error_codes, secrets=(secret, *hidden.values())),
            organization=organization,
            project=project,
            headers=hidden,
            clock=clock,
        )
        protocol = Responses() if self._settings.api == "responses" else Chat(official=server.official)
        self._conversation = Conversation(self._client, protocol)
        self._direct = DirectImages(self._client, model=embedding_model, dimensions=self._settings.dimensions)

    @property
    def credential(self) -> str:
        """Short hash of server and key."""
        account = f"{self._settings.base_url.url}\0{self._key.reveal()}"
        return hashlib.sha256(account.encode()).hexdigest()[:16]

    def model_for(self, request: Request) -> Model:
        """Return the model that would answer."""
        return self._settings.model_for(request)

    def check(self, request: Request) -> None:
        """Return if the server can be asked."""
        if self._settings.base_url.official and not self._key:
            raise NotReadyError(
                "There is no API key for OpenAI.",
                remedy="Set OPENAI_API_KEY, or api_key in [openai] of vision.toml.",
                backend=self.name,
                code="no_api_key",
            )
        self._space(request)
        if isinstance(request, EmbedRequest) and self._settings.image_embeddings == "direct":
            self._direct.check()

    def warm_up(self, request: Request) -> None:
        """Import the HTTP client and load the certificates; nothing is sent."""
        self.check(request)
        self._client.warm_up()

    def batch_size(self, request: Request) -> int:
        """Texts are embedded by the hundred; everything else is one request each."""
        return TEXTS_PER_CALL if isinstance(request, EmbedTextRequest) else 1

    def concurrency(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """As configured; the router halves it where the server is overloaded."""
        return self._concurrency

    def image_px(self, request: Request) -> int | None:
        """No more than the model looks at."""
        return None if isinstance(request, EmbedTextRequest) else self._settings.image_rule.longest_short_side_px

    def expected_s(self, request: Request) -> float:
        """Typical of small models; measured values replace it."""
        return EXPECTED_S[request.task]

    def estimate(self, request: Request, inputs: Sequence[Image] | Sequence[str]) -> Usage:
        """Return tokens and cost from above; unknown where the price of the model is."""
        return reduce(add, (estimate(request, each, settings=self._settings, prices=self._prices) for each in inputs))

    def rate_limits(self, request: Request) -> RateLimits | None:
        """Return what the latest reply for the model that answers said."""
        return self._client.rate_limits(self.model_for(request).name)

    async def describe(  # type: ignore[override]  # the same method as a coroutine
        self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float
    ) -> list[Description]:
        """Describe each image, or answer the prompt about it."""
        deadline = self._deadline(timeout_s)
        with self._stopwatch().running() as watch:
            described = [await self._describe(image, request, deadline) for image in images]
        return _timed(described, watch)

    async def describe_stream(  # type: ignore[override]
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> AsyncGenerator[str | Description, None]:
        """Yield a description piece by piece as it is written, and at last the whole record.

        Nothing is sent before the first piece is asked for. An error may come before the first piece, when another
        rung can still be asked, or after it, when whoever has taken the pieces holds the text so far.
        Errors as in `describe`.
        """
        deadline = self._deadline(timeout_s)
        ask = partial(self._ask_for_description, image, request)
        with self._stopwatch().running() as watch:
            question = await self._conversation.prepare(ask, stream=True, deadline=deadline)
        with self._priced(question.model):
            pieces = self._conversation.stream(question, deadline=deadline)
            async with aclosing(watch.follow(pieces, "wire")) as followed:
                async for piece in followed:
                    if isinstance(piece, str):
                        yield piece
                    else:
                        yield _timed([self._description(piece, request)], watch)[0]

    async def embed(  # type: ignore[override]
        self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed each image: through its description, or directly where that is configured."""
        space = self._space(request)
        deadline = self._deadline(timeout_s)
        with self._stopwatch().running() as watch:
            if self._settings.image_embeddings == "direct":
                vectors, usages = await self._direct_vectors(images, deadline)
            else:
                vectors, usages = await self._described_vectors(images, deadline)
        return _timed(self._embeddings(vectors, usages, space), watch)

    async def embed_text(  # type: ignore[override]
        self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed texts, as such or as queries for described images."""
        space = self._space(request)
        with self._stopwatch().running() as watch:
            vectors, usages = await self._vectors(texts, self._deadline(timeout_s))
        return _timed(self._embeddings(vectors, usages, space), watch)

    async def detect(  # type: ignore[override]
        self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float
    ) -> list[Detections]:
        """Find COCO's 80 kinds of objects, or whatever the labels name.

        The scores are the model's own opinion of itself: good for sorting, not calibrated.
        """
        deadline = self._deadline(timeout_s)
        with self._stopwatch().running() as watch:
            detected = [await self._detect(image, request, deadline) for image in images]
        return _timed(detected, watch)

    def status(self) -> Mapping[str, Any]:
        """Return what is configured, without the key."""
        settings = self._settings
        return {
            "base_url": settings.base_url.url,
            "api": settings.api,
            "model": settings.model,
            "embedding_model": settings.embedding_model,
            "has_key": bool(self._key),
            "prices_known": [name for name in (settings.model, settings.embedding_model) if self._prices.of(name)],
        }

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._client.aclose()

    def close(self) -> None:
        """Let every loop close its connections when no call needs them any more; a later call opens new ones."""
        self._client.close()

    async def _describe(self, image: Image, request: DescribeRequest, deadline: Deadline) -> Description:
        said = await self._ask(partial(self._ask_for_description, image, request), deadline)
        return self._description(said, request)

    async def _ask(self, ask: Callable[[], Ask], deadline: Deadline) -> Said:
        question = await self._conversation.prepare(ask, deadline=deadline)
        with self._priced(question.model):
            return await self._conversation.ask(question, deadline=deadline)

    @contextmanager
    def _priced(self, model: str) -> Iterator[None]:
        """Say of an error what the tokens cost that the server has billed for it all the same."""
        try:
            yield
        except VisionError as error:
            said = error.usage
            if said is not None and said.input_tokens is not None and said.output_tokens is not None:
                tokens = Tokens(input=said.input_tokens, output=said.output_tokens)
                error.usage = self._prices.usage(model, tokens)
            raise

    def _ask_for_description(self, image: Image, request: DescribeRequest) -> Ask:
        return ask_for_description(self._settings, request, image_url=encode_url(image, self._settings.image_rule))

    def _description(self, said: Said, request: DescribeRequest) -> Description:
        return Description(
            text=said.text.strip(),
            language=request.language,
            complete=said.finish != "length",
            trace=self._trace(said),
        )

    async def _detect(self, image: Image, request: DetectRequest, deadline: Deadline) -> Detections:
        categories = coco_categories()
        labels = request.labels or tuple(categories)

        def ask() -> Ask:
            return ask_for_boxes(self._settings, labels, image_url=encode_url(image, self._settings.image_rule))

        said = await self._ask(ask, deadline)
        trace = self._trace(said)
        if said.finish == "length":
            cut = InvalidReplyError("The list of boxes was cut at the limit of its length.", code="reply_cut")
            cut.usage = trace.usage
            raise cut
        try:
            found = read_boxes(said.text, labels=labels, categories=categories, width=image.width, height=image.height)
        except InvalidReplyError as error:
            error.usage = trace.usage
            raise
        kept = tuple(item for item in found if item.score >= (request.min_score or 0.0))
        return Detections(items=kept, width=image.width, height=image.height, trace=trace)

    async def _direct_vectors(self, images: Sequence[Image], deadline: Deadline) -> tuple[Vectors, list[Usage]]:
        urls = [partial(encode_url, image, self._settings.image_rule) for image in images]
        vectors, tokens = await self._direct.embed(urls, deadline=deadline)
        return vectors, split_usage(self._prices.usage(self._settings.embedding_model, tokens), len(images))

    async def _described_vectors(self, images: Sequence[Image], deadline: Deadline) -> tuple[Vectors, list[Usage]]:
        captions = [await self._describe(image, DescribeRequest(), deadline) for image in images]
        with _also_billed(reduce(add, (caption.trace.usage for caption in captions))):
            vectors, usages = await self._vectors([caption.text for caption in captions], deadline)
        return vectors, [caption.trace.usage + usage for caption, usage in zip(captions, usages, strict=True)]

    async def _vectors(self, texts: Sequence[str], deadline: Deadline) -> tuple[Vectors, list[Usage]]:
        settings = self._settings
        model = settings.embedding_model
        body = partial(text_body, model, texts, dimensions=settings.embedding_dimensions)
        request = await self._client.prepare("embeddings", body, deadline=deadline)
        reply = await self._client.post(request, deadline=deadline)
        read = partial(read_vectors, reply.payloads[0], count=len(texts), dimensions=settings.dimensions)
        vectors, tokens = await engine_loop().compute.start(read)
        return vectors, split_usage(self._prices.usage(model, tokens), len(texts))

    def _embeddings(self, vectors: Vectors, usages: Sequence[Usage], space: str | None) -> list[Embedding]:
        model = self._settings.embedding_model
        return [
            Embedding(vector=vector, space=space or "", trace=Trace(model=model, usage=usage))
            for vector, usage in zip(vectors, usages, strict=True)
        ]

    def _space(self, request: Request) -> str | None:
        """Return the space of the answer, which is the one that was pinned, if one was."""
        space = self.model_for(request).space
        pinned = request.space if isinstance(request, EmbedRequest | EmbedTextRequest) else None
        if pinned not in {None, space}:
            raise NotSupportedError(f"Its vectors live in the space {space!r}.", backend=self.name)
        return space

    def _trace(self, said: Said) -> Trace:
        model = self._settings.model
        snapshot = said.model if said.model and said.model != model and said.model.startswith(model) else None
        return Trace(model=model, revision=snapshot, usage=self._prices.usage(model, said.tokens))

    def _stopwatch(self) -> Stopwatch:
        return Stopwatch(clock=self._clock)

    def _deadline(self, timeout_s: float) -> Deadline:
        """Return when a call has to be over, whatever it consists of."""
        return Deadline(self._clock, min(timeout_s, self._timeout_s))


def _timed(answers: Sequence[A], watch: Stopwatch) -> list[A]:
    """Return the answers of one call with what was measured of it."""
    return [replace(answer, trace=replace(answer.trace, timing=watch.timing)) for answer in answers]


@contextmanager
def _also_billed(usage: Usage) -> Iterator[None]:
    """Add what was billed before to an error that is known to have cost nothing itself."""
    try:
        yield
    except VisionError as error:
        if not isinstance(error, InvalidReplyError | TimedOutError | UnavailableError):
            error.usage = usage
        raise
