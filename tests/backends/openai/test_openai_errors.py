"""What a provider's error is for this package, and what its headers say of limits and waiting."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from typing import Literal, get_args, get_origin

import openai.types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from vision_backends.backends.openai.error_body import (
    ErrorBody,
    find_error,
    parse_duration_s,
    read_error_body,
    read_rate_limits,
    read_retry_after_s,
)
from vision_backends.backends.openai.errors import RULES, Taxonomy
from vision_backends.backends.openai.secret import Secret
from vision_backends.backends.requests import RateLimits
from vision_backends.errors import (
    AuthenticationError,
    CallerError,
    ConfigError,
    ContentRejectedError,
    InvalidReplyError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)

NOT_OURS = {
    *("response_not_found", "invalid_input", "steering_not_supported", "too_many_pending_steers"),
    *("response_already_completed", "response_not_active", "successor_creation_failed"),  # steering a response
    *("active_turn_not_steerable", "executor_version_incompatible", "sandbox_error", "max_output_tokens"),  # sessions
    *("invalid_file", "unsupported_file"),  # files of vector stores
}
"""Codes of OpenAI's APIs that this package never calls."""


def error(body=None, *, status=None, headers=None, now_s=0.0, **settings):
    """Return what a body is translated to."""
    return Taxonomy(host="api.test", **settings).explain(body, status=status, headers=headers, now_s=now_s)


def coded(code, **more):
    """Return a body with a code."""
    return {"code": code, "message": "Something happened.", "type": "invalid_request_error", **more}


@pytest.mark.parametrize(("rule", "code"), [(rule, code) for rule in RULES for code in rule.codes])
def test_a_known_code_wins_over_type_and_status(rule, code):
    """The code decides, whatever status the provider found for it."""
    for status in (200, 400, 401, 429, 500, None):
        assert type(error(coded(code), status=status)) is rule.error


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (402, QuotaExhaustedError),
        (429, RateLimitedError),
        (503, OverloadedError),
        (529, OverloadedError),
        (500, UnavailableError),
        (502, UnavailableError),
        (504, UnavailableError),
        (408, UnavailableError),
        (409, UnavailableError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, ModelNotFoundError),
        (400, RefusedError),
        (405, RefusedError),
        (413, RefusedError),
        (415, RefusedError),
        (422, RefusedError),
        (501, RefusedError),
        (200, InvalidReplyError),
        (418, UnavailableError),
        (599, UnavailableError),
        (None, UnavailableError),
    ],
)
def test_the_status_decides_where_nothing_else_is_known(status, expected):
    """An unknown code or type says nothing, and what is unknown altogether is an outage."""
    for body in ("", {"message": "no", "code": "never_heard_of", "type": "invalid_request_error"}, None, 17):
        assert type(error(body, status=status)) is expected


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("insufficient_quota", 429, QuotaExhaustedError),
        ("requests", 400, RateLimitedError),
        ("tokens", 400, RateLimitedError),
        ("overloaded_error", 500, OverloadedError),
        ("authentication_error", 400, AuthenticationError),
        ("server_error", 503, OverloadedError),
        ("invalid_request_error", 401, AuthenticationError),
    ],
)
def test_a_type_wins_over_the_status_only_where_it_says_more(kind, status, expected):
    """``server_error`` and ``invalid_request_error`` come with statuses that know better."""
    assert type(error({"type": kind, "code": None, "message": ""}, status=status)) is expected


def test_every_error_code_of_the_sdk_is_in_the_table():
    """A code that OpenAI adds breaks the build instead of production."""
    table = {code for rule in RULES for code in rule.codes}
    found = _codes_of_the_sdk()
    assert {"bio_policy", "invalid_grant", "credit_balance_exhausted"} <= found
    assert found - table - NOT_OURS == set()
    assert not table & NOT_OURS


def _codes_of_the_sdk():
    found = set()
    for module in pkgutil.walk_packages(openai.types.__path__, "openai.types."):
        if "error" not in module.name.rpartition(".")[2] and not module.name.endswith((".run", ".run_step")):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.endswith("ErrorCode"):
                found |= _literals(value)
            elif inspect.isclass(value) and issubclass(value, BaseModel) and "Error" in name:
                code = value.model_fields.get("code")
                found |= _literals(code.annotation) if code else set()
    return found


def _literals(annotation):
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return set().union(*map(_literals, get_args(annotation)))


def _nested(levels, error):
    for _ in range(levels):
        error = {"error": error}
    return error


@pytest.mark.parametrize(
    ("body", "code", "kind", "message"),
    [
        ({"error": {"code": "a_b", "type": "t", "message": "m"}}, "a_b", "t", "m"),
        ({"error": "it broke"}, None, None, "it broke"),
        ({"error": "invalid_grant", "error_description": "old"}, "invalid_grant", None, "invalid_grant"),
        ("invalid_grant", "invalid_grant", None, "invalid_grant"),
        ({"detail": "Not Found"}, None, None, "Not Found"),
        (
            {"detail": [{"loc": ["body"], "msg": "Field required"}, {"msg": "too long"}]},
            None,
            None,
            "Field required; too long",
        ),
        ({"object": "error", "message": "crashed", "code": 500}, "500", None, "crashed"),
        ({"code": 429, "type": None, "message": ["one", "two"]}, "429", None, "one; two"),
        ({"error": {"msg": "short"}}, None, None, "short"),
        ({"error": {"message": {"message": "nested"}}}, None, None, "nested"),
        ("Internal Server Error", None, None, "Internal Server Error"),
        ({}, None, None, ""),
        (None, None, None, ""),
        ([{"msg": "a"}], None, None, "a"),
        ({"error": {"description": "a"}}, None, None, "a"),
        ({"reason": "a"}, None, None, "a"),
        ({"fault": {"faultstring": "a", "detail": {"errorcode": "b"}}}, "b", None, "a"),
        ({"base_resp": {"status_msg": "a"}}, None, None, "a"),
        ({"message": "a", "metadata": {"raw": '{"error": {"message": "b", "code": "c"}}'}}, "c", None, "a; b"),
        ('Seen: {"error": {"code": "a_b"}} (400)', "a_b", None, 'Seen: {"error": {"code": "a_b"}} (400)'),
        (_nested(4, {"code": "a_b", "type": "t", "message": "m"}), "a_b", "t", "m"),
        (_nested(2000, {"code": "a_b", "type": "t", "message": "m"}), None, None, ""),
    ],
)
def test_errors_are_read_in_every_shape(body, code, kind, message):
    """Objects, strings, lists, numbers and null: all were seen on running servers."""
    found = read_error_body(body)
    assert (found.code, found.type, found.message) == (code, kind, message)


def test_a_quota_error_behind_a_proxy_is_recognised_when_it_outlasts_its_delay():
    """LiteLLM replaces code and type and renames Retry-After; only a sentence is left, which may mean a minute."""
    body = {"code": "429", "type": "throttling_error", "message": "RateLimitError: You exceeded your current quota, …"}
    taxonomy = Taxonomy(host="api.test")

    def ask(now_s):
        return taxonomy.explain(body, status=429, headers={"llm_provider-retry-after": "20"}, now_s=now_s)

    first = ask(1000.0)
    assert (type(first), first.retry_after_s) == (RateLimitedError, 20)
    assert type(ask(1010.0)) is RateLimitedError
    assert type(ask(1020.0)) is QuotaExhaustedError
    taxonomy.believe_again()
    assert type(ask(1030.0)) is RateLimitedError
    assert type(error(body, status=429)) is QuotaExhaustedError


def test_a_minute_limit_that_calls_itself_quota_is_a_rate_limit():
    """A reset within two minutes says more than the words."""
    body = {"message": "INSUFFICIENT QUOTA: requests per minute."}
    assert type(error(body, status=429, headers={"retry-after": "12"})) is RateLimitedError
    assert type(error(body, status=429, headers={"x-ratelimit-reset-requests": "6s"})) is RateLimitedError
    assert type(error(body, status=429)) is QuotaExhaustedError
    assert type(error(body, status=429, headers={"retry-after": "86400"})) is QuotaExhaustedError


def test_openais_own_quota_code_stays_quota_whatever_the_reset():
    """There it is no matter of words; elsewhere the same code may mean the minute."""
    found = error(coded("insufficient_quota"), status=401, headers={"retry-after": "20"}, official=True)
    assert type(found) is QuotaExhaustedError


def test_an_error_with_status_200_is_what_its_number_says():
    """Proxies hand on a provider's 502 as a number in a reply of their own."""
    assert type(error({"message": "Provider returned error", "code": 502}, status=200)) is UnavailableError
    assert type(error({"message": "Provider returned error", "code": 429}, status=200)) is RateLimitedError


def test_users_rows_win_over_the_table():
    """A code, a type or a status of one server can be given a meaning of its own."""
    extra = {
        "budget_gone": "quota_exhausted",
        "rate_limit_exceeded": "overloaded",
        "418": "rate_limited",
        "odd": "refused",
    }
    assert type(error(coded("budget_gone"), status=500, extra=extra)) is QuotaExhaustedError
    assert type(error(coded("rate_limit_exceeded"), status=429, extra=extra)) is OverloadedError
    assert type(error("teapot", status=418, extra=extra)) is RateLimitedError
    assert type(error({"type": "odd"}, status=400, extra=extra)) is RefusedError


def test_an_unknown_kind_in_users_rows_names_the_known_ones():
    """A typing mistake in the configuration is found at once."""
    with pytest.raises(ConfigError, match=r"'quota'.*quota_exhausted"):
        Taxonomy(host="api.test", extra={"x": "quota"})


def test_a_backend_error_carries_what_support_will_ask_for():
    """Code, status, request id and the time to wait are attributes."""
    headers = {"x-request-id": "req_1", "retry-after-ms": "1500"}
    found = error(coded("rate_limit_exceeded"), status=429, headers=headers)
    assert (found.backend, found.code, found.status) == ("openai", "rate_limit_exceeded", 429)
    assert (found.request_id, found.retry_after_s) == ("req_1", 1.5)
    assert "api.test" in found.message
    assert "Something happened." in found.message


def test_quota_and_credentials_come_with_a_remedy():
    """A person can act on them."""
    assert "vision reset" in (error(coded("insufficient_quota"), status=429).remedy or "")
    assert "OPENAI_API_KEY" in (error(coded("invalid_api_key"), status=401).remedy or "")
    assert "base_url" in (error(coded("model_not_found"), status=404).remedy or "")


def test_errors_of_the_caller_are_no_backend_errors():
    """They never fall back."""
    for code in ("invalid_image", "content_policy_violation", "image_too_large"):
        assert isinstance(error(coded(code), status=500), CallerError)
    assert isinstance(error(coded("moderation_blocked"), status=400), ContentRejectedError)


def test_a_redirect_names_where_it_leads():
    """The address in the configuration has to be mended."""
    found = error("", status=307, headers={"location": "https://elsewhere.test/v1"})
    assert type(found) is UnavailableError
    assert "elsewhere.test" in found.message
    assert "another address" in error("", status=302).message


def test_messages_hold_neither_keys_nor_pages():
    """What the provider says is passed on only after a wash."""
    secret = Secret("my-own-hidden-value")
    washed = error(
        {
            "message": f"Bad key {secret.reveal()} and sk-proj-abc12345678\nfor data:image/png;base64,AAAA\x07!"
            + "x" * 400
        },
        status=401,
        secrets=(secret, Secret("")),
    ).message
    assert secret.reveal() not in washed
    assert "sk-proj" not in washed
    assert "AAAA" not in washed
    assert "\n" not in washed
    assert len(washed) < 400
    assert error("<html>502</html>", status=502).message.endswith("an HTML page")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"error": None, "choices": []}, None),
        ({"error": {"code": "x"}}, {"code": "x"}),
        ({"type": "error", "code": "x"}, {"type": "error", "code": "x"}),
        ({"type": "error", "error": {"code": "x"}}, {"code": "x"}),
        ({"type": "response.failed", "response": {"error": {"code": "x"}}}, {"code": "x"}),
        ({"type": "response.created", "response": {"error": None}}, None),
        ({"response": "text"}, None),
    ],
)
def test_errors_inside_of_replies_and_events_are_found(payload, expected):
    """They come with status 200 and without an exception of the SDK."""
    assert find_error(payload) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("2d", 172_800),
        ("20", 20),
        (" 0.5 ", 0.5),
        ("0s", 0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("5 minutes", None),
        ("nan", None),
        ("1e3", None),
    ],
)
def test_durations_are_read_as_the_api_writes_them(text, seconds):
    """Anything else is unknown rather than wrong."""
    assert parse_duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=20))
def test_no_header_breaks_the_reader(text):
    """Whatever a server sends, the answer is None or a time that is not negative."""
    seconds = parse_duration_s(text)
    assert seconds is None or (seconds >= 0 and not math.isnan(seconds))
    assert (read_retry_after_s({"retry-after": text}, said=ErrorBody(message=text)) or 0) >= 0


def test_the_most_exact_hint_wins():
    """Milliseconds before seconds before the reset of a window before words."""
    headers = {"retry-after-ms": "250", "retry-after": "1", "x-ratelimit-reset-requests": "9s"}
    assert read_retry_after_s(headers) == 0.25
    del headers["retry-after-ms"]
    assert read_retry_after_s(headers) == 1
    del headers["retry-after"]
    assert read_retry_after_s(headers, said=ErrorBody(message="Please try again in 7s.")) == 9
    assert read_retry_after_s({}, said=ErrorBody(message="Please try again in 1m7s.")) == 67


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 2 minutes.", 120),
        ("Try again in 1 minute and 5 seconds", 65),
        ("Retry after 1.5 hours.", 5400),
        ("please wait 30 seconds before retrying", 30),
        ("It will be replenished in 00:02:05.", 125),
        ("Your limit resets in 250 milliseconds", 0.25),
        ("try again in 20s", 20),
        ("Rate limit of 3 requests, wait a moment", None),
        ("try again in 3 of 4 regions", None),
        ("You waited 30 seconds", None),
    ],
)
def test_delays_in_words_are_read_in_any_unit(words, seconds):
    """A delay that is not understood would be one of our own choice."""
    assert read_retry_after_s({}, said=ErrorBody(message=words)) == seconds


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ms-retry-after-ms": "30000"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1792567680"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1792567680000"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2026-10-21T07:28:00Z"},
        {"retry-after": "2026-10-21T07:28:00"},
    ],
)
def test_resets_are_read_as_durations_dates_and_numbers(headers):
    """Azure counts milliseconds, OpenRouter those since 1970, and Anthropic writes dates; the body may hold them."""
    now_s = 1_792_567_650
    assert read_retry_after_s(headers, now_s=now_s) == 30
    inside = {"error": {"message": "no", "metadata": {"headers": {name.title(): headers[name] for name in headers}}}}
    assert read_retry_after_s({}, said=read_error_body(inside), now_s=now_s) == 30
    assert read_retry_after_s({"retry-after": "7"}, said=read_error_body(inside), now_s=now_s) == 7


def test_a_window_that_is_not_said_to_be_spent_has_no_delay():
    """Its reset comes with every reply."""
    assert read_retry_after_s({"x-ratelimit-reset": "30"}) is None
    assert read_retry_after_s({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "30"}) is None


def test_a_date_is_counted_from_now():
    """HTTP allows a date in Retry-After."""
    headers = {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert read_retry_after_s(headers, now_s=1_792_567_650) == pytest.approx(30)
    assert read_retry_after_s(headers, now_s=1_800_000_000) == 0
    assert read_retry_after_s({"retry-after": "tomorrow"}) is None


def test_a_window_with_something_left_does_not_count():
    """OpenAI sends both windows; only the one that is spent has to be waited for."""
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "4s",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "50s",
    }
    assert read_retry_after_s(headers) == 4


def test_rate_limits_are_read_as_far_as_they_are_there():
    """None is unknown, and a reply without limits says nothing at all."""
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-remaining-tokens": "many",
    }
    expected = RateLimits(limit_requests=500, remaining_requests=499, reset_requests_s=0.12)
    assert read_rate_limits(headers) == expected
    assert read_rate_limits({"content-type": "application/json"}) is None


@pytest.mark.parametrize("reset", ["30s", "30", "2026-10-21T07:28:00Z", "1792567680", "1792567680000"])
def test_the_reset_of_a_window_may_be_a_date(reset):
    """Anthropic writes dates, and gateways numbers."""
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    found = read_rate_limits(headers, now=lambda: 1_792_567_650)
    assert found == RateLimits(remaining_requests=0, reset_requests_s=30)
