"""What a server says of an error and of its limits: read in every shape, looked up in a table, and made fit to show.

This module decides which of this package's errors a provider's error is, when another attempt makes sense, and what
may be repeated of a provider's words; it is the only place that knows the codes of OpenAI and of servers that speak
its language. It must not know the client, HTTP, or what becomes of an error.

A row is looked up by ``error.code``, then by the words that proxies leave of a lost quota code, then by
``error.type``, then by HTTP status. What is not found is an outage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from vision_backends.backends.requests import RateLimits
from vision_backends.errors import (
    AuthenticationError,
    BackendError,
    CallerError,
    ConfigError,
    ContentRejectedError,
    InvalidImageError,
    InvalidReplyError,
    InvalidRequestError,
    ModelNotFoundError,
    NotSupportedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "RULES",
    "ErrorBody",
    "Rule",
    "Secret",
    "Taxonomy",
    "find_error",
    "parse_duration_s",
    "read_error_body",
    "read_rate_limits",
    "read_retry_after_s",
    "scrub",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table.

    Attributes:
        error: What it is for this package.
        says: Our words, after the name of the host.
        remedy: What a person can do; ``{host}`` stands for the server.
        codes: Values of ``error.code``.
        types: Values of ``error.type`` that say more than the status does.
        statuses: HTTP statuses that mean this when nothing more is known.
    """

    error: type[BackendError | CallerError]
    says: str
    remedy: str | None = None
    codes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()


RULES = (
    Rule(
        error=QuotaExhaustedError,
        says="says that the account's quota is used up",
        remedy="Add credit or raise the limit of the account at {host}, then run: vision reset.",
        codes=(
            *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"),
            *("credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
            *("organization_usage_limit_exceeded", "usage_limit_exceeded", "session_budget_exceeded"),
        ),
        types=("insufficient_quota",),
        statuses=(402,),
    ),
    Rule(
        error=RateLimitedError,
        says="says that there were too many requests",
        codes=("rate_limit_exceeded",),
        types=("rate_limit_error", "requests", "tokens"),
        statuses=(429,),
    ),
    Rule(
        error=OverloadedError,
        says="is overloaded",
        codes=("slow_down", "server_is_overloaded", "server_overloaded", "flex_unavailable"),
        types=("overloaded_error", "service_unavailable_error"),
        statuses=(503, 529),
    ),
    Rule(
        error=UnavailableError,
        says="failed",
        codes=(
            *("server_error", "internal_error", "connection_failed", "request_timeout"),
            "vector_store_timeout",
        ),
        statuses=(408, 409, 500, 502, 504),
    ),
    Rule(
        error=AuthenticationError,
        says="did not accept the credentials",
        remedy="Check OPENAI_API_KEY, or api_key, organization and project in [openai] of vision.toml.",
        codes=(
            *("invalid_api_key", "account_deactivated", "authentication_error"),
            *("invalid_grant", "invalid_subject_token"),
            *("unsupported_country_region_territory", "data_residency_mismatch"),
        ),
        types=("authentication_error", "permission_error"),
        statuses=(401, 403),
    ),
    Rule(
        error=ModelNotFoundError,
        says="does not know the model, or its address is wrong",
        remedy="Check model, embedding_model and base_url in [openai] of vision.toml.",
        codes=("model_not_found", "resource_not_found", "deployment_not_found"),
        statuses=(404,),
    ),
    Rule(
        error=NotSupportedError,
        says="cannot take what was sent",
        codes=("context_length_exceeded", "unsupported_parameter", "unsupported_value"),
    ),
    Rule(
        error=InvalidImageError,
        says="refused the image",
        codes=(
            *("invalid_image", "invalid_image_format", "invalid_image_mode", "invalid_base64_image"),
            *("invalid_image_url", "failed_to_download_image", "image_file_not_found"),
            *("image_too_large", "image_file_too_large", "image_too_small", "image_parse_error"),
            *("unsupported_image_media_type", "empty_image_file"),
        ),
        statuses=(413, 422),
    ),
    Rule(
        error=ContentRejectedError,
        says="refused the content",
        remedy="Asking elsewhere would circumvent the provider's policy; change the image or the prompt.",
        codes=(
            *("content_policy_violation", "image_content_policy_violation", "moderation_blocked"),
            *("bio_policy", "cyber_policy", "misalignment_policy_violation", "invalid_prompt", "content_filter"),
        ),
    ),
    Rule(
        error=InvalidRequestError,
        says="called the request invalid",
        codes=("invalid_request",),
        statuses=(400,),
    ),
    Rule(
        error=InvalidReplyError,
        says="sent a reply that cannot be used",
        statuses=(200,),
    ),
)
"""The taxonomy. Sources: the SDK's types, developers.openai.com/api/docs/guides/error-codes (2026-11)."""

UNKNOWN = Rule(error=UnavailableError, says="answered with an unknown error")

QUOTA_SENTENCE = "exceeded your current quota"
"""OpenAI's own words; all that is left of a quota error behind a proxy that writes its own codes (LiteLLM)."""

QUOTA_WORDS = re.compile(r"insufficient[ _]quota|credit balance is too low|out of credits", re.IGNORECASE)
"""What others say when the money is gone, or when it is only the minute's share: a reset tells which."""

RESET_OF_A_RATE_LIMIT_S = 120.0
"""What comes back within this time is a rate limit, whatever its words."""

MAX_CHARS = 300
"""How much of a provider's message is passed on."""

MIN_CHARS = 6
"""Shorter values are no secrets, and blotting them out would ruin every message."""

_LOOKS_SECRET = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][A-Za-z0-9*_\-.]{8,}")
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]*")

UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

RETRY_AFTER = ("retry-after", "llm_provider-retry-after")
"""The standard header, and the name under which a LiteLLM proxy passes it on."""

_PART = r"(\d+(?:\.\d+)?)(ms|[smhd]?)"
_DURATION = re.compile(f"(?:{_PART})+")
_TRY_AGAIN = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|[smhd]))+)", re.IGNORECASE)

_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")


class Secret:
    """A string that is shown only on request; it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself; never keep it in a variable of a frame that may raise."""
        return self._value

    def fits_a_header(self) -> bool:
        """Return True when HTTP can carry it; otherwise the HTTP library would show it in its error."""
        return self._value.isascii() and self._value.isprintable()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret cannot be pickled.")


def scrub(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return a foreign text on one line, cut if long, without secrets, images or what looks like a key."""
    for secret in secrets:
        if len(secret.reveal()) >= MIN_CHARS:
            text = text.replace(secret.reveal(), "[hidden]")
    text = _LOOKS_SECRET.sub("[hidden]", _DATA_URL.sub("[image]", text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


class Taxonomy:
    """Turns providers' errors into this package's.

    Args:
        host: How messages call the server.
        extra: The user's own rows: a code, a type or a status as a string → the kind of an error, such as
            ``{"budget_gone": "quota_exhausted"}``; they win over the table.
        secrets: What must never be repeated in a message; an attribute as well.

    Raises:
        ConfigError: A kind is not one that a provider's error can have.
    """

    def __init__(self, *, host: str, extra: Mapping[str, str] | None = None, secrets: tuple[Secret, ...] = ()) -> None:
        kinds = {rule.error.kind: rule for rule in RULES}
        bad = sorted(set((extra or {}).values()) - set(kinds))
        if bad:
            raise ConfigError(
                f"[openai.error_codes] has the unknown kind {bad[0]!r}.", remedy=f"There are: {', '.join(kinds)}."
            )
        self._host = host
        self.secrets = secrets
        self._by_code = {code: rule for rule in RULES for code in rule.codes}
        self._by_type = {name: rule for rule in RULES for name in rule.types}
        self._by_status = {str(status): rule for rule in RULES for status in rule.statuses}
        self._extra = {code: kinds[kind] for code, kind in (extra or {}).items()}
        self._quota = kinds[QuotaExhaustedError.kind]

    def explain(
        self,
        body: object,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        now_s: float = 0.0,
    ) -> BackendError | CallerError:
        """Return the error to raise for a provider's error.

        Args:
            body: The decoded error, or the text of the reply.
            status: HTTP status.
            headers: Of the reply, looked up by lower-case names.
            now_s: Seconds since 1970 UTC.
        """
        headers = headers or {}
        said = read_error_body(body)
        retry_after_s = read_retry_after_s(headers, message=said.message, now_s=now_s)
        rule = self._rule(said, status, retry_after_s)
        message = self._message(rule, said, status, headers)
        remedy = rule.remedy and rule.remedy.format(host=self._host)
        if issubclass(rule.error, CallerError):
            return rule.error(message, remedy=remedy)
        return rule.error(
            message,
            remedy=remedy,
            backend="openai",
            code=scrub(said.code or said.type or "", self.secrets) or None,
            status=status,
            request_id=scrub(headers.get("x-request-id", ""), self.secrets) or None,
            retry_after_s=retry_after_s,
        )

    def _rule(self, said: ErrorBody, status: int | None, retry_after_s: float | None) -> Rule:
        code, kind = said.code or "", said.type or ""
        own = next((self._extra[key] for key in (code, kind, str(status)) if key in self._extra), None)
        if own or code in self._by_code:
            return own or self._by_code[code]
        soon = retry_after_s is not None and retry_after_s <= RESET_OF_A_RATE_LIMIT_S
        if QUOTA_SENTENCE in said.message.lower() or (QUOTA_WORDS.search(said.message) and not soon):
            return self._quota
        if status in {None, 200} and code.isdigit():
            status = int(code)  # a proxy passes on what it was told, with a status of its own
        return self._by_type.get(kind) or self._by_status.get(str(status), UNKNOWN)

    def _message(self, rule: Rule, error: ErrorBody, status: int | None, headers: Mapping[str, str]) -> str:
        if status is not None and 300 <= status < 400:
            there = urlsplit(headers.get("location", "")).netloc or "another address"
            return (
                f"{self._host} redirects to {scrub(there, self.secrets)}, which is not followed: "
                "the image would go to a server that is not configured."
            )
        said = "an HTML page" if error.message.lstrip().startswith("<") else scrub(error.message, self.secrets)
        known = "" if status in {None, 200} else f" ({status})"
        return f"{self._host} {rule.says}{known}: {said}" if said else f"{self._host} {rule.says}{known}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """What a provider's error says, whatever its shape was."""

    code: str | None = None
    type: str | None = None
    message: str = ""


def find_error(payload: Mapping[str, object]) -> object:
    """Return the error inside a decoded reply or stream event, or None; errors also come with status 200."""
    response, choices = payload.get("response"), payload.get("choices")
    for holder in (payload, response, *(choices if isinstance(choices, list) else ())):
        if isinstance(holder, dict) and holder.get("error"):
            return holder["error"]
    return payload if payload.get("type") == "error" else None


def read_error_body(body: object) -> ErrorBody:
    """Read an error: an object or a string under ``error``, ``detail`` as string or list, or plain text."""
    outer = body if isinstance(body, dict) else {}
    inner = outer.get("error") or outer.get("detail") or body
    if not isinstance(inner, dict):
        is_code = isinstance(inner, str) and _CODE.fullmatch(inner)  # such as OAuth's {"error": "invalid_grant"}
        inner = {"code": inner if is_code else None, "type": outer.get("type"), "message": inner}
    code, kind = (
        str(value) if isinstance(value, str | int) and value != "" else None
        for value in (inner.get("code"), inner.get("type"))
    )
    return ErrorBody(
        code=code, type=kind, message=_text(inner.get("message") or inner.get("msg") or inner.get("detail"))
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        return _text(value.get("message") or value.get("msg") or "")
    return ""


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
    counts = {
        f"{what}_{kind}": int(text)
        for what in ("remaining", "limit")
        for kind in ("requests", "tokens")
        if (text := headers.get(f"x-ratelimit-{what}-{kind}", "").strip()).isascii() and text.isdigit()
    }
    limits = RateLimits(
        **counts,
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
