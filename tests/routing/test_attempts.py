"""One turn of one rung: what it leaves behind for the next call and the next program."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image as PILImage

from vision_backends import QuotaExhaustedError, Router, UnavailableError
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock

IMAGE = PILImage.new("RGB", (64, 48), "teal")


class Loading(FakeBackend):
    """Takes six seconds for its first answer, and half a second for every other."""

    def expected_s(self, request):
        """Say what it usually takes."""
        return 0.2

    def describe(self, images, request, *, timeout_s):
        """Let the time pass."""
        self._clock.advance(0.5 if self.calls else 6.0)
        return super().describe(images, request, timeout_s=timeout_s)


def test_quick_answers_after_a_slow_first_one_say_nothing_about_loading(tmp_path):
    """The next program loads again, however many have been given."""
    state = tmp_path / "state.sqlite"
    kept_s = []
    for _program in range(3):
        clock = FakeClock()
        best, last = FakeBackend("best", local=False, clock=clock), Loading("last", clock=clock)
        with Router([best, last], clock=clock, store=open_store(state), caching=False, warm_standby=False) as router:
            for _ in range(3):
                best.play(UnavailableError("No."))
                assert router.describe(IMAGE).trace.backend == "last"
        kept_s.append(60.0 - best.calls[0].timeout_s)
    assert kept_s[1:] == [pytest.approx(6.0 * 1.5 + 0.05)] * 2


class Hanging(FakeBackend):
    """Answers when it is told to."""

    def __init__(self, name):
        super().__init__(name, local=False)
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def describe(self, images, request, *, timeout_s):
        """Wait for leave."""
        self.is_asked.set()
        assert self.may_answer.wait(20)
        return super().describe(images, request, timeout_s=timeout_s)


def test_a_blocked_gate_keeps_only_those_out_who_would_have_to_ask(tmp_path):
    """Who asks the same as the probe under way gets its answer; others pass the rung by, and nothing is begun there."""
    clock, best, last = FakeClock(), Hanging("best"), FakeBackend("last")
    best.may_answer.set()
    best.play(QuotaExhaustedError("The account is empty."))
    with (
        Router([best, last], clock=clock, store=open_store(tmp_path / "state.sqlite")) as router,
        ThreadPoolExecutor(4) as pool,
    ):
        assert router.describe(PILImage.new("RGB", (64, 48), "red")).trace.backend == "last"
        assert router.describe(PILImage.new("RGB", (64, 48), "blue")).trace.attempts[0].outcome == "skipped"
        assert len(best.calls) == 1
        clock.advance(4_000.0)
        best.is_asked.clear()
        best.may_answer.clear()
        probe = pool.submit(router.describe, IMAGE)
        try:
            assert best.is_asked.wait(20)
            other = router.describe(PILImage.new("RGB", (64, 48), "navy"))
            same = [pool.submit(router.describe, IMAGE) for _ in range(3)]
        finally:
            best.may_answer.set()
        assert [each.result(20).trace.backend for each in (probe, *same)] == ["best"] * 4
    assert (other.trace.backend, [each.outcome for each in other.trace.attempts]) == ("last", ["skipped", "answered"])
    assert len(best.calls) == 2
