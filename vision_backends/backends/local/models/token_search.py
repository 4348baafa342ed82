"""Which tokens to go on with, given the scores of all: the best, one by chance, or the best of several texts.

This module decides what is said and when it has ended. It must not know which model scores, nor what images are: it
knows slots, each of which holds one text that is being found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LogitsProcessor

    from vision_backends.backends.local.models.decoding import Decoding

__all__ = ["Chances", "Search", "begin_search"]

T = TypeVar("T")


class Search(Protocol):
    """The texts in all slots, each of them followed by `width` rows of the model's batch.

    Attributes:
        width: Rows per slot.
    """

    width: int

    def advance(self, logits: torch.Tensor) -> tuple[list[int], list[int]]:
        """Go on by one token, given the scores [rows, V] in float32 of what could come next.

        Returns:
            The rows that the new rows go on from, and the slots whose text has ended.
        """

    def last(self) -> list[int]:
        """Return the last token of each row."""

    def take(self, slot: int) -> list[int]:
        """Return the tokens in a slot, and let the last slot take its place."""


def begin_search(decoding: Decoding, *, slots: int, begin: int, end: int, device: torch.device) -> Search:
    """Return a search that has said nothing but the token that every text begins with."""
    if decoding.num_beams > 1:
        return _Beams(decoding, slots=slots, begin=begin, end=end)
    return _Chains(decoding, slots=slots, begin=begin, end=end, device=device)


class _Chains:
    """One text per slot, by the best token or by chance.

    Every slot has a generator of its own: what is drawn in it does not depend on its neighbours.
    """

    width = 1

    def __init__(self, decoding: Decoding, *, slots: int, begin: int, end: int, device: torch.device) -> None:
        self._end = end
        self._texts = [[begin] for _ in range(slots)]
        self._chances = None if decoding.seed is None else Chances(decoding, rows=slots, device=device)

    def advance(self, logits: torch.Tensor) -> tuple[list[int], list[int]]:
        tokens = self._chances.draw(logits) if self._chances else logits.argmax(dim=-1).tolist()
        for text, token in zip(self._texts, tokens, strict=True):
            text.append(token)
        return list(range(len(tokens))), [slot for slot, token in enumerate(tokens) if token == self._end]

    def last(self) -> list[int]:
        return [text[-1] for text in self._texts]

    def take(self, slot: int) -> list[int]:
        if self._chances:
            self._chances.take(slot)
        return _take(self._texts, slot)[1:]


class Chances:
    """Draws tokens by chance, for each row as if it were alone: what is drawn depends on the seed and its scores only.

    Args:
        decoding: Has a seed.
        rows: For how many texts.
        device: Where their scores are.
    """

    def __init__(self, decoding: Decoding, *, rows: int, device: torch.device) -> None:
        seed = decoding.seed or 0
        self._generators = [torch.Generator(device).manual_seed(seed) for _ in range(rows)]
        self._limits = _limits(decoding)

    def draw(self, logits: torch.Tensor) -> list[int]:
        """Return a token for each row of scores [rows, V]."""
        for limit in self._limits:
            logits = limit(None, logits)
        pairs = zip(logits.softmax(dim=-1), self._generators, strict=True)
        return [int(torch.multinomial(row, 1, generator=generator)) for row, generator in pairs]

    def take(self, row: int) -> None:
        """Draw for a row no more; the last one takes its place."""
        _take(self._generators, row)


def _limits(decoding: Decoding) -> list[LogitsProcessor]:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    limits: list[LogitsProcessor] = [TemperatureLogitsWarper(float(decoding.temperature))]
    if decoding.top_k is not None:
        limits.append(TopKLogitsWarper(decoding.top_k))
    return [*limits, TopPLogitsWarper(float(decoding.top_p))]


class _Text(NamedTuple):
    score: float  # the sum of its tokens' log probabilities; divided by its length once it is complete
    tokens: list[int]


class _Beams:
    """Several texts per slot, of which the best is taken at last; as transformers counts them.

    Each step looks at twice as many continuations as there are beams: so, whichever of them end, enough go on.
    """

    def __init__(self, decoding: Decoding, *, slots: int, begin: int, end: int) -> None:
        self.width = decoding.num_beams
        self._decoding = decoding
        self._end = end
        # all beams begin alike: only the first may go on, or they would stay alike
        beams = [_Text(0.0, [begin]), *[_Text(-1e9, [begin])] * (self.width - 1)]
        self._running = [list(beams) for _ in range(slots)]
        self._complete: list[list[_Text]] = [[] for _ in range(slots)]

    def advance(self, logits: torch.Tensor) -> tuple[list[int], list[int]]:
        so_far = [[beam.score] for beams in self._running for beam in beams]
        running = torch.tensor(so_far, dtype=torch.float32, device=logits.device)
        scores = (logits.log_softmax(dim=-1) + running).view(len(self._running), -1)
        vocabulary = logits.shape[-1]
        best, places = (found.tolist() for found in scores.topk(2 * self.width))
        parents: list[int] = []
        for slot in range(len(self._running)):
            steps = [(score, *divmod(place, vocabulary)) for score, place in zip(best[slot], places[slot], strict=True)]
            parents += [slot * self.width + beam for beam in self._follow(slot, steps)]
        return parents, [slot for slot in range(len(self._running)) if self._has_ended(slot)]

    def last(self) -> list[int]:
        return [beam.tokens[-1] for beams in self._running for beam in beams]

    def take(self, slot: int) -> list[int]:
        ended = self._has_ended(slot)
        running, complete = _take(self._running, slot), _take(self._complete, slot)
        if not ended or len(running[0].tokens) > self._decoding.max_new_tokens:  # cut off counts like complete
            complete = [*complete, *(self._weighed(beam) for beam in running)]
        return max(complete).tokens[1:]

    def _follow(self, slot: int, steps: Sequence[tuple[float, int, int]]) -> list[int]:
        """Go on in one slot by the best (score, beam, token), best first; return the beams that were gone on from."""
        beams, kept, parents = self._running[slot], [], []
        for rank, (score, beam, token) in enumerate(steps):
            text = _Text(score, [*beams[beam].tokens, token])
            if token != self._end:
                kept.append(text)
                parents.append(beam)
            elif rank < self.width:  # the others were only looked at so that enough go on
                self._complete[slot].append(self._weighed(text))
        self._running[slot] = kept[: self.width]
        self._complete[slot] = sorted(self._complete[slot], reverse=True)[: self.width]
        return parents[: self.width]

    def _weighed(self, text: _Text) -> _Text:
        return text._replace(score=text.score / (len(text.tokens) - 1) ** self._decoding.length_penalty)

    def _has_ended(self, slot: int) -> bool:
        """Tell whether there are enough complete texts, and none that runs is expected to become better."""
        decoding, running, complete = self._decoding, self._running[slot], self._complete[slot]
        if len(complete) < self.width:
            return False
        if decoding.early_stopping is True:
            return True
        never = decoding.early_stopping == "never" and decoding.length_penalty > 0
        length = decoding.max_new_tokens if never else len(running[0].tokens) - 1
        return bool(running[0].score / length**decoding.length_penalty <= complete[-1].score)


def _take(slots: list[T], slot: int) -> T:
    """Take what is in a slot; the last slot takes its place."""
    slots[slot], taken = slots[-1], slots[slot]
    slots.pop()
    return taken
