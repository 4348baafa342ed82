"""Deadlines, and the threads that keep them."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.clock import Deadline
from vision_backends.errors import OverloadedError, TimedOutError
from vision_backends.routing.workers import Workers
from vision_backends.testing import FakeClock

NAME = contextvars.ContextVar("NAME", default="nobody")


@pytest.fixture
def workers():
    """Workers that are sent home when the test ends."""
    made = Workers()
    yield made
    made.close()


def threads():
    """The worker threads that live now."""
    return [thread for thread in threading.enumerate() if thread.name == "vision-worker"]


def wait_until(condition):
    """Give other threads a moment."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_deadline_runs_down_and_stays_at_nothing():
    """Never less."""
    clock = FakeClock()
    deadline = Deadline(clock, 10)
    clock.advance(4)
    assert (deadline.remaining_s, deadline.expired) == (6, False)
    clock.advance(7)
    assert (deadline.remaining_s, deadline.expired) == (0, True)


@pytest.mark.parametrize(("reserve_s", "share_s"), [(0, 60), (10, 50), (30, 30), (45, 30), (1000, 30)])
def test_a_rung_gets_what_those_below_do_not_need_but_at_least_half(reserve_s, share_s):
    """However slow they are."""
    assert Deadline(FakeClock(), 60).share(reserve_s) == share_s


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 2e4))
def test_a_share_is_never_more_than_what_is_left(timeout_s, reserve_s, passed_s):
    """Nor less than nothing."""
    clock = FakeClock()
    deadline = Deadline(clock, timeout_s)
    clock.advance(passed_s)
    assert 0 <= deadline.share(reserve_s) <= deadline.remaining_s


def test_a_call_returns_what_it_returns_and_raises_what_it_raises(workers):
    """As if there were no thread in between."""
    assert workers.run_within(lambda: 42, 5) == 42
    with pytest.raises(LookupError, match="gone"):
        workers.run_within(lambda: (_ for _ in ()).throw(LookupError("gone")), 5)


def test_a_call_sees_the_callers_context(workers):
    """Tracing goes on in the thread."""
    NAME.set("caller")
    assert workers.run_within(NAME.get, 5) == "caller"


def test_one_thread_is_used_again_and_again(workers):
    """Each call finds the last one's thread idle."""
    assert len({workers.run_within(threading.get_ident, 5) for _ in range(50)}) == 1


def test_callers_at_the_same_time_have_threads_of_their_own(workers):
    """None waits for another."""
    meet = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: workers.run_within(lambda: meet.wait(5), 5), range(8)))


def test_a_slow_call_is_left_alone_and_its_late_answer_handed_on(workers):
    """It was paid for. The thread works again afterwards."""
    release, late = threading.Event(), queue.SimpleQueue()

    def slow():
        release.wait(5)
        return threading.get_ident(), NAME.get()

    NAME.set("caller")
    with pytest.raises(TimedOutError, match=r"No answer within 0.002 s."):
        workers.run_within(slow, 0.002, on_late=lambda answer: late.put((answer, NAME.get())))
    release.set()
    (thread, name), name_of_listener = late.get(timeout=5)
    assert name == name_of_listener == "caller"
    wait_until(lambda: workers.run_within(threading.get_ident, 5) == thread)


def test_a_slow_call_that_fails_late_hurts_nobody(workers):
    """There is no answer to hand on, and trouble of the listener is its own."""
    release, heard, done = threading.Event(), [], threading.Semaphore(0)

    def fail():
        release.wait(5)
        done.release()
        raise LookupError

    def answer():
        release.wait(5)
        return "late"

    def stumble(result):
        heard.append(result)
        done.release()
        raise LookupError

    for call in (fail, answer):
        with pytest.raises(TimedOutError):
            workers.run_within(call, 0.001, on_late=stumble)
    release.set()
    assert all(done.acquire(timeout=5) for _ in range(2))
    assert heard == ["late"]
    assert workers.run_within(lambda: 1, 5) == 1


def test_a_fake_clock_makes_an_answer_late_without_waiting():
    """The scripted backend "took" 30 s; the answer is handed on all the same."""
    clock, late = FakeClock(), []
    workers = Workers(clock=clock)
    with pytest.raises(TimedOutError):
        workers.run_within(lambda: clock.sleep(30) or "late", 20, on_late=late.append)
    assert late == ["late"]
    assert workers.run_within(lambda: clock.sleep(20) or "in time", 20) == "in time"
    with pytest.raises(LookupError):
        workers.run_within(lambda: clock.sleep(30) or {}["error"], 20)
    workers.close()


def test_too_many_stuck_calls_are_an_overload():
    """Threads are not started without end; when the calls come back, there is room again."""
    workers, release = Workers(max_stuck=3), threading.Event()
    for _ in range(3):
        with pytest.raises(TimedOutError):
            workers.run_within(lambda: release.wait(5), 0.001)
    with pytest.raises(OverloadedError, match="3 earlier calls have not come back"):
        workers.run_within(lambda: 1, 5)
    release.set()
    wait_until(lambda: workers._crew.stuck == 0)
    assert workers.run_within(lambda: 1, 5) == 1
    workers.close()


def test_a_system_without_room_for_threads_is_an_overload(workers):
    """Nothing is left half done: once there is room, calls go on."""
    usual = threading.stack_size(1 << 46)
    try:
        with pytest.raises(OverloadedError, match="starts no more threads"):
            workers.run_within(lambda: 1, 5)
    finally:
        threading.stack_size(usual)
    assert workers.run_within(lambda: 1, 5) == 1


def test_a_call_that_ends_by_itself_can_run_in_the_callers_thread():
    """Late is late there too, and what comes late is handed on."""
    clock, late = FakeClock(), []
    workers = Workers(clock=clock)
    assert workers.run_here(threading.get_ident, 5) == threading.get_ident()
    for on_late in (late.append, None):
        with pytest.raises(TimedOutError):
            workers.run_here(lambda: clock.sleep(30) or "late", 20, on_late=on_late)
    assert late == ["late"]
    with pytest.raises(LookupError):
        workers.run_here(lambda: {}["error"], 20)


def test_closing_ends_idle_threads_now_and_busy_ones_after_their_call():
    """Twice is harmless, and nobody is let in afterwards."""
    workers, release, before = Workers(), threading.Event(), len(threads())
    workers.run_within(lambda: 1, 5)
    with pytest.raises(TimedOutError):
        workers.run_within(lambda: release.wait(5), 0.001)
    workers.close()
    workers.close()
    release.set()
    wait_until(lambda: len(threads()) <= before)
    with pytest.raises(RuntimeError, match="closed"):
        workers.run_within(lambda: 1, 5)


def test_idle_threads_end_by_themselves():
    """A router that nobody closes leaves nothing behind."""
    before = len(threads())
    workers = Workers(idle_s=0.005)
    assert workers.run_within(lambda: 1, 5) == 1
    wait_until(lambda: len(threads()) <= before)
    assert workers.run_within(lambda: 2, 5) == 2


def test_handing_over_to_threads_that_are_about_to_end_loses_no_call():
    """They may find work in the very last moment."""
    workers = Workers(idle_s=0.0001)
    for number in range(300):
        assert workers.run_within(lambda number=number: number, 5) == number
        time.sleep(0.0001)
    workers.close()


def test_answers_at_the_very_last_moment_are_returned_or_handed_on():
    """Each exactly once: what the caller does not get, the listener does."""
    workers, late = Workers(), queue.SimpleQueue()
    returned = []
    for number in range(300):

        def call(number=number):
            time.sleep(0.001)
            return number

        with contextlib.suppress(TimedOutError):
            returned.append(workers.run_within(call, 0.00105, on_late=late.put))
    handed_on = [late.get(timeout=5) for _ in range(300 - len(returned))]
    assert sorted(returned + handed_on) == list(range(300))
    workers.close()


class Pixels:
    """Something large."""


def test_nothing_of_a_call_is_kept(workers):
    """Neither by an idle thread, nor by the traceback of an error."""
    gc.disable()
    try:
        pixels = Pixels()
        alive = weakref.ref(pixels)
        assert workers.run_within(lambda pixels=pixels: [pixels], 5) == [pixels]

        def fail(pixels=pixels):
            raise LookupError(repr(pixels))

        with pytest.raises(LookupError):
            workers.run_within(fail, 5)
        del pixels, fail
        wait_until(lambda: alive() is None)
    finally:
        gc.enable()


def test_an_interrupted_caller_stops_waiting_at_once():
    """Control-C in the main thread; the call's answer is handed on when it comes."""
    workers, release, late = Workers(), threading.Event(), queue.SimpleQueue()
    thread = threading.Timer(0.005, os.kill, args=(os.getpid(), signal.SIGINT))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        workers.run_within(lambda: release.wait(5), 5, on_late=late.put)
    release.set()
    assert late.get(timeout=5) is True
    thread.join()
    workers.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_interruption_just_as_the_answer_comes_leaves_nobody_waiting(workers):
    """Ctrl-C may meet the caller when it has taken the answer, but not yet looked at it; it is handed on then."""
    main = threading.main_thread().ident
    late = []

    def answer():
        signal.pthread_kill(main, signal.SIGINT)
        return "said"

    interrupted = 0
    for _ in range(500):
        try:
            workers.run_within(answer, 30, on_late=late.append)
            time.sleep(30)  # the signal is still to come
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 500
    assert set(late) <= {"said"}


def test_a_forked_child_has_workers_of_its_own(workers):
    """The parent's threads do not exist there."""
    assert workers.run_within(lambda: 1, 5) == 1

    def in_child():
        assert workers.run_within(lambda: 2, 5) == 2
        workers.close()

    closes_only = multiprocessing.get_context("fork").Process(target=workers.close)
    child = multiprocessing.get_context("fork").Process(target=in_child)
    for process in (child, closes_only):
        process.start()
        process.join(20)
        assert process.exitcode == 0
    assert workers.run_within(lambda: 3, 5) == 3


def test_a_stuck_call_does_not_hold_up_the_end_of_the_interpreter():
    """Its thread is a daemon."""
    program = (
        "import time\n"
        "from vision_backends.routing.workers import Workers\n"
        "try: Workers().run_within(lambda: time.sleep(600), 0.01)\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "No answer within 0.01 s.\n"
    assert done.stderr == ""
