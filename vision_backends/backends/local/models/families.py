"""Families of models that describe: what each has to be told, and what of its output it has said itself.

This module knows what is particular to one architecture of transformers. It must not know any request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CaptionStyle", "captioning", "end_tokens", "given_tokens", "longest_text", "writers"]


class CaptionStyle(NamedTuple):
    """How a family that writes captions and follows no instructions is made to write one.

    Attributes:
        usual_tokens: Most tokens of a caption unless a request says otherwise; it ends by itself before.
        task: The words that ask for a caption; None where the picture alone does.
        short_task: The words that ask for one short sentence.
        short_words: Most words for which to ask that.
    """

    usual_tokens: int
    task: str | None = None
    short_task: str | None = None
    short_words: int = 0

    def task_for(self, max_words: int | None) -> str | None:
        """Return the words that ask for a caption of about that length."""
        return self.short_task if max_words is not None and max_words <= self.short_words else self.task


CAPTIONING = {
    "blip": CaptionStyle(usual_tokens=50),
    "blip-2": CaptionStyle(usual_tokens=50),
    "florence2": CaptionStyle(usual_tokens=256, task="<DETAILED_CAPTION>", short_task="<CAPTION>", short_words=20),
}
"""Florence-2 knows its tasks by these words only: https://huggingface.co/docs/transformers/model_doc/florence2."""


def captioning(kind: str) -> CaptionStyle | None:
    """Return how a kind of model is made to write a caption; None for one that has to be instructed."""
    return CAPTIONING.get(kind)


def writers(model: Any) -> Iterator[Any]:  # noqa: ANN401 — any model of transformers
    """Yield the parts of a model whose settings decide how it writes: itself, and a language model inside."""
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
    """Return with how many tokens that the model was given its output begins."""
    config = model.config
    if config.model_type == "blip" or config.is_encoder_decoder:
        return 1  # the one that a decoder starts from
    if "input_ids" in batch:
        return int(batch["input_ids"].shape[1])
    return int(config.num_query_tokens) + 1  # BLIP-2 writes down where the picture stands, and a beginning


def longest_text(model: Any) -> int | None:  # noqa: ANN401 — any model of transformers
    """Return how many tokens a model can count to, what it was given among them; None where there is no limit."""
    longest: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return longest
