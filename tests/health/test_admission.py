"""Who is let in: blocked gates, probes, scopes, events."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest

from vision_backends.errors import (
    AuthenticationError,
    BackendError,
    InvalidImageError,
    InvalidReplyError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    TimedOutError,
    UnavailableError,
)
from vision_backends.health.admission import AdmissionControl
from vision_backends.health.budgets import Limits
from vision_backends.storage.base import StoreError
from vision_backends.storage.memory import MemoryStore
from vision_backends.types import FREE

NO_QUOTA = QuotaExhaustedError("You exceeded your current quota.", code="insufficient_quota")


def succeed(control, scope, *, elapsed_s=1.0):
    """Make one call that is answered."""
    control.admit(scope, timeout_s=20).succeeded(usage=FREE, elapsed_s=elapsed_s)


def fail(control, scope, error, *, times=1):
    """Make calls that fail."""
    for _ in range(times):
        control.admit(scope, timeout_s=20).failed(error, elapsed_s=1.0)


def refused(control, scope):
    """The error that keeps a call out; None when it may pass. Looking and asking always agree."""
    expected = control.peek(scope)
    if expected is None:
        control.admit(scope, timeout_s=20).released()
    else:
        with pytest.raises(type(expected), match=re.escape(expected.message)):
            control.admit(scope, timeout_s=20)
    return expected


def moves(told):
    """What gates did, in short."""
    return [f"{each.gate}: {each.before} → {each.after}" for each in told]


class Counting(MemoryStore):
    """A store that counts how often states are read and updated."""

    def __init__(self):
        super().__init__()
        self.reads = self.updates = 0

    def read(self, key):
        """Count, and read."""
        self.reads += 1
        return super().read(key)

    def update(self, key, change):
        """Count, and update."""
        self.updates += 1
        return super().update(key, change)


def test_a_healthy_call_reads_once_and_writes_nothing(make_control, scope):
    """What it costs when nothing is wrong."""
    store = Counting()
    control = make_control(store=store)
    for _ in range(5):
        succeed(control, scope)
    assert (store.reads, store.updates) == (5, 0)
    assert store.all() == {}


def test_a_call_reads_the_store_once_for_all_its_rungs(make_control, scope):
    """However often it looks at them, whether it fails over or not."""
    store = Counting()
    control = make_control(store=store)
    rungs = [scope, replace(scope, model="gpt-y"), replace(scope, account="local", backend="local", model="blip")]
    snapshot = control.look(rungs)
    assert store.reads == 2  # one for each account
    for rung in rungs:
        assert control.peek(rung, snapshot) is None
        control.admit(rung, timeout_s=20, snapshot=snapshot).succeeded(usage=FREE, elapsed_s=1.0)
    assert (store.reads, store.updates) == (2, 0)


def test_limits_are_read_with_the_gates(make_control, scope):
    """So that looking ahead reads nothing more."""
    store = Counting()
    control = make_control(store=store, limits={"openai": Limits(max_concurrency=1)})
    control.admit(scope, timeout_s=20)
    store.reads = 0
    snapshot = control.look([scope])
    assert control.peek(scope, snapshot).code == "max_concurrency"
    assert store.reads == 2


def test_a_snapshot_is_as_new_as_what_its_process_has_done_since(control, scope, clock):
    """Fifty calls that have looked before the first failed do not all find out for themselves; nor after a reset."""
    snapshot = control.look([scope])
    fail(control, scope, NO_QUOTA)
    assert isinstance(control.peek(scope, snapshot), QuotaExhaustedError)
    with pytest.raises(QuotaExhaustedError):
        control.admit(scope, timeout_s=20, snapshot=snapshot)
    later = control.look([scope])
    control.reset()
    for each in (snapshot, later):
        assert control.peek(scope, each) is None


def test_a_snapshot_is_newer_than_what_its_process_did_before(make_control, scope, clock):
    """Another process has probed meanwhile."""
    control, other = make_control(), make_control()
    fail(control, scope, NO_QUOTA)
    clock.advance(900)
    succeed(other, scope)
    assert control.peek(scope, control.look([scope])) is None


class Slow(Counting):
    """A store that may wait for a disk, and says so."""

    blocking = True


CHANGES = {
    "healthy": lambda _control, _scope: None,
    "counting": lambda control, scope: fail(control, scope, UnavailableError("?")),
    "due": lambda control, scope: fail(control, scope, RateLimitedError("?", retry_after_s=1)),
    "sibling": lambda control, scope: fail(control, replace(scope, model="gpt-y"), ModelNotFoundError("?")),
}
ENDINGS = {
    "succeeded": (None, lambda permit: permit.succeeded(usage=FREE, elapsed_s=1.0)),
    "released": (None, lambda permit: permit.released()),
    "failed": (UnavailableError("?"), lambda permit: permit.failed(UnavailableError("?"), elapsed_s=1.0)),
    "not able": (NotSupportedError("?"), lambda permit: permit.failed(NotSupportedError("?"), elapsed_s=1.0)),
}


@pytest.mark.parametrize("limits", [{}, {"openai": Limits(max_concurrency=9)}, {"local": Limits(max_concurrency=9)}])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_said_not_to_block_asks_the_store_for_nothing(make_control, scope, clock, limits, change, ending):
    """An event loop may do it itself; and a healthy call without limits is always such a one."""
    store = Slow()
    control = make_control(store=store, limits=limits)
    CHANGES[change](control, scope)
    clock.advance(1)
    snapshot = control.look([scope])
    error, end = ENDINGS[ending]
    said, asked = [], []
    store.reads = store.updates = 0
    said.append(control.may_block(scope, snapshot))
    permit = control.admit(scope, timeout_s=20, snapshot=snapshot)
    asked.append(store.reads + store.updates > 0)
    store.reads = store.updates = 0
    said.append(control.end_may_block(permit, error))
    end(permit)
    asked.append(store.reads + store.updates > 0)
    assert all(was_said or not was_asked for was_said, was_asked in zip(said, asked, strict=True))
    if change in {"healthy", "sibling"} and "openai" not in limits and ending != "failed":
        assert said == [False, False]


def test_a_store_in_memory_never_blocks(make_control, scope):
    """Not even where it is asked."""
    control = make_control(limits={"openai": Limits(max_concurrency=9)})
    assert not control.blocking
    assert not control.may_block(scope, control.look([scope]))
    assert not control.end_may_block(control.admit(scope, timeout_s=20), UnavailableError("?"))


@pytest.mark.parametrize(
    ("error", "first_s", "words"),
    [
        (NO_QUOTA, 900, "No quota (insufficient_quota) since 12:00 UTC; the next probe is due in 15 min."),
        (AuthenticationError("?", code="invalid_api_key"), 300, "The key is not accepted (invalid_api_key)"),
        (ModelNotFoundError("?"), 300, "The model 'gpt-x' was not found (model_not_found)"),
        (RateLimitedError("?", retry_after_s=7), 7, "Rate limited (rate_limited)"),
        (RateLimitedError("?"), 20, "the next probe is due in 20 s"),
        (OverloadedError("?", code="slow_down"), 20, "Overloaded (slow_down)"),
    ],
)
def test_one_error_blocks_its_gate(control, scope, clock, error, first_s, words):
    """The next caller hears the same kind of error, since when, why, and when to come back."""
    fail(control, scope, error)
    blocked = refused(control, scope)
    assert type(blocked) is type(error)
    assert words in str(blocked)
    clock.advance(first_s - 0.5)
    assert refused(control, scope).retry_after_s == pytest.approx(0.5)
    clock.advance(0.5)
    assert refused(control, scope) is None


NOT_OFFERED = RefusedError("?")
NOT_OFFERED.lasting = True

GATES = {
    "quota": (NO_QUOTA, {"same", "task", "model", "backend"}, 15 * 60, 60 * 60),
    "authentication": (AuthenticationError("?"), {"same", "task", "model", "backend"}, 5 * 60, 5 * 60),
    "model": (ModelNotFoundError("?"), {"same", "task"}, 5 * 60, 60 * 60),
    "refusal": (NOT_OFFERED, {"same"}, 15 * 60, 24 * 60 * 60),
    "rate": (RateLimitedError("?"), {"same"}, 20, 2 * 60),
    "overload": (OverloadedError("?"), {"same", "task"}, 20, 2 * 60),
    "outage": (UnavailableError("?"), {"same"}, 30, 5 * 60),
}
"""An error of each kind, which calls it blocks, for how long at first, and at most; as documented."""


@pytest.mark.parametrize("kind", GATES)
def test_each_probe_that_fails_doubles_the_time(control, scope, clock, kind):
    """Up to the most."""
    error, _, first_s, most_s = GATES[kind]
    fail(control, scope, error, times=5 if kind == "outage" else 1)
    for probes in range(9):
        waited_s = control.peek(scope).retry_after_s
        assert waited_s == pytest.approx(min(first_s * 2**probes, most_s))
        clock.advance(waited_s)
        fail(control, scope, error)


@pytest.mark.parametrize(("share", "first_s"), [(0.0, 24), (1.0, 36)])
def test_not_everybody_comes_back_simultaneously_after_an_outage(make_control, scope, share, first_s):
    """The time varies by a fifth."""

    class Extreme:
        def uniform(self, low, high):
            return low + share * (high - low)

    control = make_control(random=Extreme())
    fail(control, scope, UnavailableError("?"), times=5)
    assert control.peek(scope).retry_after_s == pytest.approx(first_s)


def test_a_refusal_says_what_to_do(control, scope):
    """For whoever can do something about it."""
    fail(control, scope, NO_QUOTA)
    blocked = control.peek(scope)
    assert blocked.remedy == "Top up the account, then run `vision reset openai`."
    assert (blocked.backend, blocked.code) == ("openai", "insufficient_quota")


def test_the_probe_of_a_dead_account_is_rarer_each_time(control, scope, clock):
    """15 minutes, doubling to an hour; one request each."""
    fail(control, scope, NO_QUOTA)
    waits = []
    for _ in range(4):
        waits.append(control.peek(scope).retry_after_s)
        clock.advance(waits[-1])
        fail(control, scope, NO_QUOTA)
    assert waits == [900, 1800, 3600, 3600]


def test_five_outages_in_a_row_block_the_gate_until_one_success(control, scope, clock, told):
    """Whatever kinds of outages they are; with every event told once."""
    errors = [
        UnavailableError("?"),
        TimedOutError("?"),
        InvalidReplyError("?"),
        BackendError("?"),
        UnavailableError("?"),
    ]
    for error in errors:
        assert refused(control, scope) is None
        fail(control, scope, error)
    assert isinstance(refused(control, scope), UnavailableError)
    clock.advance(30)
    succeed(control, scope)
    assert refused(control, scope) is None
    assert moves(told) == ["outage: passing → blocked", "outage: blocked → probing", "outage: probing → passing"]
    assert (told[0].until - told[0].at, told[2].until) == (30, None)
    assert told[0].scope == "openai/gpt-x/describe"


def test_a_recovered_gate_has_forgotten_its_length(control, scope, clock, store):
    """The next outage begins at 30 s again, and nothing is left in the store meanwhile."""
    fail(control, scope, UnavailableError("?"), times=5)
    clock.advance(30)
    fail(control, scope, UnavailableError("?"))
    assert control.peek(scope).retry_after_s == 60
    clock.advance(60)
    succeed(control, scope)
    assert store.all() == {}
    fail(control, scope, UnavailableError("?"), times=5)
    assert control.peek(scope).retry_after_s == 30


def test_half_of_eight_calls_is_an_outage(control, scope):
    """Successes count while failures are remembered."""
    for _ in range(3):
        fail(control, scope, UnavailableError("?"))
        succeed(control, scope)
    succeed(control, scope)
    assert refused(control, scope) is None
    fail(control, scope, UnavailableError("?"))
    assert refused(control, scope) is not None


def test_successes_of_calls_let_in_before_the_failures_count_too(control, scope):
    """Among a hundred calls at once, six scattered failures are no outage."""
    permits = [control.admit(scope, timeout_s=20) for _ in range(100)]
    for number, permit in enumerate(permits):
        if number % 16 == 0:
            permit.failed(UnavailableError("?"), elapsed_s=1.0)
        else:
            permit.succeeded(usage=FREE, elapsed_s=1.0)
    assert refused(control, scope) is None


def test_a_success_ends_the_memory_of_old_failures(control, scope, clock, store):
    """Afterwards nothing is written any more."""
    fail(control, scope, UnavailableError("?"))
    clock.advance(21)
    succeed(control, scope)
    assert store.all() == {}


def test_a_healthy_call_writes_nothing_again_once_failures_are_forgotten(make_control, scope, clock):
    """Whichever process has ended the counting."""
    store = Counting()
    control, other = make_control(store=store), make_control(store=store)
    fail(control, scope, UnavailableError("?"))
    clock.advance(21)
    succeed(other, scope)
    store.updates = 0
    succeed(control, scope)
    assert store.updates == 0


@pytest.mark.parametrize("error", [NotSupportedError("?"), NotReadyError("?"), InvalidImageError("?")])
def test_some_errors_say_nothing_about_health(control, scope, store, error):
    """What the backend cannot do, or what is the caller's fault."""
    fail(control, scope, error, times=10)
    assert refused(control, scope) is None
    assert store.all() == {}


def test_a_timeout_of_a_caller_in_a_hurry_is_no_outage(control, scope):
    """Ten calls took 2 s; who gives it half a second has only himself to blame."""
    for _ in range(10):
        succeed(control, scope, elapsed_s=2.0)
    for _ in range(10):
        control.admit(scope, timeout_s=0.5).failed(TimedOutError("?"), elapsed_s=0.5)
    assert refused(control, scope) is None
    fail(control, scope, TimedOutError("?"), times=5)
    assert refused(control, scope) is not None


@pytest.mark.parametrize("kind", GATES)
def test_trouble_is_shared_as_widely_as_it_goes(control, scope, kind):
    """An empty account concerns all it pays for; a rate limit of one model never its sibling."""
    error, expected, *_ = GATES[kind]
    siblings = {
        "same": scope,
        "task": replace(scope, task="detect"),
        "model": replace(scope, model="gpt-y"),
        "backend": replace(scope, backend="openai_big", model="gpt-z"),
        "account": replace(scope, account="other"),
        "nobody": replace(scope, account="openai"),
    }
    fail(control, scope, error, times=5 if kind == "outage" else 1)
    assert {name for name, sibling in siblings.items() if refused(control, sibling)} == expected


def test_a_milder_error_never_shortens_a_gate(control, scope, clock):
    """A rate limit of 2 s that arrives late does not end an empty account's 15 min."""
    late = control.admit(scope, timeout_s=20)
    fail(control, scope, NO_QUOTA)
    late.failed(RateLimitedError("?", retry_after_s=2), elapsed_s=1.0)
    clock.advance(3)
    blocked = refused(control, scope)
    assert isinstance(blocked, QuotaExhaustedError)
    assert blocked.retry_after_s == 897


def test_the_gate_that_stays_blocked_longest_is_named(control, scope):
    """The others do not matter to the caller."""
    permits = [control.admit(scope, timeout_s=20) for _ in range(2)]
    permits[0].failed(AuthenticationError("?"), elapsed_s=1.0)
    permits[1].failed(RateLimitedError("?", retry_after_s=60), elapsed_s=1.0)
    assert isinstance(refused(control, scope), AuthenticationError)


def test_stragglers_are_no_events_and_lengthen_nothing(control, scope, told):
    """Fifty calls that were let in together find out together."""
    permits = [control.admit(scope, timeout_s=20) for _ in range(50)]
    for permit in permits:
        permit.failed(NO_QUOTA, elapsed_s=1.0)
    assert moves(told) == ["quota: passing → blocked"]
    assert control.peek(scope).retry_after_s == 900


def test_exactly_one_probes_and_all_others_are_refused(control, scope, clock):
    """Until the probe has ended."""
    fail(control, scope, NO_QUOTA)
    clock.advance(900)
    probe = control.admit(scope, timeout_s=20)
    blocked = [refused(control, scope) for _ in range(49)]
    assert all(isinstance(error, QuotaExhaustedError) for error in blocked)
    assert "another call is probing it now" in str(blocked[0])
    probe.succeeded(usage=FREE, elapsed_s=1.0)
    assert refused(control, scope) is None


def test_a_cancelled_probe_gives_its_place_to_the_next(control, scope, clock, told):
    """It has said nothing about the backend."""
    fail(control, scope, NO_QUOTA)
    clock.advance(900)
    control.admit(scope, timeout_s=20).released()
    succeed(control, scope)
    assert moves(told)[-1] == "quota: probing → passing"


def test_a_straggler_that_is_cancelled_leaves_the_probe_alone(control, scope, clock):
    """Only the probing call can give up its place."""
    straggler = control.admit(scope, timeout_s=20)
    fail(control, scope, NO_QUOTA)
    clock.advance(900)
    control.admit(scope, timeout_s=20)
    straggler.released()
    assert refused(control, scope) is not None


def test_a_probe_whose_process_died_lapses_after_twice_its_timeout(control, scope, clock):
    """Nobody else could free its place."""
    fail(control, scope, NO_QUOTA)
    clock.advance(900)
    control.admit(scope, timeout_s=20)
    clock.advance(39)
    assert refused(control, scope) is not None
    clock.advance(1)
    assert refused(control, scope) is None


def test_a_probe_that_fails_otherwise_leaves_the_gate_due(control, scope, clock):
    """An outage does not tell whether the account has been topped up; the next call may find out."""
    fail(control, scope, NO_QUOTA)
    clock.advance(900)
    fail(control, scope, UnavailableError("?"))
    assert refused(control, scope) is None
    fail(control, scope, RateLimitedError("?", retry_after_s=5))
    assert isinstance(refused(control, scope), RateLimitedError)
    clock.advance(5)
    succeed(control, scope)
    assert control.gates() == []


def test_one_probe_is_for_all_due_gates(control, scope, clock, told):
    """Its success lets them pass together."""
    permits = [control.admit(scope, timeout_s=20) for _ in range(2)]
    permits[0].failed(NO_QUOTA, elapsed_s=1.0)
    permits[1].failed(RateLimitedError("?"), elapsed_s=1.0)
    clock.advance(900)
    told.clear()
    succeed(control, scope)
    assert sorted(moves(told)) == [
        "quota: blocked → probing",
        "quota: probing → passing",
        "rate: blocked → probing",
        "rate: probing → passing",
    ]


def test_a_success_that_was_no_probe_unblocks_nothing(control, scope):
    """It was let in before the trouble began."""
    before = control.admit(scope, timeout_s=20)
    fail(control, scope, NO_QUOTA)
    before.succeeded(usage=FREE, elapsed_s=1.0)
    assert refused(control, scope) is not None


def test_a_permit_ends_once(control, scope, told):
    """Whatever is said afterwards."""
    permit = control.admit(scope, timeout_s=20)
    permit.released()
    permit.failed(NO_QUOTA, elapsed_s=1.0)
    permit.succeeded(usage=FREE, elapsed_s=1.0)
    assert told == []
    assert control.expected_s(scope, 9.0) == 9.0


@pytest.mark.parametrize("jump_s", [-1e6, -3600, -10, -0.5, 0.5, 10, 1e6])
def test_no_jump_of_the_clock_locks_a_rung_out(control, scope, clock, jump_s):
    """Who waits for as long as he is told, at most the gate's own length, may probe."""
    fail(control, scope, NO_QUOTA)
    clock.jump(jump_s)
    blocked = control.peek(scope)
    if blocked is not None:
        assert blocked.retry_after_s <= 901
        clock.advance(blocked.retry_after_s)
    succeed(control, scope)
    assert control.gates() == []


def test_the_state_survives_a_restart_and_is_shared(make_control, scope, clock, told):
    """A second process does not ask a dead API again, and its probe lets the gate pass for the first."""
    first, second = make_control(), make_control()
    fail(first, scope, NO_QUOTA)
    assert isinstance(refused(second, scope), QuotaExhaustedError)
    clock.advance(900)
    succeed(second, scope)
    assert refused(first, scope) is None
    assert moves(told)[-1] == "quota: probing → passing"


def test_gates_are_reported_for_people(control, scope, clock):
    """The oldest trouble first, with everything that the status shows."""
    fail(control, scope, NO_QUOTA)
    clock.advance(60)
    fail(control, replace(scope, account="local", backend="local", model="blip"), RateLimitedError("?"))
    quota, rate = control.gates()
    assert (quota.gate, quota.backend, quota.model, quota.task, quota.state) == ("quota", "openai", "", "", "blocked")
    assert quota.until - quota.since == 900
    assert quota.message == "No quota (insufficient_quota) since 12:00 UTC; the next probe is due in 14 min."
    assert quota.remedy == "Top up the account, then run `vision reset openai`."
    assert (rate.gate, rate.backend, rate.model, rate.task) == ("rate", "local", "blip", "describe")
    clock.advance(900)
    assert "the next call probes it" in control.gates()[0].message
    control.admit(scope, timeout_s=20)
    assert control.gates()[0].state == "probing"


def test_a_gate_that_nobody_asks_for_is_forgotten_after_a_day(control, scope, clock, store):
    """Its key has been replaced, say; it is neither shown nor kept."""
    fail(control, scope, NO_QUOTA)
    clock.advance(900 + 86_401)
    assert control.gates() == []
    assert refused(control, scope) is None
    assert store.all() == {}


def test_reset_unblocks_the_gates_of_one_backend(control, scope, told):
    """After topping up; the others stay as they are."""
    local = replace(scope, account="local", backend="local", model="blip")
    for each in (scope, local):
        fail(control, each, NO_QUOTA)
    told.clear()
    assert control.reset("openai") == 1
    assert refused(control, scope) is None
    assert refused(control, local) is not None
    assert moves(told) == ["quota: blocked → passing"]
    assert control.reset() == 1
    assert refused(control, local) is None


def test_reset_forgets_failures_that_have_blocked_nothing_yet(control, scope, store):
    """A fresh start."""
    fail(control, scope, UnavailableError("?"), times=4)
    assert control.reset("openai") == 0
    assert store.all() == {}


def overload(control, scope, clock, *, running):
    """Let a server be overloaded by this many calls, and recover a second later."""
    permits = [control.admit(scope, timeout_s=20) for _ in range(running)]
    for permit in permits:
        permit.failed(OverloadedError("?", retry_after_s=1), elapsed_s=1.0)
    clock.advance(1)
    succeed(control, scope)


def fill(control, scope):
    """Admit as many calls as there is room for, a hundred at most."""
    permits = []
    while len(permits) < 100 and control.peek(scope) is None:
        permits.append(control.admit(scope, timeout_s=20))
    for permit in permits:
        permit.released()
    return len(permits)


def test_an_overloaded_server_is_asked_less_concurrently(control, scope, clock):
    """Half of what ran when it complained, and one more every ten seconds, up to where the trouble began."""
    overload(control, scope, clock, running=8)
    running = [control.admit(scope, timeout_s=20) for _ in range(4)]
    blocked = refused(control, scope)
    assert isinstance(blocked, OverloadedError)
    assert blocked.code == "throttled"
    assert blocked.message == "openai is limited to 4 concurrent calls since it reported overload."
    assert refused(control, replace(scope, model="gpt-y")) is None
    for permit in running:
        permit.released()
    clock.advance(9)
    assert fill(control, scope) == 5
    clock.advance(29)
    assert fill(control, scope) == 7
    clock.advance(1)
    assert fill(control, scope) == 100


def test_each_further_overload_halves_again(control, scope, clock):
    """Down to one call at a time; a reset ends it."""
    rooms = []
    for running in (8, 4, 2, 1):
        overload(control, scope, clock, running=running)
        rooms.append(fill(control, scope))
    assert rooms == [4, 2, 1, 1]
    control.reset("local")
    assert fill(control, scope) == 1
    control.reset("openai")
    assert fill(control, scope) == 100


def test_a_single_call_that_meets_an_overload_halves_nothing(control, scope, clock):
    """There is nothing to halve; the gate alone has to do."""
    overload(control, scope, clock, running=1)
    assert fill(control, scope) == 100


class Broken(MemoryStore):
    """A store whose states cannot be used."""

    def read(self, key):
        """Fail."""
        raise StoreError(f"{key}: disk on fire.")

    def update(self, key, change):
        """Fail."""
        raise StoreError(f"{key}: disk on fire.")

    def all(self, prefix=""):
        """Fail."""
        raise StoreError(f"{prefix}: disk on fire.")


def test_a_broken_store_never_fails_a_call(make_control, scope, caplog):
    """Everything counts as healthy, and the log says so once."""
    control = make_control(store=Broken())
    with caplog.at_level(logging.WARNING):
        fail(control, scope, NO_QUOTA, times=3)
        succeed(control, scope)
    assert refused(control, scope) is None
    assert control.gates() == []
    assert control.reset() == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "on fire" in caplog.text


def healthy_but(kind, *, until="9e9", backend='"b"'):
    """A state that would block every call, were it not for one value."""
    gate = f'{{"backend":{backend},"reason":"r","since":1,"blocked_at":1,"until":{until}}}'
    return f'{{"version":2,"gates":[[[{kind}],{gate}]],"failures":[]}}'


@pytest.mark.parametrize(
    "state",
    [
        "",
        "{",
        "null",
        "[]",
        '{"version":3}',
        '{"version":2}',
        '{"version":1}',
        '{"version":1,"gates":[["quota"]],"tallies":[]}',
        '{"version":1,"gates":[[["quota"],"gate","b","r"]],"tallies":[]}',
        '{"version":2,"gates":[["quota"]],"failures":[]}',
        healthy_but('"magic"'),
        healthy_but('"quota"', until="NaN"),
        healthy_but('"quota"', until='"x"'),
        healthy_but('"quota"', backend="null,1"),
    ],
)
def test_a_state_that_cannot_be_read_counts_as_healthy(control, scope, store, state):
    """And is replaced by the next that can."""
    store.update("gates/account", lambda _: (state, None))
    assert refused(control, scope) is None
    fail(control, scope, NO_QUOTA)
    assert isinstance(refused(control, scope), QuotaExhaustedError)


def test_what_would_block_every_call_does(control, scope, store):
    """Otherwise the states above would prove nothing."""
    store.update("gates/account", lambda _: (healthy_but('"quota"', until="1e11").replace(":1,", ":1795435200,"), None))
    assert isinstance(refused(control, scope), QuotaExhaustedError)


def test_a_state_written_by_an_earlier_version_is_still_read(control, scope, store, clock):
    """A gate that was blocked before an upgrade stays blocked, and its probe doubles the time as ever."""
    gate = '{"since":1795435200.0,"closed_at":1795435200.0,"until":1795436100.0,"probe":null,"probe_until":0.0}'
    throttle = '[["overload","openai","gpt-x",""],{"limit":1,"peak":8,"since":1795435200.0}]'
    state = (
        f'{{"version":1,"gates":[[["quota","","",""],{gate},"openai","insufficient_quota"]],'
        f'"tallies":[],"throttles":[{throttle}]}}'
    )
    store.update("gates/account", lambda _: (state, None))
    blocked = refused(control, scope)
    assert (blocked.retry_after_s, blocked.code, blocked.backend) == (900, "insufficient_quota", "openai")
    clock.advance(900)
    fail(control, scope, NO_QUOTA)
    assert refused(control, scope).retry_after_s == 1800


def test_failures_counted_by_an_earlier_version_still_count(control, scope, store):
    """The fifth in a row is an outage."""
    tally = '{"since":1795435200.0,"calls":4,"failures":4,"streak":4,"failed_at":1795435200.0}'
    state = f'{{"version":1,"gates":[],"tallies":[[["outage","openai","gpt-x","describe"],{tally}]],"throttles":[]}}'
    store.update("gates/account", lambda _: (state, None))
    fail(control, scope, UnavailableError("?"))
    assert isinstance(refused(control, scope), UnavailableError)


def test_a_listener_in_trouble_hurts_nobody(make_control, scope, caplog):
    """Its own mistake is logged."""

    def stumble(_):
        raise LookupError("listener")

    control = make_control(on_event=stumble)
    fail(control, scope, NO_QUOTA)
    assert isinstance(refused(control, scope), QuotaExhaustedError)
    assert "A listener failed on Transition." in caplog.text


def test_nobody_needs_to_listen(store, clock, scope):
    """And the jitter comes from somewhere."""
    control = AdmissionControl(store, clock=clock)
    fail(control, scope, UnavailableError("?"), times=5)
    assert 24 <= control.peek(scope).retry_after_s <= 36
