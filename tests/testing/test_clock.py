"""The clock that tests move by hand."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vision_backends.testing import FakeClock


def test_time_stands_still_until_it_is_advanced():
    """Both clocks move by what is advanced, and by nothing else."""
    clock = FakeClock(start=1000.0)
    assert (clock.monotonic(), clock.time()) == (0.0, 1000.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (2.5, 1002.5)


def test_sleeping_advances_and_returns_at_once():
    """A sleeper of a minute takes no time."""
    clock = FakeClock()
    clock.sleep(60)
    assert clock.monotonic() == 60


def test_a_jump_moves_the_wall_clock_alone():
    """Somebody sets the clock; no time passes by that."""
    clock = FakeClock(start=1000.0)
    clock.jump(-300)
    assert (clock.monotonic(), clock.time()) == (0.0, 700.0)


def test_time_does_not_run_backwards():
    """A negative duration is a mistake in a test."""
    with pytest.raises(ValueError, match="backwards"):
        FakeClock().advance(-1)


def test_advances_of_many_threads_add_up():
    """No advance is lost."""
    clock = FakeClock()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(clock.advance, [1] * 400))
    assert clock.monotonic() == 400


def test_a_timer_fires_when_the_clock_has_passed_it():
    """And not before; no real time is waited for."""
    clock = FakeClock()

    async def run():
        async with clock.timeout_at(3600.0):
            clock.advance(3599)
            await asyncio.sleep(0.01)
            clock.advance(1)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert clock.monotonic() == 3600


@pytest.mark.parametrize("late_s", [0, 5])
def test_a_timer_of_the_past_fires_at_once(late_s):
    """As with asyncio: at the next await."""
    clock = FakeClock()
    clock.advance(late_s)

    async def run():
        async with clock.timeout_at(0.0):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def test_a_block_that_has_ended_leaves_no_timer():
    """Whether it ended well or not; a later advance concerns nobody."""
    clock = FakeClock()

    async def run():
        async with clock.timeout_at(5.0):
            assert clock.pending == [5.0]
        with pytest.raises(KeyError):
            async with clock.timeout_at(6.0):
                raise KeyError
        assert clock.pending == []
        clock.advance(10)
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_timers_fire_in_the_order_of_their_times():
    """Also those that one advance passes together, whatever the order they were set in."""
    clock, fired = FakeClock(), []

    async def wait(at):
        try:
            async with clock.timeout_at(at):
                await asyncio.sleep(60)
        except TimeoutError:
            fired.append(at)

    async def run():
        waiting = [asyncio.create_task(wait(at)) for at in (3.0, 1.0, 2.0)]
        await asyncio.sleep(0)
        assert clock.pending == [1.0, 2.0, 3.0]
        clock.advance(2.5)
        await asyncio.sleep(0.01)
        assert fired == [1.0, 2.0]
        clock.advance(0.5)
        await asyncio.gather(*waiting)

    asyncio.run(run())
    assert fired == [1.0, 2.0, 3.0]


def test_a_timer_fires_on_its_own_loop_when_another_thread_advances():
    """The test's thread moves the clock under a call that waits elsewhere."""
    clock = FakeClock()

    async def wait():
        async with clock.timeout_at(5.0):
            await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(asyncio.run, wait())
        clock.wait_for_timer()
        clock.advance(5)
        with pytest.raises(TimeoutError):
            call.result(timeout=10)


def test_a_timer_whose_loop_has_ended_concerns_nobody():
    """A loop that was closed under its tasks."""
    clock = FakeClock()
    loop = asyncio.new_event_loop()

    async def wait():
        async with clock.timeout_at(5.0):
            await asyncio.sleep(60)

    call = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert clock.pending == [5.0]
    clock.advance(5)
    assert clock.pending == []
    assert not call.done()


def test_waiting_for_a_timer_overlooks_those_that_are_due_later():
    """A call has a deadline long before its backend begins to wait."""
    clock = FakeClock()
    seen = []

    async def run():
        async with clock.timeout_at(60.0):
            seen.append(clock.pending)
            await asyncio.sleep(0.1)
            async with clock.timeout_at(5.0), clock.timeout_at(4.0):
                await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(asyncio.run, run())
        started = time.monotonic()
        clock.wait_for_timer(within_s=5, count=2)
        assert time.monotonic() - started < 4
        assert (seen, clock.pending) == ([[60.0]], [4.0, 5.0, 60.0])
        clock.advance(5)
        with pytest.raises(TimeoutError):
            call.result(timeout=10)


def test_waiting_for_a_timer_has_an_end():
    """The message says which timers there were."""
    clock = FakeClock()
    ended = threading.Event()

    async def wait():
        async with clock.timeout_at(60.0):
            await asyncio.to_thread(ended.wait, 10)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(asyncio.run, wait())
        clock.wait_for_timer()
        with pytest.raises(TimeoutError, match=r"within 5 s .*only in \[60\.0\] s"):
            clock.wait_for_timer(within_s=5, timeout_s=0.01)
        ended.set()
        call.result(timeout=10)
