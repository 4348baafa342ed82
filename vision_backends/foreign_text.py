"""Text that others wrote, made fit to show: a server's words, a file's name, a label, an answer.

This module decides which characters may reach a message, a log or a terminal, and how long a quoted text may be. It
must not know who wrote the text, or what in it is secret.
"""

from __future__ import annotations

import re

__all__ = ["UNPRINTABLE", "printable", "quote"]

MAX_QUOTED_CHARS = 400

UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"  # control characters, line separators, halves of characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what turns the direction of text
    "\u00ad\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # what is invisible
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"  # joiners, but where scripts and emoji need them
)
"""Characters that drive a terminal, or show a text as another than it is."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text whose unprintable characters stand as ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: The text.
        keep: Characters that stay as they are, such as line ends.
    """
    return UNPRINTABLE.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii"), text
    )


def quote(text: str, *, max_chars: int = MAX_QUOTED_CHARS) -> str:
    """Return a text on one line, without unprintable characters, and cut if it is longer than so many characters."""
    line = " ".join(UNPRINTABLE.sub(" ", text[: 4 * max_chars]).split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"
