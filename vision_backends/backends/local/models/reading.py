"""How a user's text is read: as words only, and no more of them than the model reads.

This module decides how a text that is too long is refused, what is said about the part that is left out, and that what
looks like a special token of the model, such as ``<|endoftext|>``, is read as letters. It must not know any model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vision_backends.errors import TEXT_TOO_LONG, NotSupportedError

__all__ = ["AS_LETTERS", "MOST_CHARS", "SHOWN", "Reading", "as_far_as_read", "without_marks"]

AS_LETTERS: dict[str, Any] = {"split_special_tokens": True}
"""Options of a tokenizer that reads a user's text by itself."""

SHOWN = 40
"""How many characters of what was not read are shown."""

FIRST_CHARS = 20_000
CHARS_PER_TOKEN = 16
"""How much of a text is tokenized first, if it is longer: three times as much as most texts need, in 30 ms."""

MOST_CHARS = 200_000
"""How much is tokenized at most, if most of it is blanks; it takes 0.3 s."""


def without_marks(tokenizer: Any, text: str) -> str:  # noqa: ANN401 — transformers' own
    """Return a text to put into a chat template: a space breaks up what looks like a special token."""
    marks = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    for mark in sorted(marks, key=len, reverse=True):
        if len(mark) > 1:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


class Reading(NamedTuple):
    """What a model reads of a text.

    Attributes:
        text: All of it, or a beginning that has at least as many tokens as the model reads.
        tokens: How many tokens that is.
        unread: A sentence that says which part is left out; None if nothing is.
    """

    text: str
    tokens: int
    unread: str | None


def as_far_as_read(
    tokenizer: Any,  # noqa: ANN401 — transformers' own
    text: str,
    *,
    longest: int,
    truncate: bool,
    what: str = "The text is",
    code: str = TEXT_TOO_LONG,
) -> Reading:
    """Return a text as far as a model reads it, without giving megabytes to its tokenizer.

    Args:
        tokenizer: The model's.
        text: The text.
        longest: Most tokens that the model reads.
        truncate: Whether anything may be left out.
        what: How sentences about it begin.
        code: Code of the error.

    Raises:
        NotSupportedError: It is too long, and nothing may be left out.
    """
    start, tokens = _beginning(tokenizer, text, longest)
    is_cut = len(start) < len(text)
    if tokens <= longest and not is_cut:
        return Reading(start, tokens, None)
    size = f"{what} {len(text):,} characters long" if is_cut else f"{what} {tokens} tokens"
    if not truncate:
        raise NotSupportedError(
            f"{size}; the model reads at most {longest}{' tokens' if is_cut else ''}.",
            remedy="Shorten it, or pass truncate=True to have the rest left out.",
            code=code,
        )
    read = f"{size}; the model has read {min(tokens, longest)} {'tokens of it' if is_cut else 'of them'}"
    if not tokenizer.is_fast:
        return Reading(start, tokens, f"{read}.")
    cut = tokenizer(start, truncation=True, max_length=longest, return_offsets_mapping=True, **AS_LETTERS)
    end = max(end for _, end in cut["offset_mapping"])
    rest = text[end : end + FIRST_CHARS].strip()
    if not rest:
        return Reading(start, tokens, f"{read}.")
    return Reading(start, tokens, f"{read}, without {rest[:SHOWN] + '…' if len(rest) > SHOWN else rest!r}.")


def _beginning(tokenizer: Any, text: str, longest: int) -> tuple[str, int]:  # noqa: ANN401 — transformers' own
    """Return the beginning of a text that decides what is read of it, and how many tokens that is.

    The last tokens of a beginning may be others than in the whole text, such as those of half a word; so it has twice
    as many as are read, unless it would grow beyond all bounds.
    """
    size = max(FIRST_CHARS, CHARS_PER_TOKEN * longest)
    most = max(MOST_CHARS, size)
    while True:
        start = text[:size]
        tokens = len(tokenizer(start, verbose=False, **AS_LETTERS)["input_ids"])
        if len(start) == len(text) or tokens >= 2 * longest or size >= most:
            return start, tokens
        size = min(most, 4 * size)
