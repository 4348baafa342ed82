"""Who answers what: the configured models, and the names of the vector spaces that come of them.

This module decides what a request is answered with before anything is sent. It must not know the wire or the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vision_backends.backends.openai.model_families import EMBEDDING_DIMENSIONS, Detail, image_token_rule
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedTextRequest, Model
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from vision_backends.backends.openai.base_url import BaseUrl
    from vision_backends.backends.openai.model_families import ImageTokenRule
    from vision_backends.backends.requests import Request

__all__ = ["DESCRIBE_TOKENS", "PROMPTS_VERSION", "Settings"]

PROMPTS_VERSION = "1"
"""Of the words in ``questions.py``; part of every cache key and of the name of the space of described images."""

DESCRIBE_TOKENS = 1024
DETECT_TOKENS = 4096
THINKING_TOKENS = 8192
"""Limits of an answer; the last comes on top where the model thinks first, which counts as output."""

TOKENS_PER_WORD = 8
"""More than any language takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration, as far as it changes answers.

    Attributes:
        base_url: The server.
        api: ``"chat"`` or ``"responses"``.
        model: Describes and detects.
        embedding_model: Embeds.
        embedding_dimensions: Length of the vectors; None takes the model's own.
        image_embeddings: How an image gets its vector: through its description, or directly.
        detail: How closely the model looks.
        effort: How much it thinks; None leaves it to the model.
        max_image_px: Limit of the longer side of what is sent; None sends all that the model looks at.

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

    def __post_init__(self) -> None:
        for key in ("embedding_dimensions", "max_image_px"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"[openai] {key} = {value} is not positive.")
        if self.base_url.official and self.image_embeddings == "direct":
            raise ConfigError(
                "[openai] OpenAI embeds texts only.", remedy='Set image_embeddings = "describe", or a base_url.'
            )

    @property
    def image_rule(self) -> ImageTokenRule:
        """How the model looks at an image."""
        return image_token_rule(self.model, self.detail, max_image_px=self.max_image_px)

    @property
    def dimensions(self) -> int | None:
        """Numbers per vector, where that is known."""
        return self.embedding_dimensions or EMBEDDING_DIMENSIONS.get(self.embedding_model)

    @property
    def text_space(self) -> str:
        """The space of texts, and of images that the server embeds itself.

        Another server's model of the same name makes another space.
        """
        provider = "openai" if self.base_url.official else self.base_url.host
        cut = f"?dimensions={self.embedding_dimensions}" if self.embedding_dimensions else ""
        return f"{provider}/{self.embedding_model}{cut}"

    @property
    def image_space(self) -> str:
        """The space of images; of described ones it names who described them, by which version of the prompt."""
        if self.image_embeddings == "direct":
            return self.text_space
        joint = "&" if "?" in self.text_space else "?"
        return f"{self.text_space}{joint}via={self.model}&prompt={PROMPTS_VERSION}"

    def model_for(self, request: Request) -> Model:
        """Return who answers a request."""
        server = f"{self.base_url.url} {self.api}"
        seen = f"{server} detail={self.detail} px={self.max_image_px} effort={self.effort} prompt={PROMPTS_VERSION}"
        if isinstance(request, DescribeRequest | DetectRequest):
            return Model(name=self.model, fingerprint=seen)
        if isinstance(request, EmbedTextRequest):  # a query for described images is a text like their descriptions
            space = self.image_space if request.space == self.image_space else self.text_space
            return Model(name=self.embedding_model, fingerprint=server, space=space)
        return Model(name=self.embedding_model, fingerprint=seen, space=self.image_space)

    def describe_tokens(self, max_words: int | None) -> int:
        """Return the limit of a description, in tokens."""
        return max(DESCRIBE_TOKENS, TOKENS_PER_WORD * (max_words or 0)) + self._thinking_tokens

    def detect_tokens(self) -> int:
        """Return the limit of a list of boxes, in tokens."""
        return DETECT_TOKENS + self._thinking_tokens

    @property
    def _thinking_tokens(self) -> int:
        return 0 if self.effort in {None, "none"} else THINKING_TOKENS
