"""Different stores for answers, ledger and states: each is asked for its own purpose only."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from optimistic_states import OptimisticStates, Server
from PIL import Image as PILImage

from vision_backends import OverloadedError, QuotaExhaustedError, Router
from vision_backends.health.admission import AdmissionControl, Scope
from vision_backends.health.budgets import Limits
from vision_backends.storage import Stores
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.sqlite import SQLiteStore
from vision_backends.testing import FakeBackend, FakeClock
from vision_backends.types import FREE, Usage

IMAGE = PILImage.new("RGB", (64, 48), "teal")
SCOPE = Scope(backend="openai", account="account", model="gpt-x", task="describe")
CENT = Usage(input_tokens=7, output_tokens=3, cost_usd=0.01)


@pytest.fixture
def server():
    """A server that all processes share, and that knows no locks."""
    return Server()


@pytest.fixture
def control(server):
    """Admission control over that server, with room for ten calls of a cent."""
    return AdmissionControl(
        OptimisticStates(server), clock=FakeClock(), limits={"openai": Limits(daily_budget_usd=0.1, max_concurrency=99)}
    )


def dead():
    """A backend that finds its account without money."""
    backend = FakeBackend("dead", credential="account")
    backend.play(QuotaExhaustedError("No money."))
    return backend


def test_each_store_keeps_what_it_is_for(server, tmp_path):
    """Answers in memory, the ledger in a file, states on the server."""
    answers, ledger = MemoryStore(), SQLiteStore(tmp_path / "ledger.sqlite")
    stores = Stores(answers=answers, ledger=ledger, states=OptimisticStates(server))
    with Router([dead(), FakeBackend("spare")], store=stores) as router:
        assert router.describe(IMAGE).trace.backend == "spare"
        assert [row.backend for row in router.ledger()] == ["dead", "spare"]
        assert router.cache_info().entries == answers.cache_info().entries == 1
        assert (list(answers.rows()), answers.all()) == ([], {})
        assert (ledger.cache_info().entries, ledger.all()) == (0, {})
        assert list(server.values) == ["gates/account"]
        assert router.clear_cache() == 1


def test_two_machines_share_their_gates_through_the_server(server):
    """The second does not ask a dead API again."""
    calls = []
    for _ in range(2):
        memory = MemoryStore()
        best = dead()
        stores = Stores(answers=memory, ledger=memory, states=OptimisticStates(server))
        with Router([best, FakeBackend("spare")], store=stores) as router:
            assert router.describe(IMAGE).trace.backend == "spare"
        calls.append(len(best.calls))
    assert calls == [1, 0]


def test_of_many_threads_one_probes_although_nobody_holds_a_lock(server):
    """Who was overtaken looks again, and hears that another is probing."""
    clock, told = FakeClock(), []
    control = AdmissionControl(OptimisticStates(server), clock=clock, on_event=told.append)
    control.admit(SCOPE, timeout_s=20).failed(QuotaExhaustedError("?"), elapsed_s=1.0)
    clock.advance(900)
    start = threading.Barrier(16)

    def call(_):
        start.wait()
        try:
            return control.admit(SCOPE, timeout_s=20)
        except QuotaExhaustedError:
            return None

    with ThreadPoolExecutor(16) as pool:
        permits = [permit for permit in pool.map(call, range(16)) if permit]
    assert len(permits) == 1
    assert [event.after for event in told] == ["blocked", "probing"]


class Overtaken(OptimisticStates):
    """Another process is faster once, whenever a state is changed."""

    def __init__(self, server, *, by):
        super().__init__(server)
        self._by = [by]

    def update(self, key, change):
        """Let the other act between reading and writing."""

        def overtaken(old):
            result = change(old)
            if self._by:
                self._by.pop()()
            return result

        return super().update(key, overtaken)


def test_a_call_that_was_overtaken_decides_by_what_it_finds_then(server):
    """It would have taken the probe; the other has taken it."""
    clock, told = FakeClock(), []
    other = AdmissionControl(OptimisticStates(server), clock=clock)
    other.admit(SCOPE, timeout_s=20).failed(QuotaExhaustedError("?"), elapsed_s=1.0)
    clock.advance(900)
    states = Overtaken(server, by=lambda: other.admit(SCOPE, timeout_s=20))
    control = AdmissionControl(states, clock=clock, on_event=told.append)
    with pytest.raises(QuotaExhaustedError, match="another call is probing it now"):
        control.admit(SCOPE, timeout_s=20)
    assert (states.overtaken, told) == (1, [])


def test_a_call_that_was_kept_out_at_first_is_let_in_when_the_other_gives_up(server):
    """Nothing of the first decision is left in the second."""
    clock = FakeClock()
    other = AdmissionControl(OptimisticStates(server), clock=clock)
    other.admit(SCOPE, timeout_s=20).failed(QuotaExhaustedError("?"), elapsed_s=1.0)
    clock.advance(900)
    shown = [server.get("gates/account")[0]]
    probe = other.admit(SCOPE, timeout_s=20)

    class Late(Overtaken):
        """Shows at first a state from before the other began to probe."""

        def read(self, key):
            return shown.pop() if shown else super().read(key)

    control = AdmissionControl(Late(server, by=probe.released), clock=clock)
    control.admit(SCOPE, timeout_s=20).succeeded(usage=FREE, elapsed_s=1.0)
    assert server.values == {}


def test_budgets_are_exact_although_nobody_holds_a_lock(control):
    """Ten cents are ten calls, whoever was overtaken."""
    start = threading.Barrier(8)

    def call(_):
        start.wait()
        paid = 0
        for _ in range(10):
            try:
                permit = control.admit(SCOPE, timeout_s=20, estimate=CENT)
            except (QuotaExhaustedError, OverloadedError):
                continue
            permit.succeeded(usage=CENT, elapsed_s=0.1)
            paid += 1
        return paid

    with ThreadPoolExecutor(8) as pool:
        paid = sum(pool.map(call, range(8)))
    (spending,) = control.spending()
    assert spending.spent == pytest.approx(paid / 100)
    assert (spending.reserved, paid <= 10) == (0, True)
