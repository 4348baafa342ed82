"""Limits that several rungs share: one call has to fit in its rung's own and in those of its account."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vision_backends.errors import OverloadedError, QuotaExhaustedError, RateLimitedError
from vision_backends.health.admission import Scope
from vision_backends.health.budgets import Alert, Limits
from vision_backends.storage.memory import MemoryStore
from vision_backends.types import Usage

LARGE = Scope(backend="large", account="key", model="gpt-l", task="describe")
SMALL = replace(LARGE, backend="small", model="gpt-s")
ALONE = replace(LARGE, backend="alone")
MEMBERS = {"large": Limits(account="work"), "small": Limits(account="work")}


class Blocking(MemoryStore):
    """A store on a disk, of which processes draw allowances."""

    blocking = True


@pytest.fixture(params=[MemoryStore, Blocking])
def store(request):
    """What the processes share: every call counts for itself, or draws from what was drawn."""
    return request.param()


@pytest.fixture
def make_control(make_control):
    """A maker of admission controls, as each process has one; all of them are closed in the end."""
    made = []

    def make(accounts, limits=None):
        shared = {f"accounts.{name}": allowed for name, allowed in accounts.items()}
        made.append(make_control(limits=(limits or MEMBERS) | shared))
        return made[-1]

    yield make
    for control in made:
        control.close()


def cost(dollars, tokens=0):
    """A usage."""
    return Usage(input_tokens=tokens, output_tokens=0, cost_usd=dollars)


def call(control, scope, usage):
    """Make one call that costs this much, as estimated."""
    control.admit(scope, timeout_s=20, estimate=usage).succeeded(usage=usage, elapsed_s=1.0)


def spent(control):
    """What is spent of each budget, by whose it is."""
    return {each.backend: round(each.spent, 9) for each in control.spending()}


def test_a_budget_of_an_account_is_spent_by_all_its_rungs(make_control):
    """The refusal names the rung that was not asked, and the key that has to be raised."""
    control = make_control({"work": Limits(daily_budget_usd=1.0)})
    call(control, LARGE, cost(0.5))
    call(control, SMALL, cost(0.5))
    for scope in (LARGE, SMALL):
        with pytest.raises(QuotaExhaustedError) as caught:
            control.admit(scope, timeout_s=20, estimate=cost(0.1))
        assert (caught.value.backend, caught.value.code) == (scope.backend, "budget_exhausted")
        assert caught.value.remedy == "Raise accounts.work.daily_budget_usd, or wait for the next day (UTC)."
        assert control.peek(scope).backend == scope.backend
    assert control.peek(ALONE) is None
    assert [(each.backend, each.spent, each.backends) for each in control.spending()] == [
        ("accounts.work", 1.0, ("large", "small"))
    ]


def test_the_rungs_own_limits_hold_besides(make_control):
    """What one has spent of its own is nothing to the other, whose account has room."""
    limits = MEMBERS | {"small": Limits(account="work", daily_budget_usd=0.2)}
    control = make_control({"work": Limits(daily_budget_usd=1.0)}, limits)
    call(control, SMALL, cost(0.2))
    assert control.peek(SMALL).remedy.startswith("Raise small.daily_budget_usd")
    call(control, LARGE, cost(0.7))
    assert spent(control) == {"small": 0.2, "accounts.work": 0.9}


def test_what_an_account_refuses_takes_nothing_of_the_rungs_own(make_control):
    """Nor the other way round."""
    limits = {"large": Limits(account="work", requests_per_minute=1, daily_budget_usd=9.0)}
    control = make_control({"work": Limits(daily_budget_usd=1.0)}, limits)
    with pytest.raises(QuotaExhaustedError):
        control.admit(LARGE, timeout_s=20, estimate=cost(2.0))
    call(control, LARGE, cost(0.4))
    with pytest.raises(RateLimitedError):
        control.admit(LARGE, timeout_s=20, estimate=cost(0.1))
    assert spent(control) == {"large": 0.4, "accounts.work": 0.4}
    assert [each.reserved for each in control.spending()] == [0.0, 0.0]


def test_minutes_and_simultaneous_calls_are_shared_too(make_control):
    """Every limit may be one of an account."""
    control = make_control({"work": Limits(requests_per_minute=2, max_concurrency=1)})
    running = control.admit(LARGE, timeout_s=20)
    with pytest.raises(OverloadedError, match=r"accounts\.work\.max_concurrency"):
        control.admit(SMALL, timeout_s=20)
    assert control.most_running(SMALL) == 1
    running.succeeded(usage=cost(0.0), elapsed_s=1.0)
    call(control, SMALL, cost(0.0))
    with pytest.raises(RateLimitedError, match=r"accounts\.work\.requests_per_minute"):
        control.admit(LARGE, timeout_s=20)


def test_processes_share_the_budget_of_an_account(make_control):
    """Whichever rungs they ask, and whatever they call them."""
    accounts = {"work": Limits(daily_budget_usd=1.0)}
    here, there = make_control(accounts), make_control(accounts, {"renamed": Limits(account="work")})
    renamed = replace(SMALL, backend="renamed")
    calls = 0
    while here.peek(LARGE) is None and there.peek(renamed) is None and calls < 50:
        try:
            call(here, LARGE, cost(0.05))
            call(there, renamed, cost(0.05))
        except QuotaExhaustedError:
            break
        calls += 2
    here.close()
    there.close()
    assert calls >= 14
    assert spent(make_control(accounts))["accounts.work"] <= 1.0


def test_what_a_call_is_found_to_have_cost_later_is_corrected_everywhere(make_control):
    """In the rung's own budget and in the account's."""
    limits = {"large": Limits(account="work", daily_budget_usd=9.0)}
    control = make_control({"work": Limits(daily_budget_usd=9.0)}, limits)
    permit = control.admit(LARGE, timeout_s=20, estimate=cost(1.0))
    permit.released(usage=cost(1.0))
    permit.corrected(cost(0.25))
    assert spent(control) == {"large": 0.25, "accounts.work": 0.25}


def test_people_are_told_once_of_an_account_and_of_whom_it_concerns(make_control, told):
    """So that what stands below any of its rungs is made ready."""
    control = make_control({"work": Limits(daily_budget_usd=1.0)})
    call(control, LARGE, cost(0.5))
    call(control, SMALL, cost(0.35))
    (alert,) = [event for event in told if isinstance(event, Alert)]
    assert (alert.backend, alert.percent, alert.backends) == ("accounts.work", 80, ("large", "small"))
    assert "accounts.work.daily_budget_usd" in alert.message


def test_a_rung_that_names_only_an_account_keeps_no_state_of_its_own(make_control, store):
    """One counter is enough for it."""
    call(make_control({"work": Limits(daily_budget_usd=1.0)}), LARGE, cost(0.5))
    assert [key for key in store.all() if key.startswith("book/")] == ["book/accounts.work"]
