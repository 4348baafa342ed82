"""The rung that asks OpenAI, or any server that speaks its language.

This module decides how each task becomes questions to the server and how answers become records. It must not know
error codes, the shape of requests, or how bytes travel.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from vision_backends.backends.base import AsyncBackend, tell_rung
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai.client import Client
from vision_backends.backends.openai.conversation import Conversation
from vision_backends.backends.openai.embeddings import Embedder
from vision_backends.backends.openai.errors import Secret, Taxonomy
from vision_backends.backends.openai.models import (
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_MODEL,
    Detail,
    PriceList,
    Tokens,
    effort_of,
    image_token_rule,
    is_openai_model,
    split_usage,
    wire_rule,
)
from vision_backends.backends.openai.prompts import (
    ask_for_boxes,
    ask_for_description,
    encode_url,
    estimate,
    read_boxes,
)
from vision_backends.backends.openai.protocol import Chat, Responses
from vision_backends.backends.openai.settings import BaseUrl, Settings
from vision_backends.backends.requests import Account, DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.clock import SYSTEM_CLOCK, Clock, Deadline, Stopwatch
from vision_backends.config.found import ONLY_LOWER, OnlyIf, ordered
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import (
    AuthenticationError,
    ConfigError,
    InvalidImageError,
    InvalidReplyError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    RefusedError,
    TimedOutError,
    UnavailableError,
    VisionError,
)
from vision_backends.types import FREE, Description, Detections, Embedding, Trace, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.backends.openai.protocol import Ask, Said
    from vision_backends.backends.requests import Model, RateLimits, Request
    from vision_backends.images import Image, WireRule
    from vision_backends.storage.notes import Notes

    Vectors = npt.NDArray[np.float32]

__all__ = ["OpenAIBackend"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"

TEXTS_PER_CALL = 256
"""Of the 2,048 that OpenAI takes, so that one failure costs little."""

A = TypeVar("A", Description, Embedding, Detections)

SEEN_IMAGES = 1_000
"""How many images are remembered as readable."""

OPENAI_ONLY = OnlyIf("the name of a model of OpenAI's", lambda model, _without: is_openai_model(model))
LESS_DETAIL = ordered("low", "high", "original", "auto")
LESS_THINKING = ordered("none", "auto", "minimal", "low", "default", "medium", "high", "xhigh")
SHORTER = OnlyIf("at most what it is without the file, or 1024", lambda most, without: most <= (without or 1024))
"""What a configuration file that was only found may do to a key; every other key it may not set."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
"""Names of variables, which keys do not look like: one that was written here by mistake is not shown as a name."""

_PROVES = re.compile(r"key|token|secret|auth|cookie|organization|project", re.IGNORECASE)
"""Names of headers that say who pays."""

EXPECTED_S = {"describe": 3.0, "embed": 4.0, "embed_text": 0.5, "detect": 6.0}


class OpenAIBackend(AsyncBackend):
    """Describes, embeds and detects with OpenAI or an OpenAI-compatible server. Imports aiohttp at its first call.

    Args:
        api_key: The key; compatible servers may need none.
        api_key_env: The variable that holds the key, in place of ``api_key``.
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
        max_tokens: Limit of an answer, thinking included; by default what the task takes, more where the model is asked
            to think, and once more where thinking has used it up.
        image_embeddings: ``"describe"`` embeds the description of an image; ``"direct"`` sends the image to
            ``/embeddings`` of a compatible server, after proving once that the vectors follow the pixels.
        max_image_px: Limit of the longer side of what is sent; by default all that the model looks at.
        concurrency: Most simultaneous calls of one list; there are 8 at first, and more while answers stay as fast.
        prices: Model → ``{"input": …, "output": …}`` in USD per million tokens; wins over the shipped list.
        error_codes: This server's own error codes (or types, or statuses) → kind of error, such as
            ``{"budget_gone": "quota_exhausted"}``; wins over the built-in table.
        headers: Sent with every request; taken to be secret.
        clock: Where time comes from.

    Raises:
        ConfigError: A value is invalid.
    """

    name = "openai"
    local = False
    credential: str = ""
    """Short hash of server, organization, project and key: of who pays, and for what."""
    account: Account = Account()
    """Server, organization and project, and a hash of key and headers."""

    def __init__(  # noqa: PLR0913 — one keyword for each key of the [openai] table
        self,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        base_url: str = DEFAULT_BASE_URL,
        organization: str | None = None,
        project: str | None = None,
        model: Annotated[str, OPENAI_ONLY] = DEFAULT_MODEL,
        embedding_model: Annotated[str, OPENAI_ONLY] = DEFAULT_EMBEDDING_MODEL,
        embedding_dimensions: int | None = None,
        api: Literal["auto", "chat", "responses"] = "auto",
        timeout_s: Annotated[float, ONLY_LOWER] = 20.0,
        detail: Annotated[Detail, LESS_DETAIL] = "high",
        reasoning_effort: Annotated[str, LESS_THINKING] = "auto",
        max_tokens: Annotated[int | None, SHORTER] = None,
        image_embeddings: Literal["describe", "direct"] = "describe",
        max_image_px: Annotated[int | None, ONLY_LOWER] = None,
        concurrency: Annotated[int, ONLY_LOWER] = 64,
        prices: Mapping[str, Mapping[str, float]] | None = None,
        error_codes: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        variable = api_key_env if api_key_env and _VARIABLE.fullmatch(api_key_env) else None
        misnamed, doubled = api_key_env is not None and not variable, bool(api_key_env and api_key)
        secret = Secret((api_key or os.environ.get(variable or "") or "").strip())
        hidden = {name: Secret(value) for name, value in (headers or {}).items()}
        del api_key, api_key_env, headers  # so that no traceback shows them; the second may be a key by mistake
        if misnamed:
            raise ConfigError(
                "[openai] api_key_env is not the name of a variable in capital letters.",
                remedy='Write for example: api_key_env = "SECOND_API_KEY"',
            )
        if doubled:
            raise ConfigError("[openai] has both api_key and api_key_env.", remedy="Leave one of them out.")
        if not secret.fits_a_header() or not all(value.fits_a_header() for value in hidden.values()):
            raise ConfigError("[openai] api_key or a header has characters that a header cannot carry.")
        if not timeout_s > 0 or concurrency < 1:
            raise ConfigError(f"[openai] timeout_s = {timeout_s} and concurrency = {concurrency} must be positive.")
        server = BaseUrl.parse(base_url)
        image_rule = image_token_rule(model, detail, max_image_px=max_image_px)
        self._settings = settings = Settings(
            base_url=server,
            api=("responses" if server.official else "chat") if api == "auto" else api,
            model=model,
            embedding_model=embedding_model,
            embedding_dimensions=embedding_dimensions,
            image_embeddings=image_embeddings,
            detail=detail,
            effort=effort_of(model, reasoning_effort),
            max_image_px=max_image_px,
            image_rule=image_rule,
            wire_rule=wire_rule(model, image_rule, max_image_px=max_image_px),
            max_tokens=max_tokens,
        )
        self._models = settings.models()
        self.credential = _payer(server.url, secret, hidden, organization=organization, project=project)
        self.account = Account(
            server="\0".join((server.url, organization or "", project or "")),
            secret=hashlib.sha256(repr((secret.reveal(), _revealed(hidden))).encode()).hexdigest()[:32],
        )
        self._has_key, self._key_variable = bool(secret), variable
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._clock = clock
        self._prices = PriceList.load(prices)
        self._taxonomy = Taxonomy(
            host=server.host, official=server.official, extra=error_codes, secrets=(secret, *hidden.values())
        )
        self._taxonomy.key_variable = variable or "OPENAI_API_KEY"
        self._client = Client(
            server,
            api_key=secret,
            taxonomy=self._taxonomy,
            prices=self._prices,
            organization=organization,
            project=project,
            headers=hidden,
            clock=clock,
        )
        protocol = Responses() if settings.api == "responses" else Chat(official=server.official)
        self._conversation = Conversation(self._client, protocol, self._prices, raises_limits=max_tokens is None)
        self._embedder = Embedder(
            self._client, model=embedding_model, cut=embedding_dimensions, dimensions=settings.dimensions, clock=clock
        )
        self._seen: dict[str, None] = {}

    def named(self, name: str) -> Self:
        """Give it a name of its own, under which it has a key of its own: `OPENAI_API_KEY` is for ``openai``."""
        super().named(name)
        self._taxonomy.backend = name
        if self._key_variable is None and name != type(self).name:
            own = f"VISION_BACKENDS__{name.upper()}__API_KEY"
            self._taxonomy.key_variable = own if _VARIABLE.fullmatch(own) else "api_key_env"
        return self

    def model_for(self, request: Request) -> Model:
        """Return the model that would answer; a text may be a query for described images, in their space."""
        is_query = isinstance(request, EmbedTextRequest) and request.space == self._models["query"].space
        return self._models["query" if is_query else request.task]

    def spaces(self, request: Request) -> tuple[str, ...]:
        """Return the spaces that may be pinned: for a text also that of described images."""
        spaces = super().spaces(request)
        query = self._models["query"].space
        return (*spaces, query) if isinstance(request, EmbedTextRequest) and query is not None else spaces

    def check(self, request: Request) -> None:
        """Return if the server can be asked."""
        if self._lacks_key:
            server, variable = self._settings.base_url, self._key_variable
            why = f": [openai] api_key_env names the variable {variable}, which is not set" if variable else ""
            raise NotReadyError(
                f"There is no API key for {'OpenAI' if server.official else server.host}{why}.",
                remedy=f"Set {self._taxonomy.key_variable}, or api_key in [openai] of vision.toml.",
                backend=self.name,
                code="no_api_key",
            )
        if isinstance(request, EmbedRequest | EmbedTextRequest):
            self._space(request)
            if request.task == "embed" and self._settings.image_embeddings == "direct":
                self._embedder.check_images()

    def remember_in(self, notes: Notes) -> None:
        """Keep there which fields the server refuses."""
        self._client.dialect.notes = notes

    def forget(self) -> None:
        """Ask the server again for what it has refused."""
        self._client.dialect.forget()
        self._embedder.forget()

    def warm_up(self, request: Request) -> None:
        """Import the HTTP client and load the certificates; nothing is sent."""
        self.check(request)
        self._client.warm_up()

    def diagnose(self, *, timeout_s: float) -> None:
        """Return if the server is there and lists its models, which costs nothing."""
        server = self._settings.base_url
        if self._lacks_key:
            return
        deadline = Deadline(self._clock, timeout_s)
        status, content_type = engine_loop().run(partial(self._client.look, deadline=deadline))
        where = f"base_url = {server.url}"
        if status in {401, 403}:
            raise AuthenticationError(
                f"{server.host} does not accept the key ({status}).", remedy="Check api_key.", code="bad_key"
            )
        if 300 <= status < 400 or status in {404, 405} or (status == 200 and "json" not in content_type.lower()):
            found = "a web page" if status == 200 else f"status {status}"
            raise ModelNotFoundError(
                f"{where} is reached, but it is not where an API begins: its /models is {found}.",
                remedy="Check base_url in [openai]; it usually ends in /v1.",
                code="bad_base_url",
                status=status,
            )

    def batch_size(self, request: Request) -> int:
        """Hundreds of texts go into one request; everything else is one request each."""
        return TEXTS_PER_CALL if request.task == "embed_text" else 1

    def concurrency(self, request: Request) -> int:  # noqa: ARG002 — the same for all
        """As configured; the router halves it where the server is overloaded."""
        return self._concurrency

    def wire_rule(self, request: Request) -> WireRule | None:
        """No more than the model looks at, and small files as they are."""
        return None if request.task == "embed_text" else self._settings.wire_rule

    def expected_s(self, request: Request) -> float:
        """Typical of small models; measured values replace it."""
        return EXPECTED_S[request.task]

    def estimate(self, request: Request, inputs: Sequence[Image] | Sequence[str]) -> Usage:
        """Return the most tokens and cost; a cost is unknown where the model's price is."""
        more = self._conversation.more_tokens
        at_most = partial(estimate, request, settings=self._settings, prices=self._prices, more_tokens=more)
        return reduce(add, map(at_most, inputs))

    def rate_limits(self, request: Request) -> RateLimits | None:
        """Return what the latest reply for the answering model said."""
        return self._client.rate_limits(self.model_for(request).name)

    async def describe(  # type: ignore[override]  # the same method as a coroutine
        self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float
    ) -> list[Description]:
        """Describe each image, or answer the prompt about it."""
        deadline = Deadline(self._clock, min(timeout_s, self._timeout_s))
        with self._measured() as watch:
            described = [await self._describe(image, request, deadline) for image in images]
        return _timed(described, watch)

    async def describe_stream(  # type: ignore[override]
        self, image: Image, request: DescribeRequest, *, timeout_s: float
    ) -> AsyncGenerator[str | Description, None]:
        """Yield a description piece by piece as it is written, and at last the whole record.

        Nothing is sent before the first piece is asked for. An error may come before the first piece, when another
        rung can still be asked, or after it, when the caller holds the text so far. Errors as in `describe`.
        """
        deadline = Deadline(self._clock, min(timeout_s, self._timeout_s))
        ask = _with_digest(image, partial(ask_for_description, self._settings, request, image))
        with self._measured() as watch:
            question = await self._conversation.prepare(ask, stream=True, deadline=deadline)
        pieces = self._conversation.stream(question, ask, deadline=deadline)
        with self._without_secrets(), self._fair_to(image):
            async with aclosing(watch.follow(pieces, "wire")) as followed:
                async for piece in followed:
                    if isinstance(piece, str):
                        yield piece
                    else:
                        yield _timed([self._description(piece, request)], watch)[0]

    async def embed(  # type: ignore[override]
        self, images: Sequence[Image], request: EmbedRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed each image: by its description, or directly where that is configured."""
        space = self._space(request)
        deadline = Deadline(self._clock, min(timeout_s, self._timeout_s))
        with self._measured() as watch:
            if self._settings.image_embeddings == "direct":
                urls = [partial(encode_url, image, self._settings.wire_rule) for image in images]
                vectors, tokens = await self._embedder.embed_images(urls, deadline=deadline)
                embeddings = self._embeddings(vectors, tokens, space)
            else:
                embeddings = await self._embed_descriptions(images, space, deadline)
        return _timed(embeddings, watch)

    async def embed_text(  # type: ignore[override]
        self, texts: Sequence[str], request: EmbedTextRequest, *, timeout_s: float
    ) -> list[Embedding]:
        """Embed texts, as such or as queries for described images."""
        space = self._space(request)
        deadline = Deadline(self._clock, min(timeout_s, self._timeout_s))
        with self._measured() as watch:
            if request.truncate and len(texts) == 1:
                vectors, tokens, left_out = await self._embedder.embed_start(texts[0], deadline=deadline)
            else:  # of several, the router asks for each alone once one is too long
                (vectors, tokens), left_out = await self._embedder.embed_texts(texts, deadline=deadline), None
        embeddings = self._embeddings(vectors, tokens, space)
        if left_out is not None:
            embeddings = [replace(each, trace=replace(each.trace, notes=(left_out,))) for each in embeddings]
        return _timed(embeddings, watch)

    async def detect(  # type: ignore[override]
        self, images: Sequence[Image], request: DetectRequest, *, timeout_s: float
    ) -> list[Detections]:
        """Find COCO's 80 kinds of objects, or whatever the labels name.

        The scores are the model's own opinion of itself: good for sorting, not calibrated.
        """
        deadline = Deadline(self._clock, min(timeout_s, self._timeout_s))
        with self._measured() as watch:
            detected = [await self._detect(image, request, deadline) for image in images]
        return _timed(detected, watch)

    def learned(self, request: Request) -> Sequence[str]:
        """Return which fields of such a request the server has refused."""
        settings = self._settings
        words, vectors = (settings.api, settings.model), ("embeddings", settings.embedding_model)
        asked: list[tuple[str, str]] = [words] if request.task != "embed_text" else []
        if request.task in {"embed", "embed_text"}:
            asked = [vectors] if settings.image_embeddings == "direct" else [*asked, vectors]
        return [
            f"Its server refuses {', '.join(sorted(fields))} of {endpoint}, so requests are written without; "
            f"`vision reset {self.name}` asks it again."
            for endpoint, model in asked
            if (fields := self._client.dialect.known(endpoint, model))
        ]

    def status(self) -> Mapping[str, Any]:
        """Return what is configured, without the key."""
        settings = self._settings
        return {
            "base_url": settings.base_url.url,
            "api": settings.api,
            "model": settings.model,
            "embedding_model": settings.embedding_model,
            "has_key": self._has_key,
            "left_out": self._client.dialect.facts(),
            "prices_known": [name for name in (settings.model, settings.embedding_model) if self._prices.of(name)],
        }

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._client.aclose()

    def close(self) -> None:
        """Let every loop close its connections when no call needs them any more; a later call opens new ones."""
        self._client.close()

    @property
    def _lacks_key(self) -> bool:
        """Whether nothing is sent, as there is no key where one is needed or named."""
        return not self._has_key and (self._settings.base_url.official or self._key_variable is not None)

    async def _describe(self, image: Image, request: DescribeRequest, deadline: Deadline) -> Description:
        ask = _with_digest(image, partial(ask_for_description, self._settings, request, image))
        with self._fair_to(image):
            said = await self._conversation.ask(ask, deadline=deadline)
        return self._description(said, request)

    @contextmanager
    def _measured(self) -> Iterator[Stopwatch]:
        """Measure a call, from whose errors secrets are taken out."""
        with self._without_secrets(), Stopwatch(clock=self._clock).running() as watch:
            yield watch

    @contextmanager
    def _without_secrets(self) -> Iterator[None]:
        try:
            yield
        except VisionError as error:
            self._taxonomy.hide_secrets(error)
            tell_rung(error, self)
            raise

    @contextmanager
    def _fair_to(self, image: Image) -> Iterator[None]:
        """Blame no image that this server has looked at before.

        Raises:
            RefusedError: In place of the error that blames it.
        """
        try:
            yield
        except InvalidImageError as error:
            if image.digest not in self._seen:
                raise
            remedy = "The image is fine: this server has read it before."
            raise RefusedError(error.message, remedy=remedy, code="image_blamed") from error
        self._seen[image.digest] = None
        if len(self._seen) > SEEN_IMAGES:
            del self._seen[next(iter(self._seen))]

    def _description(self, said: Said, request: DescribeRequest) -> Description:
        return Description(
            text=said.text.strip(),
            language=request.language,
            complete=said.finish == "stop",
            trace=self._trace(said),
        )

    async def _detect(self, image: Image, request: DetectRequest, deadline: Deadline) -> Detections:
        categories = coco_categories()
        labels = request.labels or tuple(categories)
        ask = _with_digest(image, partial(ask_for_boxes, self._settings, labels, image))
        with self._fair_to(image):
            said = await self._conversation.ask(ask, deadline=deadline)
        trace = self._trace(said)
        if said.finish == "length":
            raise _cut("The list of boxes", trace.usage)
        try:
            boxes = read_boxes(said.text, labels=labels, categories=categories, width=image.width, height=image.height)
        except InvalidReplyError as error:
            error.usage = trace.usage
            raise
        kept = tuple(item for item in boxes.found if item.score >= (request.min_score or 0.0))
        trace = replace(trace, flawed_boxes=boxes.flawed)
        return Detections(items=kept, width=image.width, height=image.height, trace=trace)

    async def _embed_descriptions(self, images: Sequence[Image], space: str, deadline: Deadline) -> list[Embedding]:
        self._embedder.check_texts()  # before captions are paid for
        captions = [await self._describe(image, DescribeRequest(), deadline) for image in images]
        spent = [caption.trace.usage for caption in captions]
        if not all(caption.complete for caption in captions):  # half a description has another vector
            raise _cut("The description to embed", reduce(add, spent))
        texts = [caption.text for caption in captions]
        try:
            vectors, tokens = await self._embedder.embed_texts(texts, deadline=deadline)
        except VisionError as error:
            billed = Usage() if isinstance(error, InvalidReplyError | TimedOutError | UnavailableError) else FREE
            error.usage = reduce(add, spent) + (error.usage or billed)
            if isinstance(error, RefusedError):
                error.lasting = True  # the words are those of a caption: the next would fare no better
            raise
        return self._embeddings(vectors, tokens, space, spent)

    def _embeddings(
        self, vectors: Vectors, tokens: Tokens | None, space: str, spent: Sequence[Usage] = ()
    ) -> list[Embedding]:
        """Return the embeddings of one call, each with its share of the tokens and what was spent on it before."""
        model = self._settings.embedding_model
        usages = split_usage(self._prices.usage(model, tokens), len(vectors))
        if spent:
            usages = [before + share for before, share in zip(spent, usages, strict=True)]
        return [
            Embedding(vector=vector, space=space, trace=Trace(model=model, usage=usage))
            for vector, usage in zip(vectors, usages, strict=True)
        ]

    def _space(self, request: EmbedRequest | EmbedTextRequest) -> str:
        """Return the space of the answer, which is the one that was pinned, if one was."""
        space = self.model_for(request).space or ""
        if request.space not in {None, space}:
            raise NotSupportedError(f"Its vectors live in the space {space!r}.", backend=self.name)
        return space

    def _trace(self, said: Said) -> Trace:
        model = self._settings.model
        named = said.model if said.model != model else None  # a snapshot of it, or what a gateway has asked instead
        revision = self._taxonomy.scrub(named or "") or None
        return Trace(model=model, revision=revision, usage=self._prices.usage(model, said.tokens))


def _payer(
    url: str, key: Secret, headers: Mapping[str, Secret], *, organization: str | None, project: str | None
) -> str:
    """Return a short hash of who pays, as far as it is configured; what is not does not count."""
    who = f"\0{organization or ''}\0{project or ''}" if organization or project else ""
    proofs = _revealed({name: value for name, value in headers.items() if not key or _PROVES.search(name)})
    return hashlib.sha256(f"{url}\0{key.reveal()}{who}{proofs or ''}".encode()).hexdigest()[:16]


def _revealed(headers: Mapping[str, Secret]) -> list[tuple[str, str]]:
    return sorted((name.lower(), value.reveal()) for name, value in headers.items())


def _with_digest(image: Image, ask: Callable[[], Ask]) -> Callable[[], Ask]:
    """Return what makes a question in a thread, and computes there by what its image is known again."""

    def make() -> Ask:
        _ = image.digest
        return ask()

    return make


def _cut(what: str, usage: Usage) -> InvalidReplyError:
    error = InvalidReplyError(
        f"{what} was cut at its length limit.",
        remedy="Raise max_tokens in [openai] of vision.toml, or lower reasoning_effort there.",
        code="limit_reached",
    )
    error.usage = usage
    return error


def _timed(answers: Sequence[A], watch: Stopwatch) -> list[A]:
    """Return the answers of one call with what was measured of it."""
    return [replace(answer, trace=replace(answer.trace, timing=watch.timing)) for answer in answers]
