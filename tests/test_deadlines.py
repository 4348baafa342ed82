"""The deadline of a call holds whatever is slow: a disk, a better rung that hangs, a last one that has to load."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AsyncRouter,
    Description,
    InvalidImageError,
    Router,
    UnavailableError,
    VisionError,
)
from vision_backends.backends.requests import DescribeRequest
from vision_backends.clock import Deadline
from vision_backends.images.room import ROOM
from vision_backends.routing.call import Call
from vision_backends.routing.cold_starts import MAX_COLD_S
from vision_backends.routing.explain import survey
from vision_backends.routing.opening import LONG_S, READERS
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


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1" + bytes(100)


@pytest.fixture
def decoder_that_hangs():
    """A decoder of somebody else's that never returns; it is let go at the end."""
    answers = threading.Event()

    def decode(_file, _name):
        answers.wait(60)
        raise OSError

    PILImage.register_open("HEIF", decode)
    yield
    answers.set()
    del PILImage.OPEN["HEIF"]
    PILImage.ID.remove("HEIF")


def png(number: int) -> bytes:
    """Return a picture that is not decoded in passing."""
    file = io.BytesIO()
    PILImage.new("RGB", (2_500, 2_000), (number, 0, 0)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_an_image_that_is_never_decoded_is_not_waited_for(decoder_that_hangs):
    """It is the deadline's error, not the image's."""
    with Router([FakeBackend("best")]) as router:
        started = time.monotonic()
        for ask in (router.describe, router.describe_stream):
            with pytest.raises(AllBackendsFailedError, match=r"not decoded within 0\.\d+ s") as late:
                ask(HEIC, deadline_s=0.2)
            assert "deadline_s" in (late.value.remedy or "")
        assert time.monotonic() - started < 10


def test_decoders_that_hang_do_not_stop_others(decoder_that_hangs):
    """Half of the threads may be left behind; then images are decoded in processes that can be ended."""
    with Router([FakeBackend("best")], caching=False) as router:
        decoders = router._inputs._opener.decoders
        outcomes = router.describe_many([HEIC + bytes([n]) for n in range(2 * decoders)], deadline_s=2.0)
        kinds = {type(outcome) for outcome in outcomes}  # the processes lack the decoder that hangs, and say so if soon
        assert AllBackendsFailedError in kinds <= {AllBackendsFailedError, InvalidImageError}
        pool = router._inputs._opener._decoders
        assert 0 < pool.stuck <= decoders // 2
        for n in range(3):
            assert router.describe(png(n), deadline_s=30).trace.backend == "best"
        assert pool.stuck <= decoders // 2


def ask_in_vain(router: Router) -> None:
    """Ask about images that no decoder returns from, until the router is closed."""
    with contextlib.suppress(VisionError, asyncio.CancelledError):
        router.describe_many([HEIC] * router._inputs._opener.decoders, deadline_s=100)


def test_nobody_waits_for_the_deadlines_of_those_that_hang(decoder_that_hangs, monkeypatch):
    """Whoever decodes for seconds is known to be stuck long before."""
    assert LONG_S <= 5  # which nobody has to wait for here
    monkeypatch.setattr("vision_backends.routing.opening.LONG_S", 0.5)
    with Router([FakeBackend("best")], caching=False) as router:
        opener = router._inputs._opener
        for _ in range(opener.decoders):
            threading.Thread(target=ask_in_vain, args=(router,), daemon=True).start()
        while opener._decoders.busy_for(0) < opener.decoders // 2:
            time.sleep(0.01)
        assert router.describe(png(1), deadline_s=30).trace.backend == "best"


def test_images_wait_for_room_within_their_deadline():
    """Others hold all of it: an error that says so; then there is room again, and an answer."""
    held = ROOM.ask(2_000_000_000, at_once=True)
    with Router([FakeBackend("best")]) as router:
        with pytest.raises(AllBackendsFailedError, match="not given room in memory within"):
            router.describe(png(1), deadline_s=0.2)
        with pytest.raises(AllBackendsFailedError, match="not given room in memory within"):
            router.describe(IMAGE, deadline_s=0.2)
        held.leave()
        assert router.describe(png(1)).trace.backend == "best"


def test_what_images_take_comes_back_when_their_call_ends():
    """However it ends."""
    before = ROOM.used_bytes
    best = FakeBackend("best")
    with Router([best], caching=False) as router:
        router.describe(png(1))
        router.describe_many([png(1), b"no image", IMAGE])
        list(router.describe_each([png(2), IMAGE]))
        with router.describe_stream(png(3)) as stream:
            list(stream)
        best.play(UnavailableError("No."))
        with pytest.raises(AllBackendsFailedError) as kept:
            router.describe(png(4))
        assert kept.value.attempts
        while ROOM.used_bytes != before:  # the loop has still to let go of the last call
            time.sleep(0.01)
    assert stream.description


def test_files_that_never_answer_do_not_stop_others(tmp_path):
    """Objects of callers hang by themselves: paths and bytes are read elsewhere."""
    file = Hanging()
    path = tmp_path / "picture.png"
    IMAGE.save(path)
    try:
        with Router([FakeBackend("best")], caching=False) as router:
            while router._inputs._opener._readers["object"].stuck < READERS:
                with pytest.raises(AllBackendsFailedError, match="not read within"):
                    router.describe(file, deadline_s=0.05)
            with pytest.raises(AllBackendsFailedError, match=r"not read.*All 64 threads for read-object"):
                router.describe(file, deadline_s=30)
            for source in (path, path.read_bytes(), IMAGE):
                assert router.describe(source, deadline_s=30).trace.backend == "best"
    finally:
        file.answers.set()


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


class Expecting(FakeBackend):
    """Takes a known time."""

    def __init__(self, name, seconds, **settings):
        super().__init__(name, **settings)
        self._seconds = seconds

    def expected_s(self, request):
        """Return it."""
        return self._seconds


def turn_of(router, rungs, request, *, deadline_s):
    """Return the first rung's turn in a call."""
    attempts = router._attempts
    stand = survey(rungs, request)
    call = Call(
        request=request,
        gates=attempts.look(stand),
        deadline=Deadline(attempts.clock, deadline_s),
        each_s=deadline_s,
        on_settled=lambda _items: None,
    )
    return next(router._ladder.turns(stand, call))


async def pass_time(clock, seconds):
    """Advance a clock, and let those have their turn who have waited for it."""
    clock.advance(seconds)
    for _ in range(10):
        await asyncio.sleep(0)


def test_calls_that_only_wait_for_each_other_load_nothing():
    """As long as one of them ends every now and then; once none has for more than a moment, the rung is loaded."""
    clock = FakeClock()
    best, last = Expecting("best", 0.1, local=False, clock=clock), FakeBackend("last")
    with Router([best, last], clock=clock) as router:
        turn = turn_of(router, [best, last], DescribeRequest(), deadline_s=60)
        cold = router._attempts.cold_starts

        async def ask():
            with cold.loading(turn):
                for _ in range(4):
                    with cold.loading(turn):
                        await pass_time(clock, 0.45)
                for seconds, is_loaded in ((0.1, False), (0.45, True)):
                    assert not cold._warm_ups._jobs
                    await pass_time(clock, seconds)
                    assert bool(cold._warm_ups._jobs) is is_loaded

        asyncio.run(ask())


@pytest.mark.parametrize(("deadline_s", "loads_after_s"), [(60, 4.5), (8, 1.9), (1, 0.5)])
def test_a_call_that_takes_no_longer_than_usual_loads_nothing(deadline_s, loads_after_s):
    """Unless a good part of its deadline has passed: loading has to come to its end within the rest."""
    clock = FakeClock()
    best, last = Expecting("best", 3.0, local=False, clock=clock), FakeBackend("last")
    with Router([best, last], clock=clock) as router:
        turn = turn_of(router, [best, last], DescribeRequest(), deadline_s=deadline_s)
        cold = router._attempts.cold_starts

        async def ask():
            with cold.loading(turn):
                waited_s = 0.0
                while not cold._warm_ups._jobs and waited_s < 10:
                    await pass_time(clock, 0.05)
                    waited_s += 0.05
            return waited_s

        assert asyncio.run(ask()) == pytest.approx(loads_after_s, abs=0.2)


def test_nothing_is_loaded_ahead_where_that_is_not_wanted(time_passes):
    """``warm_standby = false`` holds here as well."""
    clock = FakeClock()
    best, last = FakeBackend("best", local=False, clock=clock), FakeBackend("last")
    with Router([best, last], clock=clock, warm_standby=False) as router:
        best.play(5.0)
        with time_passes(clock):
            router.describe(IMAGE)
    assert last.warm_ups == []


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
