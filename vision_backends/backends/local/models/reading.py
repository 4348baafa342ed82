"""What happens to a text that is too long for a model.

This module decides how it is refused, or what is said about the part that is left out. It must not know any model.
"""

from __future__ import annotations

from typing import Any

from vision_backends.errors import TEXT_TOO_LONG, NotSupportedError

__all__ = ["SHOWN", "leave_out"]

SHOWN = 40
"""How many characters of what was not read are shown."""


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
    offsets = tokenizer(text, truncation=True, max_length=longest, return_offsets_mapping=True)["offset_mapping"]
    rest = text[max(end for _, end in offsets) :].strip()
    return f"{read}, without {rest[:SHOWN] + '…' if len(rest) > SHOWN else rest!r}."
