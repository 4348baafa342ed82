"""Many calls ask the stores together, and each is told its own."""

import asyncio
import threading
import time

import pytest
from PIL import Image as PILImage

from vision_backends import AsyncRouter, Router
from vision_backends.engine.threads import Mailbox
from vision_backends.storage.bounded import StoreTime, is_over, shared_store_time, store_time, waited_for
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeBackend

MANY = 100


class OnDisk(MemoryStore):
    """One that may have to wait for its disk, and does while `answers` is not set."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()
        self.looks = []
        self.reads = 0
        self.delay_s = 0.0

    def get_many(self, keys):
        """Note how many were asked for together."""
        self.answers.wait(5)
        time.sleep(self.delay_s)
        self.looks.append(len(keys))
        kept = ((key, self.get(key)) for key in keys)
        return {key: value for key, value in kept if value is not None}

    def read(self, key):
        """Note that it was asked."""
        self.answers.wait(5)
        self.reads += 1
        return super().read(key)


def picture(width):
    """Return an image that its width tells apart."""
    return PILImage.new("RGB", (width, 8), "teal")


@pytest.fixture
def store():
    """A store that is asked in other threads."""
    return OnDisk()


async def ask(router, widths):
    """Return the answers about some pictures, asked for simultaneously."""
    return await asyncio.gather(*(router.describe(picture(width)) for width in widths))


def test_calls_that_come_together_ask_the_store_together(store):
    """A hundred of them a few times; each gets the answer to its own picture, fresh or kept."""

    async def twice():
        async with AsyncRouter(Router([FakeBackend(concurrency=MANY)], store=store)) as router:
            await router.describe(picture(1))
            looked, read = len(store.looks), store.reads
            first = await ask(router, range(1, MANY + 1))
            return looked, read, first, await ask(router, range(1, MANY + 1))

    looked, read, first, again = asyncio.run(twice())
    said = [f"fake says: {width}×8 px" for width in range(1, MANY + 1)]
    assert [str(answer) for answer in first] == [str(answer) for answer in again] == said
    assert [answer.trace.cached for answer in again] == [True] * MANY
    assert sum(store.looks[looked:]) >= 2 * MANY
    assert len(store.looks) - looked < MANY / 2
    assert store.reads - read < MANY / 2


def test_calls_of_different_kinds_are_told_what_they_asked_for(store):
    """Descriptions, vectors and objects, each from its own ladder and key."""

    async def all_kinds():
        ladder = {"describe": [FakeBackend("a")], "embed": [FakeBackend("b")], "detect": [FakeBackend("c")]}
        async with AsyncRouter(Router(ladder, store=store)) as router:
            photos = [picture(width) for width in range(1, 20)]
            calls = [ask(photo) for photo in photos for ask in (router.describe, router.embed, router.detect)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(all_kinds())
    assert [answer.trace.backend for answer in answers] == ["a", "b", "c"] * 19


def test_a_call_that_is_cancelled_leaves_the_others_their_answers(store):
    """Whether it was the one for which the store is asked, or waits for the next time."""

    async def cancel_some():
        async with AsyncRouter(Router([FakeBackend(concurrency=MANY)], store=store)) as router:
            await router.describe(picture(1))
            store.answers.clear()
            calls = [asyncio.create_task(router.describe(picture(width))) for width in range(1, 21)]
            await asyncio.sleep(0.02)
            for call in calls[::2]:
                call.cancel()
            store.answers.set()
            return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(cancel_some())
    assert [str(each) for each in outcomes[1::2]] == [f"fake says: {width}×8 px" for width in range(2, 21, 2)]
    assert all(isinstance(each, asyncio.CancelledError) for each in outcomes[::2])


def test_a_store_that_hangs_holds_all_of_them_up_once(store):
    """None of them for longer than a single call would be, one after the other or not."""

    async def while_it_hangs():
        async with AsyncRouter(Router([FakeBackend(concurrency=MANY)], store=store)) as router:
            await router.describe(picture(1))
            store.answers.clear()
            started = time.monotonic()
            answers = await ask(router, range(2, MANY))
            seconds = time.monotonic() - started
            store.answers.set()
            return answers, seconds

    answers, seconds = asyncio.run(while_it_hangs())
    assert len(answers) == MANY - 2
    assert seconds < 4  # each of them waiting for itself would be 50 ms times 98


@pytest.mark.usefixtures("patient_calls")
def test_a_call_in_a_hurry_costs_no_other_its_cached_answer(store):
    """It waits for half of its own time; those that came with it wait for as long as ever."""

    async def with_one_in_a_hurry():
        async with AsyncRouter(Router([FakeBackend(concurrency=MANY)], store=store)) as router:
            await ask(router, range(1, 21))
            await asyncio.sleep(0.2)  # it is in the store, rather than on its way there
            store.delay_s = 0.02
            hurried = asyncio.create_task(router.describe(picture(MANY), deadline_s=0.01))
            answers = await ask(router, range(1, 21))
            await asyncio.wait([hurried])
            return answers

    answers = asyncio.run(with_one_in_a_hurry())
    assert [answer.trace.cached for answer in answers] == [True] * 20


def test_a_caller_whose_loop_has_ended_holds_nobody_up(store):
    """The next call, of another loop or of none, asks the store itself."""
    with Router([FakeBackend()], store=store) as router:
        router.describe(picture(1))
        store.answers.clear()
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(AsyncRouter(router).describe(picture(2)), 0.01))
        store.answers.set()
        assert str(asyncio.run(AsyncRouter(router).describe(picture(3)))) == "fake says: 3×8 px"
        assert str(router.describe(picture(4))) == "fake says: 4×8 px"


def test_who_waits_together_has_waited_each():
    """For as long as the least patient may, and then for nothing else in that call."""
    times = []
    for inputs in (1, 40):
        with store_time(inputs=inputs):
            times.append(StoreTime.of_call())
    with shared_store_time([*times, None]), pytest.raises(TimeoutError):
        waited_for(Mailbox())
    assert times[0].left_s <= 0 < times[1].left_s
    assert not is_over()
