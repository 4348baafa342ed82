"""What a server says of an error and of its limits, read in every shape that servers give it.

This module decides where codes, words, fields and delays stand in a body and in headers. It must not know what they
mean; `errors` does.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import TYPE_CHECKING, Any

from vision_backends.backends.requests import RateLimits
from vision_backends.errors import plausible_delay_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "ErrorBody",
    "find_error",
    "parse_duration_s",
    "read_error_body",
    "read_rate_limits",
    "read_retry_after_s",
]

UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

RENAMED = "llm_provider-"
"""What a LiteLLM proxy puts before the names of the headers that it passes on."""

MAX_DIGITS = 15
"""A count with more is no count, and might be too much to read."""

FIRST_DATE_S = 1e9
FIRST_MS = 1e11
"""A number from the first on is a date, from the second on one in milliseconds."""

MAX_DEPTH = 8
MAX_ITEMS = 50
MAX_SENTENCE_CHARS = 1_000
"""How far errors are looked for within errors, how many of a list, and how far into a sentence; the deepest seen are
four levels down."""

HOLDERS = (
    *("error", "errors", "fault", "base_resp", "detail", "details", "message", "innererror", "metadata", "body", "raw"),
)
"""Fields that hold another error, the outermost first."""

MESSAGES = (
    "error",
    "message",
    "msg",
    "error_message",
    "errormessage",
    "detail",
    "error_description",
    "title",
    "errors",
    "fault",
    "base_resp",
    "body",
    "faultstring",
    "status_msg",
    "error_msg",
    "description",
    "reason",
)
CODES = ("code", "error_code", "errorcode")
REASONS = ("reason", "status", "@code")
UPSTREAM = "raw"
"""Where a gateway repeats what it was told, beside words of its own that say nothing ("Provider returned error")."""
DELAYS = ("retrydelay", "retry_after", "retryafter", "retry_after_seconds", "retry_after_s")

_PART = r"(\d+(?:\.\d+)?)(ms|[smhd]?)"
_DURATION = re.compile(f"(?:{_PART})+")
_TRY_AGAIN = re.compile(
    r"\b(?:(?:try again|retry|replenished|available(?: again)?|resets?) (?:in|after)|wait(?: for)?)"
    r"(?: about| approximately| at least)? "
    r"(\d{1,3}:\d\d:\d\d|(?:\d{1,15}(?:\.\d{1,15})? ?"
    r"(?:milliseconds?|seconds?|minutes?|hours?|days?|secs?|mins?|ms|[smhd])(?![a-z])(?:,? (?:and )?)?)+)",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?(mill|ms|[smhd])", re.IGNORECASE)
_EMBEDDED = re.compile(r'[{\[]\s*[{"]')
"""Where JSON may begin within a sentence."""
_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """What a provider's error says, whatever its shape was.

    Attributes:
        code: Its own code; a number as a string.
        type: Its own class of errors.
        reasons: Further codes that stand deeper or under other names, the outermost first.
        message: Its words.
        field: Name of the request's field that it is about, such as ``"max_tokens"``.
        retry_after_s: Seconds after which it says that another attempt makes sense.
        headers: Those of the server behind a gateway, in lower case, as far as the gateway repeats them in the body.
    """

    code: str | None = None
    type: str | None = None
    reasons: tuple[str, ...] = ()
    message: str = ""
    field: str | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] = attribute(default_factory=dict)


def find_error(payload: Mapping[str, object]) -> object:
    """Return the error inside a decoded reply or stream event, or None; errors also come with status 200."""
    response, choices = payload.get("response"), payload.get("choices")
    for holder in (payload, response, *(choices if isinstance(choices, list) else ())):
        if isinstance(holder, dict) and holder.get("error"):
            return holder["error"]
    return payload if payload.get("type") == "error" else None


def read_error_body(body: object) -> ErrorBody:
    """Read an error: objects, lists, strings and JSON in strings, within each other, under any of the usual names."""
    nodes = list(_nodes(body, depth=0))
    codes = [code for node in nodes for code in _strings(node, CODES)]
    kinds = [kind for node in nodes for kind in _strings(node, ("type",))]
    reasons = [reason for node in nodes for reason in _strings(node, REASONS)]
    message = _message(body, depth=0)
    if not codes and _CODE.fullmatch(message):  # such as OAuth's {"error": "invalid_grant"}
        codes = [message]
    fields = [name for node in nodes for name in (*_strings(node, ("param",)), *_location(node.get("loc")))]
    delays = [
        delay_s
        for node in nodes
        for value in _strings(node, DELAYS)
        if (delay_s := parse_duration_s(value)) is not None
    ]
    return ErrorBody(
        code=codes[0] if codes else None,
        type=kinds[0] if kinds else None,
        reasons=tuple(dict.fromkeys([*codes[1:], *reasons])),
        message=message,
        field=fields[0] if fields else None,
        retry_after_s=max(delays, default=None),
        headers={
            str(name).lower(): str(value)
            for node in nodes
            if isinstance(held := node.get("headers"), dict)
            for name, value in held.items()
        },
    )


def _nodes(value: object, *, depth: int) -> Iterator[dict[str, Any]]:
    """Yield every object of an error, its names in lower case; what holds another comes after it."""
    value = _parsed(value)
    if isinstance(value, str):
        value = _embedded(value)
    if depth >= MAX_DEPTH:
        return
    if isinstance(value, list):
        for each in value[:MAX_ITEMS]:
            yield from _nodes(each, depth=depth + 1)
    elif isinstance(value, dict):
        node = {str(name).lower(): inner for name, inner in value.items()}
        for name in HOLDERS:
            yield from _nodes(node.get(name), depth=depth + 1)
        yield node


def _message(value: object, *, depth: int) -> str:
    """Return the words of an error: its first, or those of a whole list."""
    value = _parsed(value)
    if isinstance(value, str):
        return value
    if depth >= MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_message(each, depth=depth + 1) for each in value[:MAX_ITEMS])))
    if not isinstance(value, dict):
        return ""
    node = {str(name).lower(): inner for name, inner in value.items()}
    inner = (_message(node.get(name), depth=depth + 1) for name in MESSAGES)
    said = next(filter(None, inner), "")
    metadata = node.get("metadata")
    upstream = _message(metadata.get(UPSTREAM), depth=depth + 1) if isinstance(metadata, dict) else ""
    return "; ".join(filter(None, (said, upstream)))


def _parsed(value: object) -> object:
    """Return a string that is a JSON object or list as that, anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _embedded(text: str) -> object:
    """Return the JSON that stands within a sentence, as SDKs repeat a reply ("OpenAIException - {…}"), or None."""
    begin = _EMBEDDED.search(text, 0, MAX_SENTENCE_CHARS)
    if begin is None:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, begin.start())[0]
    except (ValueError, RecursionError):
        return None


def _strings(node: Mapping[str, object], names: tuple[str, ...]) -> list[str]:
    values = (node.get(name) for name in names)
    return [str(value) for value in values if isinstance(value, str | int | float) and str(value).strip() != ""]


def _location(value: object) -> list[str]:
    """Return the field that FastAPI's ``["body", "stream_options"]`` names."""
    parts = [part for part in value if isinstance(part, str)] if isinstance(value, list) else []
    return [part for part in parts if part not in {"body", "query"}][:1]


def parse_duration_s(text: str | None) -> float | None:
    """Return the seconds of ``"6m0s"``, ``"120ms"``, ``"1h2m3.5s"`` or ``"20"``; None for anything else, or absurd."""
    text = (text or "").strip()
    if not _DURATION.fullmatch(text):
        return None
    return plausible_delay_s(sum(float(number) * UNITS_S[unit] for number, unit in re.findall(_PART, text)))


def read_retry_after_s(
    headers: Mapping[str, str], *, said: ErrorBody | None = None, now_s: float = 0.0
) -> float | None:
    """Return the seconds after which the server says that a new attempt makes sense; None if it does not say.

    Looked for in this order: ``retry-after-ms``, ``retry-after`` (seconds or an HTTP date), a delay in the body, the
    reset of a window of which nothing is left, and "try again in 20s" in the words. Headers that a gateway repeats in
    the body count where it sends none of its own.

    Args:
        headers: Of the reply, with names in lower case or looked up without regard to case.
        said: The error.
        now_s: Seconds since 1970 UTC, to count from for a date.
    """
    said = said or ErrorBody()
    found = _TRY_AGAIN.search(said.message)
    ways = (
        _announced_s(headers, now_s),
        said.retry_after_s,
        _announced_s(said.headers, now_s),
        _spent_s(headers, now_s),
        _spent_s(said.headers, now_s),
        _in_words_s(found[1]) if found else None,
    )
    return next((seconds for seconds in ways if seconds is not None), None)


def _announced_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Return the seconds of a header that is about waiting alone."""
    exact_ms = parse_duration_s(_header(headers, "retry-after-ms") or _header(headers, "x-ms-retry-after-ms"))
    return _delay_s(_header(headers, "retry-after"), now_s) if exact_ms is None else exact_ms / 1000


def _spent_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Return the seconds until the windows begin anew of which nothing is left, or may be."""
    resets_s = (
        _delay_s(_header(headers, f"x-ratelimit-reset{kind}"), now_s)
        for kind, unsaid in (("-requests", "0"), ("-tokens", "0"), ("", ""))
        if (_header(headers, f"x-ratelimit-remaining{kind}") or unsaid).strip() == "0"
    )
    return max((reset_s for reset_s in resets_s if reset_s is not None), default=None)


def read_rate_limits(headers: Mapping[str, str], *, now: Callable[[], float] = time.time) -> RateLimits | None:
    """Return the ``x-ratelimit-*`` headers of a reply, or None when it has none of them.

    Args:
        headers: As for ``read_retry_after_s``.
        now: Returns the seconds since 1970 UTC; asked where a reset is a date.
    """
    counts = {
        f"{what}_{kind}": int(text)
        for what in ("remaining", "limit")
        for kind in ("requests", "tokens")
        if (text := (_header(headers, f"x-ratelimit-{what}-{kind}") or "").strip()).isascii()
        and text.isdigit()
        and len(text) <= MAX_DIGITS
    }
    limits = RateLimits(
        **counts,
        reset_requests_s=_reset_s(_header(headers, "x-ratelimit-reset-requests"), now),
        reset_tokens_s=_reset_s(_header(headers, "x-ratelimit-reset-tokens"), now),
    )
    return None if limits == RateLimits() else limits


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return headers.get(name) or headers.get(RENAMED + name)


def _reset_s(text: str | None, now: Callable[[], float]) -> float | None:
    seconds = parse_duration_s(text)
    return _delay_s(text, now()) if text and (seconds is None or seconds >= FIRST_DATE_S) else seconds


def _in_words_s(text: str) -> float | None:
    """Return the seconds of ``"2 minutes and 5 seconds"``, ``"1m7s"`` or ``"00:02:05"``."""
    if ":" in text:
        hours, minutes, seconds = map(int, text.split(":"))
        return plausible_delay_s(hours * 3600.0 + minutes * 60 + seconds)
    parts = ((float(number), unit.lower()) for number, unit in _AMOUNT.findall(text))
    return plausible_delay_s(sum(number * UNITS_S["ms" if unit == "mill" else unit] for number, unit in parts))


def _delay_s(text: str | None, now_s: float) -> float | None:
    """Return the seconds until a time that is written as a duration, a date or a number of seconds or ms since 1970."""
    text = (text or "").strip()
    if re.fullmatch(r"\d{10}(?:\d{3})?(?:\.\d{1,9})?", text):
        since_1970 = float(text)
        return plausible_delay_s(max(0.0, (since_1970 if since_1970 < FIRST_MS else since_1970 / 1000) - now_s))
    seconds = parse_duration_s(text)
    return _seconds_until(text, now_s) if seconds is None and text else seconds


def _seconds_until(date: str, now_s: float) -> float | None:
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(date)
            return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s)
        except (TypeError, ValueError, OverflowError):
            continue
    return None
