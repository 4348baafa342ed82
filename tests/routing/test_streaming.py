"""Descriptions piece by piece."""

import asyncio
import threading
import time

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AsyncRouter,
    ContentRejectedError,
    Description,
    InvalidImageError,
    Router,
    StreamInterruptedError,
    Trace,
    UnavailableError,
    Usage,
)
from vision_backends.health.budgets import Limits
from vision_backends.routing.streaming import AHEAD
from vision_backends.testing import FakeAsyncBackend, FakeBackend, FakeClock

IMAGE = PILImage.new("RGB", (64, 48), "teal")


class Speaker(FakeBackend):
    """Says its words one by one, and raises where an error stands among them."""

    def __init__(self, name, *words, record=True, **options):
        super().__init__(name, local=False, **options)
        self.words, self.record, self.closed, self.said = words, record, False, 0

    def describe_stream(self, image, request, *, timeout_s):
        """Say the words that the test has chosen."""
        try:
            for word in self.words:
                if isinstance(word, Exception):
                    raise word
                self.said += 1
                yield word
            if self.record:
                trace = Trace(model=f"{self.name}-model", usage=Usage(input_tokens=9, output_tokens=3, cost_usd=0.5))
                return Description(text="".join(map(str, self.words)), trace=trace)
            return "no record"
        finally:
            self.closed = True


@pytest.fixture
def make_router():
    """A maker of routers that are closed when the test ends."""
    made = []

    def make(*backends, **options):
        made.append(Router(backends, **options))
        return made[-1]

    yield make
    for router in made:
        router.close()


def test_pieces_come_one_by_one_and_the_record_at_the_end(make_router):
    """The record has the whole text, its cost and its trace."""
    stream = make_router(Speaker("best", "A ", "teal ", "square")).describe_stream(IMAGE)
    assert next(stream) == "A "
    assert stream.description is None
    assert list(stream) == ["teal ", "square"]
    assert str(stream.description) == "A teal square"
    assert (stream.description.trace.backend, stream.description.trace.usage.cost_usd) == ("best", 0.5)


def test_before_the_first_piece_the_next_rung_takes_over(make_router):
    """A backend that cannot stream gives its text in one piece."""
    stream = make_router(Speaker("best", UnavailableError("It is down.")), FakeBackend("spare")).describe_stream(IMAGE)
    assert list(stream) == ["spare says: 64×48 px"]
    assert stream.description.trace.degraded
    assert stream.description.trace.reason == "best: It is down"


def test_a_failed_stream_says_how_long_it_took(make_router):
    """Not since when the clock runs."""
    clock = FakeClock()
    clock.advance(100.0)
    best, spare = FakeBackend("best", local=False, clock=clock), FakeBackend("spare")
    best.play([2.0, UnavailableError("It is down.")])
    stream = make_router(best, spare, clock=clock).describe_stream(IMAGE)
    list(stream)
    assert [attempt.elapsed_s for attempt in stream.description.trace.attempts] == [2.0, 0.0]


@pytest.mark.parametrize("trouble", [UnavailableError("It is down."), ZeroDivisionError("oops")])
def test_after_the_first_piece_a_failure_keeps_the_text_so_far(make_router, trouble):
    """Two halves of different captions would be no answer."""
    spare = FakeBackend("spare")
    stream = make_router(Speaker("best", "A ", "teal ", trouble), spare).describe_stream(IMAGE)
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.partial == "A teal "
    assert caught.value.backend == "best"
    assert stream.description is None
    assert spare.calls == []


def test_a_refusal_is_the_callers(make_router):
    """No other rung is asked to get round it."""
    spare = FakeBackend("spare")
    with pytest.raises(ContentRejectedError):
        list(make_router(Speaker("best", ContentRejectedError("No.")), spare).describe_stream(IMAGE))
    assert spare.calls == []


def test_nobody_left_is_told_while_iterating(make_router):
    """As from describe."""
    stream = make_router(Speaker("best", UnavailableError("It is down."))).describe_stream(IMAGE)
    with pytest.raises(AllBackendsFailedError, match="It is down"):
        list(stream)


def test_a_broken_image_is_told_at_once(make_router):
    """Before anybody listens."""
    with pytest.raises(InvalidImageError):
        make_router(Speaker("best", "A")).describe_stream(b"broken")


def test_a_stream_without_a_record_is_an_invalid_reply(make_router):
    """What it has cost is not known then."""
    stream = make_router(Speaker("best", "A", record=False)).describe_stream(IMAGE)
    with pytest.raises(StreamInterruptedError, match="without a record"):
        list(stream)


def test_stopping_early_closes_the_backend_and_is_booked(make_router):
    """What has been said may have been billed: its cost is unknown, not 0."""
    best = Speaker("best", "A ", *["very "] * 30, "teal square")
    router = make_router(best)
    stream = router.describe_stream(IMAGE)
    assert next(stream) == "A "
    stream.close()
    assert best.closed
    (row,) = router.ledger()
    assert (row.error, row.cost_usd) == ("stream_interrupted", None)
    assert router.describe_stream(IMAGE, backend="best") is not None


def test_a_backend_is_ahead_of_its_reader_by_so_many_pieces(make_router):
    """Whoever reads slowly holds the backend up; each piece that is taken lets it say one more."""
    best = Speaker("best", *["word "] * 100)
    stream = make_router(best).describe_stream(IMAGE)
    for taken in range(1, 5):
        assert next(stream) == "word "
        ends = time.monotonic() + 5
        while best.said < taken + AHEAD + 1:  # and one that waits for its place
            assert time.monotonic() < ends
            time.sleep(0.002)
    time.sleep(0.02)
    assert best.said == 4 + AHEAD + 1
    stream.close()


def test_closing_an_awaited_stream_waits_until_it_is_booked():
    """As closing any other does."""
    ending, may_end = threading.Event(), threading.Event()

    class Slow(FakeAsyncBackend):
        async def describe_stream(self, image, request, *, timeout_s):
            try:
                yield "A "
                await asyncio.get_running_loop().create_future()
            finally:
                ending.set()
                await asyncio.to_thread(may_end.wait, 10)

    async def work():
        async with AsyncRouter(Router([Slow("slow", local=False)])) as router:
            stream = router.describe_stream(IMAGE)
            assert await anext(stream) == "A "
            closing = asyncio.create_task(stream.close())
            while not ending.is_set():  # noqa: ASYNC110 — it ends on another loop
                await asyncio.sleep(0.002)
            assert not closing.done()
            may_end.set()
            await closing
            return [row.error async for row in router.ledger()]

    assert asyncio.run(work()) == ["stream_interrupted"]


def test_a_finished_stream_is_cached_for_every_way_of_asking(make_router):
    """A cached text comes in one piece, from describe and describe_stream alike."""
    best = Speaker("best", "A ", "teal ", "square")
    router = make_router(best)
    list(router.describe_stream(IMAGE))
    again = router.describe_stream(IMAGE)
    assert list(again) == ["A teal square"]
    assert again.description.trace.cached
    assert router.describe(IMAGE).trace.cached


def test_a_stream_keeps_the_deadline(make_router):
    """A backend that stops talking is left behind."""
    clock = FakeClock()

    class Dozing(Speaker):
        def describe_stream(self, image, request, *, timeout_s):
            yield "A "
            clock.advance(timeout_s + 1)
            yield "too late"

    stream = make_router(Dozing("best"), clock=clock).describe_stream(IMAGE, deadline_s=5)
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.partial == "A "


def test_rungs_that_cannot_be_asked_are_passed_over(make_router):
    """A prompt goes to the first that follows instructions."""
    plain, best = FakeBackend("plain", prompts=False), Speaker("best", "Teal.")
    stream = make_router(plain, best).describe_stream(IMAGE, prompt="Which colour?")
    assert list(stream) == ["Teal."]
    assert not stream.description.trace.degraded


def test_a_stream_that_is_no_generator_function_works_in_a_thread_of_its_rung():
    """It may ask its server before it returns its pieces."""
    threads = []

    class Eager(Speaker):
        def describe_stream(self, image, request, *, timeout_s):
            threads.append(threading.current_thread().name)
            return super().describe_stream(image, request, timeout_s=timeout_s)

    with Router([Eager("eager", "A ", "square")]) as router:
        assert list(router.describe_stream(IMAGE)) == ["A ", "square"]
    assert threads == ["vision-eager"]


@pytest.mark.parametrize("words", [3, 100])
def test_a_stream_that_is_closed_early_gives_its_place_back(make_router, words):
    """Whether its backend has said everything by then or waits for its reader."""
    best = Speaker("best", *[f"word {number} " for number in range(words)])
    router = make_router(best, limits={"best": Limits(max_concurrency=1)})
    for _ in range(2):
        stream = router.describe_stream(IMAGE, backend="best")
        assert next(iter(stream)).startswith("word 0 ")  # a busy machine joins pieces
        stream.close()


@pytest.mark.parametrize("end", [SystemExit(2), KeyboardInterrupt()])
def test_a_backend_that_ends_the_program_has_crashed_and_gives_its_place_back(make_router, end):
    """Libraries call ``sys.exit``; a place that stays taken would shut the rung for good."""

    class Exiting(Speaker):
        def describe_stream(self, image, request, *, timeout_s):
            yield "Once "
            raise end

        def describe(self, images, request, *, timeout_s):
            raise end

    router = make_router(
        Exiting("best"), FakeBackend("spare"), limits={"best": Limits(max_concurrency=1)}, caching=False
    )
    for _ in range(2):
        stream = router.describe_stream(IMAGE)
        assert next(stream) == "Once "
        with pytest.raises(StreamInterruptedError, match=f"crashed with {type(end).__name__}"):
            list(stream)
        answer = router.describe(IMAGE)
        assert (answer.trace.backend, answer.trace.attempts[0].code) == ("spare", type(end).__name__)


def test_a_stream_that_is_closed_early_is_booked_with_its_estimate(make_router):
    """A server charges for what it has said until then, and nobody knows how much that is."""

    class Paid(Speaker):
        def estimate(self, request, inputs):
            return Usage(input_tokens=9, output_tokens=3, cost_usd=0.25)

    router = make_router(Paid("best", *["word "] * 100), limits={"best": Limits(daily_budget_usd=1.0)})
    stream = router.describe_stream(IMAGE)
    next(stream)
    stream.close()
    assert [each.spent for each in router.spending()] == [0.25]
    (booked,) = router.ledger()
    assert (booked.outcome, booked.cost_usd) == ("failed", 0.25)
