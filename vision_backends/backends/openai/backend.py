"""The rung that asks OpenAI, or any server that speaks its language.

This module decides how each task becomes questions to the server and how answers become records. It must not know
error codes, the shape of requests, or how bytes travel.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial, reduce
from operator import add
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from vision_backends.backends.base import AsyncBackend
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai.access import Given
from vision_backends.backends.openai.client import Client
from vision_backends.backends.openai.conversation import Conversation, Draft, billed_for, cut_short
from vision_backends.backends.openai.described_images import embed_described
from vision_backends.backends.openai.dialect import Dialect
from vision_backends.backends.openai.embeddings import Embedder
from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.backends.openai.findings import day_of
from vision_backends.backends.openai.models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL, Detail, is_openai_model
from vision_backends.backends.openai.prices import PriceList, Tokens, split_usage
from vision_backends.backends.openai.prompts import (
    ask_about,
    ask_for_boxes,
    ask_for_description,
    encode_url,
    estimate,
    most_tokens_beside,
    read_boxes,
)
from vision_backends.backends.openai.protocol import Chat, Responses
from vision_backends.backends.openai.settings import DEFAULT_BASE_URL, BaseUrl, Settings, image_embeddings_of
from vision_backends.backends.openai.sight import SightTest
from vision_backends.backends.requests import (
    Account,
    AskRequest,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
)
from vision_backends.backends.rung_names import in_own_words, tell_rung
from vision_backends.backends.structured import ask_again, read_data
from vision_backends.clock import SYSTEM_CLOCK, Clock, Deadline, Stopwatch
from vision_backends.config.found import ONLY_LOWER, OnlyIf, ordered
from vision_backends.config.presets import find_preset, presets
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
    VisionError,
)
from vision_backends.types import Description, Detections, Embedding, ProbeReport, Reply, Trace, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.backends.openai.protocol import Ask, Said
    from vision_backends.backends.openai.tokens import Token
    from vision_backends.backends.requests import Model, RateLimits, Request
    from vision_backends.config.presets import Preset
    from vision_backends.images import Image, WireRule
    from vision_backends.storage.notes import Notes

    Vectors = npt.NDArray[np.float32]

__all__ = ["OpenAIBackend"]

TEXTS_PER_CALL = 256
"""Of the 2,048 that OpenAI takes, so that one failure costs little."""

A = TypeVar("A", Description, Embedding, Detections, Reply)

OTHER_MODELS = 64
"""How many models that calls have named are remembered with what was learned about them."""

REQUESTS_KEPT = 64
"""Kinds of requests for which is kept what their words can cost."""

SEEN_IMAGES = 1_000
"""How many images are remembered as readable."""

OPENAI_ONLY = OnlyIf("the name of a model of OpenAI's", lambda model, _without: is_openai_model(model))
LESS_DETAIL = ordered("low", "high", "original", "auto")
LESS_THINKING = ordered("none", "auto", "minimal", "low", "default", "medium", "high", "xhigh")
SHORTER = OnlyIf("at most what it is without the file, or 1024", lambda most, without: most <= (without or 1024))
"""What a configuration file that was only found may do to a key; every other key it may not set."""

EXPECTED_S = {"describe": 3.0, "ask": 3.0, "embed": 4.0, "embed_text": 0.5, "detect": 6.0}


class OpenAIBackend(AsyncBackend):
    """Describes, embeds and detects with OpenAI or an OpenAI-compatible server. Imports aiohttp at its first call.

    Args:
        api_key: The key; compatible servers may need none.
        api_key_env: The variable that holds the key, in place of ``api_key``; by default the preset's own.
        preset: A server of which base URL, key variable and refusals are known, such as ``"ollama"``.
        base_url: Where the API begins, usually with ``/v1`` at the end; by default the preset's, or OpenAI's.
        private: Whether the server, on this machine, sends nothing elsewhere, so that ``local_only`` may ask it.
        organization: OpenAI's id of the organization that pays.
        project: OpenAI's id of the project.
        model: Describes and detects; it has to see images. Only OpenAI has one by default.
        embedding_model: Embeds; only OpenAI has one by default.
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
        price: USD per million tokens, sent or received, of every model that ``prices`` does not name; 0 for a server
            that nobody pays for, such as one's own.
        error_codes: This server's own error codes (or types, or statuses) → kind of error, such as
            ``{"budget_gone": "quota_exhausted"}``; wins over the built-in table.
        headers: Sent with every request; taken to be secret.
        clock: Where time comes from.

    Raises:
        ConfigError: A value is invalid.

    Examples:
        >>> from vision_backends import OpenAIBackend
        >>> from vision_backends.testing import SandboxServer
        >>> with SandboxServer() as server:  # in production: no base_url, and the key from the environment
        ...     with Router([OpenAIBackend(api_key=server.api_key, base_url=server.url)]) as hosted:
        ...         print(hosted.describe("cat.jpg"))
        The sandbox sees a 451×300 px JPEG image ...
    """

    name = "openai"
    local = False
    credential: str = ""
    """Short hash of server, organization, project and key: of who pays, and for what."""
    _token: Token | None = None
    """Gives a token to send in place of a key."""
    _behind: Mapping[str, str] = MappingProxyType({})
    """The models of OpenAI's that are asked by another name."""
    _key_header: Literal["authorization", "api-key"] = "authorization"
    account: Account = Account()
    """Server, organization and project, and a hash of key and headers."""

    @in_own_words
    def __init__(  # noqa: PLR0913 — one keyword for each key of the [openai] table
        self,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        preset: str | None = None,
        base_url: str | None = None,
        private: bool = False,
        organization: str | None = None,
        project: str | None = None,
        model: Annotated[str | None, OPENAI_ONLY] = None,
        embedding_model: Annotated[str | None, OPENAI_ONLY] = None,
        embedding_dimensions: int | None = None,
        api: Literal["auto", "chat", "responses"] = "auto",
        timeout_s: Annotated[float, ONLY_LOWER] = 20.0,
        detail: Annotated[Detail, LESS_DETAIL] = "high",
        reasoning_effort: Annotated[str, LESS_THINKING] = "auto",
        max_tokens: Annotated[int | None, SHORTER] = None,
        image_embeddings: Literal["describe", "direct"] | None = None,
        max_image_px: Annotated[int | None, ONLY_LOWER] = None,
        concurrency: Annotated[int, ONLY_LOWER] = 64,
        prices: Mapping[str, Mapping[str, float]] | None = None,
        price: float | None = None,
        error_codes: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        given = Given.hide(api_key=api_key, api_key_env=api_key_env, headers=headers)
        row = None if preset is None else find_preset(preset)
        server = self._place(base_url or (DEFAULT_BASE_URL if row is None else row.base_url), row)
        access = given.access_to(server, row, organization=organization, project=project, token=self._token)
        if not timeout_s > 0 or concurrency < 1:
            raise ConfigError(f"[openai] timeout_s = {timeout_s} and concurrency = {concurrency} must be positive.")
        if private and not server.is_this_machine:
            raise ConfigError(
                f"[openai] private = true is for a server on this machine, and {server.host} is not on it.",
                remedy='Leave it out, or write for example: base_url = "http://localhost:11434/v1"',
            )
        settings = Settings.of(
            server,
            row,
            behind=self._behind,
            api=api,
            model=model,
            embedding_model=embedding_model,
            embedding_dimensions=embedding_dimensions,
            image_embeddings=image_embeddings,
            detail=detail,
            reasoning_effort=reasoning_effort,
            max_image_px=max_image_px,
            max_tokens=max_tokens,
        )
        self.credential, self.account = access.credential_at(server), access.account_at(server)
        self._access, self._private = access, private
        self._texts_per_call = (row and row.texts_per_call) or TEXTS_PER_CALL
        self._timeout_s, self._concurrency, self._clock = timeout_s, concurrency, clock
        self._prices = PriceList.load(
            prices,
            flat=0.0 if price is None and private else price,
            is_free=row.is_free if row is not None and server.is_this_machine else None,
            host=server.host,
            behind=self._behind,
        )
        self._taxonomy = Taxonomy(
            host=server.host,
            official=server.official,
            extra={**(row.error_codes if row else {}), **(error_codes or {})},
            secrets=(access.key, *access.headers.values()),
        )
        self._taxonomy.key_variable = access.variable_for(self.name, kind=self.name)
        self._client = Client(
            server,
            api_key=access.key,
            taxonomy=self._taxonomy,
            prices=self._prices,
            dialect=Dialect(server.url, documented=None if row is None else row.refuses),
            direct=private,
            key_header=self._key_header,
            token=None if access.token is None else access.token.fresh,
            organization=organization,
            project=project,
            headers=access.headers,
            clock=clock,
        )
        self._seen: dict[str, None] = {}
        self._others: dict[tuple[str, str], Self] = {}
        self._ask_by(settings)

    def _ask_by(self, settings: Settings) -> None:
        """Ask the models of these settings from now on; what is learned about them begins anew."""
        self._settings = settings
        protocol = Responses() if settings.api == "responses" else Chat(official=settings.base_url.official)
        raises_limits = settings.max_tokens is None
        self._conversation = Conversation(self._client, protocol, self._prices, raises_limits=raises_limits)
        self._embedder = Embedder(
            self._client,
            model=settings.embedding_model,
            cut=settings.embedding_dimensions,
            dimensions=settings.dimensions,
            clock=self._clock,
        )
        self._sight = SightTest(self._client, self._conversation, settings, self._prices)
        self._most_tokens_beside = lru_cache(maxsize=REQUESTS_KEPT)(partial(most_tokens_beside, settings))

    @classmethod
    def defaults_for(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what follows from the preset."""
        row = presets().get(str(settings.get("preset")))
        names_models = row is not None and not row.has_default_models
        models = {} if names_models else {"model": DEFAULT_MODEL, "embedding_model": DEFAULT_EMBEDDING_MODEL}
        base_url = DEFAULT_BASE_URL if row is None else row.base_url
        return {"base_url": base_url, "image_embeddings": image_embeddings_of(row), **models}

    def named(self, name: str) -> Self:
        """Give it a name of its own, under which it has a key of its own: `OPENAI_API_KEY` is for ``openai``."""
        super().named(name)
        self._others.clear()
        self._taxonomy.backend = name
        self._taxonomy.key_variable = self._access.variable_for(name, kind=type(self).name)
        return self

    def model_for(self, request: Request) -> Model:
        """Return the model that would answer; a text may be a query for described images, in their space."""
        try:
            is_query = isinstance(request, EmbedTextRequest) and request.space == self._sight.models["query"].space
            return self._sight.models["query" if is_query else request.task]
        except KeyError:
            obstacle = self._settings.obstacle(request.task)
        message, remedy = obstacle or (f"The {self.name} backend has no {request.task}.", None)
        raise NotSupportedError(message, remedy=remedy, backend=self.name)

    def with_model(self, model: str, request: Request) -> Self:
        """Return the same server as it answers with any of its models: an embedding model, or one that sees images."""
        embeds = isinstance(request, EmbedRequest | EmbedTextRequest)
        role, settings = "embedding_model" if embeds else "model", self._settings
        if model == getattr(settings, role):
            return self
        other = self._others.get((role, model))
        if other is None:
            other = copy(self)
            other._ask_by(replace(settings, embedding_model=model) if embeds else settings.with_model(model))  # noqa: SLF001 — of its own class
            if len(self._others) >= OTHER_MODELS:
                self._others.clear()
            other = self._others.setdefault((role, model), other)
        return other

    def spaces(self, request: Request) -> tuple[str, ...]:
        """Return the spaces that may be pinned: for a text also that of described images."""
        spaces = super().spaces(request)
        query = self._sight.models.get("query") if isinstance(request, EmbedTextRequest) else None
        return spaces if query is None or query.space is None or query.space in spaces else (*spaces, query.space)

    def check(self, request: Request) -> None:
        """Return if the server can be asked."""
        if self._access.is_missing:
            server, variable = self._settings.base_url, self._access.variable
            named = f": [openai] api_key_env names the variable {variable}, which is not set"
            why = named if self._access.is_named else ""
            raise NotReadyError(
                f"There is no API key for {'OpenAI' if server.official else server.host}{why}.",
                remedy=f"Set {self._taxonomy.key_variable}, or api_key in [openai] of vision.toml.",
                backend=self.name,
                code="no_api_key",
            )
        if self._client.findings.blind and self._settings.looks(request.task):
            self._sight.check(backend=self.name)
        if isinstance(request, EmbedRequest | EmbedTextRequest):
            self._space(request)
            if request.task == "embed" and self._settings.image_embeddings == "direct":
                self._embedder.check_images()

    def remember_in(self, notes: Notes) -> None:
        """Keep there which fields the server refuses."""
        self._client.dialect.notes = self._client.findings.notes = notes

    def forget(self) -> None:
        """Ask the server again for what it has refused, and whether its model sees."""
        self._client.dialect.forget()
        self._client.findings.forget()
        self.probe_again()
        self._embedder.forget()
        self._others.clear()

    def warm_up(self, request: Request) -> None:
        """Import the HTTP client and load the certificates; nothing is sent."""
        self.check(request)
        self._client.warm_up()

    def diagnose(self, *, timeout_s: float) -> None:
        """Return if the server is there and lists its models, which costs nothing."""
        server = self._settings.base_url
        if self._access.is_missing or not self._sight.models:  # nobody will ask it anything
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
        return self._texts_per_call if request.task == "embed_text" else 1

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
        words = self._most_tokens_beside(self._conversation.more_tokens, request)
        at_most = partial(estimate, request, settings=self._settings, prices=self._prices, words=words)
        return reduce(add, map(at_most, inputs))

    def rate_limits(self, request: Request) -> RateLimits | None:
        """Return what the latest reply for the answering model said."""
        model = self._sight.models.get(request.task)
        return None if model is None else self._client.rate_limits(model.name)

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
        draft = self._draft([image], partial(ask_for_description, self._settings, request, image))
        with self._measured() as watch:
            question = await self._conversation.prepare(draft, stream=True, deadline=deadline)
        pieces = self._conversation.stream(question, draft, deadline=deadline)
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
            spent: Sequence[Usage] = ()
            if self._settings.image_embeddings == "direct":
                urls = [partial(encode_url, image, self._settings.wire_rule) for image in images]
                vectors, tokens = await self._embedder.embed_images(urls, deadline=deadline)
            else:
                describe = partial(self._describe, request=DescribeRequest(), deadline=deadline)
                vectors, tokens, spent = await embed_described(
                    images, describe=describe, embedder=self._embedder, deadline=deadline
                )
        return _timed(self._embeddings(vectors, tokens, space, spent), watch)

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

    async def ask(  # type: ignore[override]
        self, questions: Sequence[Sequence[Image]], request: AskRequest, *, timeout_s: float
    ) -> list[Reply]:
        """Answer a question about the images of each input; one that does not follow the schema is asked once more."""
        deadline = Deadline(self._clock, min(timeout_s, self._timeout_s))
        with self._measured() as watch:
            answered = [await self._answer(images, request, deadline) for images in questions]
        return _timed(answered, watch)

    def learned(self, request: Request) -> Sequence[str]:
        """Return what was found out about the model, and which fields of such a request the server has refused."""
        found = self.found() if self._settings.looks(request.task) else None
        return [f"{found}."] * (found is not None) + [
            f"Its server refuses {', '.join(sorted(fields))} of {endpoint}{self._learned_on(endpoint, model)}, "
            "so requests are written without; "
            f"`vision reset {self.name}` asks it again."
            for endpoint, model in self._asked(request)
            if (fields := self._client.dialect.known(endpoint, model))
        ]

    def _learned_on(self, endpoint: str, model: str) -> str:
        """Return the day on which the latest refusal was met, as a sentence has it."""
        at = self._client.dialect.learned_at(endpoint, model)
        return "" if at is None else f" (found out on {day_of(at)})"

    def unpriced(self, request: Request) -> Sequence[str]:
        """Return the models that would be asked and are neither in the user's nor in the shipped list of prices."""
        if request.task not in self._sight.models:
            return []
        return [model for _, model in self._asked(request) if self._prices.of(model) is None]

    def _asked(self, request: Request) -> list[tuple[str, str]]:
        """Return which endpoints such a request takes, and which model it asks there."""
        settings = self._settings
        words, vectors = (settings.api, settings.model), ("embeddings", settings.embedding_model)
        if request.task in {"describe", "detect", "ask"}:
            return [words]
        by_words = request.task == "embed" and settings.image_embeddings == "describe"
        return [words, vectors] if by_words else [vectors]

    def status(self) -> Mapping[str, Any]:
        """Return what is configured, without the key."""
        settings = self._settings
        return {
            "preset": settings.preset and settings.preset.name,
            "base_url": settings.base_url.url,
            "api": settings.api,
            "model": settings.model,
            "embedding_model": settings.embedding_model,
            "has_key": bool(self._access.key),
            "private": self._private,
            "left_out": self._client.dialect.facts(),
        }

    @property
    def probing(self) -> Literal["never", "when told", "by itself"]:
        """By itself only where the server is on this machine, and is said to cost nothing."""
        return self._sight.mode

    def recall(self) -> None:
        """Take up whether the model sees, as any process has found out."""
        self._sight.recall()

    async def probe(self, *, timeout_s: float) -> Usage | None:
        """Show the model a picture of one colour, and learn from what it says of it."""
        with self._without_secrets():
            return await self._sight.test(Deadline(self._clock, timeout_s))

    def probe_again(self) -> None:
        """Forget in this process whether the model sees."""
        self._sight.forget()

    def found(self) -> ProbeReport | None:
        """Return whether the model sees, follows schemas, and what its server refuses."""
        return self._sight.report()

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._client.aclose()

    def close(self) -> None:
        """Let every loop close its connections when no call needs them any more; a later call opens new ones."""
        self._client.close()

    @property
    def is_private(self) -> bool:
        """Whether the user has said that the server, on this machine, sends nothing elsewhere."""
        return self._private

    def _place(self, base_url: str | None, row: Preset | None) -> BaseUrl:
        """Return the server of an address.

        Raises:
            ConfigError: There is none, or it is not one that can be used.
        """
        if base_url is None:
            raise ConfigError(
                f"[openai] preset = {row and row.name!r} needs a base_url: each customer has one of their own.",
                remedy='Write it as its maker shows it; or name an Azure resource with kind = "azure".',
            )
        return BaseUrl.parse(base_url)

    def _draft(self, images: Sequence[Image], ask: Callable[[], Ask]) -> Draft:
        return Draft(images=images, rule=self._settings.wire_rule, ask=ask)

    async def _describe(self, image: Image, request: DescribeRequest, deadline: Deadline) -> Description:
        draft = self._draft([image], partial(ask_for_description, self._settings, request, image))
        with self._fair_to(image):
            said = await self._conversation.ask(draft, deadline=deadline)
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
    def _fair_to(self, *images: Image) -> Iterator[None]:
        """Blame no images that this server has looked at before.

        Raises:
            RefusedError: In place of the error that blames it.
        """
        try:
            yield
        except InvalidImageError as error:
            if not all(image.digest in self._seen for image in images):
                raise
            remedy = "The image is fine: this server has read it before."
            raise RefusedError(error.message, remedy=remedy, code="image_blamed") from error
        self._seen.update(dict.fromkeys(image.digest for image in images))
        while len(self._seen) > SEEN_IMAGES:
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
        draft = self._draft([image], partial(ask_for_boxes, self._settings, labels, image))
        with self._fair_to(image):
            said = await self._conversation.ask(draft, deadline=deadline)
        trace = self._trace(said)
        if said.finish == "length":
            raise cut_short("The list of boxes", trace.usage)
        try:
            boxes = read_boxes(said.text, labels=labels, categories=categories, width=image.width, height=image.height)
        except InvalidReplyError as error:
            error.usage = trace.usage
            raise
        kept = tuple(item for item in boxes.found if item.score >= (request.min_score or 0.0))
        trace = replace(trace, flawed_boxes=boxes.flawed)
        return Detections(items=kept, width=image.width, height=image.height, trace=trace)

    async def _answer(self, images: Sequence[Image], request: AskRequest, deadline: Deadline) -> Reply:
        said = await self._say(images, request, deadline)
        spent = self._trace(said).usage
        try:
            data = await self._read(said, request, spent)
        except InvalidReplyError as error:
            if error.code != "schema_violation":
                raise
            again = ask_again(request, said.text, error)
            try:
                said = await self._say(images, again, deadline)
            except VisionError as failed:
                failed.usage = spent + billed_for(failed)
                raise
            spent += self._trace(said).usage
            data = await self._read(said, request, spent)
        trace = replace(self._trace(said), usage=spent)
        return Reply(text=said.text.strip(), data=data, complete=said.finish == "stop", trace=trace)

    async def _say(self, images: Sequence[Image], request: AskRequest, deadline: Deadline) -> Said:
        draft = self._draft(images, partial(ask_about, self._settings, request, images))
        with self._fair_to(*images):
            return await self._conversation.ask(draft, deadline=deadline)

    async def _read(self, said: Said, request: AskRequest, spent: Usage) -> Any:  # noqa: ANN401 — any JSON
        """Return what the schema describes, read where a caller's own code may run.

        Raises:
            InvalidReplyError: It is not in the answer.
        """
        if request.schema is None:
            return None
        if said.finish == "length":
            raise cut_short("The answer", spent)
        try:
            return await engine_loop().compute.start(partial(read_data, said.text, request))
        except InvalidReplyError as error:
            error.usage = spent
            raise

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


def _timed(answers: Sequence[A], watch: Stopwatch) -> list[A]:
    """Return the answers of one call with what was measured of it."""
    return [replace(answer, trace=replace(answer.trace, timing=watch.timing)) for answer in answers]
