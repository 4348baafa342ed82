"""OpenAI's error codes, and those of servers that speak its language, as rows of a table.

This module decides which of this package's errors a provider's error is; it is the only place that knows the
codes. It must not know the client, HTTP, or what becomes of an error.

A row is looked for by ``error.code``, then by the words that proxies leave of a lost quota code, then by
``error.type``, then by HTTP status. What is not found is an outage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vision_backends.backends.openai.error_bodies import read_error_body
from vision_backends.backends.openai.rate_limit_headers import read_retry_after_s
from vision_backends.backends.openai.secret import scrub
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
    from collections.abc import Mapping

    from vision_backends.backends.openai.error_bodies import ErrorBody
    from vision_backends.backends.openai.secret import Secret

__all__ = ["RULES", "Rule", "Taxonomy"]


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
        remedy="Asking elsewhere would get round the provider's policy; change the image or the prompt.",
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

UNKNOWN = Rule(error=UnavailableError, says="answered with an error that is not known here")

QUOTA_SENTENCE = "exceeded your current quota"
"""OpenAI's own words; all that is left of a quota error behind a proxy that writes its own codes (LiteLLM)."""

QUOTA_WORDS = re.compile(r"insufficient[ _]quota|credit balance is too low|out of credits", re.IGNORECASE)
"""What others say when the money is gone, or when it is only the minute's share: a reset tells which."""

RESET_OF_A_RATE_LIMIT_S = 120.0
"""What comes back within this time is a rate limit, whatever its words."""


class Taxonomy:
    """Turns providers' errors into this package's.

    Args:
        host: How messages call the server.
        extra: The user's own rows: a code, a type or a status as a string → the kind of an error, such as
            ``{"budget_gone": "quota_exhausted"}``; they win over the table.
        secrets: What must never be repeated in a message.

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
        self._secrets = secrets
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
            code=self.scrub(said.code or said.type or "") or None,
            status=status,
            request_id=self.scrub(headers.get("x-request-id", "")) or None,
            retry_after_s=retry_after_s,
        )

    def scrub(self, text: str) -> str:
        """Return a foreign text without anything secret; see `scrub`."""
        return scrub(text, self._secrets)

    def _rule(self, said: ErrorBody, status: int | None, retry_after_s: float | None) -> Rule:
        code, kind = said.code or "", said.type or ""
        own = next((self._extra[key] for key in (code, kind, str(status)) if key in self._extra), None)
        if status in {None, 200} and code.isdigit():
            status = int(code)  # a proxy passes on what it was told, with a status of its own
        return (
            own
            or self._by_code.get(code)
            or self._by_words(said.message, retry_after_s)
            or self._by_type.get(kind)
            or self._by_status.get(str(status), UNKNOWN)
        )

    def _by_words(self, message: str, retry_after_s: float | None) -> Rule | None:
        soon = retry_after_s is not None and retry_after_s <= RESET_OF_A_RATE_LIMIT_S
        gone = QUOTA_SENTENCE in message.lower() or (QUOTA_WORDS.search(message) and not soon)
        return self._quota if gone else None

    def _message(self, rule: Rule, error: ErrorBody, status: int | None, headers: Mapping[str, str]) -> str:
        if status is not None and 300 <= status < 400:
            there = urlsplit(headers.get("location", "")).netloc or "another address"
            return (
                f"{self._host} redirects to {self.scrub(there)}, which is not followed: "
                "the image would go to a server that nobody named."
            )
        said = "an HTML page" if error.message.lstrip().startswith("<") else self.scrub(error.message)
        known = "" if status in {None, 200} else f" ({status})"
        return f"{self._host} {rule.says}{known}: {said}" if said else f"{self._host} {rule.says}{known}."
