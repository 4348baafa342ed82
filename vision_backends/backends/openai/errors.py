"""What a server's error means: looked up in a table, and made fit to show.

This module decides which of this package's errors a provider's error is, and what may be repeated of a provider's
words; it is the only place that knows the codes of OpenAI and of servers that speak its language. It must not know the
client, HTTP, the shapes of bodies, or what becomes of an error.

A row is looked up by the codes of the error, then by its words, then by its type, then by the HTTP status. Only what is
known to be the caller's fault is called that: any other refusal is one of this server, and the next rung is asked. What
is not found is an outage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vision_backends.backends.openai.error_body import read_error_body, read_retry_after_s
from vision_backends.backends.openai.secret import Secret, scrub
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
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.backends.openai.error_body import ErrorBody
    from vision_backends.errors import VisionError

__all__ = ["RULES", "Rule", "Taxonomy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table.

    Attributes:
        error: What it is for this package.
        says: Our words, after the name of the host.
        remedy: What a person can do; ``{host}`` stands for the server.
        codes: Codes that mean this. Case and punctuation are ignored: ``DeploymentNotFound`` is
            ``deployment_not_found``.
        words: Regular expression for messages that mean this, whatever their case; searched row by row.
        refused: Statuses with which the words mean this; empty for all. A model's name or a caption in a failure of
            another sort may hold any words.
        types: Values of ``error.type`` that say more than the status does.
        statuses: HTTP statuses that mean this when nothing more is known.
        lasting: Whether a refusal will be the same for the next request of this task.
    """

    error: type[BackendError | CallerError]
    says: str
    remedy: str | None = None
    codes: tuple[str, ...] = ()
    words: str | None = None
    refused: frozenset[int] = frozenset()
    types: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    lasting: bool = False


CLIENT_ERRORS = frozenset({200, 400, 404, 405, 415, 422, 500, 501})
"""Statuses with which servers say that they cannot do what was asked; 200 is LM Studio's, 500 Ollama's."""

BLIND = "cannot look at images with this model"

_ABOUT_ONE_IMAGE = re.compile(
    r"(?i)\b(?:images?|pictures?) (?:format|type|size|url|file|dimension|resolution|of)|mime|webp|jpe?g|\bpng\b|base64"
)
"""What a server may refuse of an image, whose model sees others."""

RULES = (
    Rule(
        error=ContentRejectedError,
        says="refused the content",
        remedy="Asking elsewhere would circumvent the provider's policy; change the image or the prompt.",
        codes=(
            *("content_policy_violation", "image_content_policy_violation", "moderation_blocked"),
            *("bio_policy", "cyber_policy", "misalignment_policy_violation", "invalid_prompt", "content_filter"),
            *("responsible_ai_policy_violation", "data_inspection_failed"),
        ),
        words=(
            r"content management policy|content policy|safety system|inappropriate content|violates our"
            r"|requires moderation|input was flagged"
        ),
        refused=frozenset({200, 400, 403, 422}),
    ),
    Rule(
        error=QuotaExhaustedError,
        says="says that the account's quota is used up",
        remedy="Add credit or raise the limit of the account at {host}, then run: vision reset.",
        codes=(
            *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"),
            *("credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
            *("organization_usage_limit_exceeded", "usage_limit_exceeded", "session_budget_exceeded"),
            *("arrearage", "budget_exceeded", "exceeded_current_quota_error", "allocation_quota_free_tier_only"),
        ),
        words=(
            r"exceeded your current quota|insufficient[ _](?:account )?(?:quota|balance|credit|funds)"
            r"|credit balance is too low|out of credits|requires more credits|key limit exceeded"
            r"|budget has been exceeded|exceeded (?:its |your )?budget|crossed budget|in good standing|in arrears"
            r"|free[ -]tier only|recharge|quota (?:is )?exhausted|out of (?:call volume )?quota|credit limit exceeded"
            r"|(?:reached|exceeded|used) (?:your |its |the |all |either |specified |monthly |included |available |api "
            r"|usage |credits |spending )+(?:credits|limits?)\b|usage limit exceeded|credits? (?:is|are) depleted"
            r"|(?:does|do)(?:n't| not) have any credits"
        ),
        types=("insufficient_quota", "budget_exceeded"),
        statuses=(402,),
    ),
    Rule(
        error=AuthenticationError,
        says="does not serve this account or region",
        remedy="Ask a server that does, or remove {host} from the ladder.",
        codes=("unsupported_country_region_territory", "data_residency_mismatch"),
        words=(
            r"location is not supported|(?:country|region)[^.]{0,40} not supported"
            r"|not available in your (?:country|region)|error code: 1010|organization has been restricted"
        ),
    ),
    Rule(
        error=AuthenticationError,
        says="did not accept the credentials",
        remedy="Check {key}, or api_key, organization and project in [openai] of vision.toml.",
        codes=(
            *("invalid_api_key", "api_key_invalid", "account_deactivated", "authentication_error"),
            *("invalid_grant", "invalid_subject_token", "unauthenticated", "no_db_connection"),
        ),
        words=(
            r"api[ _-]?key (?:is )?(?:not valid|invalid|expired|missing|not found)"
            r"|(?:incorrect|invalid|no) api[ _-]?key"
            r"|invalid (?:subscription key|token|credentials|authentication)"
        ),
        types=("authentication_error", "permission_error"),
        statuses=(401, 403),
    ),
    Rule(
        error=RefusedError,
        says=BLIND,
        remedy="Configure a model that sees images in [openai] of vision.toml, then run: vision reset.",
        words=(
            r"not a multimodal model|at most 0 image|missing data required for image|text[- ]only"
            r"|(?:does not|doesn't|do not|cannot) (?:support|accept|take|process|have) (?:any )?(?:image|vision|visual)"
            r"|(?:image|vision|image_url|multimodal)[\w ]{0,30}(?:is|are) not (?:supported|enabled|available)"
            r"|support image input|unknown variant .?image_url|image_url is only supported"
            r"|only (?:supports|accepts) text"
        ),
        refused=CLIENT_ERRORS,
        lasting=True,
    ),
    Rule(
        error=RefusedError,
        says="does not offer this",
        remedy="If it should, check base_url in [openai]: it often ends in /v1. Then run: vision reset.",
        codes=("not_supported_error", "unknown_url", "unsupported_api"),
        words=(
            r"support (?:the )?embeddings?"
            r"|embeddings? (?:api |endpoint )?(?:is|are) not (?:supported|enabled|available)"
            r"|^\W*(?:not found|404|405)|page not found|cannot post|no route|method not allowed|not implemented"
            r"|invalid url|unexpected endpoint|endpoint (?:is )?not (?:found|supported|implemented)"
        ),
        refused=CLIENT_ERRORS,
        statuses=(405, 501),
        lasting=True,
    ),
    Rule(
        error=ModelNotFoundError,
        says="does not know the model, or its address is wrong",
        remedy="Check model, embedding_model and base_url in [openai] of vision.toml.",
        codes=(
            *("model_not_found", "resource_not_found", "deployment_not_found", "key_model_access_denied"),
            *("model_not_exist", "not_found_error", "model_not_available", "model_decommissioned"),
        ),
        words=(
            r"invalid model(?: name)?\b|(?:unknown|no such) model"
            r"|model[^.]{0,80} (?:not found|does ?n[o']t exist|not exist)"
            r"|not allowed to access model|no endpoints found|try pulling it|deployment[^.]{0,40} does not exist"
            r"|not found for api version|not a valid model"
            r"|model[^.]{0,80} (?:has been|was|is) (?:decommissioned|deprecated|retired|shut down)"
        ),
        refused=CLIENT_ERRORS | {401, 403},
        types=("key_model_access_denied",),
        statuses=(404,),
    ),
    Rule(
        error=OverloadedError,
        says="is overloaded",
        codes=("slow_down", "server_is_overloaded", "server_overloaded", "flex_unavailable"),
        words=r"overloaded|capacity exceeded|loading model|model is loading|server is busy|no deployments available",
        refused=frozenset({200, 424, 429, 498, 500, 502, 503, 529}),
        types=("overloaded_error", "service_unavailable_error"),
        statuses=(498, 503, 529),
    ),
    Rule(
        error=RateLimitedError,
        says="says that there were too many requests",
        codes=("rate_limit_exceeded", "resource_exhausted", "too_many_requests", "throttling"),
        types=("rate_limit_error", "requests", "tokens"),
        statuses=(429,),
    ),
    Rule(
        error=UnavailableError,
        says="failed",
        codes=(
            *("server_error", "internal_error", "connection_failed", "request_timeout"),
            "vector_store_timeout",
        ),
        statuses=(408, 409, 500, 502, 504, *range(520, 528), 530),
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
        words=(
            r"(?:invalid|corrupt(?:ed)?|malformed|unsupported|unable to (?:process|decode|read)"
            r"|(?:could not|cannot|can't|failed to) (?:process|decode|read|load|identify|open))[\w ,']{0,25} image\b"
            r"|not (?:represent )?a valid image"
            r"|image (?:is|was|appears to be|seems) (?:invalid|corrupt|damaged|empty|truncated)"
        ),
        refused=frozenset({400, 415, 422}),
    ),
    Rule(
        error=InvalidRequestError,
        says="called the request invalid",
        words=r"\b(?:prompt|text|input|question)\b[\w ']{0,20} (?:must not be|is|cannot be|was) (?:empty|blank)",
        refused=frozenset({400, 422}),
    ),
    Rule(
        error=RefusedError,
        says="refused the request",
        codes=("context_length_exceeded", "unsupported_parameter", "unsupported_value", "invalid_request"),
        statuses=(400, 413, 415, 422),
    ),
    Rule(
        error=InvalidReplyError,
        says="sent a reply that cannot be used",
        statuses=(200,),
    ),
)
"""The taxonomy. Sources: the SDK's types, developers.openai.com/api/docs/guides/error-codes (2026-11), and what other
servers say in their documentation and in public reports; the tests name each."""

UNKNOWN = Rule(error=UnavailableError, says="answered with an unknown error")

RESET_OF_A_RATE_LIMIT_S = 120.0
"""What comes back within this time is a rate limit, whatever its words."""

SEARCHED_CHARS = 5_000
"""How much of it is searched for words that are known."""

TOKENS = 4
"""How many tokens of a changing credential are kept out of messages."""


class Taxonomy:
    """Turns providers' errors into this package's.

    Args:
        host: How messages call the server.
        official: Whether it is OpenAI's own, whose codes are always meant.
        extra: The user's own rows: a code, a type or a status as a string → the kind of an error, such as
            ``{"budget_gone": "quota_exhausted"}``; they win over the table.
        secrets: What must never be repeated in a message; an attribute as well.

    Attributes:
        backend: The name of the rung.
        key_variable: The variable that its key may come from.

    Raises:
        ConfigError: A kind is not one that a provider's error can have.
    """

    def __init__(
        self,
        *,
        host: str,
        official: bool = False,
        extra: Mapping[str, str] | None = None,
        secrets: tuple[Secret, ...] = (),
    ) -> None:
        kinds = {rule.error.kind: rule for rule in RULES}
        bad = sorted(set((extra or {}).values()) - set(kinds))
        if bad:
            raise ConfigError(
                f"[openai.error_codes] has the unknown kind {bad[0]!r}.", remedy=f"There are: {', '.join(kinds)}."
            )
        self._host = host
        self._official = official
        self.secrets = self._keys = secrets
        self._tokens: tuple[Secret, ...] = ()
        self.backend, self.key_variable = "openai", "OPENAI_API_KEY"
        self._by_code = {_plain(code): rule for rule in RULES for code in rule.codes}
        self._by_words = [(re.compile(rule.words, re.IGNORECASE), rule) for rule in RULES if rule.words]
        self._by_type = {name: rule for rule in RULES for name in rule.types}
        self._by_status = {status: rule for rule in RULES for status in rule.statuses}
        self._extra = {code: kinds[kind] for code, kind in (extra or {}).items()}
        self._rate = kinds[RateLimitedError.kind]
        self._refusal = self._by_status[400]
        self._doubted_until_s: float | None = None

    def hide(self, token: Secret) -> None:
        """Keep a token out of messages, and the ones before it, which may still be under way."""
        if all(token.reveal() != known.reveal() for known in self.secrets):
            self._tokens = (*self._tokens, token)[-TOKENS:]
            self.secrets = (*self._keys, *self._tokens)

    def believe_again(self) -> None:
        """Note that the server has answered, so that its account is not empty."""
        self._doubted_until_s = None

    def scrub(self, text: str) -> str:
        """Return what a server wrote as it may be shown."""
        return scrub(text, self.secrets)

    def hide_secrets(self, error: VisionError) -> None:
        """Hide what must not be repeated in an error, wherever its words come from."""
        error.message = scrub(error.message, self.secrets, max_chars=len(error.message))
        error.args = (error.message,)
        if isinstance(error, BackendError):
            error.code = error.code and self.scrub(error.code)
            error.request_id = error.request_id and self.scrub(error.request_id)

    def explain(
        self,
        body: object,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        now_s: float = 0.0,
        with_image: bool = True,
    ) -> BackendError | CallerError:
        """Return the error to raise for a provider's error.

        Args:
            body: The decoded error, or the text of the reply.
            status: HTTP status.
            headers: Of the reply, looked up by lower-case names.
            now_s: Seconds since 1970 UTC.
            with_image: Whether the request held an image, which may be at fault.
        """
        headers = headers or {}
        said = read_error_body(body)
        retry_after_s = read_retry_after_s(headers, said=said, now_s=now_s)
        rule = self._rule(said, status, retry_after_s, now_s)
        if rule.error is InvalidImageError and not with_image:
            rule = self._refusal
        message = self._message(rule, said, status, headers)
        remedy = rule.remedy and rule.remedy.format(host=self._host, key=self.key_variable)
        if issubclass(rule.error, CallerError):
            return rule.error(message, remedy=remedy)
        error = rule.error(
            message,
            remedy=remedy,
            backend=self.backend,
            code=scrub(said.code or said.type or "", self.secrets) or None,
            status=status,
            request_id=scrub(headers.get("x-request-id", ""), self.secrets) or None,
            retry_after_s=retry_after_s,
        )
        if isinstance(error, RefusedError):
            error.lasting = rule.lasting
            error.blind = rule.says == BLIND and with_image and not _ABOUT_ONE_IMAGE.search(said.message)
            error.field = scrub(said.field or "", self.secrets) or None
        return error

    def _rule(self, said: ErrorBody, status: int | None, retry_after_s: float | None, now_s: float) -> Rule:
        own = next(
            (self._extra[key] for key in (said.code, said.type, *said.reasons, str(status)) if key in self._extra),
            None,
        )
        if own is not None:
            return own
        rule = self._known(said, status)
        if rule.error is not QuotaExhaustedError:
            return rule
        if self._official and _plain(said.code) in self._by_code:
            return rule
        # A limit of a minute may use the words of an empty account. It is one if it is still there when its own
        # delay has passed.
        if retry_after_s is None or retry_after_s > RESET_OF_A_RATE_LIMIT_S:
            return rule
        if self._doubted_until_s is not None and now_s >= self._doubted_until_s:
            return rule
        if self._doubted_until_s is None:
            self._doubted_until_s = now_s + retry_after_s
        return self._rate

    def _known(self, said: ErrorBody, status: int | None) -> Rule:
        """Return the row of an error by its outer code, its words, its type, its inner codes and its status."""
        by_code = self._by_code.get(_plain(said.code))
        if by_code is not None and by_code is not self._refusal:
            return by_code
        numbers = [int(code) for code in (said.code, *said.reasons) if code and code.isdigit()]
        if status in {None, 200} and numbers:
            status = numbers[0]  # a proxy passes on what it was told, with a status of its own
        by_words = self._worded(said.message, status)
        inner = next(
            (
                self._by_code[plain]
                for reason in (said.type, *said.reasons)
                if (plain := _plain(reason)) in self._by_code and self._by_code[plain].error is not UnavailableError
            ),
            None,
        )
        by_type = self._by_type.get(said.type or "")
        return by_words or by_type or inner or by_code or self._by_status.get(status or 0, UNKNOWN)

    def _worded(self, message: str, status: int | None) -> Rule | None:
        if message.lstrip().startswith("<"):
            return None  # a page of a proxy, with any words
        for words, rule in self._by_words:
            if (not rule.refused or status in rule.refused) and words.search(message, 0, SEARCHED_CHARS):
                return rule
        return None

    def _message(self, rule: Rule, error: ErrorBody, status: int | None, headers: Mapping[str, str]) -> str:
        if status is not None and 300 <= status < 400:
            there = urlsplit(headers.get("location", "")).netloc or "another address"
            return (
                f"{self._host} redirects to {scrub(there, self.secrets)}, which is not followed: "
                "the image would go to a server that is not configured."
            )
        said = "an HTML page" if error.message.lstrip().startswith("<") else scrub(error.message, self.secrets)
        if error.field and error.field not in said:
            said += f" ({scrub(error.field, self.secrets)})"
        known = "" if status in {None, 200} else f" ({status})"
        return f"{self._host} {rule.says}{known}: {said}" if said else f"{self._host} {rule.says}{known}."


def _plain(code: str | None) -> str:
    """Return a code without case and punctuation, as no two servers spell it alike."""
    return "".join(char for char in (code or "").lower() if char.isalnum())
