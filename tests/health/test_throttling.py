"""What one process learns from the replies: limits that are near, durations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.backends.requests import RateLimits
from vision_backends.errors import RateLimitedError
from vision_backends.health.admission import Scope
from vision_backends.health.budgets import Limits
from vision_backends.health.throttling import Throttling
from vision_backends.types import FREE, Usage


def reply(control, scope, limits, *, tokens=0):
    """Make one call whose reply carries these headers."""
    estimate = Usage(input_tokens=tokens, output_tokens=0, cost_usd=0.0)
    control.admit(scope, timeout_s=20, estimate=estimate).succeeded(usage=estimate, elapsed_s=1.0, limits=limits)


def requests(left, limit=None, reset_s=None):
    """Headers about requests."""
    return RateLimits(remaining_requests=left, limit_requests=limit, reset_requests_s=reset_s)


def wait_s(control, scope, *, tokens=0):
    """Seconds for which a call is kept out; 0 when it may pass."""
    try:
        estimate = Usage(input_tokens=tokens, output_tokens=0, cost_usd=0.0)
        permit = control.admit(scope, timeout_s=20, estimate=estimate)
    except RateLimitedError as error:
        return error.retry_after_s
    permit.succeeded(usage=estimate, elapsed_s=1.0)
    return 0


def test_headers_that_leave_enough_change_nothing(control, scope):
    """The usual reply."""
    for _ in range(3):
        reply(control, scope, requests(499, 500, 0.12))
    assert control.peek(scope) is None


def test_a_call_steps_aside_before_the_server_has_to_say_so(control, scope):
    """Nothing is left: no request is spent on hearing it."""
    reply(control, scope, requests(0, 60, 60))
    refused = control.peek(scope)
    assert isinstance(refused, RateLimitedError)
    assert (refused.code, refused.backend) == ("limit_near", "openai")
    assert control.peek(replace(scope, model="gpt-y")) is None


def test_a_bucket_that_fills_steadily_is_used_as_it_fills(control, scope, clock):
    """Of 60 a minute one comes back each second, as the headers of earlier replies have shown."""
    reply(control, scope, requests(59, 60, 1))
    reply(control, scope, requests(0, 60, 60))
    assert wait_s(control, scope) == 1.0
    clock.advance(1.0)
    assert wait_s(control, scope) == 0
    assert wait_s(control, scope) == 1.0


def test_a_window_is_recognised_by_its_first_reply(control, scope, clock):
    """One of 60 is used and comes back only in a minute: so do the others."""
    reply(control, scope, requests(59, 60, 60))
    clock.advance(10)
    reply(control, scope, requests(0, 60, 50))
    clock.advance(5)
    assert wait_s(control, scope) == 45
    clock.advance(45)
    assert wait_s(control, scope) == 0


def test_without_a_limit_everything_comes_back_at_the_reset(control, scope, clock):
    """Some servers only say what remains, and until when."""
    reply(control, scope, requests(0, None, 30))
    assert wait_s(control, scope) == 30
    clock.advance(30)
    assert wait_s(control, scope) == 0
    clock.advance(1)
    assert wait_s(control, scope) == 0


@pytest.mark.parametrize(
    "limits", [requests(None), requests(0), requests(0, 60), requests(0, 60, 0.0), requests(0, 1, 2e-311), None]
)
def test_headers_that_do_not_say_when_are_not_acted_on(control, scope, limits):
    """One cannot wait for an unknown time; should it be true, the server's refusal blocks the gate."""
    reply(control, scope, limits)
    assert control.peek(scope) is None


def test_a_reset_in_the_far_future_is_not_believed(control, scope, clock):
    """It may be a date, or milliseconds."""
    reply(control, scope, requests(0, None, 1.7e9))
    assert wait_s(control, scope) == 3600


def test_running_calls_count_against_what_is_left(control, scope):
    """Two are left and two are running: a third would be one too many."""
    reply(control, scope, requests(2, None, 60))
    permits = [control.admit(scope, timeout_s=20) for _ in range(2)]
    assert control.peek(scope) is not None
    for permit in permits:
        permit.released()
    assert control.peek(scope) is not None  # they were asked for, and no reply has said otherwise


def test_a_call_that_was_refused_elsewhere_has_used_nothing(make_control, scope):
    """Its budget was spent, say: the server has not heard of it."""
    from vision_backends.errors import OverloadedError
    from vision_backends.health.budgets import Limits

    control = make_control(limits={"openai": Limits(max_concurrency=1)})
    reply(control, scope, requests(2, None, 60))
    permit = control.admit(scope, timeout_s=20)
    for _ in range(5):
        with pytest.raises(OverloadedError):
            control.admit(scope, timeout_s=20)
    permit.succeeded(usage=FREE, elapsed_s=1.0)
    assert control.peek(scope) is None


def test_tokens_are_counted_by_their_estimate(control, scope, clock):
    """A long request waits for more than a short one; one of more than all waits for all."""
    reply(control, scope, RateLimits(remaining_tokens=100, limit_tokens=1000, reset_tokens_s=54), tokens=900)
    assert wait_s(control, scope, tokens=100) == 0
    assert wait_s(control, scope, tokens=60) == pytest.approx(3.6)
    assert wait_s(control, scope, tokens=10**9) == 54
    clock.advance(54)
    assert wait_s(control, scope, tokens=10**9) == 0


def test_reset_forgets_what_a_server_has_said(control, scope):
    """The account has been raised to a higher tier."""
    reply(control, scope, requests(0, 60, 60))
    control.reset("local")
    assert control.peek(scope) is not None
    control.reset("openai")
    assert control.peek(scope) is None


def test_the_expected_time_is_the_default_until_it_is_measured(control, scope):
    """Then nine of ten calls did not take longer."""
    assert control.expected_s(scope, 7.0) == 7.0
    for elapsed_s in range(1, 11):
        control.admit(scope, timeout_s=20).succeeded(usage=FREE, elapsed_s=float(elapsed_s))
    assert control.expected_s(scope, 7.0) == 9.0
    assert control.expected_s(scope, 7.0, percent=50) == 5.0
    assert control.expected_s(replace(scope, task="detect"), 7.0) == 7.0


def test_only_the_last_32_durations_count(control, scope):
    """A backend that has become faster is soon known to be."""
    for elapsed_s in [100.0] * 32 + [1.0] * 32:
        control.admit(scope, timeout_s=200).succeeded(usage=FREE, elapsed_s=elapsed_s)
    assert control.expected_s(scope, 7.0) == 1.0


LEFT = st.none() | st.integers(0, 100)
SECONDS = st.none() | st.floats(0, 1e5)


@given(st.lists(st.tuples(LEFT, st.none() | st.integers(1, 100), SECONDS, st.floats(0, 100)), max_size=15))
def test_no_headers_keep_calls_out_for_ever(replies):
    """Whatever a server claims: after the wait that was named, and an hour at most, a call passes."""
    scope = Scope(backend="b", account="b", model="m", task="embed")
    throttling, now = Throttling(), 0.0
    for left, limit, reset_s, passed in replies:
        refused = throttling.obstacle(scope, now=now)
        if refused is not None:
            assert 0 < refused.retry_after_s <= 3600
            now += refused.retry_after_s + 1e-6
            assert throttling.obstacle(scope, now=now) is None
        throttling.enter(scope, tokens=1, now=now)
        throttling.leave(scope, tokens=1, limits=requests(left, limit, reset_s), now=now)
        now += passed


def test_counts_are_exact_among_threads():
    """Nobody is left running who has left."""
    scope, throttling = Scope(backend="b", account="b", model="m", task="embed"), Throttling()

    def call(_):
        throttling.enter(scope, tokens=3, now=0.0)
        throttling.leave(scope, tokens=3, now=0.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(400)))
    throttling.enter(scope, tokens=1, now=0.0)
    throttling.leave(scope, tokens=1, limits=requests(1, None, 60), now=0.0)
    assert throttling.obstacle(scope, now=0.0) is None  # one is left, and none is running


class TestMostRunning:
    """How many calls of a list may be under way, so that none of them is refused."""

    def test_nothing_limits_what_nothing_is_known_of(self, control, scope):
        """Neither at first nor after replies without headers."""
        assert control.most_running(scope) is None
        reply(control, scope, None)
        assert control.most_running(scope) is None

    def test_no_more_than_the_last_reply_leaves(self, control, scope):
        """One is always let in, to hear how it stands."""
        reply(control, scope, requests(12, 60, 48))
        assert control.most_running(scope) == 12
        reply(control, scope, requests(0, 60, 60))
        assert control.most_running(scope) == 1

    def test_tokens_count_as_those_of_the_calls_that_run(self, control, scope):
        """A minute's tokens are enough for four calls of a thousand."""
        tokens = RateLimits(remaining_tokens=4_500, limit_tokens=30_000, reset_tokens_s=51)
        reply(control, scope, tokens, tokens=1_000)
        permit = control.admit(scope, timeout_s=20, estimate=Usage(input_tokens=1_000, output_tokens=0, cost_usd=0.0))
        assert control.most_running(scope) == 4
        permit.released()

    def test_no_more_than_the_user_allows(self, make_control, scope):
        """In every process, as others count as well."""
        assert make_control(limits={"openai": Limits(max_concurrency=3)}).most_running(scope) == 3
