"""How a user's text is read: as words only, and no more of them than the model reads.

This module decides how a text that is too long is refused, what is said about the part that is left out, and that what
looks like a special token of the model, such as ``<|endoftext|>``, is read as letters. It must not know any model.
"""

from __future__ import annotations

from typing import Any

from vision_backends.errors import TEXT_TOO_LONG, NotSupportedError

__all__ = ["AS_LETTERS", "SHOWN", "leave_out", "without_marks"]

AS_LETTERS: dict[str, Any] = {"split_special_tokens": True}
"""Options of a tokenizer that reads a user's text by itself."""

SHOWN = 40
"""How many characters of what was not read are shown."""


def without_marks(tokenizer: Any, text: str) -> str:  # noqa: ANN401 — transformers' own
    """Return a text to put into a chat template: a space breaks up what looks like a special token."""
    marks = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    for mark in sorted(marks, key=len, reverse=True):
        if len(mark) > 1:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def leave_out(
    tokenizer: Any,  # noqa: ANN401 — transformers' own
    text: str,
    tokens: int,
    *,
    what: str = "The text is",
    code: str = TEXT_TOO_LONG,
    longest: int,
    truncate: bool,
) -> str:
    """Return a sentence that says which part of a text is left out.

    Args:
        tokenizer: The model's.
        text: The text.
        tokens: How many tokens it has.
        what: How sentences about it begin.
        code: Code of the error.
        longest: Most tokens that the model reads.
        truncate: Whether anything may be left out.

    Raises:
        NotSupportedError: Nothing may be left out.
    """
    if not truncate:
        raise NotSupportedError(
            f"{what} {tokens} tokens; the model reads at most {longest}.",
            remedy="Shorten it, or pass truncate=True to have the rest left out.",
            code=code,
        )
    read = f"{what} {tokens} tokens; the model has read {longest} of them"
    if not tokenizer.is_fast:
        return f"{read}."
    cut = tokenizer(text, truncation=True, max_length=longest, return_offsets_mapping=True, **AS_LETTERS)
    offsets = cut["offset_mapping"]
    rest = text[max(end for _, end in offsets) :].strip()
    return f"{read}, without {rest[:SHOWN] + '…' if len(rest) > SHOWN else rest!r}."
