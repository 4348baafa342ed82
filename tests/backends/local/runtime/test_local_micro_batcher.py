"""Callers share batches: fairly, within limits, and without harm from each other."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_backends.backends.local.runtime.micro_batcher import Lane, Order
from vision_backends.clock import SYSTEM_CLOCK, Countdown
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


def make_lane(**options):
    """Return a lane of small batches."""
    return Lane("the model", **{"max_batch": 4, "max_waiting": 16, "idle_s": 0.05, **options})


def order(model, inputs, *, key="a", timeout_s=20.0, clock=SYSTEM_CLOCK):
    """Return an order that is not yet submitted."""
    return Order(key=key, run=model.run, inputs=list(inputs), time=Countdown(timeout_s, clock=clock))


def hold(lane, model):
    """Keep the model busy with a first batch."""
    first = lane.submit(order(model, [0], key="first"))
    assert model.begun.acquire(timeout=20)
    return first


def test_a_lone_caller_is_served_at_once():
    """In batches of the largest size, in order."""
    model, lane = Model(), make_lane()
    wish = lane.submit(order(model, range(10)))
    assert lane.collect(wish) == [2 * number for number in range(10)]
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert wish.queue_s is not None
    assert wish.model_s > 0


def test_nothing_asked_is_nothing_done():
    """An empty order has its results at once."""
    model, lane = Model(), make_lane()
    assert lane.collect(lane.submit(order(model, []))) == []
    assert model.batches == []


def test_what_arrives_while_the_model_is_busy_shares_a_batch():
    """One of each caller in turn, so that a long list keeps nobody waiting."""
    model, lane = Model(free=False), make_lane()
    hold(lane, model)
    many = lane.submit(order(model, range(100, 108)))
    lone = lane.submit(order(model, [1]))
    other = lane.submit(order(model, [2], key="b"))
    model.allowed.release(20)
    assert (lane.collect(lone), lane.collect(other)) == ([2], [4])
    assert lane.collect(many) == [2 * number for number in range(100, 108)]
    assert model.batches == [[0], [100, 1, 101, 102], [2], [103, 104, 105, 106], [107]]


def test_an_order_that_nobody_waits_for_is_not_begun():
    """Who leaves takes its inputs along; who is out of time is out of the queue."""
    model, lane, clock = Model(free=False), make_lane(), FakeClock()
    hold(lane, model)
    left = lane.submit(order(model, [1]))
    late = lane.submit(order(model, [2], timeout_s=5, clock=clock))
    kept = lane.submit(order(model, [3]))
    lane.leave(left)
    clock.advance(6)
    model.allowed.release(20)
    assert lane.collect(kept) == [6]
    assert late.done.wait(20)
    assert isinstance(late.error, TimedOutError)
    assert model.batches == [[0], [3]]


def test_a_batch_hears_which_rows_are_still_wanted():
    """So that a long generation can stop when everybody has gone."""
    model, lane = Model(free=False), make_lane()
    hold(lane, model)
    leaving, staying = lane.submit(order(model, [1])), lane.submit(order(model, [2]))
    model.allowed.release()
    assert model.begun.acquire(timeout=20)
    lane.leave(leaving)
    model.allowed.release()
    assert lane.collect(staying) == [4]
    assert model.wanted[-1] == [False, True]


def test_what_was_cut_off_by_the_clock_is_no_result():
    """Not even for a caller who looks late; the others of the batch have theirs."""
    clock, lane = FakeClock(), make_lane()

    def write(_inputs, wanted):
        clock.advance(6)
        return ["whole" if each else "cut off" for each in wanted()]

    model = Model(free=False)
    hold(lane, model)
    short, long = (
        lane.submit(Order(key="a", run=write, inputs=[1], time=Countdown(timeout_s, clock=clock)))
        for timeout_s in (5, 50)
    )
    model.allowed.release(20)
    assert lane.collect(long) == ["whole"]
    assert short.done.wait(20)
    assert isinstance(short.error, TimedOutError)
    assert short.results == [None]


def test_who_waits_too_long_hears_why():
    """Busy with others, or begun and not finished."""
    model, lane = Model(free=False), make_lane()
    first = lane.submit(order(model, [0], timeout_s=0.05))
    assert model.begun.acquire(timeout=20)
    with pytest.raises(OverloadedError, match="busy"):
        lane.collect(lane.submit(order(model, [1], timeout_s=0.02)))
    with pytest.raises(TimedOutError, match="not finished"):
        lane.collect(first)
    model.allowed.release(20)


def test_a_full_queue_refuses():
    """At once, so that another rung can answer."""
    model, lane = Model(free=False), make_lane(max_waiting=4)
    first = hold(lane, model)
    waiting = lane.submit(order(model, range(6)))  # one caller alone may bring more
    with pytest.raises(OverloadedError, match="6 inputs of others wait") as caught:
        lane.submit(order(model, [1]))
    assert caught.value.code == "queue_full"
    assert lane.waiting == 6
    model.allowed.release(20)
    lane.collect(first)
    lane.collect(waiting)
    assert lane.waiting == 0
    assert lane.collect(lane.submit(order(model, [5]))) == [10]


def test_a_caller_is_not_in_their_own_way():
    """A list that comes in several orders fills no queue for itself, however short that is; for others it does."""
    model, lane, time = Model(free=False), make_lane(max_waiting=1), Countdown(20, clock=SYSTEM_CLOCK)
    hold(lane, model)
    orders = [
        lane.submit(Order(key=key, run=model.run, inputs=[1, 2, 3], time=time)) for key in ("tall", "wide", "tall")
    ]
    with pytest.raises(OverloadedError, match="9 inputs of others wait"):
        lane.submit(order(model, [7]))
    model.allowed.release(20)
    assert [lane.collect(each) for each in orders] == [[2, 4, 6]] * 3


class Slow:
    """A lane that was measured: its batches take so many seconds by themselves, and so many more for each input.

    Args:
        batch_s: By themselves.
        each_s: For each input.
        inputs: How many a batch had when it was measured.
        cold_s: What the first batch of the thread takes besides.
    """

    def __init__(self, *, batch_s, each_s=0.0, inputs=1, cold_s=0.0):
        self.gate = threading.Event()
        self.lane = make_lane(idle_s=30)
        self.seconds = cold_s

        def run(inputs, _wanted):
            time.sleep(self.seconds + batch_s + each_s * len(inputs))
            self.seconds = 0.0
            return inputs

        for _ in range(3):
            self.lane.collect(self.ask(inputs, run=run))
        begun = threading.Event()
        self.ask(1, run=lambda inputs, _wanted: (begun.set(), self.gate.wait(20), inputs)[2], key="held")
        assert begun.wait(20)

    def ask(self, inputs, *, run=lambda inputs, _wanted: inputs, key="a", timeout_s=20.0):
        """Submit an order of so many inputs."""
        time = Countdown(timeout_s, clock=SYSTEM_CLOCK)
        return self.lane.submit(Order(key=key, run=run, inputs=list(range(inputs)), time=time))


@pytest.fixture
def slow():
    """A maker of lanes that are busy and were measured; they go on afterwards."""
    made = []

    def make(**seconds):
        made.append(Slow(**seconds))
        return made[-1]

    yield make
    for each in made:
        each.gate.set()
        each.lane.close()


def test_who_would_certainly_come_too_late_is_refused_at_once(slow):
    """By what batches have lately taken."""
    busy = slow(batch_s=0.1, inputs=4)
    for _ in range(12):
        busy.ask(1)
    with pytest.raises(OverloadedError, match="work for") as caught:
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
    model, lane, freed = Model(), None, []

    def short(count):
        return OverloadedError("too little", code="out_of_memory") if count > 2 else None

    class Tight(Model):
        def run(self, inputs, wanted):
            if (error := short(len(inputs))) is not None:
                self.batches.append(list(inputs))
                raise error
            return super().run(inputs, wanted)

    model = Tight()
    lane = make_lane(free=lambda: freed.append(1))
    with caplog.at_level(logging.WARNING, logger="vision_backends"):
        assert lane.collect(lane.submit(order(model, range(6)))) == [0, 2, 4, 6, 8, 10]
    assert model.batches == [[0, 1, 2, 3], [0, 1], [2, 3], [4, 5]]
    assert lane.max_batch == 2
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

    lane = make_lane(free=lambda: kept.append([each() for each in computed if each() is not None]))
    wish = order(Model(), range(4))
    wish.run = run
    with pytest.raises(OverloadedError, match="too little") as caught:
        lane.collect(lane.submit(wish))
    assert caught.value.__cause__ is not None
    assert len(kept) > 3
    assert not any(kept)
    assert not any(each() for each in computed)


def test_one_input_that_does_not_fit_is_an_error():
    """There is nothing to halve."""
    model, lane = Model(), make_lane()
    model.refused[7] = lambda _count: OverloadedError("too little", code="out_of_memory")
    with pytest.raises(OverloadedError, match="too little"):
        lane.collect(lane.submit(order(model, [7])))
    assert lane.collect(lane.submit(order(model, [1]))) == [2]


@pytest.mark.parametrize("raised", [InvalidReplyError, ValueError, MemoryError])
def test_a_failure_hurts_only_its_own_caller(raised):
    """The others of the batch are run again without it; the model goes on."""
    model, lane = Model(free=False), make_lane()
    model.refused[666] = lambda _count: raised("no")
    hold(lane, model)
    bad, good = lane.submit(order(model, [666])), lane.submit(order(model, [1]))
    model.allowed.release(20)
    assert lane.collect(good) == [2]
    with pytest.raises(InvalidReplyError if raised is InvalidReplyError else UnavailableError, match="no"):
        lane.collect(bad)
    assert lane.collect(lane.submit(order(model, [5]))) == [10]


def test_a_model_that_loses_results_is_a_failure_and_not_the_end():
    """Whoever waited hears of it, and the next caller is served."""
    model, lane = Model(), make_lane()
    short = order(model, [1, 2])
    short.run = lambda inputs, _wanted: [0] * (len(inputs) - 1)
    with pytest.raises(UnavailableError, match="ValueError"):
        lane.collect(lane.submit(short))
    assert lane.collect(lane.submit(order(model, [5]))) == [10]


def test_a_thread_that_cannot_begin_fails_its_callers_and_not_the_lane():
    """They hear of it at once, and the next one is served."""
    refusals = [RuntimeError("can't start new thread")]

    def begin():
        if refusals:
            raise refusals.pop()

    model, lane = Model(), make_lane(begin=begin)
    with pytest.raises(OverloadedError, match="can't start new thread"):
        lane.collect(lane.submit(order(model, [1])))
    assert lane.waiting == 0
    assert lane.collect(lane.submit(order(model, [2]))) == [4]


def test_the_thread_ends_when_nothing_is_left_to_do():
    """And a later caller gets a new one."""
    model, lane = Model(), make_lane(idle_s=30)
    assert lane.collect(lane.submit(order(model, [1]))) == [2]
    assert lane._thread.daemon
    lane.close()
    wait_until(lambda: lane._thread is None)
    assert lane.collect(lane.submit(order(model, [2]))) == [4]
    wait_until(lambda: lane._thread is None)


def test_the_end_of_the_interpreter_lets_nothing_begin():
    """The batch that runs is told and awaited; what waits or still comes fails, and no daemon thread is cut off."""
    program = """
import threading, time
from vision_backends.backends.shutdown import awaited_at_exit
from vision_backends.backends.local.runtime.micro_batcher import Lane, Order
from vision_backends.clock import SYSTEM_CLOCK, Countdown

def run(inputs, wanted):
    print("begun", inputs, flush=True)
    while any(wanted()):
        time.sleep(0.01)
    print("told", flush=True)
    return inputs

def submit(number):
    return lane.submit(Order(key=1, run=run, inputs=[number], time=Countdown(600, clock=SYSTEM_CLOCK)))

def call():
    with awaited_at_exit(30):
        for number in range(3):
            try:
                lane.collect(submit(number))
            except Exception as error:
                print(type(error).__name__, error.code, flush=True)

lane = Lane("the model", max_batch=1, max_waiting=64)
threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
others = [submit(7), submit(8)]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.splitlines()
    assert said[:1] == ["begun [0]"]
    assert "told" in said
    assert set(said[1:]) <= {"told", "NotReadyError ending"}
    assert done.stderr == ""


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), min_size=1, max_size=12))
def test_everybody_gets_their_own_results(wishes):
    """Whatever others ask at the same time; no batch mixes keys or is too large."""
    model, lane = Model(), make_lane(max_waiting=1000)
    keys, answers = {}, {}
    orders = []
    for number, (count, key) in enumerate(wishes):
        inputs = [1000 * number + place for place in range(count)]
        keys.update(dict.fromkeys(inputs, key))
        answers[number] = [2 * each for each in inputs]
        orders.append(order(model, inputs, key=key))
    for each in orders:
        lane.submit(each)
    assert {number: lane.collect(each) for number, each in enumerate(orders)} == answers
    assert all(len(batch) <= 4 and len({keys[each] for each in batch}) == 1 for batch in model.batches)


def wait_until(happens):
    """Return when something has happened."""
    pause = threading.Event()
    for _ in range(1000):
        if happens():
            return
        pause.wait(0.01)
    raise AssertionError("it has not happened within 10 s")
