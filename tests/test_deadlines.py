"""The deadline of a call holds whatever is slow: a disk, a better rung that hangs, a last one that has to load."""

from __future__ import annotations

import asyncio
import io
import threading
import time

import pytest
from PIL import Image as PILImage

from vision_backends import AllBackendsFailedError, AsyncRouter, Description, Router, UnavailableError
from vision_backends.routing.ladder import MAX_COLD_S
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock

IMAGE = PILImage.new("RGB", (64, 48), "teal")


class Hanging(io.RawIOBase):
    """A file on a disk that does not answer."""

    def __init__(self):
        super().__init__()
        self.answers = threading.Event()

    def readable(self):
        """Return True."""
        return True

    def readinto(self, _buffer):
        """Wait, and then be empty."""
        self.answers.wait(30)
        return 0


@pytest.fixture
def hanging():
    """A file that is let go at the end."""
    file = Hanging()
    yield file
    file.answers.set()


def test_an_input_that_never_comes_is_not_waited_for(hanging):
    """One, a stream, one of a list: each ends at its deadline, and the others are answered."""
    with Router([FakeBackend("best")]) as router:
        started = time.monotonic()
        for ask in (router.describe, router.describe_stream):
            with pytest.raises(AllBackendsFailedError, match="not read within") as late:
                ask(hanging, deadline_s=0.2)
            assert "deadline_s" in (late.value.remedy or "")
        first, second, third = router.describe_many([IMAGE, hanging, IMAGE], deadline_s=0.5)
        assert isinstance(second, AllBackendsFailedError)
        assert isinstance(first, Description)
        assert isinstance(third, Description)
        assert time.monotonic() - started < 10


def test_an_awaited_input_that_never_comes_is_given_up_too(hanging):
    """As with the router that waits."""

    async def main():
        async with AsyncRouter(Router([FakeBackend("best")])) as router:
            with pytest.raises(AllBackendsFailedError, match="not read within"):
                await router.describe(hanging, deadline_s=0.2)

    asyncio.run(main())


def test_time_spent_on_reading_is_time_of_the_call():
    """What is left is what the backends are given."""
    clock = FakeClock()

    class Slow(io.BytesIO):
        """A file on a slow disk."""

        def read(self, *size):
            if not self.tell():
                clock.advance(3.0)
            return super().read(*size)

    file = io.BytesIO()
    IMAGE.save(file, "PNG")
    best = FakeBackend("best", clock=clock)
    with Router([best], clock=clock) as router:
        router.describe(Slow(file.getvalue()), deadline_s=10)
    (call,) = best.calls
    assert call.timeout_s == pytest.approx(7.0)


def test_the_last_rung_is_loaded_while_a_better_one_is_waited_for(time_passes):
    """Not when that one has failed; an answer that comes soon loads nothing."""
    clock = FakeClock()
    best, middle, last = FakeBackend("best", local=False, clock=clock), FakeBackend("middle"), FakeBackend("last")
    with Router([best, middle, last], clock=clock, caching=False) as router:
        router.describe(IMAGE)
        assert last.warm_ups == []
        best.play(5.0)
        with time_passes(clock):
            assert router.describe(IMAGE).trace.backend == "best"
        assert len(last.warm_ups) == 1
        assert middle.warm_ups == []


def test_nothing_is_loaded_ahead_where_that_is_not_wanted(time_passes):
    """``warm_standby = false`` holds here as well."""
    clock = FakeClock()
    best, last = FakeBackend("best", local=False, clock=clock), FakeBackend("last")
    with Router([best, last], clock=clock, warm_standby=False) as router:
        best.play(5.0)
        with time_passes(clock):
            router.describe(IMAGE)
    assert last.warm_ups == []


class Expecting(FakeBackend):
    """Takes a known time."""

    def __init__(self, name, seconds, **settings):
        super().__init__(name, **settings)
        self._seconds = seconds

    def expected_s(self, request):
        """Return it."""
        return self._seconds


def test_the_time_of_the_last_rung_is_kept_on_a_long_ladder():
    """Not only that of the next one."""
    clock = FakeClock()
    rungs = [Expecting(f"rung {number}", 1.0, local=False, clock=clock) for number in range(5)]
    for rung in rungs:
        rung.play(UnavailableError("No."))
    last = Expecting("last", 4.0, clock=clock)
    with Router([*rungs, last], clock=clock) as router:
        assert router.describe(IMAGE, deadline_s=30).trace.backend == "last"
    assert rungs[0].calls[0].timeout_s == pytest.approx(30 - (1.0 * 1.5 + 0.05) - (4.0 * 1.5 + 0.05))


class Loading(FakeBackend):
    """Takes six seconds for its first answer, and half a second for every other."""

    def describe(self, images, request, *, timeout_s):
        """Let the time pass."""
        self._clock.advance(0.5 if self.calls else 6.0)
        return super().describe(images, request, timeout_s=timeout_s)


def test_what_loading_took_is_kept_back_by_the_next_program(tmp_path):
    """Measured, not guessed; once the rung has answered, its usual time counts."""
    state = tmp_path / "state.sqlite"
    for kept_s in (MAX_COLD_S, 6.0 * 1.5 + 0.05):
        clock = FakeClock()
        best, last = FakeBackend("best", local=False, clock=clock), Loading("last", clock=clock)
        with Router([best, last], clock=clock, store=open_store(state), caching=False, warm_standby=False) as router:
            for _ in range(3):
                best.play(UnavailableError("No."))
                assert router.describe(IMAGE).trace.backend == "last"
        given = [60.0 - call.timeout_s for call in best.calls]
        assert given[0] == pytest.approx(kept_s, rel=0.01)
        assert given[2] == pytest.approx(6.0 * 1.5 + 0.05, rel=0.01)  # nine of ten of its answers so far


def test_a_cold_rung_that_is_late_says_what_helps():
    """`Router.warm_up` before, or more time."""
    last = FakeBackend("last")
    last.play(5.0)
    with Router([last]) as router, pytest.raises(AllBackendsFailedError) as late:
        router.describe(IMAGE, deadline_s=0.1)
    assert "router.warm_up()" in (late.value.attempts[0].remedy or "")


def test_hurried_callers_do_not_shut_out_a_patient_one():
    """Five of them gave a server less time than it says it needs; that is no outage of it."""
    best, spare = Expecting("best", 3.0, local=False), FakeBackend("spare")
    with Router([best, spare], caching=False) as router:
        best.play(*[30.0] * 6)
        for _ in range(6):
            assert router.describe(IMAGE, deadline_s=0.4).trace.backend == "spare"
        assert router.gates() == []
        assert router.describe(IMAGE).trace.backend == "best"


def test_a_batch_is_not_a_slow_call(time_passes):
    """What is expected of one input is its share."""
    clock = FakeClock()
    best = FakeBackend("best", batch_size=4, clock=clock)
    with Router([best], clock=clock, caching=False) as router:
        best.play(8.0)
        with time_passes(clock):
            router.describe_many([PILImage.new("RGB", (8, 8), (number, 0, 0)) for number in range(4)])
        (verdict,) = router.explain("describe").verdicts
    assert verdict.expected_s == pytest.approx(2.0)
