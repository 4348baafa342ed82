"""Texts as word pieces, split as BERT's uncased tokenizer splits them (https://arxiv.org/abs/1810.04805, WordPiece).

This module decides where a word begins and which pieces it is made of. It must not know what pieces are used for. The
library that does the same, tokenizers, would bring 30 MB with it (itself, huggingface_hub and what that needs); the
tests compare the two. Unlike there, ``[MASK]`` in a text is letters and brackets, not a command.
"""

from __future__ import annotations

import unicodedata
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["pieces_of", "words_of"]

LONGEST_WORD_CHARS = 100
"""A longer word is unknown as a whole, as in BERT's own tokenizer."""

INSIDE = "##"
"""What a piece begins with that is not the beginning of a word."""

BLANKS = "\t\n\r"
UNWRITTEN = "\0\ufffd"

IDEOGRAPHS = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
"""Where Unicode has the characters of Chinese, each of which is a word: the ranges of Hugging Face's tokenizers."""


def words_of(text: str) -> Iterator[str]:
    """Yield the words of a text without accents, in lower case; each punctuation mark is a word of its own."""
    word: list[str] = []
    for char in chain.from_iterable(map(_plain, text)):
        if char == " " or _stands_alone(char):
            if word:
                yield "".join(word)
                word.clear()
            if char != " ":
                yield char
        else:
            word.append(char)
    if word:
        yield "".join(word)


def pieces_of(word: str, numbers: Mapping[str, int], *, longest_chars: int) -> list[int] | None:
    """Return the numbers of a word's pieces, each the longest that fits; None if there are none for some of it.

    Args:
        word: One of `words_of`.
        numbers: The vocabulary.
        longest_chars: Length of its longest piece.
    """
    if len(word) > LONGEST_WORD_CHARS:
        return None
    found: list[int] = []
    start = 0
    while start < len(word):
        prefix = INSIDE if start else ""
        for end in range(min(len(word), start + longest_chars), start, -1):
            number = numbers.get(prefix + word[start:end])
            if number is not None:
                found.append(number)
                start = end
                break
        else:
            return None
    return found


def _plain(char: str) -> str:
    """Return what is left of a character: nothing of what is not written, no accent, no capital, one kind of blank."""
    if char.isascii() and char.isalnum():
        return char.lower()
    if char in BLANKS or unicodedata.category(char) == "Zs" or char in "\u2028\u2029":
        return " "
    if char in UNWRITTEN or unicodedata.category(char).startswith("C"):
        return ""
    plain = "".join(part for part in unicodedata.normalize("NFD", char) if unicodedata.category(part) != "Mn")
    return "".join(part.lower() for part in plain)


def _stands_alone(char: str) -> bool:
    if char.isascii():
        return not char.isalnum()
    code = ord(char)
    return unicodedata.category(char).startswith("P") or any(low <= code <= high for low, high in IDEOGRAPHS)
