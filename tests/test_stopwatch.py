"""Seconds are counted for the part that they were spent on, and for nobody else."""

from __future__ import annotations

import asyncio
from threading import Thread

import pytest

from vision_backends.clock import Stopwatch, measured
from vision_backends.engine.pools import Pool
from vision_backends.testing import FakeClock
from vision_backends.types import Timing


@pytest.fixture
def clock():
    """A clock that only moves when told to."""
    return FakeClock()


@pytest.fixture
def watch(clock):
    """A stopwatch that has measured nothing."""
    return Stopwatch(clock=clock)


def test_what_is_measured_adds_up_by_part(watch, clock):
    """What nobody measures is unknown, and what lies between counts nowhere."""

    @measured("model")
    def compute():
        clock.advance(2)
        return "done"

    with watch.running():
        with measured("decode"):
            clock.advance(1)
        clock.advance(10)
        assert [compute(), compute()] == ["done", "done"]
    assert watch.timing == Timing(decode_s=1, model_s=4)


def test_a_block_that_fails_counts_as_well(watch, clock):
    """A refused request was on the wire all the same."""

    @measured("wire")
    def send():
        clock.advance(3)
        raise OSError("cut")

    with watch.running(), pytest.raises(OSError, match="cut"):
        send()
    assert watch.timing == Timing(wire_s=3)


def test_nothing_is_counted_once_it_has_stopped(watch, clock):
    """Nor in a thread that has no stopwatch running."""

    def compute():
        with measured("model"):
            clock.advance(1)

    with watch.running():
        thread = Thread(target=compute)
        thread.start()
        thread.join()
    compute()
    assert watch.timing == Timing()


def test_an_inner_stopwatch_hides_the_outer_one(clock):
    """Whoever is asked on the way measures for himself."""
    outer, inner = Stopwatch(clock=clock), Stopwatch(clock=clock)
    with outer.running():
        with inner.running(), measured("model"):
            clock.advance(1)
        with measured("model"):
            clock.advance(2)
    assert (outer.timing, inner.timing) == (Timing(model_s=2), Timing(model_s=1))


def test_a_coroutine_is_measured_from_its_first_step_to_its_last(watch, clock):
    """Also in the threads of a pool that work for it."""
    pool = Pool("test", size=1)

    @measured("decode")
    def encode():
        clock.advance(1)

    async def send():
        with watch.running(), measured("wire"):
            clock.advance(2)
            await pool.start(encode)
            clock.advance(4)

    asyncio.run(send())
    pool.close()
    assert watch.timing == Timing(decode_s=1, wire_s=7)


def test_of_a_generator_only_its_own_time_counts(watch, clock):
    """Whoever takes the pieces may take all day."""

    async def pieces():
        clock.advance(1)
        yield "a"
        clock.advance(2)
        yield "b"
        clock.advance(4)

    async def take():
        async for piece in watch.follow(pieces(), "wire"):
            taken.append(piece)
            clock.advance(100)

    taken = []
    asyncio.run(take())
    assert (taken, watch.timing) == (["a", "b"], Timing(wire_s=7))


def test_a_generator_that_nobody_follows_any_more_is_closed(watch):
    """It holds a connection."""
    closed = []

    async def pieces():
        try:
            yield "a"
        finally:
            closed.append(True)

    async def leave():
        followed = watch.follow(pieces(), "wire")
        await anext(followed)
        await followed.aclose()

    asyncio.run(leave())
    assert closed == [True]
