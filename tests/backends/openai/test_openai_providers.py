"""Errors as providers, gateways and servers send them; each row was seen on one or stands in its documentation.

What counts is what becomes of the call: only what is known to be the caller's fault stops it.
"""

from __future__ import annotations

import pytest

from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.errors import (
    AuthenticationError,
    ContentRejectedError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)


def openai(message, *, code=None, kind="invalid_request_error", param=None, **more):
    """Return an error in OpenAI's own shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


def google(code, message, status, *details):
    """Return an error as Google's compatible endpoint wraps it."""
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
KEY_INVALID = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
GOOGLE_QUOTA = "You exceeded your current quota, please check your plan and billing details. Please retry in 34.2s."

ROWS = {
    "openai: quota": (429, openai("You exceeded your current quota", code="insufficient_quota"), QuotaExhaustedError),
    "azure: rate": (429, {"error": {"code": "429", "message": "Please retry after 9 seconds."}}, RateLimitedError),
    "azure: key": (
        401,
        {"error": {"code": "401", "message": "Access denied due to invalid key."}},
        AuthenticationError,
    ),
    "azure: deployment": (
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        ModelNotFoundError,
    ),
    "azure: filter": (
        400,
        openai("The response was filtered", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
        ContentRejectedError,
    ),
    "azure: filter, only inside": (
        400,
        openai("Bad request", innererror={"code": "ResponsibleAIPolicyViolation"}),
        ContentRejectedError,
    ),
    "azure api management: rate": (
        429,
        {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 6 seconds."},
        RateLimitedError,
    ),
    "gemini: minute": (429, google(429, GOOGLE_QUOTA, "RESOURCE_EXHAUSTED", RETRY_INFO), RateLimitedError),
    "gemini: day": (
        429,
        google(429, "You exceeded your current quota, limit: 0", "RESOURCE_EXHAUSTED"),
        QuotaExhaustedError,
    ),
    "gemini: key": (400, google(400, "API key not valid.", "INVALID_ARGUMENT", KEY_INVALID), AuthenticationError),
    "gemini: key, by code alone": (400, google(400, "Nope.", "INVALID_ARGUMENT", KEY_INVALID), AuthenticationError),
    "gemini: region": (
        400,
        google(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"),
        AuthenticationError,
    ),
    "gemini: model": (
        404,
        google(404, "models/m is not found for API version v1main", "NOT_FOUND"),
        ModelNotFoundError,
    ),
    "gemini: busy": (503, google(503, "The model is overloaded.", "UNAVAILABLE"), OverloadedError),
    "openrouter: credit": (
        402,
        openai("This request requires more credits, or fewer max_tokens.", code=402),
        QuotaExhaustedError,
    ),
    "openrouter: key limit": (403, openai("Key limit exceeded (total limit).", code=403), QuotaExhaustedError),
    "openrouter: blind": (404, openai("No endpoints found that support image input", code=404), RefusedError),
    "openrouter: model": (404, openai("No endpoints found for acme/m.", code=404), ModelNotFoundError),
    "openrouter: moderation": (403, openai("Your input violates our usage policies", code=403), ContentRejectedError),
    "openrouter: upstream inside a 200": (200, openai("Provider returned error", code=502), UnavailableError),
    "groq: rate": (
        429,
        openai("Please try again in 7.66s.", code="rate_limit_exceeded", kind="tokens"),
        RateLimitedError,
    ),
    "groq: schema": (400, openai("This model does not support response format `json_schema`."), RefusedError),
    "groq: capacity": (498, openai("Flex capacity exceeded"), OverloadedError),
    "mistral: field": (
        422,
        {
            "object": "error",
            "message": {"detail": [{"loc": ["body", "store"], "msg": "Extra inputs are not permitted"}]},
        },
        RefusedError,
    ),
    "mistral: key": (401, {"detail": "Unauthorized"}, AuthenticationError),
    "mistral: capacity": (
        429,
        {"message": "Service tier capacity exceeded for this model.", "code": "3505"},
        OverloadedError,
    ),
    "together: model": (404, openai("Unable to access model acme/m.", code="model_not_available"), ModelNotFoundError),
    "dashscope: arrears": (
        400,
        openai("Access denied, your account is not in good standing.", code="Arrearage"),
        QuotaExhaustedError,
    ),
    "dashscope: free tier": (
        403,
        openai("The free tier is exhausted.", code="AllocationQuota.FreeTierOnly"),
        QuotaExhaustedError,
    ),
    "dashscope: content": (400, openai("Input data may be bad.", code="data_inspection_failed"), ContentRejectedError),
    "moonshot: quota": (
        429,
        openai("Your account is suspended", kind="exceeded_current_quota_error"),
        QuotaExhaustedError,
    ),
    "deepseek: balance": (
        402,
        openai("Insufficient Balance", kind="unknown_error", code="invalid_request_error"),
        QuotaExhaustedError,
    ),
    "deepseek: schema": (400, openai("This response_format type is unavailable now"), RefusedError),
    "xai: model": (
        400,
        {"code": "Client specified an invalid argument", "error": "Model not found: m"},
        ModelNotFoundError,
    ),
    "xai: key": (
        400,
        {"code": "invalid-argument", "error": "Incorrect API key provided: xa***1."},
        AuthenticationError,
    ),
    "anthropic: credit": (400, openai("Your credit balance is too low to access the API."), QuotaExhaustedError),
    "anthropic: busy": (529, openai("Overloaded", kind="overloaded_error"), OverloadedError),
    "litellm: budget": (
        422,
        openai("Budget has been exceeded! Max budget: 1", kind="budget_exceeded", code="422"),
        QuotaExhaustedError,
    ),
    "litellm: all upstreams over budget": (
        429,
        openai("No deployments available - crossed budget", kind="internal_server_error"),
        QuotaExhaustedError,
    ),
    "litellm: all upstreams cooling": (429, openai("No deployments available for selected model"), OverloadedError),
    "litellm: unknown key": (400, openai("No connected db.", kind="no_db_connection", code="400"), AuthenticationError),
    "litellm: model access of a team": (
        403,
        openai("team not allowed to access model.", kind="team_model_access_denied", code="403"),
        ModelNotFoundError,
    ),
    "litellm: model access": (
        401,
        openai("key not allowed to access model.", kind="key_model_access_denied", code="401"),
        ModelNotFoundError,
    ),
    "litellm: model": (400, openai("Invalid model name passed in model=m.", code="400"), ModelNotFoundError),
    "litellm: field": (
        400,
        openai("litellm.BadRequestError: Unsupported parameter: 'max_tokens'", code="400"),
        RefusedError,
    ),
    "portkey: nested JSON": (
        401,
        {"status": "failure", "message": '{"error": {"message": "Invalid API key", "code": "invalid_api_key"}}'},
        AuthenticationError,
    ),
    "vllm: text only": (400, openai("At most 0 image(s) may be provided in one prompt."), RefusedError),
    "vllm: no such model": (
        404,
        openai("The model `m` does not exist.", kind="NotFoundError", code=404),
        ModelNotFoundError,
    ),
    "vllm: too long": (400, openai("The decoder prompt is longer than the maximum model length"), RefusedError),
    "vllm: no path": (404, {"detail": "Not Found"}, RefusedError),
    "ollama: model": (404, openai('model "m" not found, try pulling it first', kind="api_error"), ModelNotFoundError),
    "ollama: blind": (500, openai("this model is missing data required for image input"), RefusedError),
    "ollama: a string": (400, {"error": "model does not support images"}, RefusedError),
    "lm studio: no path": (200, {"error": "Unexpected endpoint or method. (POST /v1/rerank)"}, RefusedError),
    "llama.cpp: loading": (503, openai("Loading model", kind="unavailable_error", code=503), OverloadedError),
    "llama.cpp: no embeddings": (501, openai("This server does not support embeddings.", code=501), RefusedError),
    "tgi: busy": (429, {"error": "Model is overloaded", "error_type": "overloaded"}, OverloadedError),
    "tgi: invalid": (422, {"error": "Input validation error", "error_type": "validation"}, RefusedError),
    "localai: backend": (500, openai("rpc error: code = Unknown desc = unimplemented", code=500), UnavailableError),
    "nginx: size": (413, "<html><title>413 Request Entity Too Large</title></html>", RefusedError),
    "nginx: key": (401, "<html>401 Authorization Required</html>", AuthenticationError),
    "nginx: gateway": (502, "<html>502 Bad Gateway: invalid model name</html>", UnavailableError),
    "cloudflare: timeout": (524, "<!DOCTYPE html><title>524: A timeout occurred</title>", UnavailableError),
    "cloudflare: client": (403, "error code: 1010", AuthenticationError),
    "azure api management: quota": (
        403,
        {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 05:12:33."},
        QuotaExhaustedError,
    ),
    "a gateway with faults": (
        403,
        {"fault": {"faultstring": "Insufficient balance", "detail": {"errorcode": "x.y.Z"}}},
        QuotaExhaustedError,
    ),
    "gemini: prepaid": (
        429,
        google(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"),
        QuotaExhaustedError,
    ),
    "xai: no credits": (
        403,
        {"code": "permission-denied", "error": "Your newly created team doesn't have any credits yet."},
        QuotaExhaustedError,
    ),
    "xai: spending": (
        429,
        {"error": "Your team has either used all available credits or reached its monthly spending limit."},
        QuotaExhaustedError,
    ),
    "anthropic: limit of the user": (
        400,
        openai("You have reached your specified API usage limits. You will regain access on 2026-12-01."),
        QuotaExhaustedError,
    ),
    "portkey: usage limit": (412, {"status": "failure", "message": "Usage limit exceeded"}, QuotaExhaustedError),
    "minimax: balance inside a 200": (
        200,
        {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        QuotaExhaustedError,
    ),
    "openrouter: upstream's own words": (
        403,
        openai("Provider returned error", code=403, metadata={"raw": '{"error": {"message": "Insufficient balance"}}'}),
        QuotaExhaustedError,
    ),
    "openrouter: flagged": (403, openai("acme/m requires moderation on X.", code=403), ContentRejectedError),
    "groq: organization": (
        400,
        openai("Organization has been restricted.", code="organization_restricted"),
        AuthenticationError,
    ),
    "groq: retired model": (400, openai("It is gone.", code="model_decommissioned"), ModelNotFoundError),
    "together: retired model": (400, openai("The model `m` has been deprecated."), ModelNotFoundError),
    "deepseek: blind": (
        400,
        openai("Failed to deserialize the JSON body: messages[0]: unknown variant `image_url`, expected `text`"),
        RefusedError,
    ),
    "JSON within a sentence": (
        400,
        openai('OpenAIException - {"error": {"code": "invalid_api_key", "message": "Wrong"}}', code="400"),
        AuthenticationError,
    ),
    "braces that are no JSON": (400, openai('Expected {"a": at the end'), RefusedError),
    "an image that cannot be read": (400, openai("Unable to process input image."), InvalidImageError),
    "an empty prompt": (400, openai("The prompt must not be empty."), InvalidRequestError),
    "a list of errors": (
        400,
        {"errors": [{"message": "API key not valid"}, {"message": "again"}]},
        AuthenticationError,
    ),
    "other capitals": (429, {"Error": {"Message": "Slow down", "Code": "SlowDown"}}, OverloadedError),
    "a page of a proxy in a 400": (400, "<html>Invalid image policy violation</html>", RefusedError),
    "says nothing": (400, "", RefusedError),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_error_is_what_its_sender_means_by_it(name):
    """Code, words and status are weighed as the sender uses them."""
    status, body, expected = ROWS[name]
    assert type(Taxonomy(host="api.test").explain(body, status=status)) is expected


LASTING = {
    "openrouter: blind",
    "vllm: text only",
    "vllm: no path",
    "ollama: blind",
    "ollama: a string",
    "deepseek: blind",
    "lm studio: no path",
    "llama.cpp: no embeddings",
}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row[2] is RefusedError])
def test_what_a_server_lacks_is_told_from_what_one_request_had(name):
    """Of the first, one refusal is enough for all photos."""
    status, body, _ = ROWS[name]
    assert Taxonomy(host="api.test").explain(body, status=status).lasting == (name in LASTING)


def test_delays_in_bodies_are_obeyed():
    """Google names one in the details, others in words."""
    status, body, _ = ROWS["gemini: minute"]
    assert Taxonomy(host="api.test").explain(body, status=status).retry_after_s == 34
    for name, seconds in (("azure: rate", 9), ("azure api management: rate", 6), ("groq: rate", 7.66)):
        status, body, _ = ROWS[name]
        assert Taxonomy(host="api.test").explain(body, status=status).retry_after_s == pytest.approx(seconds)


def test_the_field_that_is_refused_is_named():
    """Wherever it stands."""
    status, body, _ = ROWS["mistral: field"]
    refusal = Taxonomy(host="api.test").explain(body, status=status)
    assert refusal.field == "store"
    assert "store" in refusal.message


def test_texts_are_not_blamed_on_images():
    """The same words about a request without one are a refusal."""
    status, body, _ = ROWS["an image that cannot be read"]
    assert type(Taxonomy(host="api.test").explain(body, status=status, with_image=False)) is RefusedError
