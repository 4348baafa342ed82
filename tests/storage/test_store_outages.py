"""Routers whose store is locked, hangs, fails or vanishes: they answer in time, and keep what they are to keep."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from blocked_store import BlockedStore, until
from PIL import Image as PILImage

from vision_backends import AsyncRouter, QuotaExhaustedError, Router, UnavailableError, Usage
from vision_backends.health.budgets import Limits
from vision_backends.storage import Stores, open_store
from vision_backends.storage.base import StoreError
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeBackend

DEADLINE_S = 5.0
"""Of calls that take a millisecond: no machine is too busy for it, and every wait that is looked for is longer."""

USAGE = Usage(input_tokens=7, output_tokens=3, cost_usd=0.01)


def picture(number):
    """An image unlike the others."""
    return PILImage.new("RGB", (8, 8), (number % 256, number // 256, 0))


class Paid(FakeBackend):
    """A server that says before what a call costs."""

    def __init__(self, **options):
        super().__init__("paid", local=False, credential="account", usage=USAGE, **options)

    def estimate(self, request, inputs):
        """Return the same for every call."""
        return USAGE


@pytest.fixture
def path(tmp_path):
    """Where the state is."""
    return tmp_path / "state.sqlite"


@pytest.fixture
def make_router(path):
    """A maker of routers on that state, each with a backend that costs money and one that does not."""
    made = []

    def make(*, store=None, budget=None, **options):
        limits = {} if budget is None else {"paid": Limits(daily_budget_usd=budget)}
        router = Router(
            [Paid(), FakeBackend("spare")],
            store=store or open_store(path),
            limits=limits,
            deadline_s=DEADLINE_S,
            **options,
        )
        made.append(router)
        return router

    yield make
    for router in made:
        router.close()


class Lock:
    """Another process that holds the lock for writing, as a connection of its own does."""

    def __init__(self, path):
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("BEGIN IMMEDIATE")

    def release(self):
        """Let the others write."""
        self._db.close()


@pytest.fixture
def lock(path):
    """A maker of that lock, which is released at the end."""
    held = []

    def take():
        held.append(Lock(path))
        return held[-1]

    yield take
    for each in held:
        each.release()


def backends_of(router, count=1):
    """Ask for as many descriptions, and return who answered."""
    return [router.describe(picture(number)).trace.backend for number in range(count)]


def test_a_lock_of_another_process_stops_nobody(make_router, lock):
    """Ten threads go on, each call within its deadline; what they did is booked when the lock is released."""
    router = make_router()
    router.describe(picture(1000))
    held = lock()
    started = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda number: router.describe(picture(number)), range(200)))
    assert {answer.trace.backend for answer in answers} == {"paid"}
    assert time.monotonic() - started < 60.0  # it was 200 s for the first ten of them
    assert router.describe(picture(7)).trace.cached
    assert len(list(router.ledger())) == 202
    with pytest.raises(StoreError, match="not written in time"):
        router.clear_cache()
    held.release()
    other = make_router()
    until(lambda: len(list(other.ledger())) == 202)


def test_gates_are_shared_again_after_an_outage(make_router, lock):
    """A gate that was blocked meanwhile keeps this process out at once, and the others as soon as they can know."""
    router, other = make_router(caching=False), make_router(caching=False)
    backends_of(other)
    held = lock()
    (paid,) = (backend for backend in router._all_backends() if backend.name == "paid")
    paid.play(QuotaExhaustedError("No money.", code="insufficient_quota"))
    assert backends_of(router, 3) == ["spare"] * 3
    assert [gate.gate for gate in router.gates()] == ["quota"]
    assert len(paid.calls) == 1
    assert backends_of(other) == ["paid"]
    held.release()
    until(lambda: backends_of(other) == ["spare"])
    with pytest.raises(StoreError):
        lock() and router.reset()


def test_a_budget_that_cannot_be_kept_lets_nobody_through(make_router, lock):
    """Not one call of five processes that have drawn nothing; the others go on, and it is said why."""
    make_router(budget=0.01).close()
    lock()
    routers = [make_router(budget=0.01, caching=False) for _ in range(5)]
    assert [backends_of(router, 3) for router in routers] == [["spare"] * 3] * 5
    verdict = routers[0].explain("describe").verdicts[0]
    assert (verdict.ready, verdict.error, verdict.code) == (False, "quota_exhausted", "limits_unknown")
    assert "not known" in verdict.reason
    assert verdict.retry_after_s
    attempt = routers[1].describe(picture(0)).trace.attempts[0]
    assert (attempt.backend, attempt.outcome, attempt.code) == ("paid", "skipped", "limits_unknown")


def test_a_budget_for_one_call_lets_one_through(make_router):
    """Of all processes."""
    routers = [make_router(budget=0.01, caching=False) for _ in range(5)]
    assert sorted(backend for router in routers for backend in backends_of(router, 2)) == ["paid", *["spare"] * 9]


@pytest.mark.parametrize("limits", [{"requests_per_minute": 1000}, {"max_concurrency": 50}])
def test_other_limits_fail_tighter_as_well(path, lock, limits):
    """Nobody knows what the other processes ask meanwhile."""
    backends, allowed = [Paid(), FakeBackend("spare")], {"paid": Limits(**limits)}
    with Router(backends, store=open_store(path), limits=allowed, caching=False) as router:
        assert backends_of(router) == ["paid"]
        held = lock()
        assert backends_of(router, 3) == ["spare"] * 3
        held.release()
        until(lambda: backends_of(router) == ["paid"])


def test_what_was_drawn_before_is_spent_and_then_no_more(make_router, lock):
    """An outage costs the rung only when the allowance for some calls is used up; when it is over, it goes on."""
    router = make_router(budget=1000.0, caching=False)
    backends_of(router)
    held = lock()
    backends = backends_of(router, 30)
    drawn = backends.count("paid")
    assert backends == ["paid"] * drawn + ["spare"] * (30 - drawn)
    assert 1 <= drawn <= 20
    held.release()
    until(lambda: backends_of(router) == ["paid"])


def test_a_place_that_cannot_be_used_yet_is_used_when_it_can(tmp_path, make_router, caplog):
    """A folder that is mounted late, say: until then budgets are refused, and what is asked is answered."""
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    path = blocker / "state.sqlite"
    with caplog.at_level(logging.WARNING):
        router = make_router(store=open_store(path), budget=1.0)
    assert str(path) in caplog.text
    assert backends_of(router, 3) == ["spare"] * 3
    blocker.unlink()
    until(lambda: router.describe(picture(9)).trace.attempts[0].backend == "paid" and path.exists())
    other = make_router(store=open_store(path))
    until(lambda: len(list(other.ledger())) >= 4)


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut off", "rubbish"])
def test_a_file_that_is_lost_while_it_is_open_costs_no_answer(path, make_router, how):
    """What was in it is lost, and the next calls are kept in a new one."""
    router = make_router()
    backends_of(router, 3)
    spare = path.with_name("other.sqlite")
    with make_router(store=open_store(spare)) as other:
        backends_of(other)
    if how == "deleted":
        path.unlink()
    elif how == "replaced":
        shutil.copyfile(spare, path.with_name("copy"))
        path.with_name("copy").replace(path)
    elif how == "cut off":
        os.truncate(path, 0)
    else:
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
    for number in range(10, 20):
        assert router.describe(picture(number)).trace.backend == "paid"
    router.close()
    kept = make_router()
    until(lambda: len(list(kept.ledger())) >= 5)


def test_a_store_of_ones_own_that_blocks_gets_the_same_guard(make_router):
    """States on a server that has stopped answering: no call waits for it, and the gate is known here at least."""
    states, memory = BlockedStore(), MemoryStore()
    router = make_router(store=Stores(answers=memory, ledger=memory, states=states), caching=False)
    backends_of(router)
    states.answers.clear()
    started = time.monotonic()
    assert backends_of(router, 20) == ["paid"] * 20
    (paid,) = (backend for backend in router._all_backends() if backend.name == "paid")
    paid.play(*[UnavailableError("Out of order.")] * 5)
    backends_of(router, 30)
    assert [gate.gate for gate in router.gates()] == ["outage"]
    assert time.monotonic() - started < 25.0  # one wait for it would be 30 s
    states.answers.set()
    until(lambda: states.kept("gates/account") is not None)


def test_an_event_loop_does_not_wait_either(path, lock):
    """A hundred calls at once."""
    import asyncio

    async def work():
        async with AsyncRouter(Router([FakeBackend()], store=open_store(path), deadline_s=DEADLINE_S)) as router:
            await router.describe(picture(1000))
            held = lock()
            answers = await asyncio.gather(*(router.describe(picture(number)) for number in range(100)))
            assert len(answers) == 100
            rows = [row async for row in router.ledger()]
            assert len(rows) == 101
            held.release()

    asyncio.run(work())


def test_closing_during_an_outage_says_what_is_lost(make_router, lock, caplog):
    """It takes a few seconds at most."""
    router = make_router()
    backends_of(router)
    lock()
    backends_of(router, 5)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        router.close()
    assert time.monotonic() - started < 20.0
    assert "are lost" in caplog.text


HOLDER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM cache")
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_process_that_was_stopped_amid_a_transaction_stops_nobody_else(path, make_router):
    """Nor does it when it is killed: then its transaction is as if it had not been."""
    router = make_router()
    backends_of(router, 3)
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        try:
            for number in range(100, 150):
                assert router.describe(picture(number)).trace.backend == "paid"
            assert router.describe(picture(1)).trace.cached
        finally:
            holder.kill()
    until(lambda: len(list(make_router().ledger())) == 54)


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_during_an_outage_answers(path, make_router, lock):
    """Its parent's connection is in use at that moment: the child does without the file, and harms nothing."""
    import multiprocessing

    router = make_router()
    backends_of(router)
    held = lock()
    backends_of(router, 3)

    def in_child():
        assert backends_of(router, 3) == ["paid"] * 3
        os._exit(7)

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(30)
    assert child.exitcode == 7
    held.release()
    until(lambda: len(list(make_router().ledger())) >= 4)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
