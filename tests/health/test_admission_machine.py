"""The gates as a state machine: calls of two processes begin, end, get lost, in any order."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from vision_backends.errors import (
    AuthenticationError,
    InvalidReplyError,
    ModelNotFoundError,
    NotSupportedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    TimedOutError,
    UnavailableError,
)
from vision_backends.health.admission import AdmissionControl, Scope
from vision_backends.health.circuit_breaker import STREAK_GAP_S, AccountGates
from vision_backends.health.policy import RULES
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeClock
from vision_backends.types import FREE

SCOPES = [
    Scope(backend="openai", account="account", model=model, task=task)
    for model in ("gpt-x", "gpt-y")
    for task in ("describe", "embed")
]
ERRORS = [
    QuotaExhaustedError,
    AuthenticationError,
    ModelNotFoundError,
    RateLimitedError,
    OverloadedError,
    UnavailableError,
    TimedOutError,
    InvalidReplyError,
    NotSupportedError,
]
TIMEOUT_S = 20.0
LEASE_S = 2 * TIMEOUT_S
LONGEST_S = 3600.0


class Call:
    """A call under way."""

    def __init__(self, process, permit, began_at, probed):
        self.process, self.permit, self.began_at, self.probed = process, permit, began_at, probed


class Gates(RuleBasedStateMachine):
    """Two gatekeepers over one store, as in two processes."""

    calls = Bundle("calls")

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.told = []
        self.controls = [self.make_control(process) for process in range(2)]
        self.running = []
        self.before = {}

    def make_control(self, seed):
        """A gatekeeper, as each process has one."""
        random = Random(seed)  # noqa: S311 — repeatable on purpose
        return AdmissionControl(self.store, clock=self.clock, random=random, on_event=self.told.append)

    def gates(self):
        """The shared state."""
        return AccountGates.parse(self.store.read("gates/account"))

    @rule(target=calls, scope=st.sampled_from(SCOPES), process=st.integers(0, 1))
    def begin(self, scope, process):
        """Somebody wants to ask."""
        keys = {key for key, _ in self.gates().concerning(scope)}
        control = self.controls[process]
        expected = control.peek(scope)
        if expected is not None:
            with pytest.raises(type(expected)):
                control.admit(scope, timeout_s=TIMEOUT_S)
            return multiple()
        permit = control.admit(scope, timeout_s=TIMEOUT_S)
        self.running.append(Call(process, permit, self.clock.time(), keys))
        return self.running[-1]

    @rule(call=consumes(calls))
    def succeed(self, call):
        """It is answered."""
        if call in self.running:
            call.permit.succeeded(usage=FREE, elapsed_s=1.0)
            self.running.remove(call)
            self.before = {}

    @rule(call=consumes(calls), kind=st.sampled_from(ERRORS), hint_s=st.none() | st.floats(0, 5000))
    def fail(self, call, kind, hint_s):
        """It fails."""
        if call in self.running:
            call.permit.failed(kind("?", retry_after_s=hint_s), elapsed_s=1.0)
            self.running.remove(call)

    @rule(call=consumes(calls))
    def release(self, call):
        """It is cancelled."""
        if call in self.running:
            call.permit.released()
            self.running.remove(call)

    @rule(process=st.integers(0, 1))
    def kill(self, process):
        """A process dies with all its calls, and is started again."""
        self.running = [call for call in self.running if call.process != process]
        self.controls[process] = self.make_control(process)

    @rule(seconds=st.sampled_from([0.1, 1, 5, 20, 30, 60, 300, 900, 3600]))
    def wait(self, seconds):
        """Time passes."""
        self.clock.advance(seconds)

    @precondition(lambda self: self.gates().gates)
    @rule()
    def reset(self):
        """Somebody has topped up."""
        self.controls[0].reset("openai")
        self.before = {}
        assert self.controls[1].gates() == []

    @invariant()
    def at_most_one_probes_each_gate(self):
        """Among all calls that were let in although a gate was not passing, and whose lease has not ended."""
        now = self.clock.time()
        for key, gate in self.gates().gates.items():
            probing = [
                call
                for call in self.running
                if key in call.probed and gate.since <= call.began_at and now < call.began_at + LEASE_S
            ]
            assert len(probing) <= 1

    @invariant()
    def no_blocked_gate_passes_earlier(self):
        """Only a probe's success and a reset may do that."""
        now = self.clock.time()
        gates = self.gates().gates
        for key, until in self.before.items():
            if now < until:
                assert gates[key].until >= until
        self.before = {key: gate.until for key, gate in gates.items()}

    @invariant()
    def no_gate_is_blocked_for_longer_than_it_may_be(self):
        """Whatever the server said."""
        for key, gate in self.gates().gates.items():
            assert gate.until - self.clock.time() <= RULES[key.kind].max_s + 0.001

    @invariant()
    def the_state_survives_being_written_down(self):
        """And healthy is written as nothing."""
        text = self.store.read("gates/account")
        if text is not None:
            assert AccountGates.parse(text).dump(now=self.written_at(text)) == text

    def written_at(self, text):
        """A time at which nothing in a state was over yet."""
        times = [failures.failed_at for failures in AccountGates.parse(text).failures.values()]
        return max(times, default=self.clock.time())

    @invariant()
    def events_follow_each_other(self):
        """Each gate moves from where the last event has left it; only a probe may be given up without one."""
        states = {}
        for event in self.told:
            key = (event.gate, event.model, event.task)
            state = states.get(key, "passing")
            assert event.before == state or (state, event.before) == ("probing", "blocked")
            states[key] = event.after

    def teardown(self):
        """Once the backend is healthy, everything recovers: whoever asks when he is told to is answered."""
        for scope in SCOPES:
            waited_s = 0.0
            while (blocked := self.controls[0].peek(scope)) is not None:
                wait_s = blocked.retry_after_s or 10.0
                waited_s += wait_s
                self.clock.advance(wait_s)
                assert waited_s < 2 * LONGEST_S + 1000
            self.controls[0].admit(scope, timeout_s=TIMEOUT_S).succeeded(usage=FREE, elapsed_s=1.0)
        self.clock.advance(STREAK_GAP_S + 1)
        for scope in SCOPES:
            self.controls[0].admit(scope, timeout_s=TIMEOUT_S).succeeded(usage=FREE, elapsed_s=1.0)
        assert self.controls[0].gates() == []


TestGates = Gates.TestCase
TestGates.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
