"""Families of models that describe: what each has to be asked, and which part of its output is its own.

This module knows what is particular to one transformers architecture. It must not know any request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CaptionStyle", "captioning", "end_tokens", "given_tokens", "longest_text", "writers"]


class CaptionStyle(NamedTuple):
    """How to get a caption from a family that follows no instructions.

    Attributes:
        usual_tokens: Most tokens of a caption unless a request says otherwise; it usually ends earlier by itself.
        task: The prompt for a caption; None where the image alone is enough.
        short_task: The prompt for one short sentence.
        short_words: Most words for which to use that.
    """

    usual_tokens: int
    task: str | None = None
    short_task: str | None = None
    short_words: int = 0

    def task_for(self, max_words: int | None) -> str | None:
        """Return the prompt for a caption of about that length."""
        return self.short_task if max_words is not None and max_words <= self.short_words else self.task


CAPTIONING = {
    "blip": CaptionStyle(usual_tokens=50),
    "blip-2": CaptionStyle(usual_tokens=50),
    "florence2": CaptionStyle(usual_tokens=256, task="<DETAILED_CAPTION>", short_task="<CAPTION>", short_words=20),
}
"""Florence-2 knows its tasks only by these prompts: https://huggingface.co/docs/transformers/model_doc/florence2."""


def captioning(kind: str) -> CaptionStyle | None:
    """Return how to get a caption from a kind of model; None for one that follows instructions."""
    return CAPTIONING.get(kind)


def writers(model: Any) -> Iterator[Any]:  # noqa: ANN401 — any model of transformers
    """Yield the parts of a model that have settings for generation: itself, and the language model inside it."""
    parts = (model, getattr(model, "text_decoder", None), getattr(model, "language_model", None))
    return (part for part in parts if getattr(part, "generation_config", None) is not None)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:  # noqa: ANN401 — any of transformers
    """Return the tokens that end a text."""
    if model.config.model_type == "blip":
        return {model.config.text_config.sep_token_id}
    found = {tokenizer.eos_token_id}
    for part in writers(model):
        ends = part.generation_config.eos_token_id
        found |= {ends} if isinstance(ends, int) else set(ends or ())
    return found - {None}


def given_tokens(model: Any, batch: Mapping[str, Any]) -> int:  # noqa: ANN401 — any model of transformers
    """Return how many tokens at the beginning of the output were input."""
    config = model.config
    if config.model_type == "blip" or config.is_encoder_decoder:
        return 1  # the one that a decoder starts from
    if "input_ids" in batch:
        return int(batch["input_ids"].shape[1])
    return int(config.num_query_tokens) + 1  # BLIP-2's output begins with the image's tokens and a start token


def longest_text(model: Any) -> int | None:  # noqa: ANN401 — any model of transformers
    """Return how many tokens a model has positions for, input included; None if there is no limit."""
    longest: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return longest
