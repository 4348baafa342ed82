"""How figures read: times, money, sizes and shares in words, and strangers' texts made fit to be shown.

This module decides digits and units. It must not know what a figure means, nor where it is shown. What is unknown
is a dash, never 0.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..records import Interval

__all__ = [
    "RANDOM_WEIGHTS",
    "UNKNOWN",
    "clean_text",
    "join_words",
    "shorten",
    "show_bytes",
    "show_count",
    "show_date",
    "show_figure",
    "show_interval",
    "show_share",
    "show_time",
    "show_usd",
    "split_links",
]

UNKNOWN = "–"

RANDOM_WEIGHTS = "time is real, quality is not measured"

_GAP = "\u00a0"
"""Between a number and its unit, where no line may break."""

_MAX_LETTERS = 600
_JOINERS = "\u200c\u200d"
"""Invisible letters that whole scripts and many emoji need."""


def clean_text(text: str) -> str:
    """Return a stranger's text in one line, without control characters or changes of direction, and not too long."""
    line = "".join(letter for letter in " ".join(text.split()) if letter.isprintable() or letter in _JOINERS)
    return shorten(line, letters=_MAX_LETTERS)


def shorten(text: str, *, letters: int = 60) -> str:
    """Return a text, or as much of it as so many letters can hold."""
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def split_links(text: str) -> list[tuple[str, str | None]]:
    """Return a text in pieces, each with the address that it is, or None; only ``http`` and ``https`` count."""
    pieces = re.split(r"(https?://[^\s<>\"'`,;()\[\]{}|\\^]+)", text)
    return [(piece, piece if index % 2 and _is_address(piece) else None) for index, piece in enumerate(pieces) if piece]


def show_time(seconds: float | None) -> str:
    """Return a time with two or three digits that count, such as ``"12 ms"`` or ``"1.3 s"``."""
    if seconds is None:
        return UNKNOWN
    if abs(seconds) < 0.9995:
        return f"{_digits(seconds * 1e3)}{_GAP}ms"
    return f"{_digits(seconds)}{_GAP}s"


def show_figure(value: float | None) -> str:
    """Return a figure of quality: three decimals below 10, fewer above."""
    if value is None:
        return UNKNOWN
    decimals = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}".replace("-", "−")


def show_interval(interval: Interval | None, show: Callable[[float], str] = show_figure) -> str | None:
    """Return a confidence interval, such as ``"0.881 to 0.957"``; None where there is none."""
    return None if interval is None else f"{show(interval.low)}{_GAP}to{_GAP}{show(interval.high)}"


def show_usd(amount: float | None) -> str:
    """Return an amount of money, with as many digits as it takes to see it."""
    if amount is None:
        return UNKNOWN
    sign, size = "−" if amount < 0 else "", abs(amount)
    if size == 0 or size >= 1000:
        return f"{sign}${size:,.0f}"
    return f"{sign}${size:.2f}" if size >= 0.1 else f"{sign}${_plain(size, digits=2)}"


def show_bytes(size: float | None) -> str:
    """Return a size in megabytes or gigabytes of 10³ steps."""
    if size is None:
        return UNKNOWN
    return f"{size / 1e9:,.1f}{_GAP}GB" if size >= 0.9995e9 else f"{size / 1e6:,.0f}{_GAP}MB"


def show_count(number: float | None) -> str:
    """Return a number of things, or of weights: ``"24"``, ``"1,200"``, ``"86.6 million"``."""
    if number is None:
        return UNKNOWN
    for unit, word in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{_digits(number / unit)}{_GAP}{word}"
    return f"{number:,.0f}"


def show_share(share: float) -> str:
    """Return a part of a whole, such as ``"18 %"``; what is not all and not nothing never reads so."""
    if 0 < share < 0.005:
        return f"under 1{_GAP}%"
    if 0.995 <= share < 1:
        return f"over 99{_GAP}%"
    return f"{share * 100:.0f}{_GAP}%"


def show_date(moment: str | None) -> str:
    """Return a moment in ISO 8601 as a date that people read; as it is where it is none."""
    if moment is None:
        return UNKNOWN
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    utc = parsed.astimezone(UTC) if parsed.tzinfo else parsed
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def join_words(words: Iterable[str], *, last: str = "and") -> str:
    """Return a list as it is spoken: ``"a, b and c"``."""
    *head, tail = list(words) or [UNKNOWN]
    return f"{', '.join(head)} {last} {tail}" if head else tail


def _digits(value: float) -> str:
    """Return two digits that count below 10, else whole numbers up to three digits and more."""
    if value == 0 or abs(value) >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 0.995 else _plain(value, digits=2)


def _plain(value: float, *, digits: int) -> str:
    """Return a small number with so many digits that count, and without an exponent."""
    text = f"{value:.{digits - 1}e}"
    decimals = digits - 1 - int(text.partition("e")[2])
    return f"{value:.{max(0, decimals)}f}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
