"""Calls that do not fit into a budget yet: they wait until calls under way are settled, and never past their time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from PIL import Image as PILImage

from vision_backends import AsyncRouter, Router
from vision_backends.health.budgets import Limits
from vision_backends.routing.lines import Lines
from vision_backends.storage import open_store
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeAsyncBackend, FakeBackend
from vision_backends.types import Usage

pytestmark = pytest.mark.usefixtures("patient_calls")

MOST, TRUE = 100, 20
"""Tokens that a call is estimated to take at most, and those that it takes."""

IMAGE = PILImage.new("RGB", (64, 48), "teal")
IMAGES = [PILImage.new("RGB", (16 + number, 16), "teal") for number in range(12)]


class Metered(FakeAsyncBackend):
    """A server that takes a fifth of what is estimated; its answers come when `answers` is set."""

    def __init__(self, *, answers=True, usage=TRUE):
        super().__init__(
            "best", local=False, concurrency=8, usage=Usage(input_tokens=usage, output_tokens=0, cost_usd=0.0)
        )
        self.answers = threading.Event()
        if answers:
            self.answers.set()
        self.running = self.most_running = 0

    def estimate(self, request, inputs):
        """Return what every call may take."""
        return Usage(input_tokens=MOST, output_tokens=0, cost_usd=0.0)

    async def describe(self, images, request, *, timeout_s):
        """Answer a little later, or when told."""
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(0.005)
            await asyncio.to_thread(self.answers.wait, 20)
            return await super().describe(images, request, timeout_s=timeout_s)
        finally:
            self.running -= 1


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    """Where budgets are counted."""
    return MemoryStore() if request.param == "memory" else open_store(tmp_path / "state.sqlite")


@pytest.fixture
def make_router(store):
    """A maker of routers with a budget of tokens for the best rung, and a spare one."""
    made = []

    def make(tokens=MOST, *, best=None, ladder=None, **options):
        limits = {"best": Limits(daily_budget_tokens=tokens)}
        settings = {"limits": limits, "store": store, "caching": False, "warm_standby": False} | options
        made.append(Router(ladder or [best or Metered(), FakeBackend("spare")], **settings))
        return made[-1]

    yield make
    for router in made:
        router.close()


def answerers(answers):
    """Return who has answered."""
    return {answer.trace.backend for answer in answers}


def in_thread(call):
    """Begin a call in a thread; return what waits for its answer."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()

    def wait():
        thread.join(30)
        return answers[0]

    return wait


def until(condition):
    """Wait for something that happens in another thread."""
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "It did not happen."
        time.sleep(0.002)


def test_a_list_waits_for_its_own_calls_instead_of_degrading(make_router):
    """The budget has room for the estimates of two calls at a time, and for what all of them take."""
    best = Metered()
    router = make_router(MOST + TRUE * len(IMAGES), best=best)
    assert answerers(router.describe_many(IMAGES)) == {"best"}
    assert best.most_running > 1
    (spending,) = router.spending()
    assert (spending.spent, spending.reserved) == (TRUE * len(IMAGES), 0)


def test_the_budget_of_an_account_is_waited_for_as_well(make_router):
    """Whichever of its rungs the calls under way have asked."""
    limits = {
        "best": Limits(account="work"),
        "accounts.work": Limits(daily_budget_tokens=MOST + TRUE * len(IMAGES)),
    }
    router = make_router(MOST, limits=limits)
    assert answerers(router.describe_many(IMAGES)) == {"best"}


def test_calls_that_are_gathered_wait_for_each_other(make_router):
    """Each is a call of its own, without the places of a list."""
    router = make_router(MOST + TRUE * len(IMAGES))

    async def work():
        return await asyncio.gather(*[AsyncRouter(router).describe(image) for image in IMAGES])

    assert answerers(asyncio.run(work())) == {"best"}


def test_a_call_waits_for_one_of_another_rung_of_its_account(make_router):
    """The budget that they share has room for one estimate at a time; each rung's own has room for both."""
    large, small = Metered(answers=False), Metered()
    own = Limits(account="work", daily_budget_tokens=10 * MOST)
    limits = {"large": own, "small": own, "accounts.work": Limits(daily_budget_tokens=MOST + TRUE)}
    router = make_router(ladder=[large.named("large"), small.named("small")], limits=limits)
    running = in_thread(lambda: router.describe(IMAGE, backend="large"))
    until(lambda: large.running)
    waiting = in_thread(lambda: router.describe(IMAGES[0], backend="small"))
    assert not small.calls
    large.answers.set()
    assert [wait().trace.backend for wait in (running, waiting)] == ["large", "small"]
    assert {each.backend: (each.spent, each.reserved) for each in router.spending()} == {
        "large": (TRUE, 0),
        "small": (TRUE, 0),
        "accounts.work": (2 * TRUE, 0),
    }


def test_a_stream_waits_as_well(make_router):
    """Before its first piece."""
    best = Metered(answers=False)
    router = make_router(MOST + TRUE, best=best)
    running = in_thread(lambda: router.describe(IMAGE))
    until(lambda: best.running)
    with router.describe_stream(IMAGE) as stream:
        told = in_thread(lambda: list(stream))
        best.answers.set()
        assert told() == ["best says: 64×48 px"]
    assert stream.description.trace.backend == running().trace.backend == "best"


def test_a_call_that_cannot_wait_any_longer_goes_to_the_next_rung(make_router):
    """Its deadline holds, and it says what it has waited for."""
    best = Metered(answers=False)
    router = make_router(MOST + TRUE, best=best)
    running = in_thread(lambda: router.describe(IMAGE))
    until(lambda: best.running)
    answer = router.describe(IMAGES[0], deadline_s=0.5)
    assert (answer.trace.backend, [attempt.outcome for attempt in answer.trace.attempts]) == (
        "spare",
        ["skipped", "answered"],
    )
    assert (
        answer.trace.reason
        == f"best: Calls under way have reserved the rest of best.daily_budget_tokens = {MOST + TRUE} tokens"
    )
    best.answers.set()
    assert running().trace.backend == "best"


def test_a_budget_that_is_really_spent_is_not_waited_for(make_router):
    """Nothing that is under way would make room; the next rung is asked without any pause."""
    best = Metered(answers=False, usage=MOST)
    router = make_router(MOST + TRUE, best=best)
    best.answers.set()
    assert router.describe(IMAGE).trace.backend == "best"
    code = router.describe(IMAGES[0]).trace.attempts[0].code
    assert (code, len(best.calls)) == ("budget_exhausted", 1)


def test_who_waits_for_calls_that_cost_all_they_may_degrades_when_they_have_ended(make_router):
    """Not before, and not at the deadline."""
    best = Metered(answers=False, usage=MOST)
    router = make_router(MOST + TRUE, best=best)
    running = in_thread(lambda: router.describe(IMAGE))
    until(lambda: best.running)
    waiting = in_thread(lambda: router.describe(IMAGES[0], deadline_s=600))
    best.answers.set()
    assert (running().trace.backend, waiting().trace.attempts[0].code) == ("best", "budget_exhausted")


def test_a_call_waits_for_those_of_another_process(make_router, tmp_path):
    """What it has reserved is seen in the shared state, and looked at again every now and then."""
    best = Metered(answers=False)
    shared = {"store": open_store(tmp_path / "shared.sqlite")}
    one = make_router(MOST + TRUE, best=best, **shared)
    other = make_router(MOST + TRUE, store=open_store(tmp_path / "shared.sqlite"))
    running = in_thread(lambda: one.describe(IMAGE))
    until(lambda: best.running)
    waiting = in_thread(lambda: other.describe(IMAGE))
    best.answers.set()
    assert answerers([running(), waiting()]) == {"best"}


def test_a_waiting_call_that_is_cancelled_lets_the_next_one_in(make_router):
    """It takes nobody's place with it."""
    best = Metered(answers=False)
    router = make_router(MOST + TRUE, best=best)

    async def work():
        asked = AsyncRouter(router)
        first = asyncio.create_task(asked.describe(IMAGE))
        await asyncio.to_thread(until, lambda: best.running)
        second, third = (asyncio.create_task(asked.describe(image)) for image in IMAGES[:2])
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait([second])
        best.answers.set()
        return await asyncio.gather(first, third)

    assert answerers(asyncio.run(work())) == {"best"}


def test_identical_calls_that_wait_ask_once(make_router):
    """The second joins the first as if there were no budget."""
    best = Metered(answers=False)
    router = make_router(MOST + TRUE, best=best, caching=True)
    running = in_thread(lambda: router.describe(IMAGE))
    until(lambda: best.running)
    twins = [in_thread(lambda: router.describe(IMAGES[0])) for _ in range(2)]
    best.answers.set()
    assert answerers([running(), *(twin() for twin in twins)]) == {"best"}
    assert len(best.calls) == 2


def test_a_batch_call_waits_for_a_reserved_budget_however_little_its_patience(make_router):
    """When the lease of a call ends, after which it is told to come back, is seldom when the call does."""
    best = Metered(answers=False)
    router = make_router(MOST + TRUE, best=best)
    running = in_thread(lambda: router.describe(IMAGE))
    until(lambda: best.running)
    waiting = in_thread(lambda: router.describe(IMAGES[0], priority="batch", max_wait_s=0.1))
    best.answers.set()
    assert answerers([running(), waiting()]) == {"best"}


def test_what_would_happen_now_is_told(make_router):
    """`explain` names the calls under way, and that a call would wait for them."""
    best = Metered(answers=False)
    router = make_router(MOST, best=best)
    running = in_thread(lambda: router.describe(IMAGE))
    until(lambda: best.running)
    verdict = router.explain("describe").verdicts[0]
    assert (verdict.ready, verdict.code) == (False, "budget_reserved")
    assert verdict.reason.startswith("Calls under way have reserved the rest of best.daily_budget_tokens")
    assert "waits for them" in verdict.remedy
    best.answers.set()
    running()


def test_a_line_moves_on_when_its_first_leaves_or_its_time_is_over():
    """First come, first served."""
    order = []

    async def stand(lines, name, *, until_s):
        async with lines.in_line("a rung", until=until_s) as leave:
            order.append(name)
            await asyncio.sleep(0)
            leave()

    async def work():
        from vision_backends.clock import SYSTEM_CLOCK

        lines, now = Lines(clock=SYSTEM_CLOCK), SYSTEM_CLOCK.monotonic()
        async with lines.in_line("a rung", until=now + 60) as leave:
            late = asyncio.create_task(stand(lines, "late", until_s=now))
            patient = [asyncio.create_task(stand(lines, name, until_s=now + 60)) for name in ("first", "second")]
            await late
            leave()
            await asyncio.gather(*patient)

    asyncio.run(work())
    assert order == ["late", "first", "second"]
