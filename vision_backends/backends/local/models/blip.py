"""BLIP's greedy captions without the machinery of ``generate``: the same tokens, with nothing computed twice.

This module decides in which order the model's own layers run and what is cached between two tokens. It must not know
requests, queues or clocks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["BlipDecoder"]

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "constraints": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1.0,),
    "min_length": (0, 1),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0.0,),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "repetition_penalty": (1.0,),
    "sequence_bias": (),
    "stop_strings": (),
    "suppress_tokens": (),
    "token_healing": (False,),
    "watermarking_config": (),
}
"""Settings of transformers' GenerationConfig that change greedy decoding, and their values besides None that do not."""


class BlipDecoder:
    """Writes what ``model.generate`` would write by greedy decoding.

    Args:
        model: A ``BlipForConditionalGeneration`` in evaluation mode, on any device, in any floating dtype. It is not
            changed.
        look: Encodes images [B, 3, H, W] as the model's vision tower does, [B, P, D]; returns None to leave it to the
            tower.

    Raises:
        ValueError: Its checkpoint asks for what this decoder cannot do, such as a repetition penalty.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 — transformers has no types
        *,
        look: Callable[[torch.Tensor], torch.Tensor | None] = lambda _pixels: None,
    ) -> None:
        wishes = _special_wishes(model.text_decoder.generation_config)
        if wishes:
            raise ValueError(f"The checkpoint decodes with {wishes}: use the model's own generate.")
        self._model = model
        self._look_elsewhere = look
        self._text = model.config.text_config

    @torch.inference_mode()
    def generate(
        self,
        pixel_values: torch.Tensor,
        *,
        max_new_tokens: int,
        wanted: Callable[[], Sequence[bool]] | None = None,
    ) -> list[list[int] | None]:
        """Return the tokens of a text for each image, with the end token unless the length limit cut it off.

        A row whose scores are not finite numbers has no text: it ends immediately, is None, and affects no other.

        Args:
            pixel_values: The image processor's output, [B, 3, H, W], on the model's device.
            max_new_tokens: Most tokens per text; never more than the model has positions for.
            wanted: Called before images are encoded and after each token; says for each of the B images whether to go
                on. One that is no longer wanted costs nothing from then on, and keeps the tokens that it has. An
                exception raised by this ends all of them.
        """
        longest = min(max_new_tokens, self._text.max_position_embeddings)
        wanted = wanted or (lambda: [True] * len(pixel_values))
        said: list[list[int]] = [[] for _ in pixel_values]
        spoilt: set[int] = set()
        seen, slots = self._look(pixel_values, wanted)
        if not slots:
            return [*said]
        memory = _Memory(self._model, seen, length=longest)
        tokens = [self._text.bos_token_id] * len(slots)
        for step in range(longest):
            best, places = self._scores(tokens, step, memory).max(dim=-1)
            for image, token, score in zip(slots, places.tolist(), best.tolist(), strict=True):
                said[image].append(token)
                if not score < math.inf:  # −∞ forbids a token; NaN counts as the maximum
                    spoilt.add(image)
            go_on = wanted()
            over = {image for image in slots if said[image][-1] == self._text.sep_token_id or not go_on[image]} | spoilt
            for slot in reversed([slot for slot, image in enumerate(slots) if image in over]):
                memory.forget(slot)
                slots[slot] = slots[-1]
                slots.pop()
            if not slots:
                break
            tokens = [said[image][-1] for image in slots]
        return [None if image in spoilt else text for image, text in enumerate(said)]

    def _look(self, pixel_values: torch.Tensor, wanted: Callable[[], Sequence[bool]]) -> tuple[torch.Tensor, list[int]]:
        """Return the encodings [n, P, D] of the images that are wanted, and which ones those are.

        A CPU encodes one image at a time: a batch is no faster, takes more memory, and cannot be abandoned midway.
        """
        at_once = 1 if pixel_values.device.type == "cpu" else max(1, len(pixel_values))
        seen, slots = [], []
        for first in range(0, len(pixel_values), at_once):
            go_on = wanted()
            images = [image for image in range(first, min(first + at_once, len(pixel_values))) if go_on[image]]
            if images:
                seen.append(self._see(pixel_values[images]))
                slots += images
        return torch.cat(seen) if seen else pixel_values[:0], slots

    def _see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the encodings of images, in the dtype of the text decoder."""
        dtype = self._model.text_decoder.bert.embeddings.LayerNorm.weight.dtype
        found = self._look_elsewhere(pixel_values)
        return _see(self._model.vision_model, pixel_values.to(dtype)) if found is None else found.to(dtype)

    def _scores(self, tokens: Sequence[int], step: int, memory: _Memory) -> torch.Tensor:
        """Return the scores [rows, V] of each row's next token."""
        bert, head = self._model.text_decoder.bert, self._model.text_decoder.cls.predictions
        embeddings = bert.embeddings
        words = embeddings.word_embeddings(torch.tensor(tokens, device=memory.device))
        states = embeddings.LayerNorm(words + embeddings.position_embeddings.weight[step])
        for number, layer in enumerate(bert.encoder.layer):
            states = memory.recall_said(number, step, layer.attention, states)
            states = memory.recall_seen(number, layer.crossattention, states)
            states = layer.output(layer.intermediate(states), states)
        scores: torch.Tensor = head.decoder(head.transform(states)).float()
        return scores


class _Memory:
    """The cache of keys and values, per layer: those of the image, and those of the text so far.

    Args:
        model: The model whose layers use it.
        seen: The encoding of each row's image, [n, P, D].
        length: Most tokens of a row.
    """

    def __init__(self, model: Any, seen: torch.Tensor, *, length: int) -> None:  # noqa: ANN401
        layers = model.text_decoder.bert.encoder.layer
        heads = layers[0].attention.self.num_attention_heads
        each = layers[0].attention.self.attention_head_size
        self.device = seen.device
        self._heads = heads
        crosses = [layer.crossattention.self for layer in layers]
        self._seen = [
            [_heads(part(seen), heads).contiguous() for part in (cross.key, cross.value)] for cross in crosses
        ]
        self._said = seen.new_empty(len(layers), 2, len(seen), heads, length, each)

    def recall_said(self, layer: int, step: int, attention: Any, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Return the states [rows, D] after self-attention to each row's text, this token included."""
        own = attention.self
        keys, values = self._said[layer]
        keys[:, :, step] = own.key(states).unflatten(-1, (self._heads, -1))
        values[:, :, step] = own.value(states).unflatten(-1, (self._heads, -1))
        query = _heads(own.query(states)[:, None], self._heads)
        found = _attend(query, keys[:, :, : step + 1], values[:, :, : step + 1])
        informed: torch.Tensor = attention.output(found.flatten(1), states)
        return informed

    def recall_seen(self, layer: int, attention: Any, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Return the states [rows, D] after cross-attention to each row's image."""
        query = _heads(attention.self.query(states)[:, None], self._heads)
        found = _attend(query, *self._seen[layer])
        informed: torch.Tensor = attention.output(found.flatten(1), states)
        return informed

    def forget(self, row: int) -> None:
        """Remove a row by moving the last one into its place, which copies nothing else."""
        last = len(self._seen[0][0]) - 1
        if row != last:
            self._said[:, :, row] = self._said[:, :, last]
            for part in (part for parts in self._seen for part in parts):
                part[row] = part[last]
        self._seen = [[part[:last] for part in parts] for parts in self._seen]
        self._said = self._said[:, :, :last]


def _see(vision: Any, pixel_values: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Return the vision tower's encodings of images, [n, P, D].

    The faster attention rounds once where the model rounds at each step: that does not matter in float32, but in 16
    bits it is enough to change a token.
    """
    states = vision.embeddings(pixel_values)
    attend = scaled_dot_product_attention if states.dtype == torch.float32 else _attend
    for layer in vision.encoder.layers:
        own = layer.self_attn
        parts = own.qkv(layer.layer_norm1(states)).unflatten(-1, (3, own.num_heads, -1)).permute(2, 0, 3, 1, 4)
        found = attend(*parts)
        states = states + own.projection(found.transpose(1, 2).flatten(2))
        states = states + layer.mlp(layer.layer_norm2(states))
    seen: torch.Tensor = vision.post_layernorm(states)
    return seen


def _heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn [rows, T, heads x d] into [rows, heads, T, d]."""
    return states.view(*states.shape[:-1], heads, -1).transpose(1, 2)


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Compute attention step by step, as the model itself does, so that roundings agree."""
    scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.softmax(dim=-1) @ values


def _special_wishes(generation_config: Any) -> dict[str, object]:  # noqa: ANN401 — transformers' GenerationConfig
    """Return the settings of a checkpoint that would change greedy decoding."""
    found = {name: getattr(generation_config, name, None) for name in NEUTRAL}
    return {name: value for name, value in found.items() if value is not None and value not in NEUTRAL[name]}
