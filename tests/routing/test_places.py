"""How many calls of one list are under way at a rung."""

from __future__ import annotations

import asyncio
import threading

import pytest
from PIL import Image as PILImage

from vision_backends import OverloadedError, RateLimitedError, Router, UnavailableError
from vision_backends.backends.requests import RateLimits
from vision_backends.health.budgets import Limits
from vision_backends.routing.places import FIRST_PLACES, Places
from vision_backends.testing import FakeBackend

MOST = 32


async def answer(places: Places, *, after_s: float, limits: RateLimits | None = None) -> None:
    """Have one call answered, while as many others as there are places are under way."""
    others = [await places.take() for _ in range(places.limit - 1)]
    with await places.take() as place:
        place.answered_after_s, place.limits = after_s, limits
    for other in others:
        places.leave(other)


async def limits_after(places: Places, *durations: float) -> list[int]:
    """Return how many places there are after each of some answers."""
    found = []
    for seconds in durations:
        await answer(places, after_s=seconds)
        found.append(places.limit)
    return found


def test_the_first_call_goes_alone():
    """Should the backend be dead, one request has found that out."""

    async def trial() -> None:
        places = Places(MOST, grows=True)
        first = await places.take()
        second = asyncio.create_task(places.take())
        await asyncio.sleep(0)
        assert not second.done()
        places.leave(first)
        await second
        assert places.limit == FIRST_PLACES

    asyncio.run(trial())


@pytest.mark.parametrize(("most", "first"), [(1, 1), (4, 4), (MOST, FIRST_PLACES)])
def test_there_are_never_more_than_the_backend_takes(most: int, first: int):
    """However fast it answers."""

    async def trial() -> None:
        places = Places(most, grows=True)
        assert (await limits_after(places, *[0.1] * 100))[0] == first
        assert places.limit == most

    asyncio.run(trial())


def test_a_backend_of_this_machine_has_all_its_places_at_once():
    """Nobody else uses it, and it says itself how many calls it works at."""

    async def trial() -> None:
        places = Places(MOST, grows=False)
        assert await limits_after(places, 0.1, 5.0) == [MOST, MOST]

    asyncio.run(trial())


def test_places_grow_while_answers_are_as_fast_and_shrink_when_they_are_not():
    """One for each answer: doubled within the time of one call."""

    async def trial() -> None:
        places = Places(MOST, grows=True)
        grown = await limits_after(places, 0.1, *[0.1] * 9)
        assert grown == [8, *range(9, 18)]
        before = places.limit
        slower = await limits_after(places, *[0.2] * 20)
        assert before <= slower[5] == slower[-1] < MOST  # as soon as the mean says so
        much_slower = await limits_after(places, *[2.0] * 40)
        assert much_slower[-1] == FIRST_PLACES

    asyncio.run(trial())


@pytest.mark.parametrize("error", [RateLimitedError("Slow down."), OverloadedError("Too many.")])
def test_trouble_halves_the_places(error: RateLimitedError | OverloadedError):
    """As the health of the rung does for everybody."""

    async def trial() -> None:
        places = Places(MOST, grows=True)
        await limits_after(places, *[0.1] * 60)
        taken = [await places.take() for _ in range(20)]
        taken[0].error = error
        places.leave(taken[0])
        assert places.limit == 10
        waiting = asyncio.create_task(places.take())
        for place in taken[1:10]:
            places.leave(place)
        await asyncio.sleep(0)
        assert not waiting.done()  # eleven are still under way
        for place in taken[10:12]:
            places.leave(place)
        await waiting

    asyncio.run(trial())


def test_any_other_failure_leaves_them_as_they_are():
    """The circuit breaker decides about those."""

    async def trial() -> None:
        places = Places(MOST, grows=True)
        await limits_after(places, 0.1, 0.1)
        before = places.limit
        with await places.take() as place:
            place.error = UnavailableError("It is down.")
        assert places.limit == before

    asyncio.run(trial())


def test_they_grow_no_further_than_the_server_has_requests_left():
    """Its replies say how many."""

    async def trial() -> None:
        places = Places(MOST, grows=True)
        for _ in range(30):
            await answer(places, after_s=0.1, limits=RateLimits(remaining_requests=12))
        assert places.limit == 12

    asyncio.run(trial())


def test_a_ceiling_holds_at_once():
    """That of a server which was overloaded by others."""

    async def trial() -> None:
        ceiling = [None]
        places = Places(MOST, grows=True, ceiling=lambda: ceiling[0])
        await limits_after(places, 0.1)
        ceiling[0] = 3
        assert places.limit == 3
        ceiling[0] = 0
        assert places.limit == 1

    asyncio.run(trial())


def test_a_call_that_is_cancelled_while_it_waits_takes_no_place():
    """Neither before its turn nor in the very moment of it."""

    async def trial() -> None:
        places = Places(1, grows=False)
        first = await places.take()
        early, late, last = (asyncio.create_task(places.take()) for _ in range(3))
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.sleep(0)
        places.leave(first)  # late has its turn, and is cancelled before it runs
        late.cancel()
        await asyncio.wait([early, late])
        assert early.cancelled()
        assert late.cancelled()
        places.leave(await asyncio.wait_for(last, 5))
        await asyncio.wait_for(places.take(), 5)

    asyncio.run(trial())


def test_a_slow_input_holds_up_no_other_of_its_list():
    """While one is waited for, all the others are answered; there are no batches that wait for their slowest."""
    seen: list[int] = []
    released = threading.Event()

    class Slow(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            if images[0].width == 3:
                for _ in range(1_000):
                    if len(seen) >= 99:
                        break
                    released.wait(0.01)
            seen.append(images[0].width)
            return super().describe(images, request, timeout_s=timeout_s)

    with Router([Slow(concurrency=4)], caching=False) as router:
        answers = router.describe_many([PILImage.new("RGB", (width, 4)) for width in range(1, 101)], deadline_s=60)
    assert len(answers) == 100
    assert seen.index(3) > 50  # MOST_OPEN less what is under way


def test_a_list_keeps_to_the_users_limit_of_concurrent_calls():
    """Instead of degrading what would have been one too many."""
    best = FakeBackend("best", concurrency=16)
    best.play(*[0.01] * 40)
    limits = {"best": Limits(max_concurrency=3)}
    with Router([best, FakeBackend("spare")], caching=False, limits=limits) as router:
        answers = router.describe_many([PILImage.new("RGB", (width, 4)) for width in range(1, 41)])
    assert {answer.trace.backend for answer in answers} == {"best"}
