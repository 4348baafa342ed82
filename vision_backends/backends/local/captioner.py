"""Descriptions: plain captions by BLIP, and answers to instructions by any model with a chat template.

This module decides what a model is asked and when it has said enough. It must not know where models come from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_backends.errors import InvalidReplyError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL import Image as PILImage

    from vision_backends.backends.local.runtime import Countdown, Loaded

__all__ = ["Caption", "Captioner", "captions_only"]

PLAIN_PROMPT = "Describe this image in one or two sentences."

TOKENS_PER_WORD = 1.5
"""English takes about 1.3 tokens a word, longer words more: https://platform.openai.com/tokenizer."""

CAPTION_TOKENS = 50
ANSWER_TOKENS = 256
"""Most tokens unless a request says otherwise; BLIP's captions end by themselves after 10 to 20."""


class Caption(NamedTuple):
    """What a model said.

    Attributes:
        text: The words.
        complete: False when the length limit cut them off.
    """

    text: str
    complete: bool


def captions_only(kind: str) -> bool:
    """Tell whether a kind of model writes captions and follows no instructions."""
    return kind == "blip"


class Captioner:
    """One model that turns images into text, always the most probable one.

    Args:
        loaded: BLIP, or an image-text-to-text model whose processor has a chat template.

    Attributes:
        loaded: The same.
        plain: Whether it only writes captions.

    Raises:
        NotReadyError: It is neither.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.plain = captions_only(loaded.checkpoint.kind)
        if loaded.tokenizer is None or not (self.plain or getattr(loaded.processor, "chat_template", None)):
            message = f"{loaded.checkpoint.name} has no chat template, and is no BLIP either."
            raise NotReadyError(message, remedy="Configure another model as [local] caption_model.")
        _decide_greedily(loaded.model)

    def caption(
        self,
        images: Sequence[PILImage.Image],
        *,
        time: Countdown,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
    ) -> list[Caption]:
        """Return a text for each image.

        Args:
            images: RGB images.
            time: When to stop.
            prompt: An instruction; only where the model follows any.
            language: BCP 47 tag of the wanted language; only where the model follows instructions.
            max_words: About how long a text may be.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: The memory or the time to get hold of the model was not enough.
            TimedOutError: The time was over before the last word.
        """
        usual = CAPTION_TOKENS if self.plain else ANSWER_TOKENS
        most = usual if max_words is None else math.ceil(max_words * TOKENS_PER_WORD)
        if self.plain:
            return self._captions(images, most, time)
        question = _question(prompt, language, max_words)
        return [self._answer(image, question, most, time) for image in images]

    def _captions(self, images: Sequence[PILImage.Image], most: int, time: Countdown) -> list[Caption]:
        prepared = [self.loaded.prepare(image) for image in images]
        captions: dict[int, Caption] = {}
        for numbers, batch in self.loaded.batches(prepared):
            with self.loaded.alone(time=time):
                tokens = self._generate(batch, most, time)
                found = [self._said(row[1:]) for row in tokens]  # the first token is where BLIP begins
            captions |= dict(zip(numbers, found, strict=True))
        return [captions[number] for number in range(len(images))]

    def _answer(self, image: PILImage.Image, question: str, most: int, time: Countdown) -> Caption:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        processor = self.loaded.processor
        with self.loaded.alone(time=time):
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(images=[image], text=[text], return_tensors="pt").to(self.loaded.device)
            tokens = self._generate(inputs, most, time)
            return self._said(tokens[0, inputs["input_ids"].shape[1] :])

    def _generate(self, inputs: Any, most: int, time: Countdown) -> torch.Tensor:  # noqa: ANN401 — a mapping
        from transformers import LogitsProcessorList

        watch = _Watch(time)
        tokens: torch.Tensor = self.loaded.model.generate(
            **inputs,
            max_new_tokens=most,
            logits_processor=LogitsProcessorList([watch.check]),
        )
        watch.judge()
        return tokens

    def _said(self, tokens: torch.Tensor) -> Caption:
        text = self.loaded.tokenizer.decode(tokens, skip_special_tokens=True)
        ends = _ends(self.loaded)
        return Caption(text=text.strip(), complete=any(token in ends for token in tokens.tolist()))


class _Watch:
    """Looks at every step of a generation: are the numbers finite, is there time left?"""

    def __init__(self, time: Countdown) -> None:
        self._time = time
        self._bad: torch.Tensor | None = None

    def check(self, _tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note what is wrong; −∞ is how a token is forbidden."""
        self._time.left_s()
        bad = scores.isnan().any() | scores.isposinf().any()
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def judge(self) -> None:
        if self._bad is not None and bool(self._bad):
            raise InvalidReplyError("The model computed scores that are not finite numbers.", code="not_finite")


def _question(prompt: str | None, language: str | None, max_words: int | None) -> str:
    parts = [prompt or PLAIN_PROMPT]
    if language is not None:
        parts.append(f"Answer in the language with the tag {language!r}.")
    if max_words is not None:
        parts.append(f"Use at most {max_words} words.")
    return " ".join(parts)


def _decide_greedily(model: Any) -> None:  # noqa: ANN401 — any model of transformers
    """Take chance out of the checkpoint's defaults, and the settings of chance, which would be warned about."""
    text_decoder = getattr(model, "text_decoder", model)
    for part in (model, text_decoder):
        part.generation_config.do_sample = False
        for setting in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            setattr(part.generation_config, setting, None)


def _ends(loaded: Loaded) -> set[int]:
    """Return the tokens that end a text."""
    if captions_only(loaded.checkpoint.kind):
        return {loaded.model.config.text_config.sep_token_id}
    ends = loaded.model.generation_config.eos_token_id
    found = {ends} if isinstance(ends, int) else set(ends or ())
    return found | {loaded.tokenizer.eos_token_id}
