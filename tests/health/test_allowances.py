"""Allowances: what a process draws of a shared budget before its calls, and what becomes of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.errors import QuotaExhaustedError
from vision_backends.health.admission import AdmissionControl
from vision_backends.health.allowances import CALLS, Allowance
from vision_backends.health.budget_state import ALIVE_S, GIVE_BACK_S, PROCESSES, BudgetReservedError, BudgetState
from vision_backends.health.budgets import Amount, Limits
from vision_backends.storage.base import StoreError
from vision_backends.storage.memory import MemoryStore
from vision_backends.types import Usage

DAY_S = 86_400
NOON = 1_795_435_200.0
CENT = Usage(input_tokens=7, output_tokens=3, cost_usd=0.01)
CENTS = Amount(10, 10_000_000)


class Shared(MemoryStore):
    """What processes share; it counts what is asked of it, and can fail."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.updates = 0
        self.error = None

    def update(self, key, change):
        """Count, and update or fail."""
        self.updates += 1
        if self.error is not None:
            raise self.error
        return super().update(key, change)


@pytest.fixture
def store():
    """What the processes of these tests share."""
    return Shared()


@pytest.fixture
def make_control(make_control):
    """A maker of admission controls, as each process has one; all of them are closed in the end."""
    made = []

    def make(dollars=100.0, **options):
        made.append(make_control(**({"limits": {"openai": Limits(daily_budget_usd=dollars)}} | options)))
        return made[-1]

    yield make
    for control in made:
        control.close()


def spent(control):
    """What is spent of the budget, and reserved, in cents."""
    (spending,) = control.spending()
    return round(spending.spent * 100, 6), round(spending.reserved * 100, 6)


def admit(control, scope, usage=CENT):
    """Let a call in, or return None."""
    try:
        return control.admit(scope, timeout_s=20, estimate=usage)
    except QuotaExhaustedError:
        return None


def until(condition, timeout_s=20.0):
    """Wait for something that happens behind the calls."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "It did not happen."
        time.sleep(0.005)


def test_the_calls_after_the_first_ask_no_store(make_control, store, scope):
    """Neither before nor after, so that an event loop may do it itself."""
    control = make_control()
    control.admit(scope, timeout_s=20, estimate=CENT).succeeded(usage=CENT, elapsed_s=0.1)
    snapshot = control.look([scope])
    for _ in range(CALLS // 2 - 2):
        assert not control.may_block(scope, snapshot)
        before = store.updates
        permit = control.admit(scope, timeout_s=20, estimate=CENT)
        assert not control.end_may_block(permit)
        permit.succeeded(usage=CENT, elapsed_s=0.1)
        assert store.updates == before
    assert spent(control) == (CALLS // 2 - 1, 0)


def test_another_process_counts_as_spent_what_was_drawn(make_control, scope):
    """It cannot know what becomes of it; once that is given back, both see the same."""
    control, other = make_control(), make_control()
    permit = control.admit(scope, timeout_s=20, estimate=CENT)
    assert spent(control) == (0, 1)
    assert spent(other) == (CALLS, 0)
    permit.succeeded(usage=Usage(input_tokens=1, output_tokens=1, cost_usd=0.02), elapsed_s=0.1)
    control.close()
    assert spent(control) == spent(other) == (2, 0)


def test_what_calls_have_taken_is_booked_although_no_other_call_comes(make_control, store, scope, told):
    """An alert that is due is not kept for the next morning, nor for ever after an outage."""
    control, other = make_control(10.0), make_control(10.0)
    for _ in range(2):
        admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    admit(other, scope).succeeded(usage=replace(CENT, cost_usd=7.95), elapsed_s=0.1)
    other.close()
    assert told == []
    store.error, before = ValueError("The server is restarted."), store.updates
    admit(control, scope).succeeded(usage=replace(CENT, cost_usd=0.02), elapsed_s=0.1)
    until(lambda: store.updates >= before + 3)  # it is given up
    store.error = None
    assert told == []
    admit(control, scope).succeeded(usage=replace(CENT, cost_usd=0.02), elapsed_s=0.1)
    until(lambda: told)
    assert [alert.percent for alert in told] == [80]


def test_what_a_process_does_not_use_it_gives_back_while_it_lives(make_control, store, scope, clock):
    """The others need not wait for its end."""
    control, other = make_control(), make_control()
    admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    before = store.updates
    until(lambda: store.updates > before)
    assert spent(other) == (CALLS, 0)
    clock.advance(GIVE_BACK_S)
    until(lambda: spent(other) == (1, 0))


def test_a_process_that_dies_has_spent_what_it_had_drawn(make_control, scope, clock):
    """For that day, and no more than one allowance."""
    control, other = make_control(), make_control()
    control.admit(scope, timeout_s=20, estimate=CENT)
    clock.advance(3_600)
    assert spent(other) == (CALLS, 0)
    clock.advance(DAY_S)
    assert spent(other) == (0, 0)


def test_what_a_silent_process_has_drawn_is_not_waited_for(make_control, store, scope, clock):
    """It may have died; one that is heard of has calls under way, or gives back what it does not need."""
    one, other = make_control(0.02), make_control(0.02)
    admit(one, scope)
    one_more = admit(one, scope)
    assert isinstance(other.peek(scope), BudgetReservedError)
    clock.advance(ALIVE_S - GIVE_BACK_S - 1)
    assert isinstance(other.peek(scope), BudgetReservedError)
    one_more.succeeded(usage=CENT, elapsed_s=0.1)
    clock.advance(2 * GIVE_BACK_S)
    assert isinstance(other.peek(scope), BudgetReservedError)
    clock.advance(ALIVE_S)
    refused = other.peek(scope)
    assert (refused.code, type(refused)) == ("budget_exhausted", QuotaExhaustedError)
    assert "$0.0100 drawn by a process that was not heard of again" in refused.message


def test_an_allowance_drawn_by_an_earlier_version_is_not_waited_for(make_control, store, scope):
    """It does not say when that was."""
    one, other = make_control(0.01), make_control(0.01)
    admit(one, scope)
    state = json.loads(store.read("book/openai"))
    del state["drawn_at"]
    store.update("book/openai", lambda _old: (json.dumps(state), None))
    assert other.peek(scope).code == "budget_exhausted"


def test_a_process_draws_a_small_part_of_what_is_left(make_control, scope):
    """Sixteen of them do not starve each other."""
    dollars = 0.01 * PROCESSES * 3
    controls = [make_control(dollars) for _ in range(PROCESSES)]
    for control in controls:
        assert admit(control, scope) is not None
    assert 3 < spent(make_control(dollars))[0] < PROCESSES * 3


def test_what_is_left_is_drawn_again_and_not_twice(make_control, store, scope):
    """A dearer call draws for itself and some more; the others count all that could be spent without asking them."""
    control, other = make_control(), make_control()
    cents = 0
    for each in (1, 10, *[11] * CALLS):
        if each == 11:
            store.error = StoreError("The disk is full.")
        permit = admit(control, scope, replace(CENT, cost_usd=each / 100))
        cents += each if permit is not None else 0
    store.error = None
    assert 70 < cents <= spent(other)[0]


@pytest.mark.parametrize(("cents", "kept"), [(32, 1), (31, 0)])
def test_what_would_be_for_one_call_only_is_not_kept(make_control, scope, cents, kept):
    """Two threads would get in each other's way over it."""
    control, other = make_control(cents / 100), make_control(cents / 100)
    admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    assert spent(other) == (1 + kept, 0)


def test_where_little_is_left_each_call_draws_for_itself(make_control, scope):
    """The last cents are not kept by one process while another could spend them."""
    one, other = make_control(0.05), make_control(0.05)
    permits = [admit(one, scope) for _ in range(5)]
    assert None not in permits
    refused = other.peek(scope)
    assert (refused.code, refused.retry_after_s > 0) == ("budget_reserved", True)
    permits.pop().released()
    assert spent(other) == (4, 0)
    permits.append(admit(other, scope))
    assert admit(one, scope) is None
    for permit in permits:
        permit.succeeded(usage=CENT, elapsed_s=0.1)
    assert spent(one) == spent(other) == (5, 0)
    assert one.peek(scope).code == "budget_exhausted"


def test_nothing_is_drawn_ahead_by_one_that_is_closed_meanwhile(make_control, scope):
    """What it had just decided to draw would never be given back."""
    control = make_control(20)
    admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    control.close()
    ((counter, allowance),) = control._reservations._allowances.items()
    control._reservations._book_allowance(counter, allowance, ahead=True, waits=True)
    assert spent(make_control(20)) == (1, 0)


@pytest.mark.parametrize("dollars", [1, 20])
@pytest.mark.parametrize("seed", range(4))
def test_processes_together_never_spend_more_and_in_the_end_all_of_it(make_control, scope, seed, dollars):
    """Whoever draws, uses, gives back and dies in which order, a call is only made if it fits in."""
    chance = Random(seed)  # noqa: S311 — repeatable on purpose
    controls = [make_control(dollars) for _ in range(3)]
    running, paid, reserved = [], 0, 0
    for _ in range(600):
        control = chance.choice(controls)
        if running and chance.random() < 0.5:
            cents, permit = running.pop(chance.randrange(len(running)))
            reserved -= cents
            if chance.random() < 0.9:
                permit.succeeded(usage=replace(CENT, cost_usd=cents / 100), elapsed_s=0.1)
                paid += cents
            else:
                permit.released()
        else:
            cents = chance.randint(1, 12)
            permit = admit(control, scope, replace(CENT, cost_usd=cents / 100))
            if permit is not None:
                running.append((cents, permit))
                reserved += cents
        assert paid + reserved <= 100 * dollars
    for _, permit in running:
        permit.released()
    for control in controls:
        control.close()
    last = make_control(dollars)
    until = time.monotonic() + 30
    while spent(last) != (paid, 0) and time.monotonic() < until:  # on a busy machine it is written a little later
        time.sleep(0.01)
    assert spent(last) == (paid, 0)
    while (permit := admit(last, scope)) is not None:
        permit.succeeded(usage=CENT, elapsed_s=0.1)
        paid += 1
    assert paid == 100 * dollars
    assert spent(last) == (100 * dollars, 0)


def test_a_price_that_is_unknown_gets_past_no_budget(make_control, scope):
    """An allowance is for some calls, whatever they cost."""
    control, other = make_control(1.0), make_control(1.0)
    assert admit(control, scope, Usage()) is not None
    while (permit := admit(other, scope)) is not None:
        permit.succeeded(usage=CENT, elapsed_s=0.1)
    passed = 0
    while admit(control, scope, Usage()) is not None and passed < 100:
        passed += 1
    assert passed < CALLS


def test_yesterdays_allowance_is_not_for_today(make_control, scope, clock):
    """What was left of it is given back, and what runs is booked in the day of its end."""
    control, other = make_control(), make_control()
    before = admit(control, scope)
    clock.advance(DAY_S)
    assert admit(control, scope) is not None
    assert spent(other)[0] <= CALLS + 1
    before.succeeded(usage=CENT, elapsed_s=0.1)
    control.close()
    clock.jump(-DAY_S)
    assert spent(other) == (0, 0)


def test_what_this_process_has_spent_stays_spent_when_the_state_is_lost(make_control, store, scope):
    """Somebody has deleted the file."""
    control = make_control(0.05)
    for _ in range(4):
        admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    store.update("book/openai", lambda _: (None, None))
    assert spent(control) == (4, 0)
    admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    assert admit(control, scope) is None
    assert spent(make_control(0.05)) == (5, 0)


def test_each_alert_is_given_once(make_control, scope, told):
    """Although bookings come late, and together."""
    controls = [make_control(1.0) for _ in range(2)]
    for number in range(120):
        permit = admit(controls[number % 2], scope)
        if permit is not None:
            permit.succeeded(usage=CENT, elapsed_s=0.1)
    for control in controls:
        control.close()
    assert [alert.percent for alert in told] == [80, 100]


def test_without_the_store_what_was_drawn_is_spent_and_then_nothing(make_control, store, scope):
    """It says why, and goes on when the store is back."""
    control = make_control()
    admit(control, scope).succeeded(usage=CENT, elapsed_s=0.1)
    store.error = StoreError("The disk is full.")
    passed = 0
    while (permit := admit(control, scope)) is not None:
        permit.succeeded(usage=CENT, elapsed_s=0.1)
        passed += 1
        assert passed < 2 * CALLS
    assert passed >= 1
    refused = control.peek(scope)
    assert refused.code == "limits_unknown"
    assert "The disk is full." in refused.message
    assert control.peek(scope, control.look([scope])).retry_after_s is not None


def test_a_store_that_does_not_block_and_fails_lets_nobody_through_either(make_control, scope, clock):
    """A budget that cannot be written is none."""

    class Broken(MemoryStore):
        def update(self, key, change):
            raise StoreError("The disk is full.")

    control = AdmissionControl(Broken(), clock=clock, limits={"openai": Limits(daily_budget_usd=1.0)})
    with pytest.raises(QuotaExhaustedError, match="disk is full"):
        control.admit(scope, timeout_s=20, estimate=CENT)
    assert control.admit(replace(scope, backend="free"), timeout_s=20)


AMOUNTS = st.builds(Amount, st.integers(0, 1000), st.integers(0, 10**10))


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, st.booleans()), max_size=30))
def test_what_is_held_covers_what_is_not_booked(calls):
    """The shared state always counts at least what calls have taken, as long as they keep to their estimates."""
    limits = Limits(daily_budget_usd=1e9, daily_budget_tokens=10**12)
    state, allowance, taken = BudgetState("b", limits), Allowance(), Amount()
    for estimate, usage, books in calls:
        while not allowance.take(estimate, now=NOON):
            allowance.made(allowance.draw(state, estimate, now=NOON), now=NOON)
        used = Amount(min(usage.tokens, estimate.tokens), min(usage.nano_usd, estimate.nano_usd))
        allowance.settle(used, reserved=estimate, ended_at=NOON)
        taken = taken.plus(used)
        if books:
            allowance.made(allowance.book(state, now=NOON))
        counted = [each.spent for each in state.spending(now=NOON)]
        assert counted[0] * 1e9 >= taken.nano_usd - 1
        assert counted[1] >= taken.tokens
    allowance.give_back()
    allowance.made(allowance.book(state, now=NOON))
    state = BudgetState.parse(state.dump(now=NOON), backend="b", limits=limits)
    assert state.spent.get("2026-11-23", Amount()) == taken
    assert state.drawn == {}


def test_the_child_of_a_fork_has_nothing():
    """What its parent has drawn is the parent's."""
    state, allowance = BudgetState("b", Limits(daily_budget_usd=100.0)), Allowance()
    allowance.made(allowance.draw(state, CENTS, now=NOON), now=NOON)
    allowance.begin()
    assert not allowance.take(CENTS, now=NOON)
    allowance.made(allowance.draw(state, CENTS, now=NOON), now=NOON)
    assert len(state.drawn["2026-11-23"]) == 2


def test_an_old_draw_of_a_dead_process_stays_spent_for_its_month():
    """Although the state does not keep every day."""
    state = BudgetState("b", Limits(monthly_budget_usd=100.0))
    for day in range(12):
        allowance = Allowance()
        allowance.made(allowance.draw(state, CENTS, now=NOON + day * DAY_S), now=NOON + day * DAY_S)
        state = BudgetState.parse(state.dump(now=NOON), backend="b", limits=Limits(monthly_budget_usd=100.0))
    assert len(state.drawn) <= 6
    (november,) = state.spending(now=NOON)
    assert november.spent == pytest.approx(0.01 * CALLS * 8)


def test_what_is_given_back_is_not_held():
    """Nor is anything looked after then."""
    state, allowance = BudgetState("b", Limits(daily_budget_usd=100.0)), Allowance()
    allowance.made(allowance.draw(state, CENTS, now=NOON), now=NOON)
    assert allowance.take(CENTS, now=NOON)
    assert allowance.unused_s == 0.0
    allowance.settle(CENTS, reserved=CENTS, ended_at=NOON)
    assert 0 <= allowance.unused_s < 60
    assert allowance.is_open
    allowance.give_back()
    allowance.made(allowance.book(state, now=NOON))
    assert not allowance.is_open


def test_what_was_not_estimated_is_booked_at_once(make_control, store, scope):
    """Nothing was drawn for it: a process that dies right after must not have had it for nothing."""
    control, other = make_control(), make_control()
    for number in range(3):
        permit = control.admit(scope, timeout_s=20)
        assert control.end_may_block(permit)
        permit.succeeded(usage=CENT, elapsed_s=0.1)
        assert spent(other) == (number + 1, 0)


def test_a_call_that_finds_another_one_drawing_may_be_let_in_as_soon_as_that_is_done(make_control, scope):
    """On a busy machine that takes a moment, in which nothing is wrong with the store."""
    control = make_control()
    drawing = control._reservations._allowances["openai"].drawing
    with drawing, pytest.raises(BudgetReservedError, match="being counted"):
        control.admit(scope, timeout_s=20, estimate=CENT)
    assert admit(control, scope) is not None
