"""Asking the next rung while the better one still thinks."""

import asyncio
import threading

import pytest
from PIL import Image as PILImage

from vision_backends import InvalidRequestError, Router, UnavailableError, Usage
from vision_backends.routing.call import Item
from vision_backends.routing.hedging import Hedges
from vision_backends.testing import FakeBackend, FakeClock
from vision_backends.types import Description

IMAGE = PILImage.new("RGB", (64, 48), "teal")
COST = Usage(input_tokens=5, output_tokens=1, cost_usd=0.25)


class Waiting:
    """A clock whose sleep lasts until the test says so."""

    def __init__(self):
        self.over = threading.Event()

    def sleep(self, _seconds):
        """Sleep for as long as the test wants."""
        self.over.wait(10)


@pytest.fixture
def pair():
    """A slow rung above a quick one, with enough calls behind them for a hedge."""
    clock = Waiting()
    slow = FakeBackend("slow", local=False, clock=clock, usage=COST)
    quick = FakeBackend("quick")
    with Router([slow, quick], hedge_after_s=0.02, caching=False) as router:
        for _ in range(20):
            router.describe(IMAGE)
        yield router, slow, quick, clock
        clock.over.set()


def test_a_rung_that_thinks_too_long_is_overtaken(pair):
    """The trace says that it was asked and by whom it was overtaken."""
    router, slow, quick, _clock = pair
    slow.play(60.0)
    answer = router.describe(IMAGE)
    assert answer.trace.backend == "quick"
    assert answer.trace.degraded
    assert [attempt.error for attempt in answer.trace.attempts] == ["hedged", None]
    assert answer.trace.usage.cost_usd is None
    assert len(quick.calls) == 1


def test_what_the_overtaken_rung_has_cost_is_booked(pair):
    """When it comes home at last."""
    router, slow, _quick, clock = pair
    slow.play(60.0)
    router.describe(IMAGE)
    before = sum(row.cost_usd or 0 for row in router.ledger())
    clock.over.set()
    for _ in range(1000):
        if sum(row.cost_usd or 0 for row in router.ledger()) > before:
            break
        threading.Event().wait(0.002)
    assert sum(row.cost_usd or 0 for row in router.ledger()) == before + 0.25


def test_the_better_answer_is_preferred_when_both_are_there(pair):
    """The next rung was asked, but the better one came home first."""
    router, slow, quick, clock = pair

    class Releasing(Waiting):
        def sleep(self, _seconds):
            clock.over.set()
            threading.Event().wait(0.05)

    quick._clock = Releasing()
    quick.play(1.0)
    slow.play(60.0)
    answer = router.describe(IMAGE)
    assert answer.trace.backend == "slow"
    assert {attempt.backend for attempt in answer.trace.attempts} == {"slow", "quick"}


def test_of_two_answers_at_the_same_moment_the_better_one_counts():
    """Whichever rung was the first by a hair's breadth."""

    async def race():
        both, hedges, clock, item = asyncio.Event(), Hedges(1.0), FakeClock(), Item(source="text")

        async def better(twin):
            clock.advance(1.0)
            await both.wait()
            twin.answer = Description(text="The better one's.")

        async def worse(twin):
            both.set()
            twin.answer = Description(text="The worse one's.")

        for _ in range(20):
            hedges.after_s(1.0)
        assert await hedges.race(item, better, worse, after_s=1.0, clock=clock)
        return item.answer

    assert str(asyncio.run(race())) == "The better one's."


def test_a_bug_of_a_leg_is_no_missing_answer():
    """It is raised, for nobody would find it otherwise."""

    async def broken(_twin):
        raise ZeroDivisionError

    async def race():
        await Hedges(1.0).race(Item(source="text"), broken, broken, after_s=1.0, clock=FakeClock())

    with pytest.raises(ZeroDivisionError):
        asyncio.run(race())


def test_without_another_answer_the_slow_one_is_waited_for(pair):
    """A hedge that fails costs nothing but the try."""
    router, slow, quick, clock = pair
    slow.play(60.0)
    quick.play(UnavailableError("It is down."))
    threading.Timer(0.06, clock.over.set).start()
    assert router.describe(IMAGE).trace.backend == "slow"


def test_progress_counts_a_hedged_image_once(pair):
    """Whichever rung has answered."""
    router, slow, _quick, _clock = pair
    seen = []
    slow.play(60.0)
    router.describe_many([IMAGE], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]


def test_at_most_one_call_in_twenty_is_hedged():
    """However slow the better rung is."""
    hedges = Hedges(1.0)
    hedged = 0
    for _ in range(1000):
        hedges.after_s(0.5)
        hedged += hedges.withdraw()
    assert hedged == 50


def test_a_hedge_after_the_95th_percentile_waits_that_long():
    """And one after a number of seconds waits those."""
    assert Hedges("p95").after_s(0.7) == 0.7
    assert Hedges(0.2).after_s(0.7) == 0.2
    assert not Hedges(None).wanted


@pytest.mark.parametrize("after", [0, -1, "p99", float("nan")])
def test_a_time_without_a_meaning_is_refused(after):
    """The message names it."""
    with pytest.raises(InvalidRequestError, match="hedge_after_s"):
        Router([FakeBackend()], hedge_after_s=after)


def test_a_quick_answer_is_not_hedged(pair):
    """And the next rung never hears of it."""
    router, _slow, quick, _clock = pair
    assert router.describe(IMAGE).trace.backend == "slow"
    assert quick.calls == []
