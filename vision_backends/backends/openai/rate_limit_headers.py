"""What a server's headers say about limits and waiting.

This module decides how durations, dates and limits are read from headers and messages. It must not know any
error code, nor what is done about a limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vision_backends.backends.requests import RateLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parse_duration_s", "read_rate_limits", "read_retry_after_s"]

UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

RETRY_AFTER = ("retry-after", "llm_provider-retry-after")
"""The standard header, and the name under which a LiteLLM proxy passes it on."""

_PART = r"(\d+(?:\.\d+)?)(ms|[smhd]?)"
_DURATION = re.compile(f"(?:{_PART})+")
_TRY_AGAIN = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|[smhd]))+)", re.IGNORECASE)


def parse_duration_s(text: str | None) -> float | None:
    """Return the seconds of ``"6m0s"``, ``"120ms"``, ``"1h2m3.5s"`` or ``"20"``; None for anything else."""
    text = (text or "").strip()
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * UNITS_S[unit] for number, unit in re.findall(_PART, text))


def read_retry_after_s(headers: Mapping[str, str], *, message: str = "", now_s: float = 0.0) -> float | None:
    """Return the seconds after which the server says that a new attempt makes sense; None if it does not say.

    Looked for in this order: ``retry-after-ms``, ``retry-after`` (seconds or an HTTP date), the reset of a
    window of which nothing is left, and "try again in 20s" in the message.

    Args:
        headers: Of the reply, with names in lower case or looked up without regard to case.
        message: The provider's error message.
        now_s: Seconds since 1970 UTC, to count from for a date.
    """
    exact_ms = parse_duration_s(headers.get("retry-after-ms"))
    if exact_ms is not None:
        return exact_ms / 1000
    for name in RETRY_AFTER:
        value = headers.get(name)
        seconds = parse_duration_s(value) if value else None
        if seconds is None and value:
            seconds = _seconds_until(value, now_s)
        if seconds is not None:
            return seconds
    spent = [
        reset_s
        for kind in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{kind}", "0").strip() == "0"
        and (reset_s := parse_duration_s(headers.get(f"x-ratelimit-reset-{kind}"))) is not None
    ]
    if spent:
        return max(spent)
    found = _TRY_AGAIN.search(message)
    return parse_duration_s(found[1]) if found else None


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Return the ``x-ratelimit-*`` headers of a reply, or None when it has none of them."""
    limits = RateLimits(
        remaining_requests=_count(headers.get("x-ratelimit-remaining-requests")),
        remaining_tokens=_count(headers.get("x-ratelimit-remaining-tokens")),
        limit_requests=_count(headers.get("x-ratelimit-limit-requests")),
        limit_tokens=_count(headers.get("x-ratelimit-limit-tokens")),
        reset_requests_s=parse_duration_s(headers.get("x-ratelimit-reset-requests")),
        reset_tokens_s=parse_duration_s(headers.get("x-ratelimit-reset-tokens")),
    )
    return None if limits == RateLimits() else limits


def _seconds_until(date: str, now_s: float) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now_s)
    except (TypeError, ValueError, OverflowError):
        return None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isascii() and text.strip().isdigit() else None
