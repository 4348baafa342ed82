"""The rung that asks OpenAI, or any server that speaks its language.

This module decides how each task becomes questions to the server and how answers become records. It must not know
error codes, the shape of requests, or how bytes travel.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import aclosing, contextmanager
from copy import copy
from dataclasses import replace
from functools import partial, reduce
from operator import add
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from vision_backends.backends.base import AsyncBackend, in_own_words, tell_rung
from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai.client import Client
from vision_backends.backends.openai.conversation import Conversation
from vision_backends.backends.openai.dialect import Dialect
from vision_backends.backends.openai.embeddings import Embedder
from vision_backends.backends.openai.errors import Secret, Taxonomy
from vision_backends.backends.openai.findings import day_of
from vision_backends.backends.openai.models import (
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_MODEL,
    NOTHING,
    Detail,
    PriceList,
    Tokens,
    effort_of,
    image_token_rule,
    is_openai_model,
    split_usage,
    wire_rule,
)
from vision_backends.backends.openai.probing import Probe, identity_of
from vision_backends.backends.openai.prompts import (
    ask_about,
    ask_for_boxes,
    ask_for_description,
    encode_url,
    estimate,
    read_boxes,
)
from vision_backends.backends.openai.protocol import Chat, Responses
from vision_backends.backends.openai.settings import BaseUrl, Settings
from vision_backends.backends.requests import (
    Account,
    AskRequest,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
)
from vision_backends.backends.structured import ask_again, read_data
from vision_backends.clock import SYSTEM_CLOCK, Clock, Deadline, Stopwatch
from vision_backends.config.found import ONLY_LOWER, OnlyIf, ordered
from vision_backends.config.presets import find_preset, presets
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import (
    AuthenticationError,
    CallerError,
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
from vision_backends.types import FREE, Description, Detections, Embedding, ProbeReport, Reply, Trace, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.backends.openai.findings import Sight
    from vision_backends.backends.openai.protocol import Ask, Said
    from vision_backends.backends.openai.tokens import Token
    from vision_backends.backends.requests import Model, RateLimits, Request
    from vision_backends.config.presets import Preset
    from vision_backends.images import Image, WireRule
    from vision_backends.storage.notes import Notes

    Vectors = npt.NDArray[np.float32]

__all__ = ["OpenAIBackend"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"

TEXTS_PER_CALL = 256
"""Of the 2,048 that OpenAI takes, so that one failure costs little."""

A = TypeVar("A", Description, Embedding, Detections, Reply)

OTHER_MODELS = 64
"""How many models that calls have named are remembered with what was learned about them."""

SEEN_IMAGES = 1_000
"""How many images are remembered as readable."""

OPENAI_ONLY = OnlyIf("the name of a model of OpenAI's", lambda model, _without: is_openai_model(model))
LESS_DETAIL = ordered("low", "high", "original", "auto")
LESS_THINKING = ordered("none", "auto", "minimal", "low", "default", "medium", "high", "xhigh")
SHORTER = OnlyIf("at most what it is without the file, or 1024", lambda most, without: most <= (without or 1024))
"""What a configuration file that was only found may do to a key; every other key it may not set."""

_SCHEMA_FIELDS = {"chat": "response_format", "responses": "text"}
"""The field of either API that asks for JSON by a schema."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
"""Names of variables, which keys do not look like: one that was written here by mistake is not shown as a name."""

_PROVES = re.compile(r"key|token|secret|auth|cookie|organization|project", re.IGNORECASE)
"""Names of headers that say who pays."""

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
        row = None if preset is None else find_preset(preset)
        server = self._place(base_url or (DEFAULT_BASE_URL if row is None else row.base_url), row)
        variable = api_key_env if api_key_env and _VARIABLE.fullmatch(api_key_env) else None
        misnamed, doubled = api_key_env is not None and not variable, bool(api_key_env and api_key)
        is_named = variable is not None
        if row is not None and not (api_key or is_named or self._token):
            variable = row.key_variable_for(server.origin)
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
        if private and not server.is_this_machine:
            raise ConfigError(
                f"[openai] private = true is for a server on this machine, and {server.host} is not on it.",
                remedy='Leave it out, or write for example: base_url = "http://localhost:11434/v1"',
            )
        model, embedding_model = _models_of(row, model, embedding_model)
        image_embeddings = image_embeddings or ("direct" if row is not None and row.embeds == "images" else "describe")
        seer = self._behind.get(model, model)
        image_rule = image_token_rule(seer, detail, max_image_px=max_image_px)
        settings = Settings(
            base_url=server,
            api=("responses" if server.official else "chat") if api == "auto" else api,
            model=model,
            embedding_model=embedding_model,
            embedding_dimensions=embedding_dimensions,
            image_embeddings=image_embeddings,
            detail=detail,
            effort=effort_of(seer, reasoning_effort),
            max_image_px=max_image_px,
            image_rule=image_rule,
            wire_rule=wire_rule(seer, image_rule, max_image_px=max_image_px),
            max_tokens=max_tokens,
            preset=row,
            wanted_effort=reasoning_effort,
        )
        payer = secret if self._token is None else Secret(self._token.identity)
        self.credential = _payer(
            server.resource or server.url, payer, hidden, organization=organization, project=project
        )
        self.account = Account(
            server="\0".join((server.url, organization or "", project or "")),
            secret=hashlib.sha256(repr((payer.reveal(), _revealed(hidden))).encode()).hexdigest()[:32],
        )
        self._has_key, self._key_variable, self._private = bool(secret), variable, private
        self._key_is_named = is_named
        self._needs_key = is_named or server.official or (row is not None and row.demands_key_at(server.origin))
        self._texts_per_call = (row and row.texts_per_call) or TEXTS_PER_CALL
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._clock = clock
        is_free = row.is_free if row is not None and server.is_this_machine else None
        flat = 0.0 if price is None and private else price
        self._prices = PriceList.load(prices, flat=flat, is_free=is_free, host=server.host, behind=self._behind)
        self._taxonomy = Taxonomy(
            host=server.host,
            official=server.official,
            extra={**(row.error_codes if row else {}), **(error_codes or {})},
            secrets=(secret, *hidden.values()),
        )
        self._taxonomy.key_variable = variable or "OPENAI_API_KEY"
        self._client = Client(
            server,
            api_key=secret,
            taxonomy=self._taxonomy,
            prices=self._prices,
            dialect=Dialect(server.url, documented=None if row is None else row.refuses),
            direct=private,
            key_header=self._key_header,
            token=None if self._token is None else self._token.fresh,
            organization=organization,
            project=project,
            headers=hidden,
            clock=clock,
        )
        self._seen: dict[str, None] = {}
        self._others: dict[tuple[str, str], Self] = {}
        self._ask_by(settings)

    def _ask_by(self, settings: Settings) -> None:
        """Ask the models of these settings from now on; what is learned about them begins anew."""
        self._settings, self._models = settings, settings.models()
        self._probe: Probe | None = None
        self._is_identified = False
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

    @classmethod
    def defaults_for(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what follows from the preset."""
        row = presets().get(str(settings.get("preset")))
        names_models = row is not None and not row.has_default_models
        models = {} if names_models else {"model": DEFAULT_MODEL, "embedding_model": DEFAULT_EMBEDDING_MODEL}
        images = "direct" if row is not None and row.embeds == "images" else "describe"
        return {"base_url": DEFAULT_BASE_URL if row is None else row.base_url, "image_embeddings": images, **models}

    def named(self, name: str) -> Self:
        """Give it a name of its own, under which it has a key of its own: `OPENAI_API_KEY` is for ``openai``."""
        super().named(name)
        self._others.clear()
        self._taxonomy.backend = name
        if self._key_variable is None and name != type(self).name:
            own = f"VISION_BACKENDS__{name.upper()}__API_KEY"
            self._taxonomy.key_variable = own if _VARIABLE.fullmatch(own) else "api_key_env"
        return self

    def model_for(self, request: Request) -> Model:
        """Return the model that would answer; a text may be a query for described images, in their space."""
        try:
            is_query = isinstance(request, EmbedTextRequest) and request.space == self._models["query"].space
            return self._models["query" if is_query else request.task]
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
        query = self._models.get("query") if isinstance(request, EmbedTextRequest) else None
        return spaces if query is None or query.space is None or query.space in spaces else (*spaces, query.space)

    def check(self, request: Request) -> None:
        """Return if the server can be asked."""
        if self._lacks_key:
            server, variable = self._settings.base_url, self._key_variable
            named = f": [openai] api_key_env names the variable {variable}, which is not set"
            why = named if self._key_is_named else ""
            raise NotReadyError(
                f"There is no API key for {'OpenAI' if server.official else server.host}{why}.",
                remedy=f"Set {self._taxonomy.key_variable}, or api_key in [openai] of vision.toml.",
                backend=self.name,
                code="no_api_key",
            )
        if self._client.findings.blind and self._settings.looks(request.task):
            self._check_sight()
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
        if self._lacks_key or not self._models:  # nobody will ask it anything
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
        more = self._conversation.more_tokens
        at_most = partial(estimate, request, settings=self._settings, prices=self._prices, more_tokens=more)
        return reduce(add, map(at_most, inputs))

    def rate_limits(self, request: Request) -> RateLimits | None:
        """Return what the latest reply for the answering model said."""
        model = self._models.get(request.task)
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
        ask = _with_digest([image], partial(ask_for_description, self._settings, request, image))
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
        if request.task not in self._models:
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
            "has_key": self._has_key,
            "private": self._private,
            "left_out": self._client.dialect.facts(),
        }

    @property
    def probing(self) -> Literal["never", "when told", "by itself"]:
        """By itself only where the server is on this machine, and is said to cost nothing."""
        settings = self._settings
        if "describe" not in settings.models():
            return "never"
        is_free = self._prices.of(settings.model) == NOTHING
        return "by itself" if is_free and settings.base_url.is_this_machine else "when told"

    def recall(self) -> None:
        """Take up whether the model sees, as any process has found out."""
        finding = self._client.findings.recall(self._settings.model)
        if finding is None:
            is_settled = self.probing != "by itself"
        else:
            is_same = not finding.identity or self._is_identified or self.probing != "by itself"
            is_settled = finding.sight != "blind" and is_same
        self._models = self._settings.models(probe_first=not is_settled)

    async def probe(self, *, timeout_s: float) -> Usage | None:
        """Show the model a picture of one colour, and learn from what it says of it."""
        deadline = Deadline(self._clock, timeout_s)
        with self._without_secrets():
            if self._probe is None:
                self._probe = Probe(random=Random())  # noqa: S311 — colours, and no secret
            probe = self._probe
            if probe.identity is None:
                probe.identity = await self._identity(deadline)
                if self._is_still(probe.identity):
                    self._settle(None)
                    return None
            usage = await self._ask_for_a_colour(probe, deadline)
            sight = probe.sight
            if sight is not None:
                await engine_loop().compute.start(partial(self._settle, sight))
            return usage

    def probe_again(self) -> None:
        """Forget in this process whether the model sees."""
        self._client.findings.forget(self._settings.model)
        self._probe, self._is_identified = None, False
        self._models = self._settings.models()

    def found(self) -> ProbeReport | None:
        """Return whether the model sees, follows schemas, and what its server refuses."""
        settings = self._settings
        finding = self._client.findings.known.get(settings.model)
        if finding is None:
            return None
        refused = self._client.dialect.known(settings.api, settings.model)
        field = _SCHEMA_FIELDS[settings.api]
        return ProbeReport(
            model=settings.model,
            sees={"sees": True, "blind": False}.get(finding.sight),
            at=finding.at,
            follows_schemas=None if finding.sight != "sees" else field not in refused,
            refuses=tuple(sorted(refused)),
        )

    async def _identity(self, deadline: Deadline) -> str:
        """Return which weights the server has behind the model's name; empty where it does not say."""
        listed = await self._client.models(deadline=deadline)
        return next((identity_of(each) for each in listed if each.get("id") == self._settings.model), "")

    def _is_still(self, identity: str) -> bool:
        """Return whether something is known of just these weights."""
        finding = self._client.findings.about(self._settings.model)
        return finding is not None and finding.identity == identity

    async def _ask_for_a_colour(self, probe: Probe, deadline: Deadline) -> Usage:
        """Ask one question, and take the answer into account; one that is none says neither.

        Raises:
            BackendError: The server did not answer.
        """
        probe.go_on()
        try:
            said = await self._conversation.ask(partial(probe.ask, self._settings), deadline=deadline)
        except RefusedError as refusal:
            if not refusal.blind:
                raise
            probe.cannot()
            return refusal.usage or FREE
        except (InvalidReplyError, CallerError) as error:
            return error.usage or Usage()
        probe.hear(said.text)
        return self._prices.usage(self._settings.model, said.tokens)

    def _settle(self, sight: Sight | None) -> None:
        """Keep what a probe has found out; None where that was known before. May write to a store."""
        probe, model = self._probe, self._settings.model
        self._probe, self._is_identified = None, True
        if probe is not None and sight is not None:
            self._client.findings.note(model, sight, identity=probe.identity or "")
            if sight == "sees" and probe.is_json and not probe.by_schema:
                api = self._settings.api
                self._client.dialect.learn(api, model, {_SCHEMA_FIELDS[api]: None})
        finding = self._client.findings.known.get(model)
        is_blind = finding is not None and finding.sight == "blind"
        self._models = self._settings.models(probe_first=is_blind)

    def _check_sight(self) -> None:
        """Return unless the model is known to see no images.

        Raises:
            NotSupportedError: It is.
        """
        model = self._settings.model
        finding = self._client.findings.about(model)
        if finding is not None and finding.sight == "blind":
            raise NotSupportedError(
                f"{model} of {self._settings.base_url.host} sees no images, as was found out on {finding.day}.",
                remedy="Set a model that sees images in [openai], or have it probed again: vision doctor --probe.",
                backend=self.name,
                code="blind",
            )

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

    @property
    def _lacks_key(self) -> bool:
        """Whether nothing is sent, as there is no key where one is needed or named."""
        return not self._has_key and self._needs_key and self._token is None

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

    async def _describe(self, image: Image, request: DescribeRequest, deadline: Deadline) -> Description:
        ask = _with_digest([image], partial(ask_for_description, self._settings, request, image))
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
        ask = _with_digest([image], partial(ask_for_boxes, self._settings, labels, image))
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
                billed = Usage() if isinstance(failed, InvalidReplyError | TimedOutError | UnavailableError) else FREE
                failed.usage = spent + (failed.usage or billed)
                raise
            spent += self._trace(said).usage
            data = await self._read(said, request, spent)
        trace = replace(self._trace(said), usage=spent)
        return Reply(text=said.text.strip(), data=data, complete=said.finish == "stop", trace=trace)

    async def _say(self, images: Sequence[Image], request: AskRequest, deadline: Deadline) -> Said:
        ask = _with_digest(images, partial(ask_about, self._settings, request, images))
        with self._fair_to(*images):
            return await self._conversation.ask(ask, deadline=deadline)

    async def _read(self, said: Said, request: AskRequest, spent: Usage) -> Any:  # noqa: ANN401 — any JSON
        """Return what the schema describes, read where a caller's own code may run.

        Raises:
            InvalidReplyError: It is not in the answer.
        """
        if request.schema is None:
            return None
        if said.finish == "length":
            raise _cut("The answer", spent)
        try:
            return await engine_loop().compute.start(partial(read_data, said.text, request))
        except InvalidReplyError as error:
            error.usage = spent
            raise

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


def _models_of(row: Preset | None, model: str | None, embedding_model: str | None) -> tuple[str, str]:
    """Return the models that are asked; empty where none can be.

    Raises:
        ConfigError: A server has no model of its own, and none is named.
    """
    if row is None or row.has_default_models:
        return model or DEFAULT_MODEL, embedding_model or DEFAULT_EMBEDDING_MODEL
    key, wanted = ("model", model) if row.sees is not None else ("embedding_model", embedding_model)
    if not wanted:
        raise ConfigError(
            f"[openai] preset = {row.name!r} names no {key}: {row.title} has none that everybody uses.",
            remedy=f'Write the name of one that {"sees images" if key == "model" else "embeds"}: {key} = "…"',
        )
    return model or "", embedding_model or ""


def _payer(
    url: str, key: Secret, headers: Mapping[str, Secret], *, organization: str | None, project: str | None
) -> str:
    """Return a short hash of who pays, as far as it is configured; what is not does not count."""
    who = f"\0{organization or ''}\0{project or ''}" if organization or project else ""
    proofs = _revealed({name: value for name, value in headers.items() if not key or _PROVES.search(name)})
    return hashlib.sha256(f"{url}\0{key.reveal()}{who}{proofs or ''}".encode()).hexdigest()[:16]


def _revealed(headers: Mapping[str, Secret]) -> list[tuple[str, str]]:
    return sorted((name.lower(), value.reveal()) for name, value in headers.items())


def _with_digest(images: Sequence[Image], ask: Callable[[], Ask]) -> Callable[[], Ask]:
    """Return what makes a question in a thread, and computes there by what its images are known again."""

    def make() -> Ask:
        for image in images:
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
