"""Batch calls that wait for a better rung."""

import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image as PILImage

from vision_backends import RateLimitedError, Router
from vision_backends.testing import FakeAsyncBackend, FakeBackend, FakeClock

IMAGE = PILImage.new("RGB", (64, 48), "teal")


def test_who_has_waited_longest_comes_first(time_passes):
    """And nobody is forgotten: each leaves the line to the next."""
    clock = FakeClock()
    best, spare = FakeAsyncBackend("best", local=False, clock=clock), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=90.0))
    prompts = [f"Question {number}" for number in range(4)]

    def waiting():
        return sum(at > 500 for at in clock.pending)  # with the timer of their patience; their deadlines are earlier

    with Router([best, spare], clock=clock, caching=False) as router, ThreadPoolExecutor(4) as pool:
        assert router.describe(IMAGE).trace.degraded
        calls = []
        for place, prompt in enumerate(prompts):
            calls.append(pool.submit(router.describe, IMAGE, prompt=prompt, priority="batch"))
            clock.wait_for_timer(within_s=5)  # after which the first of them looks at the gate again
            ends = time.monotonic() + 5
            while waiting() < place:
                assert time.monotonic() < ends
                time.sleep(0.002)
        with time_passes(clock):
            answers = [call.result(timeout=10) for call in calls]
    assert [answer.trace.backend for answer in answers] == ["best"] * 4
    assert [call.request.prompt for call in best.calls[1:]] == prompts
