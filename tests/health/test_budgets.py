"""Limits and budgets: what fits in, what is booked, what is told."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.errors import (
    ConfigError,
    ContentRejectedError,
    InvalidReplyError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    TimedOutError,
    UnavailableError,
)
from vision_backends.health.budget_state import BudgetState
from vision_backends.health.budgets import Amount, Limits
from vision_backends.storage.memory import MemoryStore
from vision_backends.types import FREE, Usage

DAY_S = 86_400
NOON = 1_795_435_200.0


def cost(dollars, tokens=0):
    """A usage."""
    return Usage(input_tokens=tokens, output_tokens=0, cost_usd=dollars)


def spent(control):
    """What is spent of each budget."""
    return {each.budget: each.spent for each in control.spending()}


def call(control, scope, usage, *, estimate=None):
    """Make one call that costs this much."""
    permit = control.admit(scope, timeout_s=20, estimate=usage if estimate is None else estimate)
    permit.succeeded(usage=usage, elapsed_s=1.0)


def test_a_backend_without_limits_keeps_no_state(control, scope, store):
    """It costs nothing."""
    call(control, scope, cost(1.0))
    assert store.all() == {}
    assert control.spending() == []


def test_a_budget_lets_calls_in_until_it_is_spent(make_control, scope):
    """Checked by estimate before the call, booked by usage after it; the refusal says when and which key."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    call(control, scope, cost(0.5), estimate=cost(1.0))
    call(control, scope, cost(0.3), estimate=cost(0.5))
    with pytest.raises(QuotaExhaustedError) as caught:
        call(control, scope, cost(0.1), estimate=cost(0.3))
    assert caught.value.code == "budget_exhausted"
    assert caught.value.retry_after_s == DAY_S / 2
    assert str(caught.value) == (
        "$0.80 of today's budget of $1.00 is spent, and this call may take $0.30. "
        "Raise openai.daily_budget_usd, or wait for the next day (UTC)."
    )
    call(control, scope, cost(0.2))
    assert spent(control) == {"daily_budget_usd": 1.0}
    assert control.peek(scope).code == "budget_exhausted"


def test_a_spent_budget_lets_in_nothing_not_even_what_seems_free(make_control, scope):
    """A price that is unknown must not get past it."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    call(control, scope, cost(1.0))
    with pytest.raises(QuotaExhaustedError):
        control.admit(scope, timeout_s=20, estimate=Usage())


@pytest.mark.parametrize(
    ("key", "usage", "wait_s"),
    [
        ("daily_budget_usd", cost(9.0), DAY_S / 2),
        ("monthly_budget_usd", cost(9.0), 7.5 * DAY_S),
        ("daily_budget_tokens", cost(0.0, 9), DAY_S / 2),
        ("monthly_budget_tokens", cost(0.0, 9), 7.5 * DAY_S),
    ],
)
def test_the_next_day_or_month_has_a_new_budget(make_control, scope, clock, key, usage, wait_s):
    """In UTC, as in the provider's own account. It is noon of the 23rd of November."""
    assert datetime.fromtimestamp(clock.time(), UTC).isoformat() == "2026-11-23T12:00:00+00:00"
    control = make_control(limits={"openai": Limits(**{key: 9})})
    call(control, scope, usage)
    refused = control.peek(scope)
    assert refused.retry_after_s == wait_s
    clock.advance(wait_s - 1)
    assert control.peek(scope) is not None
    clock.advance(1)
    call(control, scope, usage)


def test_the_month_goes_on_when_the_day_is_over(make_control, scope, clock):
    """Days add up to their month."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0, monthly_budget_usd=5.0)})
    for _ in range(5):
        call(control, scope, cost(1.0))
        clock.advance(DAY_S)
    assert control.peek(scope).message == "$5.00 of this month's budget of $5.00 is spent."
    assert spent(control) == {"daily_budget_usd": 0.0, "monthly_budget_usd": 5.0}


def test_a_clock_that_is_wrong_for_a_moment_forgets_nothing(make_control, scope, clock):
    """Neither the future nor the past that it has seen counts for today."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    call(control, scope, cost(1.0))
    for jump in (-3 * DAY_S, 900 * DAY_S):
        clock.jump(jump)
        call(control, scope, cost(0.5))
        clock.jump(-jump)
    assert spent(control) == {"daily_budget_usd": 1.0}
    assert control.peek(scope) is not None


def test_old_days_are_not_kept_for_ever(make_control, scope, clock, store):
    """The state stays small."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    for _ in range(60):
        call(control, scope, cost(0.9))
        clock.advance(DAY_S)
    assert len(store.read("book/openai")) < 500


def test_running_calls_have_reserved_their_estimates(make_control, scope):
    """Two calls cannot both take the last dollar; the second may come back soon, not tomorrow."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    first = control.admit(scope, timeout_s=20, estimate=cost(0.7))
    with pytest.raises(QuotaExhaustedError, match="reserved") as caught:
        control.admit(scope, timeout_s=20, estimate=cost(0.7))
    assert (caught.value.code, caught.value.retry_after_s) == ("budget_reserved", 40)
    assert control.spending()[0].reserved == 0.7
    first.succeeded(usage=cost(0.2), elapsed_s=1.0)
    control.admit(scope, timeout_s=20, estimate=cost(0.7))


def test_the_reservation_of_a_dead_process_expires(make_control, scope, clock, store):
    """After twice its timeout; the next call removes it."""
    limits = {"openai": Limits(daily_budget_usd=1.0, max_concurrency=1)}
    make_control(limits=limits).admit(scope, timeout_s=20, estimate=cost(0.7))
    control = make_control(limits=limits)
    clock.advance(39)
    assert isinstance(control.peek(scope), OverloadedError)
    clock.advance(1)
    call(control, scope, cost(0.7))
    assert '"reserved":[]' in store.read("book/openai")


def test_a_reservation_from_the_future_does_not_stay(make_control, scope, clock):
    """The clock was put back by a year."""
    control = make_control(limits={"openai": Limits(max_concurrency=1)})
    control.admit(scope, timeout_s=20)
    clock.jump(-365 * DAY_S)
    assert control.peek(scope) is None


@pytest.mark.parametrize(
    ("end", "booked"),
    [
        (lambda permit: permit.succeeded(usage=Usage(), elapsed_s=1.0), 0.4),
        (lambda permit: permit.succeeded(usage=cost(0.1), elapsed_s=1.0), 0.1),
        (lambda permit: permit.succeeded(usage=cost(0.9), elapsed_s=1.0), 0.9),
        (lambda permit: permit.failed(TimedOutError("?"), elapsed_s=1.0), 0.4),
        (lambda permit: permit.failed(InvalidReplyError("?"), elapsed_s=1.0), 0.4),
        (lambda permit: permit.failed(UnavailableError("?"), elapsed_s=1.0), 0.4),
        (lambda permit: permit.failed(TimedOutError("?"), elapsed_s=1.0, usage=FREE), 0.0),
        (lambda permit: permit.failed(InvalidReplyError("?"), elapsed_s=1.0, usage=cost(0.3)), 0.3),
        (lambda permit: permit.failed(RateLimitedError("?"), elapsed_s=1.0), 0.0),
        (lambda permit: permit.failed(QuotaExhaustedError("?"), elapsed_s=1.0), 0.0),
        (lambda permit: permit.failed(ContentRejectedError("?"), elapsed_s=1.0), 0.0),
        (lambda permit: permit.released(), 0.0),
    ],
)
def test_what_is_booked_is_what_was_used(make_control, scope, end, booked):
    """Or what was estimated, where the server may have charged and nobody knows how much."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    end(control.admit(scope, timeout_s=20, estimate=cost(0.4)))
    assert spent(control) == {"daily_budget_usd": booked}


@pytest.mark.parametrize(
    "end",
    [lambda permit: permit.failed(TimedOutError("?"), elapsed_s=20.0), lambda permit: permit.released()],
    ids=["timed out", "interrupted"],
)
@pytest.mark.parametrize("late_first", [False, True])
def test_an_answer_that_came_late_corrects_what_was_booked(make_control, scope, end, late_first):
    """It says what it has really cost, whether its caller has said first that it gave up, or says so now."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0, daily_budget_tokens=100)})
    permit = control.admit(scope, timeout_s=20, estimate=cost(0.4, 40))
    steps = [lambda: end(permit), lambda: permit.corrected(cost(0.1, 10))]
    for step in reversed(steps) if late_first else steps:
        step()
    assert spent(control) == {"daily_budget_usd": 0.1, "daily_budget_tokens": 10}


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**12)), max_size=20))
def test_sums_are_exact(amounts):
    """Millions of fractions of a cent add up to the last billionth."""
    limits = Limits(daily_budget_usd=1e6)
    state = BudgetState("openai", limits)
    for number, amount in enumerate(amounts):
        state.reserve(Amount(5, 5), caller=str(number), lease_s=9, now=NOON)
        state.settle(Amount(*amount), caller=str(number), reserved=Amount(5, 5), now=NOON)
        state = BudgetState.parse(state.dump(now=NOON), backend="openai", limits=limits)
    total = Amount(sum(tokens for tokens, _ in amounts), sum(nano for _, nano in amounts))
    assert set(state.spent.values()) <= {total}
    assert state.reserved == {}


def test_a_tenth_of_a_cent_counts_exactly():
    """Floating point dollars would not."""
    amounts = [Amount.of(cost(0.001)) for _ in range(1000)]
    assert sum(amount.nano_usd for amount in amounts) == 1_000_000_000


def test_alerts_are_given_once_per_period(make_control, scope, clock, told):
    """At 80 % and at 100 %, again on the next day, once among all processes."""
    limits = {"openai": Limits(daily_budget_usd=1.0)}
    first, second = make_control(limits=limits), make_control(limits=limits)
    call(first, scope, cost(0.79))
    assert told == []
    call(second, scope, cost(0.05))
    call(first, scope, cost(0.05))
    assert [(alert.percent, alert.budget, alert.period) for alert in told] == [(80, "daily_budget_usd", "2026-11-23")]
    assert told[0].message == "$0.84 of $1.00 is spent (openai.daily_budget_usd, 2026-11-23)."
    call(second, scope, cost(0.1))
    assert [alert.percent for alert in told] == [80]
    with pytest.raises(QuotaExhaustedError):
        first.admit(scope, timeout_s=20, estimate=cost(0.2))
    with pytest.raises(QuotaExhaustedError):
        second.admit(scope, timeout_s=20, estimate=cost(0.2))
    assert [alert.percent for alert in told] == [80, 100]
    clock.advance(DAY_S)
    call(first, scope, cost(1.0))
    assert [(alert.percent, alert.period) for alert in told[2:]] == [(100, "2026-11-24")]


def test_a_call_that_never_fits_is_no_alert(make_control, scope, told):
    """Nothing is spent."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    with pytest.raises(QuotaExhaustedError):
        control.admit(scope, timeout_s=20, estimate=cost(2.0))
    assert told == []


def test_an_unknown_price_is_warned_of_once(make_control, scope, caplog):
    """A budget in dollars cannot count it."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            call(control, scope, Usage(input_tokens=1, output_tokens=1))
    assert [record.message for record in caplog.records] == [
        "The price of 'gpt-x' is unknown: budgets in US dollars cannot count it."
    ]


MIDNIGHT = NOON + DAY_S / 2


@pytest.mark.parametrize(
    "end", [lambda permit: permit.released(), lambda permit: permit.failed(TimedOutError("x"), elapsed_s=1)]
)
def test_a_correction_after_midnight_belongs_to_the_day_of_its_call(make_control, scope, clock, store, end):
    """The provider bills it there, and today's budget has nothing to do with it."""
    limits = {"openai": Limits(daily_budget_usd=1.0, monthly_budget_usd=9.0)}
    control = make_control(limits=limits)
    clock.advance(MIDNIGHT - NOON - 1)
    permit = control.admit(scope, timeout_s=20, estimate=cost(0.5))
    end(permit)
    clock.advance(2)
    call(control, scope, cost(0.25))
    permit.corrected(cost(0.75))
    assert spent(control) == {"daily_budget_usd": 0.25, "monthly_budget_usd": 1.0}
    yesterday = BudgetState.parse(store.read("book/openai"), backend="openai", limits=limits["openai"])
    assert yesterday.spending(now=MIDNIGHT - 1)[0].spent == 0.75


def test_a_call_that_waited_for_a_lock_hands_no_allowance_back():
    """It comes with the time at which it began to wait; what has come back since is counted once."""
    state = BudgetState("openai", Limits(requests_per_minute=10))
    for number in range(6):
        state.reserve(Amount(), caller=str(number), lease_s=60, now=60.0)
    state.settle(Amount(), caller="late", reserved=Amount(), now=30.0)
    assert state._level("requests_per_minute", 10, 60.0) == pytest.approx(4.0)
    state.reserve(Amount(), caller="later", lease_s=60, now=45.0)
    assert state._level("requests_per_minute", 10, 60.0) == pytest.approx(3.0)
    state.cancel(Amount(), caller="later", now=45.0)
    assert state._level("requests_per_minute", 10, 60.0) == pytest.approx(4.0)


def test_a_clock_that_was_wrong_for_a_moment_does_not_stop_the_allowance():
    """A time that lies hours ahead is none that a lock was waited for."""
    state = BudgetState("openai", Limits(requests_per_minute=10))
    state.reserve(Amount(), caller="wrong", lease_s=60, now=100_000.0)
    state.reserve(Amount(), caller="right", lease_s=60, now=60.0)
    assert state._level("requests_per_minute", 10, 72.0) == pytest.approx(10.0)


def test_requests_per_minute_come_back_steadily(make_control, scope, clock):
    """Sixty at once after a quiet minute, then one per second."""
    control = make_control(limits={"openai": Limits(requests_per_minute=60)})
    for _ in range(60):
        call(control, scope, FREE)
    with pytest.raises(RateLimitedError, match=r"openai.requests_per_minute = 60 is used up") as caught:
        control.admit(scope, timeout_s=20)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    clock.advance(caught.value.retry_after_s)
    call(control, scope, FREE)
    assert control.peek(scope) is not None
    clock.advance(600)
    for _ in range(60):
        call(control, scope, FREE)
    assert control.peek(scope) is not None


def test_tokens_per_minute_are_drawn_by_estimate_and_settled_by_usage(make_control, scope, clock):
    """What was not used is there for the next."""
    control = make_control(limits={"openai": Limits(tokens_per_minute=600)})
    permit = control.admit(scope, timeout_s=20, estimate=cost(0.0, 500))
    with pytest.raises(RateLimitedError) as caught:
        control.admit(scope, timeout_s=20, estimate=cost(0.0, 200))
    assert caught.value.retry_after_s == pytest.approx(10.0)
    permit.succeeded(usage=cost(0.0, 100), elapsed_s=1.0)
    call(control, scope, cost(0.0, 500))


def test_a_call_of_more_tokens_than_a_minute_has_waits_for_a_full_minute(make_control, scope, clock):
    """It would otherwise never be made; those after it wait until it is paid off."""
    control = make_control(limits={"openai": Limits(tokens_per_minute=600)})
    call(control, scope, cost(0.0, 1))
    with pytest.raises(RateLimitedError) as caught:
        control.admit(scope, timeout_s=20, estimate=cost(0.0, 900))
    assert caught.value.retry_after_s == pytest.approx(0.1)
    clock.advance(0.1)
    call(control, scope, cost(0.0, 900))
    with pytest.raises(RateLimitedError) as caught:
        control.admit(scope, timeout_s=20, estimate=cost(0.0, 1))
    assert caught.value.retry_after_s == pytest.approx(30.1)


class Stale(MemoryStore):
    """A store that can be made to show an old state, as to a reader who is about to be overtaken."""

    old = None

    def read(self, key):
        """Show the old state, if there is one."""
        return self.old if self.old is not None and key.startswith("gates/") else super().read(key)


def test_a_call_that_was_overtaken_gives_everything_back(make_control, scope, clock):
    """Another was faster at probing: the minute's only request and the budget are still there."""
    store = Stale()
    limits = {"openai": Limits(requests_per_minute=1, tokens_per_minute=100, daily_budget_usd=1.0)}
    control, other = make_control(store=store, limits=limits), make_control(store=store)
    control.admit(scope, timeout_s=20).failed(QuotaExhaustedError("?"), elapsed_s=1.0)
    clock.advance(900)
    due = store.read("gates/account")
    probe = other.admit(scope, timeout_s=20)
    store.old = due
    for _ in range(3):
        with pytest.raises(QuotaExhaustedError, match="another call is probing it now"):
            control.admit(scope, timeout_s=20, estimate=cost(0.5, 50))
    store.old = None
    assert control.spending()[0].reserved == 0
    probe.succeeded(usage=FREE, elapsed_s=1.0)
    call(control, scope, cost(0.5, 50))


def test_an_overtaken_call_without_limits_has_nothing_to_give_back(make_control, scope, clock):
    """It is refused like everybody else."""
    store = Stale()
    control, other = make_control(store=store), make_control(store=store)
    control.admit(scope, timeout_s=20).failed(QuotaExhaustedError("?"), elapsed_s=1.0)
    clock.advance(900)
    due = store.read("gates/account")
    other.admit(scope, timeout_s=20)
    store.old = due
    with pytest.raises(QuotaExhaustedError):
        control.admit(scope, timeout_s=20)


def test_concurrency_is_counted_among_all_processes(make_control, scope):
    """Each running call takes a place until it ends."""
    limits = {"openai": Limits(max_concurrency=2)}
    first, second = make_control(limits=limits), make_control(limits=limits)
    permits = [first.admit(scope, timeout_s=20), second.admit(scope, timeout_s=20)]
    with pytest.raises(OverloadedError, match=r"2 calls are running. openai.max_concurrency = 2 allows no more"):
        second.admit(scope, timeout_s=20)
    permits[0].failed(RateLimitedError("?", retry_after_s=1), elapsed_s=1.0)
    permits[1].released()


@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan")])
def test_a_limit_that_leaves_nothing_is_refused(value):
    """It is a mistake, not a way to switch a backend off."""
    with pytest.raises(ConfigError, match="daily_budget_usd"):
        Limits(daily_budget_usd=value)


@pytest.mark.parametrize(
    "state",
    [
        "",
        "null",
        "[]",
        '{"version":9}',
        '{"version":1}',
        '{"version":1,"spent":{"x":[1]},"told":{},"reserved":[],"levels":{}}',
    ],
)
def test_a_budget_state_that_cannot_be_read_is_begun_anew(make_control, scope, store, state):
    """Better to count from nothing than to stop answering."""
    control = make_control(limits={"openai": Limits(daily_budget_usd=1.0)})
    store.update("book/openai", lambda _: (state, None))
    assert control.peek(scope) is None
    call(control, scope, cost(0.25))
    assert spent(control) == {"daily_budget_usd": 0.25}
