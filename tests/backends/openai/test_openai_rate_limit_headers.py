"""Durations, dates and limits in headers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.openai.errors import parse_duration_s, read_rate_limits, read_retry_after_s
from vision_backends.backends.requests import RateLimits


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
    assert (read_retry_after_s({"retry-after": text}, message=text) or 0) >= 0


def test_the_most_exact_hint_wins():
    """Milliseconds before seconds before the reset of a window before words."""
    headers = {"retry-after-ms": "250", "retry-after": "1", "x-ratelimit-reset-requests": "9s"}
    assert read_retry_after_s(headers) == 0.25
    del headers["retry-after-ms"]
    assert read_retry_after_s(headers) == 1
    del headers["retry-after"]
    assert read_retry_after_s(headers, message="Please try again in 7s.") == 9
    assert read_retry_after_s({}, message="Please try again in 1m7s.") == 67


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
