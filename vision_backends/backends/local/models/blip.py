"""BLIP's captions without the machinery of ``generate``: the same tokens, computed with nothing done twice.

This module decides in which order the model's own layers are run and what is remembered between two tokens. It must
not know requests, queues or clocks, nor by which rule tokens are chosen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from vision_backends.backends.local.models.decoding import wishes_unmet
from vision_backends.backends.local.models.token_search import begin_search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.backends.local.models.decoding import Decoding
    from vision_backends.backends.local.models.token_search import Search

__all__ = ["BlipDecoder"]


class BlipDecoder:
    """Writes what ``model.generate`` would write.

    Args:
        model: A ``BlipForConditionalGeneration`` in evaluation mode, on any device, in any floating dtype. It stays as
            it is, and usable.

        look: Sees images [B, 3, H, W] as the model's vision tower does [B, P, D]; returns None where the tower has to.

    Raises:
        ValueError: Its checkpoint asks for what this decoder cannot do, such as a repetition penalty.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 — transformers has no types
        *,
        look: Callable[[torch.Tensor], torch.Tensor | None] = lambda _pixels: None,
    ) -> None:
        unmet = wishes_unmet(model.text_decoder.generation_config)
        if unmet:
            raise ValueError(f"The checkpoint decodes by {unmet}: use the model's own generate.")
        self._model = model
        self._look_elsewhere = look
        self._text = model.config.text_config

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        return int(self._text.max_position_embeddings)

    @torch.inference_mode()
    def generate(
        self,
        pixel_values: torch.Tensor,
        decoding: Decoding,
        *,
        wanted: Callable[[int], Sequence[bool]] | None = None,
    ) -> list[list[int] | None]:
        """Return the tokens of a text for each image, its end token among them unless the length cut it off.

        A row whose scores are not finite numbers has no text: it ends at once, is None, and disturbs no other.

        Args:
            pixel_values: What the image processor made, [B, 3, H, W], on the model's device.
            decoding: How to choose among all possible texts.
            wanted: Asked before each step with the number of tokens so far, and before images are looked at with 0;
                says for each of the B images whether to go on. One that is no longer wanted costs nothing from then on,
                and has said what it had until then. What it raises ends everything.

        Raises:
            ValueError: `decoding` is longer than the model can count.
        """
        most = decoding.max_new_tokens
        if most > self.longest:
            raise ValueError(f"max_new_tokens is {most}, but the model can only count to {self.longest}.")
        said: list[list[int] | None] = [[] for _ in pixel_values]
        seen, slots = self._look(pixel_values, wanted)
        if not slots:
            return said
        ids = {"begin": self._text.bos_token_id, "end": self._text.sep_token_id}
        search = begin_search(decoding, slots=len(slots), device=seen.device, **ids)
        memory = _Memory(self._model, seen, width=search.width, length=decoding.max_new_tokens)
        for step in range(decoding.max_new_tokens):
            if wanted is not None and step > 0:
                go_on = wanted(step)
                _leave([n for n, image in enumerate(slots) if not go_on[image]], slots, said, search, memory)
            if not slots:
                break
            scores = self._scores(search.last(), step, memory)
            spoilt = _clear_spoilt(scores, search.width)
            lost = {slots[slot] for slot in spoilt}
            parents, ended = search.advance(scores)
            memory.follow(parents)
            _leave([*{*ended, *spoilt}], slots, said, search, memory)
            for image in lost:
                said[image] = None
        _leave(list(range(len(slots))), slots, said, search, memory)
        return said

    def _look(
        self, pixel_values: torch.Tensor, wanted: Callable[[int], Sequence[bool]] | None
    ) -> tuple[torch.Tensor, list[int]]:
        """Return what is seen in the images that are wanted [n, P, D], and which ones they are.

        A CPU is busy with one image at a time: several take as long, want more memory, and are not left off between.
        """
        at_once = 1 if pixel_values.device.type == "cpu" else max(1, len(pixel_values))
        seen, slots = [], []
        for first in range(0, len(pixel_values), at_once):
            batch = range(first, min(first + at_once, len(pixel_values)))
            go_on = None if wanted is None else wanted(0)
            images = [image for image in batch if go_on is None or go_on[image]]
            if images:
                seen.append(self._see(pixel_values[images]))
                slots += images
        return torch.cat(seen) if seen else pixel_values[:0], slots

    def _see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return what is seen in images, in the numbers that the text decoder computes in."""
        dtype = self._model.text_decoder.bert.embeddings.LayerNorm.weight.dtype
        found = self._look_elsewhere(pixel_values)
        return _see(self._model.vision_model, pixel_values.to(dtype)) if found is None else found.to(dtype)

    def _scores(self, tokens: Sequence[int], step: int, memory: _Memory) -> torch.Tensor:
        """Return the scores [rows, V] of what may come after each row's last token."""
        bert, head = self._model.text_decoder.bert, self._model.text_decoder.cls.predictions
        embeddings = bert.embeddings
        words = embeddings.word_embeddings(torch.tensor(tokens, device=memory.device))
        states = embeddings.LayerNorm(words + embeddings.position_embeddings.weight[step])
        for number, layer in enumerate(bert.encoder.layer):
            states = memory.recall_said(number, layer.attention, states)
            states = memory.recall_seen(number, layer.crossattention, states)
            states = layer.output(layer.intermediate(states), states)
        scores: torch.Tensor = head.decoder(head.transform(states)).float()
        return scores


class _Memory:
    """Keys and values of what was seen and of what was said, by layer.

    Args:
        model: Whose layers they are for.
        seen: What was seen in the image of each slot, [n, P, D].
        width: Rows of text per slot.
        length: Most tokens of a row.
    """

    def __init__(self, model: Any, seen: torch.Tensor, *, width: int, length: int) -> None:  # noqa: ANN401
        layers = model.text_decoder.bert.encoder.layer
        heads = layers[0].attention.self.num_attention_heads
        each = layers[0].attention.self.attention_head_size
        self.device = seen.device
        self._width, self._heads = width, heads
        crosses = [layer.crossattention.self for layer in layers]
        self._seen = [
            [_heads(part(seen), heads).contiguous() for part in (cross.key, cross.value)] for cross in crosses
        ]
        rows = len(seen) * width
        self._said = seen.new_empty(len(layers), 2, rows, heads, length, each)
        self._length = 0

    def recall_said(self, layer: int, attention: Any, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Return the states [rows, D] after a look at what each row has said, this token included."""
        own, now = attention.self, self._length
        keys, values = self._said[layer]
        keys[:, :, now] = own.key(states).unflatten(-1, (self._heads, -1))
        values[:, :, now] = own.value(states).unflatten(-1, (self._heads, -1))
        query = _heads(own.query(states)[:, None], self._heads)
        found = _attend(query, keys[:, :, : now + 1], values[:, :, : now + 1])
        informed: torch.Tensor = attention.output(found.flatten(1), states)
        return informed

    def recall_seen(self, layer: int, attention: Any, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Return the states [rows, D] after a look at the image, which all rows of a slot share."""
        query = _heads(attention.self.query(states).unflatten(0, (-1, self._width)), self._heads)
        found = _attend(query, *self._seen[layer]).transpose(1, 2)
        informed: torch.Tensor = attention.output(found.flatten(2).flatten(0, 1), states)
        return informed

    def follow(self, parents: Sequence[int]) -> None:
        """End the step: let each row go on from what another has said."""
        self._length += 1
        if list(parents) != list(range(len(parents))):
            said = self._said[..., : self._length, :]
            said.copy_(said[:, :, list(parents)])

    def forget(self, slot: int) -> None:
        """Let the last slot take the place of this one; only its own numbers are moved."""
        last, width = len(self._seen[0][0]) - 1, self._width
        if slot != last:
            for part in (part for parts in self._seen for part in parts):
                part[slot] = part[last]
            said = self._said[..., : self._length, :]
            said[:, :, slot * width : (slot + 1) * width] = said[:, :, last * width :]
        self._seen = [[part[:last] for part in parts] for parts in self._seen]
        self._said = self._said[:, :, : last * width]


def _see(vision: Any, pixel_values: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Return what the model's vision tower makes of images, [n, P, D].

    The faster attention rounds once where the model rounds at each step: no matter in float32, but in 16 bits enough
    to change a token.
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
    """Weigh values by how well their keys fit; step by step like the model itself, so that roundings agree."""
    scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.softmax(dim=-1) @ values


def _clear_spoilt(scores: torch.Tensor, width: int) -> list[int]:
    """Return the slots with scores that are no finite numbers, and make these harmless.

    −∞ is how a token is forbidden; NaN is above everything for amax.
    """
    bad = ~(scores.amax(dim=-1) < math.inf)
    spoilt: list[int] = bad.view(-1, width).any(dim=-1).nonzero().flatten().tolist()
    if spoilt:
        scores[bad] = 0.0
    return spoilt


def _leave(
    ended: Sequence[int], slots: list[int], said: list[list[int] | None], search: Search, memory: _Memory
) -> None:
    """Take the texts out of slots that have ended; the highest first, as the last slot fills the gap."""
    for slot in sorted(ended, reverse=True):
        said[slots[slot]] = search.take(slot)
        memory.forget(slot)
        slots[slot] = slots[-1]
        slots.pop()
