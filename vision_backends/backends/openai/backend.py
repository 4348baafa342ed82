"""The rung that asks OpenAI, or any server that speaks its language.

This module decides how each task becomes questions to the server and how answers become records. It must not know
error codes, the shape of requests, or how bytes travel.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vision_backends.backends.base import Backend
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai.base_url import Address
from vision_backends.backends.openai.boxes import read_boxes
from vision_backends.backends.openai.chat import Chat
from vision_backends.backends.openai.client import Connection
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
from vision_backends.backends.openai.settings import Profile
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.backends.timing import Stopwatch
from vision_backends.clock import SYSTEM_CLOCK
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
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.backends.openai.protocol import Ask, Said
    from vision_backends.backends.requests import Model, RateLimits, Request
    from vision_backends.images import Image
    from vision_backends.types import Usage

    Timer = Callable[[], float]
    Vectors = npt.NDArray[np.float32]

__all__ = ["OpenAIBackend"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"

TEXTS_PER_CALL = 256
"""Of the 2,048 that OpenAI takes, so that one failure costs little."""

A = TypeVar("A", Description, Embedding, Detections)

EXPECTED_S = {"describe": 3.0, "embed": 4.0, "embed_text": 0.5, "detect": 6.0}


class OpenAIBackend(Backend):
    """Describes, embeds and detects with OpenAI or an OpenAI-compatible server. Imports the SDK at its first call.

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
    ) -> None:
        secret = Secret((api_key or "").strip())
        hidden = {name: Secret(value) for name, value in (headers or {}).items()}
        del api_key, headers  # so that no traceback shows them
        if not secret.fits_a_header() or not all(value.fits_a_header() for value in hidden.values()):
            raise ConfigError("[openai] api_key or a header has characters that a header cannot carry.")
        if not timeout_s > 0 or concurrency < 1:
            raise ConfigError(f"[openai] timeout_s = {timeout_s} and concurrency = {concurrency} must be positive.")
        address = Address.parse(base_url)
        self._profile = Profile(
            address=address,
            api=("responses" if address.official else "chat") if api == "auto" else api,
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
        self._prices = PriceList.load(prices)
        self._connection = Connection(
            address,
            api_key=secret,
            taxonomy=Taxonomy(host=address.host, extra=error_codes, secrets=(secret, *hidden.values())),
            organization=organization,
            project=project,
            headers=hidden,
        )
        dialect = Responses() if self._profile.api == "responses" else Chat(official=address.official)
        self._conversation = Conversation(self._connection, dialect)
        self._direct = DirectImages(self._connection, model=embedding_model, dimensions=self._profile.dimensions)

    @property
    def credential(self) -> str:
        """Short hash of server and key."""
        account = f"{self._profile.address.base_url}\0{self._key.reveal()}"
        return hashlib.sha256(account.encode()).hexdigest()[:16]

    def model_for(self, request: Request) -> Model:
        """Return the model that would answer."""
        return self._profile.model_for(request)

    def check(self, request: Request) -> None:
        """Return if the server can be asked."""
        if self._profile.address.official and not self._key:
            raise NotReadyError(
                "There is no API key for OpenAI.",
                remedy="Set OPENAI_API_KEY, or api_key in [openai] of vision.toml.",
                backend=self.name,
                code="no_api_key",
            )
        self._space(request)
        if isinstance(request, EmbedRequest) and self._profile.image_embeddings == "direct":
            self._direct.check()

    def warm_up(self, request: Request) -> None:
        """Import the SDK and make its client; nothing is sent."""
        self.check(request)
        self._connection.open()

    def batch_size(self, request: Request) -> int:
        """Texts are embedded by the hundred; everything else is one request each."""
        return TEXTS_PER_CALL if isinstance(request, EmbedTextRequest) else 1

    def concurrency(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """As configured; the router halves it where the server is overloaded."""
        return self._concurrency

    def image_px(self, request: Request) -> int | None:
        """No more than the model looks at."""
        return None if isinstance(request, EmbedTextRequest) else self._profile.look.longest_short_side_px

    def expected_s(self, request: Request) -> float:
        """Typical of small models; measured values replace it."""
        return EXPECTED_S[request.task]

    def estimate(self, request: Request, inputs: Sequence[Image] | Sequence[str]) -> Usage:
        """Return tokens and cost from above; unknown where the price of the model is."""
        return reduce(add, (estimate(request, each, profile=self._profile, prices=self._prices) for each in inputs))

    def rate_limits(self, request: Request) -> RateLimits | None:
        """Return what the latest reply for the model that answers said."""
        return self._connection.rate_limits(self.model_for(request).name)

    def describe(self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float) -> list[Description]:
        """Describe each image, or answer the prompt about it."""
        left_s = self._timer(timeout_s)
        with Stopwatch().running() as watch:
            described = [self._describe(image, request, left_s) for image in images]
        return _timed(described, watch)

    def describe_stream(
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> Generator[str, None, Description]:
        """Yield a description piece by piece as it is written, and return the whole record.

        Nothing is sent before the first piece is asked for. An error may come before the first piece, when another
        rung can still be asked, or after it, when whoever has taken the pieces holds the text so far.
        Errors as in `describe`.
        """
        left_s = self._timer(timeout_s)
        with Stopwatch().running() as watch:
            ask = self._ask_for_description(image, request)
        with self._priced(ask.model):
            pieces = self._conversation.stream(ask, timeout_s=left_s())
            said = yield from watch.follow(pieces, "wire")
        return _timed([self._description(said, request)], watch)[0]

    def embed(self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float) -> list[Embedding]:
        """Embed each image: through its description, or directly where that is configured."""
        space = self._space(request)
        left_s = self._timer(timeout_s)
        with Stopwatch().running() as watch:
            if self._profile.image_embeddings == "direct":
                vectors, usages = self._direct_vectors(images, left_s)
            else:
                vectors, usages = self._described_vectors(images, left_s)
        return _timed(self._embeddings(vectors, usages, space), watch)

    def embed_text(self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float) -> list[Embedding]:
        """Embed texts, as such or as queries for described images."""
        space = self._space(request)
        with Stopwatch().running() as watch:
            vectors, usages = self._vectors(texts, self._timer(timeout_s))
        return _timed(self._embeddings(vectors, usages, space), watch)

    def detect(self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float) -> list[Detections]:
        """Find COCO's 80 kinds of objects, or whatever the labels name.

        The scores are the model's own opinion of itself: good for sorting, not calibrated.
        """
        left_s = self._timer(timeout_s)
        categories = coco_categories()
        labels = request.labels or tuple(categories)
        min_score = request.min_score or 0.0
        with Stopwatch().running() as watch:
            detected = [self._detect(image, labels, categories, min_score, left_s) for image in images]
        return _timed(detected, watch)

    def status(self) -> Mapping[str, Any]:
        """Return what is configured, without the key."""
        profile = self._profile
        return {
            "base_url": profile.address.base_url,
            "api": profile.api,
            "model": profile.model,
            "embedding_model": profile.embedding_model,
            "has_key": bool(self._key),
            "prices_known": [name for name in (profile.model, profile.embedding_model) if self._prices.of(name)],
        }

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._connection.close()

    def _describe(self, image: Image, request: DescribeRequest, left_s: Timer) -> Description:
        ask = self._ask_for_description(image, request)
        return self._description(self._ask(ask, left_s), request)

    def _ask(self, ask: Ask, left_s: Timer) -> Said:
        with self._priced(ask.model):
            return self._conversation.ask(ask, timeout_s=left_s())

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
        return ask_for_description(self._profile, request, image_url=encode_url(image, self._profile.look))

    def _description(self, said: Said, request: DescribeRequest) -> Description:
        return Description(
            text=said.text.strip(),
            language=request.language,
            complete=said.finish != "length",
            trace=self._trace(said),
        )

    def _detect(
        self, image: Image, labels: Sequence[str], categories: Mapping[str, int], min_score: float, left_s: Timer
    ) -> Detections:
        ask = ask_for_boxes(self._profile, labels, image_url=encode_url(image, self._profile.look))
        said = self._ask(ask, left_s)
        usage = self._trace(said).usage
        if said.finish == "length":
            cut = InvalidReplyError("The list of boxes was cut at the limit of its length.", code="reply_cut")
            cut.usage = usage
            raise cut
        try:
            found = read_boxes(said.text, labels=labels, categories=categories, width=image.width, height=image.height)
        except InvalidReplyError as error:
            error.usage = usage
            raise
        kept = tuple(item for item in found if item.score >= min_score)
        return Detections(items=kept, width=image.width, height=image.height, trace=self._trace(said))

    def _direct_vectors(self, images: Sequence[Image], left_s: Timer) -> tuple[Vectors, list[Usage]]:
        urls = [encode_url(image, self._profile.look) for image in images]
        vectors, tokens = self._direct.embed(urls, left_s=left_s)
        return vectors, split_usage(self._prices.usage(self._profile.embedding_model, tokens), len(images))

    def _described_vectors(self, images: Sequence[Image], left_s: Timer) -> tuple[Vectors, list[Usage]]:
        captions = [self._describe(image, DescribeRequest(), left_s) for image in images]
        with _also_billed(reduce(add, (caption.trace.usage for caption in captions))):
            vectors, usages = self._vectors([caption.text for caption in captions], left_s)
        return vectors, [caption.trace.usage + usage for caption, usage in zip(captions, usages, strict=True)]

    def _vectors(self, texts: Sequence[str], left_s: Timer) -> tuple[Vectors, list[Usage]]:
        profile = self._profile
        body = text_body(profile.embedding_model, texts, dimensions=profile.embedding_dimensions)
        reply = self._connection.post("embeddings", body, timeout_s=left_s())
        vectors, tokens = read_vectors(reply.payloads[0], count=len(texts), dimensions=profile.dimensions)
        return vectors, split_usage(self._prices.usage(profile.embedding_model, tokens), len(texts))

    def _embeddings(self, vectors: Vectors, usages: Sequence[Usage], space: str | None) -> list[Embedding]:
        model = self._profile.embedding_model
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
        model = self._profile.model
        snapshot = said.model if said.model and said.model != model and said.model.startswith(model) else None
        return Trace(model=model, revision=snapshot, usage=self._prices.usage(model, said.tokens))

    def _timer(self, timeout_s: float) -> Timer:
        """Return a function that says how many seconds of a call are left, and raises when none are."""
        ends_s = SYSTEM_CLOCK.monotonic() + min(timeout_s, self._timeout_s)

        def left_s() -> float:
            left = ends_s - SYSTEM_CLOCK.monotonic()
            if left <= 0:
                raise TimedOutError("No time is left for another request.", backend=self.name, code="no_time")
            return left

        return left_s


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
