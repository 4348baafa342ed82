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


class Limited(FakeAsyncBackend):
    """Answers so many calls in each second of its clock."""

    per_s = 4
    second = used = 0

    async def describe(self, images, request, *, timeout_s):
        """Answer, unless this second's calls are used up."""
        second = int(self.now())
        self.used = self.used if self.second == second else 0
        self.second = second
        if self.used >= self.per_s:
            raise RateLimitedError("Slow down.", retry_after_s=second + 1 - self.now())
        self.used += 1
        return await super().describe(images, request, timeout_s=timeout_s)


def test_a_list_that_waits_uses_all_that_a_server_allows(time_passes):
    """Each look at it takes what there is, however often there was not enough."""
    clock = FakeClock()
    best = Limited("best", local=False, concurrency=16, clock=clock)
    best.now = clock.monotonic
    images = [PILImage.new("RGB", (64, width), "teal") for width in range(1, 65)]
    ladder = [best, FakeBackend("spare")]
    with Router(ladder, clock=clock, caching=False, warm_standby=False) as router, time_passes(clock):
        began = clock.monotonic()
        answers = router.describe_many(images, priority="batch", max_wait_s=600)
    assert {answer.trace.backend for answer in answers} == {"best"}
    assert clock.monotonic() - began < 1.6 * len(images) / Limited.per_s
