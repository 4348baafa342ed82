"""Items are worked on beside the event loop, a few at once, as long as somebody waits for them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from answering import answer

from vision_backends.backends.local.runtime.parallel_map import THREADS, ParallelMap, compute
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.errors import TimedOutError
from vision_backends.testing import FakeClock


async def results(function, items, *, deadline=None):
    """Return what a function makes of items."""
    return await ParallelMap(function, items, deadline=deadline or Deadline(SYSTEM_CLOCK, 20)).results()


def test_results_are_in_order():
    """Whichever is done first; of nothing comes nothing."""
    pauses_s = [0.02, 0.0, 0.01, 0.0, 0.03]
    assert answer(results, lambda each: (time.sleep(each), each)[1], pauses_s) == pauses_s
    assert answer(results, str, []) == []


def test_a_few_threads_work_for_one_caller_and_none_is_the_loops():
    """The others are for other callers."""
    seen, running, most = set(), [], []

    def work(_item):
        seen.add(threading.current_thread().name)
        running.append(1)
        most.append(len(running))
        time.sleep(0.005)
        running.pop()

    answer(results, work, range(20))
    assert max(most) <= THREADS
    assert seen == {"vision-compute"}


def test_a_failure_ends_the_rest():
    """It is raised as it is, and what has not begun is not begun."""
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.005)
        raise LookupError(item)

    with pytest.raises(LookupError):
        answer(results, work, range(100))
    assert len(begun) <= THREADS


def test_whoever_is_cancelled_leaves_the_rest_undone():
    """What has begun ends alone, and other callers are served meanwhile."""
    begun, allowed = threading.Semaphore(0), threading.Event()

    def work(item):
        begun.release()
        assert allowed.wait(20)
        return item

    async def ask():
        waiting = asyncio.create_task(results(work, range(100)))
        await asyncio.to_thread(begun.acquire)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other = asyncio.create_task(compute(lambda: "served", deadline=Deadline(SYSTEM_CLOCK, 20)))
        allowed.set()
        return await other

    assert answer(ask) == "served"
    assert sum(begun.acquire(blocking=False) for _ in range(100)) < THREADS


@pytest.mark.parametrize("late", ["before", "while"])
def test_time_that_is_over_is_an_error(late):
    """Before the work begins or while it runs; nobody waits for it to end."""
    clock, ended = FakeClock(), threading.Event()
    deadline = Deadline(clock, 5)

    def work(_item):
        clock.advance(6)
        ended.wait(20)

    if late == "before":
        clock.advance(6)
    with pytest.raises(TimedOutError):
        answer(results, work, [1], deadline=deadline)
    ended.set()


def test_a_long_list_lets_others_have_their_turn():
    """One item of another caller does not wait for all of them."""
    done = []

    async def ask():
        many = asyncio.create_task(results(lambda item: (time.sleep(0.005), done.append(item)), range(200)))
        await asyncio.sleep(0.02)
        await compute(lambda: None, deadline=Deadline(SYSTEM_CLOCK, 20))
        so_far = len(done)
        many.cancel()
        return so_far

    assert answer(ask) < 100
