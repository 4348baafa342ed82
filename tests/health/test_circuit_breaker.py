"""The laws of one gate and of its count of failures, pure functions of state and time; and the words of a refusal."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.health import circuit_breaker
from vision_backends.health.circuit_breaker import MAX_LEASE_S, WORDS, Failure, FailureCount, Gate, count, refusal
from vision_backends.health.policy import RULES, GateKey, Rule, duration

NOW = 1_800_000_000.0
NOON = 1_795_435_200.0
RULE = Rule(span="task", first_s=30, max_s=300)
JITTERED = Rule(span="task", first_s=30, max_s=300, jitter=0.2)
HINTED = Rule(span="task", first_s=20, max_s=120, obeys_hint=True)

ANY_RULE = st.sampled_from(list(RULES.values()))
TIMES = st.floats(NOW - 1e5, NOW + 1e5)
HINTS = st.none() | st.floats(-10, 1e6)
SPREADS = st.floats(-1, 1)


def blocked(**more):
    """A gate that was blocked now, for 30 s."""
    return Gate(**({"backend": "b", "reason": "r", "since": NOW, "blocked_at": NOW, "until": NOW + 30} | more))


def block(gate, rule, *, now, caller, hint_s=None, spread=0.0):
    """The gate after a call of that caller has failed."""
    failure = Failure(kind="rate", backend="b", reason="r", hint_s=hint_s, spread=spread)
    return circuit_breaker.block(gate, rule, failure, caller=caller, now=now)


def test_a_gate_is_blocked_for_its_first_length():
    """Nobody passes before the time; then it is due."""
    gate = block(None, RULE, now=NOW, caller="a")
    assert gate == blocked()
    assert gate.wait_s(NOW + 29) == 1
    assert gate.wait_s(NOW + 30) == 0


def test_a_probe_keeps_everybody_else_out_for_its_lease():
    """Afterwards it is taken for dead."""
    gate = blocked().probed(caller="a", lease_s=10, now=NOW + 30)
    assert gate.wait_s(NOW + 31) == 9
    assert gate.wait_s(NOW + 40) == 0


def test_a_failed_probe_doubles_the_length_up_to_the_most():
    """And the trouble goes on from when it began."""
    gate, now, lengths = blocked(), NOW, []
    for _ in range(5):
        now = gate.until
        gate = block(gate.probed(caller="a", lease_s=10, now=now), RULE, now=now, caller="a")
        lengths.append(gate.until - now)
    assert lengths == [60, 120, 240, 300, 300]
    assert gate.since == NOW
    assert gate.probe is None


def test_a_straggler_changes_nothing():
    """A call that was let in before the gate was blocked tells nothing new."""
    assert block(blocked(), RULE, now=NOW + 5, caller="late") == blocked()
    probed = blocked().probed(caller="a", lease_s=10, now=NOW + 30)
    assert block(probed, RULE, now=NOW + 35, caller="late") == probed


def test_a_straggler_may_bring_a_later_time():
    """The server has told it when to come back."""
    assert block(blocked(), HINTED, now=NOW + 5, caller="late", hint_s=60).until == NOW + 65
    assert block(blocked(), HINTED, now=NOW + 5, caller="late", hint_s=10) == blocked()


@pytest.mark.parametrize(
    ("rule", "hint_s", "length_s"),
    [(HINTED, 7, 7), (HINTED, 0, 0.05), (HINTED, 5000, 120), (RULE, 7, 30), (RULE, 200, 200), (RULE, 5000, 300)],
)
def test_a_hint_is_obeyed_or_only_makes_it_longer(rule, hint_s, length_s):
    """A rate limit ends when the server says so; an outage or an empty account is not over because it hopes so."""
    assert block(None, rule, now=NOW, caller="a", hint_s=hint_s).until == NOW + length_s


@pytest.mark.parametrize(("spread", "length_s"), [(-1, 24), (0, 30), (1, 36)])
def test_the_length_varies_by_the_jitter(spread, length_s):
    """Clients of one server do not come back all at once."""
    assert block(None, JITTERED, now=NOW, caller="a", spread=spread).until == NOW + length_s


@given(st.none() | TIMES, TIMES, ANY_RULE, HINTS, SPREADS, st.booleans())
def test_no_error_shortens_a_blocked_gate(blocked_at, now, rule, hint_s, spread, by_probe):
    """Whatever fails later, however mildly: who had to wait still has to."""
    if blocked_at is None:
        gate, waited_s = None, 0.0
    else:
        gate = block(None, rule, now=blocked_at, caller="a")
        waited_s = gate.wait_s(now)
    if gate is not None and by_probe and waited_s == 0:
        gate = gate.probed(caller="b", lease_s=5, now=now)
    after = block(gate, rule, now=now, caller="b", hint_s=hint_s, spread=spread)
    assert after.wait_s(now) >= waited_s


@given(TIMES, TIMES, ANY_RULE, HINTS, SPREADS, st.floats(0, 1e6))
def test_no_clock_blocks_a_gate_for_longer_than_its_rule_allows(then, now, rule, hint_s, spread, lease_s):
    """Wherever the clock is set: who has waited for what he was told may probe."""
    gate = block(None, rule, now=then, caller="a", hint_s=hint_s, spread=spread)
    probed = gate.probed(caller="b", lease_s=lease_s, now=gate.until)
    for state, longest_s in ((gate, rule.max_s), (probed, max(rule.max_s, MAX_LEASE_S))):
        waited_s = state.wait_s(now)
        assert waited_s <= longest_s + 1.001
    assert gate.wait_s(now + gate.wait_s(now)) == 0


@given(TIMES, ANY_RULE, HINTS, SPREADS)
def test_a_gate_that_is_blocked_is_not_due(now, rule, hint_s, spread):
    """Rounding never makes it due at once."""
    gate = block(None, rule, now=now, caller="a", hint_s=hint_s, spread=spread)
    assert gate.wait_s(now) > 0.04


def count_of(outcomes, *, every_s=1.0):
    """The count after calls that end one after the other; x failed."""
    counted, now = None, NOW
    for outcome in outcomes:
        counted = count(counted, failed=outcome == "x", now=now)
        now += every_s
    return counted


@pytest.mark.parametrize("outcomes", ["", ".", "...."])
def test_nothing_is_remembered_while_nothing_fails(outcomes):
    """The healthy path keeps no state."""
    assert count_of(outcomes) is None


@pytest.mark.parametrize("outcomes", ["xxxxx", "x.xxxxx", "x.x.x..x", "x.x.xx.x", "xx.x..x.x"])
def test_five_in_a_row_or_half_of_eight_is_an_outage(outcomes):
    """The last call decides."""
    assert count_of(outcomes).is_outage


@pytest.mark.parametrize("outcomes", ["x", "xxxx", "xxxx.", "x.x.x.x", "x..x..x..x", "xxxx.xxx" + "." * 10])
def test_less_is_none(outcomes):
    """Neither many in a row, nor half of enough."""
    assert not count_of(outcomes).is_outage


def test_failures_of_another_window_do_not_add_up():
    """Half of the calls fail, but rarely is one asked."""
    assert not count_of("x.x.x.x.x.x.x.", every_s=5).is_outage


def test_a_streak_outlasts_the_window():
    """Calls that time out after 20 s would otherwise never be five."""
    assert count_of("xxxxx", every_s=25).is_outage


def test_a_streak_is_forgotten_after_a_pause():
    """Four failures of this morning do not make the next one an outage."""
    assert not count_of("xxxxx", every_s=301).is_outage


def test_a_success_after_the_window_ends_the_counting():
    """From then on nothing is written again."""
    assert count_of("x.", every_s=21) is None
    assert count_of("x.", every_s=19) is not None


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e4, 1e4)), max_size=30))
def test_a_count_is_sound_however_the_clock_jumps(calls):
    """Never more failures than calls, no negative age, and five in a row always trip."""
    counted, now = None, NOW
    for failed, step in calls:
        now += step
        counted = count(counted, failed=failed, now=now)
        if counted is not None:
            assert 0 < counted.failures <= counted.calls
            assert counted.since <= now
    for _ in range(5):
        counted = count(counted, failed=True, now=now)
    assert counted.is_outage


def test_states_are_made_of_plain_values():
    """They go through JSON."""
    states = [blocked(probe="a", probe_until=NOW), count_of("x")]
    for state in states:
        assert isinstance(state, Gate | FailureCount)
        assert all(isinstance(value, int | float | str | None) for value in asdict(state).values())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "1 s"),
        (45, "45 s"),
        (120, "120 s"),
        (121, "3 min"),
        (900, "15 min"),
        (7201, "3 h"),
        (86_400, "24 h"),
        (12 * 86_400, "12 d"),
    ],
)
def test_a_duration_is_rounded_up(seconds, words):
    """Who comes back after it is never too early."""
    assert duration(seconds) == words


@pytest.mark.parametrize("kind", WORDS)
def test_every_gate_has_words_of_its_own(kind):
    """With since when and why."""
    gate = Gate(backend="b", reason="why", since=NOON, blocked_at=NOON, until=NOON + 90)
    error = refusal(GateKey(kind, "b", "m", "embed"), gate, now=NOON)
    assert "(why) since 12:00 UTC; the next probe is due in 90 s." in error.message
    assert "{" not in str(error)
    assert RULES[kind].first_s > 0


def test_trouble_of_another_day_has_its_date():
    """Otherwise "since 23:50" would lie in the future."""
    gate = Gate(backend="b", reason="why", since=NOON - 86_400, blocked_at=NOON, until=NOON + 90)
    error = refusal(GateKey("quota"), gate, now=NOON)
    assert "since 2026-11-22 12:00 UTC" in error.message
