"""What is configured, and what follows from it: which server is meant, who answers what, and in which vector spaces.

This module decides what a request is answered with before anything is sent. It must not know the wire or the key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from vision_backends.backends.openai.models import (
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_MODEL,
    EMBEDDING_DIMENSIONS,
    Detail,
    effort_of,
    image_token_rule,
    wire_rule,
)
from vision_backends.backends.requests import Model
from vision_backends.config.web_address import origin_of
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.backends.openai.models import ImageTokenRule
    from vision_backends.config.presets import Preset
    from vision_backends.config.web_address import Origin
    from vision_backends.images import WireRule

__all__ = ["DEFAULT_BASE_URL", "PROMPTS_VERSION", "BaseUrl", "Obstacle", "Settings", "image_embeddings_of"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"

PROMPTS_VERSION = "1"
"""Of the words in ``prompts.py``; part of every cache key and of the name of the space of described images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseUrl:
    """Which server is meant.

    Attributes:
        url: Where its API begins, without a slash at the end.
        host: Its name and port, for messages and names of vector spaces.
        official: True for OpenAI's own servers.
        origin: The server as keys belong to it.
        query: What stands behind every address, with its question mark.
        by_deployment: Whether addresses name the deployment that is asked, as Azure's do that are dated.
        resource: Who counts, where several addresses lead to one resource.
    """

    url: str
    host: str
    official: bool
    origin: Origin
    query: str = ""
    by_deployment: bool = False
    resource: str = ""

    @property
    def is_this_machine(self) -> bool:
        """Whether what is sent there stays on this machine, whatever names mean elsewhere; proxies aside."""
        return self.origin.is_this_machine and not self.origin.host.endswith(".localhost")

    @classmethod
    def parse(cls, base_url: str) -> BaseUrl:
        """Read a base URL.

        Raises:
            ConfigError: It is not an http(s) URL, it carries a password, or it leads to OpenAI unencrypted.
        """
        url = base_url.strip()
        origin = origin_of(url)
        if origin is None:
            shown = base_url.rpartition("@")[2]  # what stands before it may be a password
            raise ConfigError(f"[openai] base_url = {shown!r} is not an http:// or https:// address.")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None or parts.query:
            raise ConfigError(
                "[openai] base_url carries a user name, password or query.",
                remedy="Put credentials into api_key or headers.",
            )
        if origin.is_openai and origin.scheme != "https":
            raise ConfigError(
                f"[openai] base_url = {url!r} would send key and pictures to OpenAI unencrypted.",
                remedy=f"Write https://{origin.host}{parts.path}.",
            )
        return cls(url=url.rstrip("/"), host=parts.netloc, official=origin.is_openai, origin=origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration as far as it changes answers.

    Attributes:
        base_url: The server.
        api: ``"chat"`` or ``"responses"``.
        model: Describes and detects.
        embedding_model: Embeds.
        embedding_dimensions: Length of the vectors; None takes the model's own.
        image_embeddings: How an image gets its vector: by its description, or directly.
        detail: How closely the model looks.
        effort: How much it thinks; None leaves it to the model.
        wanted_effort: What the user has written of that: ``"auto"`` and ``"default"`` are different for each model.
        max_image_px: Limit of the longer side of what is sent; None sends all that the model looks at.
        image_rule: How the model sees an image under these settings.
        wire_rule: How an image is sent.
        max_tokens: Limit of an answer, thinking included; None is what the task takes, more where the model thinks.
        preset: What is known of the server.

    Raises:
        ConfigError: A number is not positive, or OpenAI itself is to embed images directly.
    """

    base_url: BaseUrl
    api: Literal["chat", "responses"]
    model: str
    embedding_model: str
    embedding_dimensions: int | None
    image_embeddings: Literal["describe", "direct"]
    detail: Detail
    effort: str | None
    max_image_px: int | None
    image_rule: ImageTokenRule
    wire_rule: WireRule
    max_tokens: int | None = None
    preset: Preset | None = None
    wanted_effort: str = "auto"

    def __post_init__(self) -> None:
        for key in ("embedding_dimensions", "max_image_px", "max_tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"[openai] {key} = {value} is not positive.")
        if self.base_url.official and self.image_embeddings == "direct":
            raise ConfigError(
                "[openai] OpenAI embeds texts only.", remedy='Set image_embeddings = "describe", or a base_url.'
            )

    @classmethod
    def of(
        cls,
        server: BaseUrl,
        preset: Preset | None,
        *,
        behind: Mapping[str, str],
        api: Literal["auto", "chat", "responses"],
        model: str | None,
        embedding_model: str | None,
        embedding_dimensions: int | None,
        image_embeddings: Literal["describe", "direct"] | None,
        detail: Detail,
        reasoning_effort: str,
        max_image_px: int | None,
        max_tokens: int | None,
    ) -> Settings:
        """Return what keys of the ``[openai]`` table mean for a server.

        Args:
            server: The server.
            preset: What is known of it.
            behind: The models of OpenAI's that are asked by another name.
            api: The key of that name, as all that follow.
            model: As there.
            embedding_model: As there.
            embedding_dimensions: As there.
            image_embeddings: As there.
            detail: As there.
            reasoning_effort: As there.
            max_image_px: As there.
            max_tokens: As there.

        Raises:
            ConfigError: A value has no meaning there, or no model is named where the server has none of its own.
        """
        seer, embedder = _models_of(preset, model, embedding_model)
        known = behind.get(seer, seer)
        rule = image_token_rule(known, detail, max_image_px=max_image_px)
        return cls(
            base_url=server,
            api=("responses" if server.official else "chat") if api == "auto" else api,
            model=seer,
            embedding_model=embedder,
            embedding_dimensions=embedding_dimensions,
            image_embeddings=image_embeddings or image_embeddings_of(preset),
            detail=detail,
            effort=effort_of(known, reasoning_effort),
            max_image_px=max_image_px,
            image_rule=rule,
            wire_rule=wire_rule(known, rule, max_image_px=max_image_px),
            max_tokens=max_tokens,
            preset=preset,
            wanted_effort=reasoning_effort,
        )

    def with_model(self, model: str) -> Settings:
        """Return the same settings for another model that describes and detects."""
        rule = image_token_rule(model, self.detail, max_image_px=self.max_image_px)
        return replace(
            self,
            model=model,
            effort=effort_of(model, self.wanted_effort),
            image_rule=rule,
            wire_rule=wire_rule(model, rule, max_image_px=self.max_image_px),
        )

    @property
    def dimensions(self) -> int | None:
        """Numbers per vector, where that is known."""
        return self.embedding_dimensions or EMBEDDING_DIMENSIONS.get(self.embedding_model)

    def looks(self, task: str) -> bool:
        """Return whether a task is one of the model that looks at images."""
        return task in {"describe", "detect", "ask"} or (task == "embed" and self.image_embeddings == "describe")

    def models(self, *, probe_first: bool = True) -> dict[str, Model]:
        """Return who answers each task, and in which space; ``"query"`` is a text to search described images with.

        Args:
            probe_first: Whether it is not known yet if the model sees.

        A task that has an `obstacle` is left out.
        Another server's model of the same name makes another space. The space of described images names who described
        them, by which version of the prompt.
        """
        provider = "openai" if self.base_url.official else self.base_url.host
        cut = f"?dimensions={self.embedding_dimensions}" if self.embedding_dimensions else ""
        texts = images = f"{provider}/{self.embedding_model}{cut}"
        if self.image_embeddings == "describe":
            images = f"{texts}{'&' if cut else '?'}via={self.model}&prompt={PROMPTS_VERSION}"
        server = f"{self.base_url.url} {self.api}"
        seen = f"{server} detail={self.detail} px={self.max_image_px} effort={self.effort} prompt={PROMPTS_VERSION}"
        seen += f" max_tokens={self.max_tokens}" if self.max_tokens else ""  # as it was before there was the key
        seer = Model(name=self.model, fingerprint=seen, probe_first=probe_first)
        by_words = probe_first and self.looks("embed")
        models = {
            "describe": seer,
            "detect": seer,
            "ask": seer,
            "embed": Model(name=self.embedding_model, fingerprint=seen, space=images, probe_first=by_words),
            "embed_text": Model(name=self.embedding_model, fingerprint=server, space=texts),
            "query": Model(name=self.embedding_model, fingerprint=server, space=images),
        }
        return {task: model for task, model in models.items() if self.obstacle(task) is None}

    def obstacle(self, task: str) -> Obstacle | None:
        """Return why no model of the server can answer a task, as far as that is known without asking."""
        preset = self.preset
        looks = self.looks(task)
        embeds = task in {"embed", "embed_text", "query"}
        if preset is not None:
            elsewhere = f"By {preset.source} ({preset.seen}). If that has changed, write base_url in place of preset."
            if preset.retired is not None and preset.is_at(self.base_url.origin):
                return Obstacle(f"{preset.title} has been shut down since {preset.retired}.", elsewhere)
            if looks and preset.sees is None:
                return Obstacle(f"{preset.title} has no models that look at images.", elsewhere)
            if looks and not preset.looks_with(self.model):
                those = f"its models with {preset.sees!r} in the name do"
                return Obstacle(f"{self.model} of {preset.title} does not look at images; {those}.", elsewhere)
            if embeds and preset.embeds == "nothing":
                return Obstacle(f"{preset.title} has no embeddings.", elsewhere)
        if embeds and not self.embedding_model:
            return Obstacle("No model that embeds is named.", "Set embedding_model in [openai].")
        return None


class Obstacle(NamedTuple):
    """Why a task cannot be answered.

    Attributes:
        message: The reason.
        remedy: What a person can do.
    """

    message: str
    remedy: str


def image_embeddings_of(preset: Preset | None) -> Literal["describe", "direct"]:
    """Return how images get their vectors at a server where nothing else is configured."""
    return "direct" if preset is not None and preset.embeds == "images" else "describe"


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
            f"[openai] preset = {row.name!r} names no {key}: {row.title} has no default.",
            remedy=f'Write the name of one that {"sees images" if key == "model" else "embeds"}: {key} = "…"',
        )
    return model or "", embedding_model or ""
