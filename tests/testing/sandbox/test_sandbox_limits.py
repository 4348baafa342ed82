"""Windows, quotas and the headers that speak of them."""

from __future__ import annotations

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.testing.clock import FakeClock
from vision_backends.testing.sandbox import Limits
from vision_backends.testing.sandbox.limits import Limiter, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (59.9996, "1m0s"), (360, "6m0s"), (3723.25, "1h2m3.25s")],
)
def test_durations_are_written_as_the_api_does(seconds, text):
    """The forms that a client has to read."""
    assert format_duration(seconds) == text


def test_requests_per_minute_are_a_true_window(clock):
    """The limit holds in any 60 s, for each model alone; a refusal says how long to wait, and counts for nothing."""
    limiter = Limiter(Limits(rpm=2), clock=clock)
    assert limiter.admit("a", tokens=1).refusal is None
    clock.advance(20)
    assert limiter.admit("a", tokens=1).refusal is None
    refused = limiter.admit("a", tokens=1)
    assert refused.refusal.body["error"]["code"] == "rate_limit_exceeded"
    assert refused.refusal.headers == {"retry-after": "40", "retry-after-ms": "40000"}
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert limiter.admit("b", tokens=1).refusal is None
    clock.advance(39.9)
    assert limiter.admit("a", tokens=1).refusal is not None
    clock.advance(0.2)
    assert limiter.admit("a", tokens=1).refusal is None
    assert limiter.admit("a", tokens=1).refusal is not None


def test_tokens_per_minute_wait_for_as_many_as_are_asked(clock):
    """A small request fits in where a large one does not; one larger than the window waits all of it."""
    limiter = Limiter(Limits(tpm=100), clock=clock)
    limiter.admit("a", tokens=50)
    clock.advance(10)
    limiter.admit("a", tokens=40)
    large = limiter.admit("a", tokens=60)
    assert large.refusal.body["error"]["type"] == "tokens"
    assert large.refusal.headers["retry-after"] == "50"
    assert limiter.admit("a", tokens=100).refusal.headers["retry-after"] == "60"
    assert limiter.admit("a", tokens=101).refusal.headers["retry-after"] == "60"
    small = limiter.admit("a", tokens=10)
    assert small.refusal is None
    assert small.headers["x-ratelimit-remaining-tokens"] == "0"


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60)), max_size=60))
def test_no_window_of_a_minute_ever_holds_more_than_its_limit(arrivals):
    """Whatever comes, whenever."""
    clock, admitted = FakeClock(), []
    limiter = Limiter(Limits(rpm=5, tpm=100), clock=clock)
    for pause, tokens in arrivals:
        clock.advance(pause)
        verdict = limiter.admit("m", tokens=tokens)
        if verdict.refusal is None:
            admitted.append((clock.monotonic(), tokens))
        assert int(verdict.headers["x-ratelimit-remaining-requests"]) >= 0
        assert int(verdict.headers["x-ratelimit-remaining-tokens"]) >= 0
    for start, _ in admitted:
        within = [tokens for at, tokens in admitted if start <= at < start + 60]
        assert len(within) <= 5
        assert sum(within) <= 100


def test_a_quota_of_requests_ends_for_good_until_it_is_topped_up(server, call, clock):
    """Not a rate limit: waiting does not help, a top-up does."""
    server.limit(Limits(quota_requests=2))
    call.chat()
    call.embed()
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            call.chat()
        assert caught.value.code == "insufficient_quota"
        assert "retry-after" not in caught.value.response.headers
        clock.advance(3600)
    server.limit(Limits(quota_requests=1))
    call.chat()


def test_a_quota_of_tokens_ends_with_the_request_that_crosses_it(server, call):
    """What was billed is what the log says."""
    spent = call.chat().usage.total_tokens
    server.limit(Limits(quota_tokens=spent + 1))
    call.chat()
    call.chat()
    with pytest.raises(openai.RateLimitError):
        call.chat()
    assert [request.tokens for request in server.requests] == [spent, spent, spent, 0]


def test_limits_are_on_the_wire(server, client, call, clock):
    """Headers on each reply count down, and the 429 carries them too."""
    server.limit(Limits(rpm=2))
    messages = [{"role": "user", "content": "hi"}]
    raw = client.chat.completions.with_raw_response.create(model="gpt-sandbox", messages=messages)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    call.chat()
    with pytest.raises(openai.RateLimitError, match="Limit 2") as caught:
        call.chat()
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.response.headers["retry-after"] == "60"
    clock.advance(60)
    call.chat()


@pytest.mark.parametrize("wrong", [{"rpm": -1}, {"tpm": 1.5}, {"quota_requests": True}])
def test_limits_are_whole_numbers(wrong):
    """Anything else is refused."""
    with pytest.raises(ValueError, match="whole number"):
        Limits(**wrong)
