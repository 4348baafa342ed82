"""The API's error replies as data: name, status, body and headers, one row each.

This module decides what the sandbox's error replies look like, verbatim where the real text is known. It must not know
when they are played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.testing.sandbox.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ERRORS"]

_HTML = {"content-type": "text/html; charset=utf-8"}
_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this "
    "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
_RATE = "Rate limit reached for the model on {} per min. Please try again in 20s."
_IMAGE = "Please make sure your image is valid and one of: 'png', 'jpeg', 'gif', 'webp'."
_POLICY = "Your request was rejected as a result of our safety system."


def _openai(
    status: int,
    name: str,
    message: str,
    *,
    type_: str = "invalid_request_error",
    code: str | None = "",
    headers: Mapping[str, str | None] | None = None,
) -> Fault:
    """Return an error with OpenAI's envelope; its code is the row's name where none is given."""
    body = {"message": message, "type": type_, "param": None, "code": name if code == "" else code}
    return Fault(name=name, status=status, body={"error": body}, headers=headers or {})


def _limit(kind: str) -> dict[str, str | None]:
    return {
        "retry-after": "20",
        "retry-after-ms": "20000",
        f"x-ratelimit-limit-{kind}": "500",
        f"x-ratelimit-remaining-{kind}": "0",
        f"x-ratelimit-reset-{kind}": "20s",
    }


_QUOTA_ROWS = (
    _openai(429, "quota_gone", _QUOTA, type_="insufficient_quota", code="insufficient_quota"),
    _openai(
        429,
        "quota_gone_retry_after",
        _QUOTA,
        type_="insufficient_quota",
        code="insufficient_quota",
        headers={"retry-after": "20"},
    ),
    _openai(401, "quota_gone_as_401", _QUOTA, type_="insufficient_quota", code="insufficient_quota"),
    _openai(400, "billing_hard_limit_reached", "Billing hard limit has been reached."),
    _openai(429, "credit_balance_exhausted", "Your credit balance is exhausted.", type_="insufficient_quota"),
    _openai(429, "organization_spend_limit_exceeded", "Your organization has reached its spend limit."),
    _openai(429, "project_spend_limit_exceeded", "Your project has reached its spend limit."),
    _openai(429, "organization_usage_limit_exceeded", "Your organization has reached its usage limit."),
    _openai(402, "payment_required", "Insufficient credits. Add more and try again.", code=None),
    _openai(
        429,
        "litellm_quota_gone",
        f"litellm.RateLimitError: RateLimitError: OpenAIException - {_QUOTA}",
        type_="throttling_error",
        code="429",
        headers={"llm_provider-retry-after": "20"},
    ),
)

_LIMIT_ROWS = (
    _openai(
        429,
        "rate_limited",
        _RATE.format("requests"),
        type_="requests",
        code="rate_limit_exceeded",
        headers=_limit("requests"),
    ),
    _openai(
        429,
        "rate_limited_tokens",
        _RATE.format("tokens"),
        type_="tokens",
        code="rate_limit_exceeded",
        headers=_limit("tokens"),
    ),
    _openai(
        429,
        "rate_limited_briefly",
        "Rate limit reached. Please try again in 5ms.",
        type_="requests",
        code="rate_limit_exceeded",
        headers={"retry-after-ms": "5", "x-ratelimit-reset-requests": "5ms"},
    ),
    _openai(
        429,
        "rate_limited_until_date",
        "Rate limit reached.",
        type_="requests",
        code="rate_limit_exceeded",
        headers={"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"},
    ),
    _openai(
        429,
        "rate_limited_bare",
        "Rate limit reached.",
        type_="requests",
        code="rate_limit_exceeded",
        headers={"x-ratelimit-*": None},
    ),
    _openai(
        429,
        "rate_limited_called_quota",
        "INSUFFICIENT QUOTA: requests per minute. Please try again in 12s.",
        type_="requests",
        code=None,
        headers={"retry-after": "12"},
    ),
    _openai(429, "slow_down", "Please reduce your request rate and ramp up gradually.", type_="server_error"),
    _openai(
        503,
        "overloaded",
        "The engine is currently overloaded, please try again later.",
        type_="server_error",
        code=None,
    ),
)

_OUTAGE_ROWS = (
    _openai(500, "server_error", "The server had an error while processing your request.", type_="server_error"),
    Fault(
        name="bad_gateway",
        status=502,
        body="<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>",
        headers=_HTML,
    ),
    _openai(504, "gateway_timeout", "The upstream took too long.", type_="server_error", code=None),
    _openai(408, "request_timeout", "Request timed out.", type_="timeout", code=None),
    _openai(409, "conflict", "The resource was updated by another request.", code=None),
    _openai(500, "vector_store_timeout", "The vector store took too long.", type_="server_error"),
    _openai(500, "never_seen_before", "Something new went wrong.", type_="novel_error"),
    Fault(name="plain_text_500", status=500, body="Internal Server Error"),
    Fault(name="empty_500", status=500, body=""),
    Fault(name="error_string", status=500, body={"error": "backend crashed"}),
    Fault(name="error_top_level", status=500, body={"object": "error", "message": "crashed", "code": 500}),
    Fault(name="detail_string", status=500, body={"detail": "backend crashed"}),
    Fault(name="code_number", status=429, body={"error": {"message": "Too many requests", "code": 429}}),
)

_ACCESS_ROWS = (
    _openai(
        401,
        "invalid_api_key",
        "Incorrect API key provided: sk-***. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    ),
    _openai(401, "missing_api_key", "You didn't provide an API key.", code=None),
    _openai(
        403,
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
        type_="request_forbidden",
    ),
    _openai(403, "missing_scopes", "You have insufficient permissions for this operation.", code=None),
    Fault(
        name="oauth_error",
        status=401,
        body={"error": "invalid_grant", "error_description": "The token has expired."},
    ),
    _openai(404, "model_not_found", "The model does not exist or you do not have access to it."),
    Fault(name="redirect", status=307, body="", headers={"location": "http://127.0.0.1:9/v1/chat/completions"}),
)

_CALLER_ROWS = (
    _openai(400, "invalid_request", "The request is not valid.", code=None),
    _openai(404, "unknown_url", "Invalid URL.", code=None),
    _openai(405, "method_not_allowed", "Method not allowed for this URL.", code=None),
    _openai(
        400,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. Please reduce the length of the messages.",
    ),
    Fault(name="payload_too_large", status=413, body="<html>413 Request Entity Too Large</html>", headers=_HTML),
    Fault(
        name="unprocessable",
        status=422,
        body={"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]},
    ),
    _openai(400, "invalid_image", f"The image data does not represent a valid image. {_IMAGE}"),
    _openai(400, "invalid_image_format", f"You uploaded an unsupported image. {_IMAGE}"),
    _openai(400, "invalid_base64_image", "Invalid base64 image_url."),
    _openai(400, "invalid_image_url", "Invalid image URL."),
    _openai(400, "invalid_image_mode", f"The image has an unsupported mode. {_IMAGE}"),
    _openai(400, "image_too_large", "The image is too large."),
    _openai(400, "image_file_too_large", "The image file is too large."),
    _openai(400, "image_too_small", "The image is too small."),
    _openai(400, "image_parse_error", f"The image could not be parsed. {_IMAGE}"),
    _openai(400, "unsupported_image_media_type", f"The media type is not supported. {_IMAGE}"),
    _openai(400, "empty_image_file", f"The image is empty. {_IMAGE}"),
    _openai(400, "failed_to_download_image", "Failed to download the image."),
    _openai(400, "image_file_not_found", "The image file was not found."),
    _openai(400, "data_residency_mismatch", "The project's data residency does not allow this endpoint."),
)

_POLICY_ROWS = (
    _openai(400, "content_policy_violation", _POLICY),
    _openai(400, "image_content_policy_violation", _POLICY, type_="image_generation_user_error"),
    _openai(400, "moderation_blocked", _POLICY, type_="image_generation_user_error"),
    _openai(400, "bio_policy", _POLICY),
    _openai(400, "misalignment_policy_violation", _POLICY),
    _openai(400, "invalid_prompt", "Invalid prompt: it was flagged as potentially violating our usage policy."),
)

_GROUPS = (_QUOTA_ROWS, _LIMIT_ROWS, _OUTAGE_ROWS, _ACCESS_ROWS, _CALLER_ROWS, _POLICY_ROWS)

ERRORS: tuple[Fault, ...] = tuple(fault for group in _GROUPS for fault in group)
"""Every error reply, in groups: quota, rate limits, outages, access, the caller's own, policy."""
