"""Descriptions: plain captions from BLIP and Florence-2, answers to instructions from any model with a chat template.

This module decides what a model is asked and when it has said enough. It must not know where models come from.
"""

from __future__ import annotations

import logging
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_backends.backends.local.models.families import captioning, end_tokens, given_tokens, longest_text, writers
from vision_backends.backends.local.models.reading import MOST_CHARS, without_marks
from vision_backends.backends.local.runtime.loaded_model import aspect
from vision_backends.backends.texts import is_mark, opens_a_thought, spoken
from vision_backends.errors import InvalidReplyError, NotReadyError, NotSupportedError
from vision_backends.foreign_text import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import LogitsProcessor

    from vision_backends.backends.local.models.blip import BlipDecoder
    from vision_backends.backends.local.runtime.loaded_model import Inputs, LoadedModel
    from vision_backends.backends.local.runtime.micro_batcher import Wanted
    from vision_backends.clock import Deadline
    from vision_backends.images import Image

__all__ = ["Caption", "Captioner", "decode"]

PLAIN_PROMPT = "Describe this image in one or two sentences."

TOKENS_PER_WORD = 1.5
"""English has about 1.3 tokens per word, and more in long words: https://platform.openai.com/tokenizer."""

ANSWER_TOKENS = 256
"""Most tokens of an answer to an instruction, unless a request says otherwise."""

TOP_K = 50
"""The default of transformers where a checkpoint has none:
https://huggingface.co/docs/transformers/main_classes/text_generation."""

LEAST_COSINE = 0.999
"""Smallest cosine, over all patches, between another engine's encoding of an image and torch's."""

LONGEST_REFRAIN = 6
LEAST_REPEATS = 3
LEAST_REPEATED = 8
LEAST_REPEATED_CHARS = 64
"""Words that are the same over and over: how many at most, how often, and in all, before they are no answer; characters
where a text has no blanks."""

_UNUSED = re.compile(r"\[unused\d+\]|<unused_?\d+>|<extra_id_\d+>|<\|?(extra|reserved|placeholder)[a-z_]*\d+\|?>")
"""Tokens that stand for no text: BERT's, Gemma's, T5's, and those of Qwen, Llama and Phi."""

_APART_WITHIN = re.compile(r"(?<=\w) (['’-]) (?=\w)")
_APART_AFTER = re.compile(r" ([.,!?:;)%])")

_log = logging.getLogger(__name__)


class Caption(NamedTuple):
    """What a model said.

    Attributes:
        text: The words.
        complete: False if the length limit cut them off.
    """

    text: str
    complete: bool


class _Decoding(NamedTuple):
    """How tokens are chosen; requests that agree in this share a batch.

    Attributes:
        max_new_tokens: Most tokens of a text, including its end token.
        num_beams: Beams for beam search; 1 is greedy decoding.
        seed: Seed for sampling; None does not sample.
    """

    max_new_tokens: int
    num_beams: int
    seed: int | None


class _Said(NamedTuple):
    """The new tokens of one row, and whether all scores were finite."""

    tokens: list[int]
    finite: bool


class Captioner:
    """One model that turns images into text; it samples only where a seed is given.

    Args:
        loaded: BLIP, BLIP-2, Florence-2, or an image-text-to-text model whose processor has a chat template.

    Attributes:
        loaded: The same.
        plain: Whether it only writes captions, and follows no instructions.

    Raises:
        NotReadyError: It is none of them.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._style = captioning(loaded.checkpoint.kind)
        self.plain = self._style is not None
        if loaded.tokenizer is None or not (self.plain or getattr(loaded.processor, "chat_template", None)):
            message = f"{loaded.checkpoint.name} has no chat template, and is not a BLIP or Florence-2 model."
            raise NotReadyError(message, remedy="Configure another model as [local] caption_model.")
        *_, writer = writers(loaded.model)
        self._usual_tokens = self._style.usual_tokens if self._style else ANSWER_TOKENS
        self._usual_beams: int = writer.generation_config.num_beams or 1
        self._limits = _limits_of_chance(writer.generation_config)
        _decide_greedily(loaded.model)
        self._blip = self._lean_decoder() if loaded.checkpoint.kind == "blip" else None

    def _lean_decoder(self) -> BlipDecoder | None:
        """Return our own decoder for BLIP; None for a checkpoint whose settings it does not support."""
        from vision_backends.backends.local.models.blip import BlipDecoder
        from vision_backends.backends.local.runtime.parts import VisionStates

        loaded = self.loaded
        look = loaded.part("vision", VisionStates(loaded.model), agrees=_alike)

        def see(pixels: torch.Tensor) -> torch.Tensor | None:
            found = look({"pixel_values": pixels})
            return found[0] if found else None

        try:
            return BlipDecoder(loaded.model, look=see)
        except ValueError as wish:
            _log.info("%s is decoded by transformers: %s", loaded.checkpoint.name, wish)
            return None

    async def caption(
        self,
        images: Sequence[Image],
        *,
        deadline: Deadline,
        prompt: str | None = None,
        language: str | None = None,
        max_words: int | None = None,
        num_beams: int | None = None,
        seed: int | None = None,
    ) -> list[Caption]:
        """Return a text for each image.

        Args:
            images: Checked images.
            deadline: When to stop.
            prompt: An instruction, for models that follow any.
            language: BCP 47 tag of the wanted language, for models that follow instructions.
            max_words: Roughly how long a text may be.
            num_beams: Beams for beam search; by default as many as the checkpoint is configured for.
            seed: Samples instead, reproducibly for one seed.

        Raises:
            InvalidReplyError: The model computed numbers that are not finite.
            OverloadedError: There was not enough memory, or the model was busy with other calls.
            TimedOutError: The deadline passed before the last word.
        """
        most = self._usual_tokens if max_words is None else math.ceil(max_words * TOKENS_PER_WORD)
        beams = 1 if seed is not None else num_beams or self._usual_beams
        decoding = _Decoding(max_new_tokens=most, num_beams=beams, seed=seed)
        loaded = self.loaded
        if self._style is not None:
            text = self._style.task_for(max_words)
        else:
            question = _question(prompt, language, max_words)
            (text,) = await loaded.map(self._chat, [question], deadline=deadline).results()
        read = partial(self._read, begins_inside=text is not None and opens_a_thought(text))
        said = await loaded.ask(
            images,
            prepare=loaded.prepare if text is None else partial(self._instruct, text),
            alike=aspect,
            run=self._write,
            options=decoding,
            deadline=deadline,
        )
        return await loaded.map(read, said, deadline=deadline).results()

    def _chat(self, question: str) -> str:
        """Return a question about an image in the form of the model's chat template.

        Raises:
            NotSupportedError: It is longer than is worth tokenizing.
        """
        if len(question) > MOST_CHARS:
            raise NotSupportedError(
                f"The prompt is {len(question):,} characters long; a local model is given at most {MOST_CHARS:,}.",
                remedy="Shorten the prompt.",
                code="prompt_too_long",
            )
        content = [{"type": "image"}, {"type": "text", "text": question}]
        with self.loaded.reading:
            content[1]["text"] = without_marks(self.loaded.tokenizer, question)
            messages = [{"role": "user", "content": content}]
            return str(self.loaded.processor.apply_chat_template(messages, add_generation_prompt=True))

    def _instruct(self, text: str, image: Image) -> Inputs:
        """Return the model's input for an image and an instruction.

        Raises:
            NotSupportedError: They are more than the model reads.
        """
        pixels = self.loaded.pixels(image)
        with self.loaded.reading:
            inputs = dict(self.loaded.processor(images=[pixels], text=[text], return_tensors="pt"))
        given, longest = given_tokens(self.loaded.model, inputs), longest_text(self.loaded.model)
        if longest is not None and given >= longest:
            raise NotSupportedError(
                f"The prompt and the image are {given} tokens; the model reads at most {longest}, with its answer.",
                remedy="Shorten the prompt.",
                code="prompt_too_long",
            )
        return inputs

    def _write(self, batch: Inputs, decoding: _Decoding, wanted: Wanted) -> list[_Said]:
        """Return the new tokens of each row; one that is no longer wanted ends early."""
        if self._blip is not None and decoding.num_beams == 1 and decoding.seed is None:
            said = self._blip.generate(batch["pixel_values"], max_new_tokens=decoding.max_new_tokens, wanted=wanted)
            return [_Said(tokens=tokens or [], finite=tokens is not None) for tokens in said]
        return self._generate(batch, decoding, wanted)

    def _generate(self, batch: Inputs, decoding: _Decoding, wanted: Wanted) -> list[_Said]:
        """Do the same with transformers' own ``generate``."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        watch = _Watch(wanted)
        given = given_tokens(self.loaded.model, batch)
        longest = longest_text(self.loaded.model)
        room = decoding.max_new_tokens if longest is None else max(1, longest - given)
        looks: list[Any] = [watch.look]
        if decoding.seed is not None:
            looks.append(_Dice(self._limits, seed=decoding.seed, rows=len(wanted()), device=self.loaded.device).choose)
        tokens: torch.Tensor = self.loaded.model.generate(
            **self.loaded.cast(batch),
            max_new_tokens=min(decoding.max_new_tokens, room),
            num_beams=decoding.num_beams,
            **({} if decoding.num_beams > 1 else {"early_stopping": False, "length_penalty": 1.0}),  # or it warns
            logits_processor=LogitsProcessorList(looks),
            stopping_criteria=StoppingCriteriaList([watch.stop]),
        )
        new = tokens[:, given:].tolist()
        return [_Said(tokens=row, finite=fine) for row, fine in zip(new, watch.fine, strict=True)]

    def _read(self, said: _Said, *, begins_inside: bool) -> Caption:
        """Return what a model said, without its thoughts.

        Raises:
            InvalidReplyError: Its scores were not finite, or it wrote nothing, only thoughts, or one phrase for ever.
        """
        if not said.finite:
            raise InvalidReplyError("The model computed scores that are not finite numbers.", code="not_finite")
        complete = any(token in end_tokens(self.loaded.model, self.loaded.tokenizer) for token in said.tokens)
        with self.loaded.reading:
            output = decode(self.loaded.tokenizer, said.tokens)
        speech = spoken(output, may_begin_inside=begins_inside, was_cut=begins_inside)
        text = speech.text.strip()
        if speech.has_thoughts and not text:
            raise InvalidReplyError(
                "The model wrote nothing but its thoughts"
                + ("." if complete else f": {len(said.tokens)} tokens were not enough for an answer."),
                remedy="Ask with a larger max_words, or configure another model as [local] caption_model.",
                code="only_thoughts" if complete else "limit_used_up",
            )
        if not text:
            raise InvalidReplyError("The model has said nothing.", code="empty_reply")
        if (self.plain or not complete) and repeats_itself(text):  # an instruction may ask for just that
            raise InvalidReplyError(f"The model repeats itself: {quote(text, max_chars=60)!r}", code="repetition")
        return Caption(text=text, complete=complete)


def decode(tokenizer: Any, tokens: list[int]) -> str:  # noqa: ANN401 — any tokenizer of transformers
    """Return the text of some tokens, without those of no text and special ones other than the tags around thoughts."""
    special: list[str] = tokenizer.all_special_tokens
    pieces = tokenizer.convert_ids_to_tokens(tokens)
    tokens = [token for token, piece in zip(tokens, pieces, strict=True) if not _UNUSED.fullmatch(piece or "")]
    if any(map(is_mark, special)):
        text = str(tokenizer.decode(tokens, skip_special_tokens=False))
        for token in special:
            text = text if is_mark(token) else text.replace(token, "")
    else:
        text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return _joined(text) if _is_wordpiece(tokenizer) else text


def _is_wordpiece(tokenizer: Any) -> bool:  # noqa: ANN401 — any tokenizer of transformers
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and type(backend.model).__name__ == "WordPiece"


def _joined(text: str) -> str:
    """Return the words of BERT's family as they are written: "man's" for "man ' s"."""
    return _APART_AFTER.sub(r"\1", _APART_WITHIN.sub(r"\1", " ".join(text.split())))


def repeats_itself(text: str) -> bool:
    """Return whether half of a text or more, up to its end, is the same few words over and over."""
    words, least = (text.split(), LEAST_REPEATED) if " " in text else (list(text), LEAST_REPEATED_CHARS)
    for length in range(1, min(LONGEST_REFRAIN, len(words) // LEAST_REPEATS) + 1):
        refrain, times = words[-length:], 0
        while words[len(words) - length * (times + 1) : len(words) - length * times] == refrain:
            times += 1
        if times >= LEAST_REPEATS and times * length >= max(least, len(words) / 2):
            return True
    return False


class _Dice:
    """Samples each token and forbids all others, so that ``generate`` has no choice left.

    ``generate`` itself would sample with torch's global random state, which belongs to the application and which other
    threads advance. Here each row has a generator of its own: its tokens depend on the seed and its scores only.
    """

    def __init__(self, limits: Sequence[LogitsProcessor], *, seed: int, rows: int, device: str) -> None:
        import torch

        self._limits = limits
        self._generators = [torch.Generator(device).manual_seed(seed) for _ in range(rows)]

    def choose(self, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores with −∞ for all but one token of each row."""
        import torch

        for limit in self._limits:
            scores = limit(tokens, scores)
        pairs = zip(scores.softmax(dim=-1), self._generators, strict=True)
        drawn = torch.stack([torch.multinomial(row, 1, generator=generator) for row, generator in pairs])
        return torch.full_like(scores, -math.inf).scatter(1, drawn, 0.0)


class _Watch:
    """Checks at every step of a generation that the scores are finite, and which images are still wanted.

    In beam search an image has several rows; all of them count.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._bad: torch.Tensor | None = None

    def look(self, _tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note which images have scores that are not finite, and set those to 0; −∞ is fine, as it forbids a token."""
        bad = scores.isnan() | scores.isposinf()
        of_pictures = bad.view(len(self._wanted()), -1).any(-1)
        self._bad = of_pictures if self._bad is None else self._bad | of_pictures
        return scores.masked_fill(bad, 0.0)

    def stop(self, tokens: torch.Tensor, _scores: object) -> torch.Tensor:
        """Tell transformers which rows nobody wants any more."""
        given_up = tokens.new_tensor([not wanted for wanted in self._wanted()]).bool()
        return given_up.repeat_interleave(len(tokens) // len(given_up))

    @property
    def fine(self) -> list[bool]:
        """For each image, whether all its scores were finite."""
        return [] if self._bad is None else (~self._bad).tolist()


def _alike(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> bool:
    from torch.nn.functional import cosine_similarity

    return bool(cosine_similarity(expected[0], found[0], dim=-1).min() >= LEAST_COSINE)


def _question(prompt: str | None, language: str | None, max_words: int | None) -> str:
    parts = [prompt or PLAIN_PROMPT]
    if language is not None:
        parts.append(f"Answer in the language with the tag {language!r}.")
    if max_words is not None:
        parts.append(f"Use at most {max_words} words.")
    return " ".join(parts)


def _decide_greedily(model: Any) -> None:  # noqa: ANN401 — any model of transformers
    """Turn off sampling in the checkpoint's defaults, with its settings, about which transformers would warn."""
    for part in writers(model):
        part.generation_config.do_sample = False
        for setting in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            setattr(part.generation_config, setting, None)


def _limits_of_chance(settings: Any) -> list[LogitsProcessor]:  # noqa: ANN401 — transformers' GenerationConfig
    """Return the checkpoint's settings for sampling (temperature, top-k, top-p), in transformers' order."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    top_k = TOP_K if settings.top_k is None else settings.top_k
    limits: list[LogitsProcessor] = [TemperatureLogitsWarper(float(settings.temperature or 1.0))]
    if top_k:
        limits.append(TopKLogitsWarper(top_k))
    return [*limits, TopPLogitsWarper(float(settings.top_p or 1.0))]
