"""What a model says, as opposed to what it thinks, and which texts are valid Unicode.

This module decides which part of a model's output is its answer. Where a server or a chat template does not separate
the two, a model writes its thoughts before the answer, between tags. It must not know any model, server or task.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Speech", "half_character", "is_mark", "mend", "opens_a_thought", "spoken"]

TAGS = {
    **{f"<{name}>": f"</{name}>" for name in ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")},
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel>thought": "<channel|>",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}
"""What thoughts stand between, in lower case: most models, Mistral, Kimi, OpenThinker, Gemma, gpt-oss."""

FRAMES = frozenset(
    {
        *("<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>"),
        *("<|begin_of_solution|>", "<|end_of_solution|>", "<|return|>"),
    }
)
"""What some models that think put around their answer: GLM, OpenThinker, gpt-oss."""

QUOTES = frozenset("\"'`“”‘’«»„‹›")
"""A tag between two of these is spoken about."""

CLOSING = frozenset(TAGS.values())
_ALL = (*TAGS, *CLOSING, *FRAMES)
_TAG = re.compile("|".join(map(re.escape, _ALL)), re.IGNORECASE)
_LONGEST = max(map(len, _ALL))


class Speech:
    """Takes a model's output piece by piece and lets through what is said; tags may be split over pieces.

    Args:
        may_begin_inside: Whether the output may begin inside a thought, as when the prompt ends with the opening tag:
            then nothing is let through before the closing tag, or the end.

    Attributes:
        has_thoughts: Whether anything was left out.
        began_inside: Whether a closing tag came without an opening one.
        took_back: Whether what was let through before it was a thought.
    """

    def __init__(self, *, may_begin_inside: bool = False) -> None:
        self._said: list[str] = []
        self.has_thoughts = False
        self.began_inside = False
        self.took_back = False
        self._rest = ""
        self._last = ""
        self._is_inside = False
        self._held: str | None = "" if may_begin_inside else None

    @property
    def text(self) -> str:
        """All that was said so far, without blanks before it."""
        return "".join(self._said)

    def feed(self, piece: str) -> str:
        """Return what is certain to be said now, which is often empty."""
        return self._read(piece, is_last=False)

    def release(self) -> str:
        """Return what was held back: the thoughts come apart from the output, so it does not begin inside of one."""
        held, self._held = self._held or "", None
        return self._say(held)

    def end(self, *, was_cut: bool = False) -> str:
        """Return what is left.

        Args:
            was_cut: Whether the output ends in the middle; if it may have begun inside a thought, it still is there.
        """
        said = self._read("", is_last=True)
        if was_cut and self._held:
            self.has_thoughts, self._held = True, None
        return said + self.release()

    def _read(self, piece: str, *, is_last: bool) -> str:
        said = ""
        for part, is_tag in self._parts(piece, is_last=is_last):
            said = self._follow(part.lower(), said) if is_tag else said + self._take(part)
            self._last = part[-1:] or self._last
        return said

    def _parts(self, piece: str, *, is_last: bool) -> Iterator[tuple[str, bool]]:
        """Yield texts and tags, and keep for the next piece what may be the beginning of a tag or of a character."""
        text, half = self._rest + piece, ""
        if not is_last and "\ud800" <= text[-1:] <= "\udbff":
            text, half = text[:-1], text[-1]
        text, at = mend(text), 0
        for found in _TAG.finditer(text):
            before = text[found.start() - 1] if found.start() else self._last
            after = text[found.end() : found.end() + 1]
            if before in QUOTES and (after in QUOTES or not (after or is_last)):
                continue
            yield text[at : found.start()], False
            yield found[0], True
            at = found.end()
        kept = 0 if is_last else _beginning_of_a_tag(text[at:])
        yield text[at : len(text) - kept], False
        self._rest = text[len(text) - kept :] + half

    def _follow(self, tag: str, said: str) -> str:
        """Do as a tag says; return what stays of what was said in this piece before it."""
        if tag in FRAMES:
            return said if self.has_thoughts else said + self._take(tag)
        self.has_thoughts = True
        if tag in TAGS:
            self._is_inside = True
            return said + self.release()
        if not self._is_inside:
            self.began_inside = True
            self.took_back = self.took_back or len(self.text) > len(said)
            self._said, said = [], ""
        self._is_inside, self._held = False, None
        return said

    def _take(self, text: str) -> str:
        if self._is_inside:
            return ""
        if self._held is not None:
            self._held += text
            return ""
        return self._say(text)

    def _say(self, text: str) -> str:
        text = text if self._said else text.lstrip()
        if text:
            self._said.append(text)
        return text


def spoken(output: str, *, may_begin_inside: bool = False, was_cut: bool = False) -> Speech:
    """Return what a whole output says; arguments as for `Speech` and `Speech.end`."""
    speech = Speech(may_begin_inside=may_begin_inside)
    speech.feed(output)
    speech.end(was_cut=was_cut)
    return speech


def is_mark(text: str) -> bool:
    """Return whether a text is a tag that thoughts begin or end with."""
    return text.lower() in TAGS or text.lower() in CLOSING


def opens_a_thought(prompt: str) -> bool:
    """Return whether a prompt ends with an opening tag, so that the output begins inside a thought."""
    return prompt.rstrip().lower().endswith(tuple(TAGS))


def half_character(text: str) -> int | None:
    """Return where a text is no valid Unicode, which is at the first surrogate; None if it is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def mend(text: str) -> str:
    """Return a text as valid Unicode: two halves of a character are joined, one alone becomes U+FFFD."""
    if half_character(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _beginning_of_a_tag(text: str) -> int:
    """Return how many characters at the end of a text may belong to a tag that is not complete."""
    end = text[-_LONGEST:].lower()
    return next((n for n in range(len(end), 0, -1) if any(tag.startswith(end[-n:]) for tag in _ALL)), 0)
