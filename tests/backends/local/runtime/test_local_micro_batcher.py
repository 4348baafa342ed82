"""Callers share batches: fairly, within limits, and without harm from each other."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from answering import answer
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_backends.backends.local.runtime.micro_batcher import Job, MicroBatcher
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.errors import InvalidReplyError, OverloadedError, TimedOutError, UnavailableError
from vision_backends.testing import FakeClock


class Model:
    """Doubles numbers, one batch at a time, each when it is allowed to.

    Args:
        free: Whether every batch is allowed at once.
    """

    def __init__(self, *, free=True):
        self.batches = []
        self.wanted = []
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(10_000 if free else 0)
        self.refused = {}

    def run(self, inputs, wanted):
        """Return the doubles, or fail on numbers for which that is planned."""
        self.batches.append(list(inputs))
        self.begun.release()
        assert self.allowed.acquire(timeout=20)
        self.wanted.append(list(wanted()))
        for number in inputs:
            if number in self.refused:
                raise self.refused[number](len(inputs))
        return [2 * number for number in inputs]


def make_batcher(**options):
    """Return a batcher of small batches."""
    return MicroBatcher("the model", **{"max_batch": 4, "max_waiting": 16, "idle_s": 0.05, **options})


def job_for(model, inputs, *, key="a", timeout_s=20.0, clock=SYSTEM_CLOCK):
    """Return a job that is not yet submitted."""
    return make_job(key=key, run=model.run, inputs=list(inputs), deadline=Deadline(clock, timeout_s))


def make_job(**fields):
    """Return a job of the engine's event loop."""

    async def make():
        return Job(**fields)

    return answer(make)


def collect(batcher, job):
    """Return the results of a job."""
    return answer(batcher.collect, job)


def hold(batcher, model):
    """Keep the model busy with a first batch."""
    first = batcher.submit(job_for(model, [0], key="first"))
    assert model.begun.acquire(timeout=20)
    return first


def test_a_lone_caller_is_served_at_once():
    """In batches of the largest size, in order."""
    model, batcher = Model(), make_batcher()
    wish = batcher.submit(job_for(model, range(10)))
    assert collect(batcher, wish) == [2 * number for number in range(10)]
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert wish.queue_s is not None
    assert wish.model_s > 0


def test_nothing_asked_is_nothing_done():
    """An empty job has its results at once."""
    model, batcher = Model(), make_batcher()
    assert collect(batcher, batcher.submit(job_for(model, []))) == []
    assert model.batches == []


def test_what_arrives_while_the_model_is_busy_shares_a_batch():
    """One of each caller in turn, so that a long list keeps nobody waiting."""
    model, batcher = Model(free=False), make_batcher()
    hold(batcher, model)
    many = batcher.submit(job_for(model, range(100, 108)))
    lone = batcher.submit(job_for(model, [1]))
    other = batcher.submit(job_for(model, [2], key="b"))
    model.allowed.release(20)
    assert (collect(batcher, lone), collect(batcher, other)) == ([2], [4])
    assert collect(batcher, many) == [2 * number for number in range(100, 108)]
    assert model.batches == [[0], [100, 1, 101, 102], [2], [103, 104, 105, 106], [107]]


def test_a_job_that_nobody_waits_for_is_not_begun():
    """Who leaves takes its inputs along; who is out of time is out of the queue."""
    model, batcher, clock = Model(free=False), make_batcher(), FakeClock()
    hold(batcher, model)
    left = batcher.submit(job_for(model, [1]))
    late = batcher.submit(job_for(model, [2], timeout_s=5, clock=clock))
    kept = batcher.submit(job_for(model, [3]))
    batcher.leave(left)
    clock.advance(6)
    model.allowed.release(20)
    assert collect(batcher, kept) == [6]
    wait_until(lambda: late.ended)
    assert isinstance(late.error, TimedOutError)
    assert model.batches == [[0], [3]]


def test_a_batch_hears_which_rows_are_still_wanted():
    """So that a long generation can stop when everybody has gone."""
    model, batcher = Model(free=False), make_batcher()
    hold(batcher, model)
    leaving, staying = batcher.submit(job_for(model, [1])), batcher.submit(job_for(model, [2]))
    model.allowed.release()
    assert model.begun.acquire(timeout=20)
    batcher.leave(leaving)
    model.allowed.release()
    assert collect(batcher, staying) == [4]
    assert model.wanted[-1] == [False, True]


def test_whoever_is_cancelled_frees_the_inputs_at_once():
    """Those that wait are out of the queue; a batch that runs is told that nobody wants them any more."""
    model, batcher = Model(free=False), make_batcher()

    async def cancelled(number):
        job = Job(key="a", run=model.run, inputs=[number], deadline=Deadline(SYSTEM_CLOCK, 20))
        waiting = asyncio.create_task(batcher.collect(batcher.submit(job)))
        await asyncio.to_thread(model.begun.acquire, timeout=0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return batcher.waiting

    assert [answer(cancelled, number) for number in (1, 2)] == [0, 0]
    model.allowed.release(20)
    assert collect(batcher, batcher.submit(job_for(model, [3]))) == [6]
    assert model.batches == [[1], [3]]
    assert model.wanted == [[False], [True]]


def test_callers_of_several_event_loops_share_batches():
    """Each has its results on its own loop; one whose loop has ended harms nobody."""
    model, batcher = Model(free=False), make_batcher()
    hold(batcher, model)

    async def ask(number):
        job = Job(key="a", run=model.run, inputs=[number], deadline=Deadline(SYSTEM_CLOCK, 20))
        return await batcher.collect(batcher.submit(job))

    async def leave_behind(number):
        batcher.submit(Job(key="a", run=model.run, inputs=[number], deadline=Deadline(SYSTEM_CLOCK, 20)))

    asyncio.run(leave_behind(1))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(lambda number=number: asyncio.run(ask(number))) for number in (2, 3)]
        wait_until(lambda: batcher.waiting == 3)
        model.allowed.release(20)
        assert [each.result(20) for each in asked] == [[4], [6]]
    assert [sorted(batch) for batch in model.batches] == [[0], [1, 2, 3]]


def test_a_result_that_comes_with_the_last_moment_counts():
    """Though the time is over when the caller looks."""
    model, batcher, clock = Model(), make_batcher(), FakeClock()
    job = batcher.submit(job_for(model, [1], timeout_s=5, clock=clock))
    wait_until(lambda: job.ended)
    clock.advance(6)
    assert collect(batcher, job) == [2]


def test_what_was_cut_off_by_the_clock_is_no_result():
    """Not even for a caller who looks late; the others of the batch have theirs."""
    clock, batcher = FakeClock(), make_batcher()

    def write(_inputs, wanted):
        clock.advance(6)
        return ["whole" if each else "cut off" for each in wanted()]

    model = Model(free=False)
    hold(batcher, model)
    short, long = (
        batcher.submit(make_job(key="a", run=write, inputs=[1], deadline=Deadline(clock, timeout_s)))
        for timeout_s in (5, 50)
    )
    model.allowed.release(20)
    assert collect(batcher, long) == ["whole"]
    wait_until(lambda: short.ended)
    assert isinstance(short.error, TimedOutError)
    assert short.results == [None]


def test_who_waits_too_long_hears_why():
    """Busy with others, or begun and not finished."""
    model, batcher = Model(free=False), make_batcher()
    first = batcher.submit(job_for(model, [0], timeout_s=0.05))
    assert model.begun.acquire(timeout=20)
    with pytest.raises(OverloadedError, match="busy"):
        collect(batcher, batcher.submit(job_for(model, [1], timeout_s=0.02)))
    with pytest.raises(TimedOutError, match="before the model had finished"):
        collect(batcher, first)
    model.allowed.release(20)


def test_a_full_queue_refuses():
    """At once, so that another rung can answer."""
    model, batcher = Model(free=False), make_batcher(max_waiting=4)
    first = hold(batcher, model)
    waiting = batcher.submit(job_for(model, range(6)))  # one caller alone may bring more
    with pytest.raises(OverloadedError, match="6 inputs waiting, 1 new, limit 4") as caught:
        batcher.submit(job_for(model, [1]))
    assert caught.value.code == "queue_full"
    assert batcher.waiting == 6
    model.allowed.release(20)
    collect(batcher, first)
    collect(batcher, waiting)
    assert batcher.waiting == 0
    assert collect(batcher, batcher.submit(job_for(model, [5]))) == [10]


def test_a_caller_is_not_in_their_own_way():
    """A list that comes in several jobs fills no queue for itself, however short that is; for others it does."""
    model, batcher, deadline = Model(free=False), make_batcher(max_waiting=1), Deadline(SYSTEM_CLOCK, 20)
    hold(batcher, model)
    jobs = [
        batcher.submit(make_job(key=key, run=model.run, inputs=[1, 2, 3], deadline=deadline))
        for key in ("tall", "wide", "tall")
    ]
    with pytest.raises(OverloadedError, match="9 inputs waiting, 1 new, limit 1"):
        batcher.submit(job_for(model, [7]))
    model.allowed.release(20)
    assert [collect(batcher, each) for each in jobs] == [[2, 4, 6]] * 3


class Slow:
    """A batcher that was measured: its batches take so many seconds by themselves, and so many more for each input.

    Args:
        batch_s: By themselves.
        each_s: For each input.
        inputs: How many a batch had when it was measured.
        cold_s: What the first batch of the thread takes besides.
    """

    def __init__(self, *, batch_s, each_s=0.0, inputs=1, cold_s=0.0):
        self.gate = threading.Event()
        self.batcher = make_batcher(idle_s=30)
        self.seconds = cold_s

        def run(inputs, _wanted):
            time.sleep(self.seconds + batch_s + each_s * len(inputs))
            self.seconds = 0.0
            return inputs

        for _ in range(3):
            collect(self.batcher, self.ask(inputs, run=run))
        begun = threading.Event()
        self.ask(1, run=lambda inputs, _wanted: (begun.set(), self.gate.wait(20), inputs)[2], key="held")
        assert begun.wait(20)

    def ask(self, inputs, *, run=lambda inputs, _wanted: inputs, key="a", timeout_s=20.0):
        """Submit a job of so many inputs."""
        deadline = Deadline(SYSTEM_CLOCK, timeout_s)
        return self.batcher.submit(make_job(key=key, run=run, inputs=list(range(inputs)), deadline=deadline))


@pytest.fixture
def slow():
    """A maker of batchers that are busy and were measured; they go on afterwards."""
    made = []

    def make(**seconds):
        made.append(Slow(**seconds))
        return made[-1]

    yield make
    for each in made:
        each.gate.set()
        each.batcher.close()


def test_who_would_certainly_come_too_late_is_refused_at_once(slow):
    """By what batches have lately taken."""
    busy = slow(batch_s=0.1, inputs=4)
    for _ in range(12):
        busy.ask(1)
    with pytest.raises(OverloadedError, match="busy for at least") as caught:
        busy.ask(1, timeout_s=0.2)
    assert caught.value.code == "queue_full"
    assert caught.value.retry_after_s > 0


def test_inputs_that_will_share_a_batch_are_not_counted_one_by_one(slow):
    """Eight single ones were slow; eight that wait are two batches."""
    busy = slow(batch_s=0.1)
    for _ in range(8):
        busy.ask(1)
    assert busy.ask(1, timeout_s=0.5)


def test_a_small_batch_is_not_expected_to_take_as_long_as_a_large_one(slow):
    """One input waits, where batches had four."""
    busy = slow(batch_s=0.0, each_s=0.05, inputs=4)
    busy.ask(1)
    assert busy.ask(1, timeout_s=0.15)


def test_a_long_list_is_not_expected_to_be_served_before_a_lone_input(slow):
    """They take turns."""
    busy = slow(batch_s=0.1, inputs=4)
    busy.ask(12)
    assert busy.ask(1, timeout_s=0.2)


def test_the_first_batch_of_a_thread_says_nothing_about_the_next(slow):
    """It pays for what others do not."""
    busy = slow(batch_s=0.01, cold_s=1.0)
    for _ in range(8):
        busy.ask(1)
    assert busy.ask(1, timeout_s=0.3)


def test_a_shortage_of_memory_halves_the_batch(caplog):
    """Everybody is answered all the same, later batches are as small, and the log says so."""
    model, batcher, freed = Model(), None, []

    def short(count):
        return OverloadedError("too little", code="out_of_memory") if count > 2 else None

    class Tight(Model):
        def run(self, inputs, wanted):
            if (error := short(len(inputs))) is not None:
                self.batches.append(list(inputs))
                raise error
            return super().run(inputs, wanted)

    model = Tight()
    batcher = make_batcher(free=lambda: freed.append(1))
    with caplog.at_level(logging.WARNING, logger="vision_backends"):
        assert collect(batcher, batcher.submit(job_for(model, range(6)))) == [0, 2, 4, 6, 8, 10]
    assert model.batches == [[0, 1, 2, 3], [0, 1], [2, 3], [4, 5]]
    assert batcher.max_batch == 2
    assert freed
    assert "at most 2" in caplog.text


def test_what_a_failed_batch_has_computed_is_given_back_before_the_next_try():
    """Else there would be less memory for the halves than for the whole; nor does the caller's error keep it."""

    class Activations:
        """Something large."""

    computed, kept = [], []

    def forward():
        activations = Activations()
        computed.append(weakref.ref(activations))
        raise MemoryError

    def run(_inputs, _wanted):
        kept.append([each() for each in computed if each() is not None])
        try:
            forward()
        except MemoryError as cause:
            raise OverloadedError("too little", code="out_of_memory") from cause

    batcher = make_batcher(free=lambda: kept.append([each() for each in computed if each() is not None]))
    wish = job_for(Model(), range(4))
    wish.run = run
    with pytest.raises(OverloadedError, match="too little") as caught:
        collect(batcher, batcher.submit(wish))
    assert caught.value.__cause__ is not None
    assert len(kept) > 3
    assert not any(kept)
    assert not any(each() for each in computed)


def test_one_input_that_does_not_fit_is_an_error():
    """There is nothing to halve."""
    model, batcher = Model(), make_batcher()
    model.refused[7] = lambda _count: OverloadedError("too little", code="out_of_memory")
    with pytest.raises(OverloadedError, match="too little"):
        collect(batcher, batcher.submit(job_for(model, [7])))
    assert collect(batcher, batcher.submit(job_for(model, [1]))) == [2]


@pytest.mark.parametrize("raised", [InvalidReplyError, ValueError, MemoryError])
def test_a_failure_hurts_only_its_own_caller(raised):
    """The others of the batch are run again without it; the model goes on."""
    model, batcher = Model(free=False), make_batcher()
    model.refused[666] = lambda _count: raised("no")
    hold(batcher, model)
    bad, good = batcher.submit(job_for(model, [666])), batcher.submit(job_for(model, [1]))
    model.allowed.release(20)
    assert collect(batcher, good) == [2]
    with pytest.raises(InvalidReplyError if raised is InvalidReplyError else UnavailableError, match="no"):
        collect(batcher, bad)
    assert collect(batcher, batcher.submit(job_for(model, [5]))) == [10]


def test_a_model_that_loses_results_is_a_failure_and_not_the_end():
    """Whoever waited hears of it, and the next caller is served."""
    model, batcher = Model(), make_batcher()
    short = job_for(model, [1, 2])
    short.run = lambda inputs, _wanted: [0] * (len(inputs) - 1)
    with pytest.raises(UnavailableError, match="ValueError"):
        collect(batcher, batcher.submit(short))
    assert collect(batcher, batcher.submit(job_for(model, [5]))) == [10]


def test_a_thread_that_cannot_begin_fails_its_callers_and_not_the_batcher():
    """They hear of it at once, and the next one is served."""
    refusals = [RuntimeError("can't start new thread")]

    def begin():
        if refusals:
            raise refusals.pop()

    model, batcher = Model(), make_batcher(begin=begin)
    with pytest.raises(OverloadedError, match="can't start new thread"):
        collect(batcher, batcher.submit(job_for(model, [1])))
    assert batcher.waiting == 0
    assert collect(batcher, batcher.submit(job_for(model, [2]))) == [4]


def test_the_thread_ends_when_nothing_is_left_to_do():
    """And a later caller gets a new one."""
    model, batcher = Model(), make_batcher(idle_s=30)
    assert collect(batcher, batcher.submit(job_for(model, [1]))) == [2]
    assert batcher._thread.daemon
    batcher.close()
    wait_until(lambda: batcher._thread is None)
    assert collect(batcher, batcher.submit(job_for(model, [2]))) == [4]
    wait_until(lambda: batcher._thread is None)


def test_the_end_of_the_interpreter_lets_nothing_begin():
    """The batch that runs is told and awaited; what waits or still comes fails, and no daemon thread is cut off."""
    program = """
import threading, time
from vision_backends.engine.event_loop import engine_loop
from vision_backends.backends.local.runtime.micro_batcher import Job, MicroBatcher
from vision_backends.clock import SYSTEM_CLOCK, Deadline

def run(inputs, wanted):
    print("begun", inputs, flush=True)
    while any(wanted()):
        time.sleep(0.01)
    print("told", flush=True)
    return inputs

async def ask(number):
    job = Job(key=1, run=run, inputs=[number], deadline=Deadline(SYSTEM_CLOCK, 600))
    return await batcher.collect(batcher.submit(job))

def call():
    for number in range(3):
        try:
            loop.run(lambda: ask(number))
        except Exception as error:
            print(f"{type(error).__name__} {getattr(error, 'code', '')}\\n", end="", flush=True)

batcher, loop = MicroBatcher("the model", max_batch=1, max_waiting=64), engine_loop()
threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
for number in (7, 8):
    loop.start(lambda: ask(number))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.splitlines()
    assert said[:1] == ["begun [0]"]
    assert "told" in said
    assert set(said[1:]) <= {"told", "NotReadyError ending", "RuntimeError "}
    assert done.stderr == ""


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), min_size=1, max_size=12))
def test_everybody_gets_their_own_results(wishes):
    """Whatever others ask at the same time; no batch mixes keys or is too large."""
    model, batcher = Model(), make_batcher(max_waiting=1000)
    keys, answers = {}, {}
    jobs = []
    for number, (count, key) in enumerate(wishes):
        inputs = [1000 * number + place for place in range(count)]
        keys.update(dict.fromkeys(inputs, key))
        answers[number] = [2 * each for each in inputs]
        jobs.append(job_for(model, inputs, key=key))
    for each in jobs:
        batcher.submit(each)
    assert {number: collect(batcher, each) for number, each in enumerate(jobs)} == answers
    assert all(len(batch) <= 4 and len({keys[each] for each in batch}) == 1 for batch in model.batches)


def wait_until(happens):
    """Return when something has happened."""
    pause = threading.Event()
    for _ in range(1000):
        if happens():
            return
        pause.wait(0.01)
    raise AssertionError("it has not happened within 10 s")
