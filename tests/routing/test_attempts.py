"""One turn of one rung: what it leaves behind for the next call and the next program."""

import pytest
from PIL import Image as PILImage

from vision_backends import Router, UnavailableError
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
