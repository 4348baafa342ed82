"""What a server says of an error and of its limits, read in every shape that servers give it.

This module decides where codes, words, fields and delays stand in a body and in headers. It must not know what they
mean; `errors` does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vision_backends.backends.requests import RateLimits
from vision_backends.errors import plausible_delay_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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

MAX_DEPTH = 8
MAX_ITEMS = 50
"""How far errors are looked for within errors, and how many of a list; the deepest seen are four levels down."""

HOLDERS = ("error", "errors", "detail", "details", "message", "innererror", "metadata", "body", "raw")
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
    "body",
)
CODES = ("code", "error_code", "errorcode")
REASONS = ("reason", "status", "@code")
DELAYS = ("retrydelay", "retry_after", "retryafter", "retry_after_seconds", "retry_after_s")

_PART = r"(\d+(?:\.\d+)?)(ms|[smhd]?)"
_DURATION = re.compile(f"(?:{_PART})+")
_TRY_AGAIN = re.compile(
    r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|[smhd]))+|\d+(?:\.\d+)?(?= seconds?\b))", re.IGNORECASE
)
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
    """

    code: str | None = None
    type: str | None = None
    reasons: tuple[str, ...] = ()
    message: str = ""
    field: str | None = None
    retry_after_s: float | None = None


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
    )


def _nodes(value: object, *, depth: int) -> Iterator[dict[str, Any]]:
    """Yield every object of an error, its names in lower case; what holds another comes after it."""
    value = _parsed(value)
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
    return next(filter(None, inner), "")


def _parsed(value: object) -> object:
    """Return a string that is a JSON object or list as that, anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


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
    reset of a window of which nothing is left, and "try again in 20s" in the words.

    Args:
        headers: Of the reply, with names in lower case or looked up without regard to case.
        said: The error.
        now_s: Seconds since 1970 UTC, to count from for a date.
    """
    said = said or ErrorBody()
    exact_ms = parse_duration_s(_header(headers, "retry-after-ms"))
    if exact_ms is not None:
        return exact_ms / 1000
    value = _header(headers, "retry-after")
    seconds = parse_duration_s(value)
    if seconds is None and value:
        seconds = _seconds_until(value, now_s)
    if seconds is not None:
        return seconds
    if said.retry_after_s is not None:
        return said.retry_after_s
    spent = [
        reset_s
        for kind in ("requests", "tokens")
        if (_header(headers, f"x-ratelimit-remaining-{kind}") or "0").strip() == "0"
        and (reset_s := parse_duration_s(_header(headers, f"x-ratelimit-reset-{kind}"))) is not None
    ]
    if spent:
        return max(spent)
    found = _TRY_AGAIN.search(said.message)
    return parse_duration_s(found[1]) if found else None


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Return the ``x-ratelimit-*`` headers of a reply, or None when it has none of them."""
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
        reset_requests_s=parse_duration_s(_header(headers, "x-ratelimit-reset-requests")),
        reset_tokens_s=parse_duration_s(_header(headers, "x-ratelimit-reset-tokens")),
    )
    return None if limits == RateLimits() else limits


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return headers.get(name) or headers.get(RENAMED + name)


def _seconds_until(date: str, now_s: float) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now_s)
    except (TypeError, ValueError, OverflowError):
        return None
