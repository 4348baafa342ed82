"""How a text is chosen among all that a model could say: its length, and greedily, by beams or by chance.

This module decides which wishes are possible together, and which a checkpoint has that cannot be met. It must not
import torch: whoever sorts requests by their wishes has no need of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Decoding", "decoding_of", "wishes_unmet"]

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
"""Settings of transformers' GenerationConfig beyond `Decoding`, with the values besides None that change nothing."""


TOP_K = 50
"""What transformers takes where a checkpoint says nothing:
https://huggingface.co/docs/transformers/main_classes/text_generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """One way of choosing; requests with equal ones can share a batch.

    Attributes:
        max_new_tokens: Most tokens of a text, its end token among them.
        num_beams: How many texts are followed at once; 1 follows the most probable token.
        length_penalty: Exponent of the length that a beam's score is divided by; above 0 favours long texts.
        early_stopping: True stops at `num_beams` complete texts, False when no better one is to be expected, "never"
            when none is possible: https://huggingface.co/docs/transformers/main_classes/text_generation.
        seed: Draws every token by chance, for each row of a batch as if it were alone; None takes the best one.
        temperature: Divides the scores before a draw; above 1 makes them more alike.
        top_k: How many of the best tokens a draw may reach; None for all.
        top_p: How probable the reach of a draw is, from the best token down.

    Raises:
        ValueError: A number is out of its range, or beams and chance were wished for together.
    """

    max_new_tokens: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    seed: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("top_k", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, but has to be at least {least}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, but has to be above 0: leave out the seed instead.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, but has to be above 0 and at most 1.")
        if self.seed is not None and self.num_beams > 1:
            raise ValueError(f"num_beams is {self.num_beams} and seed is {self.seed}: take one of them.")


def decoding_of(settings: Any, *, max_new_tokens: int) -> Decoding:  # noqa: ANN401 — transformers' GenerationConfig
    """Return the way of choosing that a checkpoint wants, as transformers reads what it leaves open.

    Args:
        settings: The checkpoint's.
        max_new_tokens: Most tokens of a text.
    """
    return Decoding(
        max_new_tokens=max_new_tokens,
        num_beams=settings.num_beams or 1,
        length_penalty=1.0 if settings.length_penalty is None else settings.length_penalty,
        early_stopping=settings.early_stopping or False,
        temperature=settings.temperature or 1.0,
        top_k=(TOP_K if settings.top_k is None else settings.top_k) or None,
        top_p=settings.top_p or 1.0,
    )


def wishes_unmet(generation_config: Any) -> dict[str, object]:  # noqa: ANN401 — transformers' GenerationConfig
    """Return the settings of a checkpoint that `Decoding` has no word for, and that would change its texts."""
    found = {name: getattr(generation_config, name, None) for name in NEUTRAL}
    return {name: value for name, value in found.items() if value is not None and value not in NEUTRAL[name]}
