"""Tokenizers of the published kinds and sizes, whose words are made up.

This module decides what a vocabulary consists of. It must not know any model. The words mean nothing; what costs time
is how many there are and how a text is split, and that is as in the published ones.
"""

from __future__ import annotations

from itertools import chain, islice, product
from string import ascii_lowercase, digits, punctuation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

__all__ = ["byte_pairs", "word_pieces"]

CLIP_WORDS = 49_408
"""https://github.com/openai/CLIP, clip/simple_tokenizer.py: two of each byte, 48,894 merges, two marks."""

CLIP_TOKENS = 77
"""Longest text of CLIP's paper: https://arxiv.org/abs/2103.00020."""

BERT_WORDS = 30_522
"""https://github.com/google-research/bert, uncased_L-12_H-768_A-12/vocab.txt."""

BERT_MARKS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
"""Where they stand in that file."""

BLIP_MARKS = ("[DEC]", "[ENC]")
"""What BLIP adds to them: https://github.com/salesforce/BLIP, models/blip.py."""


def byte_pairs() -> PreTrainedTokenizerBase:
    """Return CLIP's kind of tokenizer: byte pairs, 49,408 of them."""
    from transformers import CLIPTokenizer

    letters = [*_printable_bytes()]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    count = CLIP_WORDS - 2 * len(letters) - len(marks)
    merges = [*islice(product(letters, repeat=2), count)]
    pieces = chain(letters, (f"{letter}</w>" for letter in letters), map("".join, merges), marks)
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_TOKENS)  # type: ignore[arg-type]  # pairs


def word_pieces() -> PreTrainedTokenizerBase:
    """Return BLIP's kind of tokenizer: BERT's 30,522 word pieces and two marks, of which the first begins a caption."""
    from transformers import BertTokenizer

    marks = set(BERT_MARKS.values())
    words = (word for word in _syllables() if word not in marks)
    vocab = {BERT_MARKS.get(number) or next(words): number for number in range(BERT_WORDS)}
    made: PreTrainedTokenizerBase = BertTokenizer(vocab=vocab, model_max_length=512)
    first, second = BLIP_MARKS
    made.add_special_tokens({"bos_token": first, "additional_special_tokens": [second]})
    return made


def _syllables() -> Iterator[str]:
    """Yield word pieces, each once: characters, then what begins words and what goes on with them."""
    yield from ascii_lowercase + digits + punctuation
    yield from (f"##{letter}" for letter in ascii_lowercase + digits)
    for length in (2, 3):
        for letters in map("".join, product(ascii_lowercase, repeat=length)):
            yield letters
            yield f"##{letters}"


def _printable_bytes() -> Iterator[str]:
    """Yield the characters that stand for the 256 bytes in byte pairs: themselves if they can be seen, else others."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    yield from map(chr, sorted(visible))
    yield from (chr(0x100 + place) for place in range(256 - len(visible)))
