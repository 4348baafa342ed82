"""How a user's text is read: its words as words, and no more of them than the model reads.

This module decides how a longer text is refused, what is said of the part that is left out, and that what looks like a
mark of the model's own, such as ``<|endoftext|>``, is read as letters. It must not know any model.
"""

from __future__ import annotations

from typing import Any

from vision_backends.errors import TEXT_TOO_LONG, NotSupportedError

__all__ = ["AS_LETTERS", "SHOWN", "leave_out", "without_marks"]

AS_LETTERS: dict[str, Any] = {"split_special_tokens": True}
"""What a tokenizer is told that reads a text of a user's alone."""

SHOWN = 40
"""Characters of what was not read that are shown."""


def without_marks(tokenizer: Any, text: str) -> str:  # noqa: ANN401 — transformers' own
    """Return a text for a template, which has marks of its own: those in the text are broken up by a space."""
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
    """Return what of a text is left out, as a sentence.

    Args:
        tokenizer: The model's.
        text: The text.
        tokens: How many tokens it has.
        what: How sentences about it begin.
        code: Code of the error.
        longest: How many the model reads.
        truncate: Whether anything may be left out.

    Raises:
        NotSupportedError: Nothing may.
    """
    if not truncate:
        raise NotSupportedError(
            f"{what} {tokens} tokens; the model reads {longest} at once.",
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
