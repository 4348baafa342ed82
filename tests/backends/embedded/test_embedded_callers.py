"""Many callers of the last rung at once."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack

import pytest
from PIL import Image as PILImage

from vision_backends import TimedOutError, open_image
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.requests import DescribeRequest, EmbedRequest
from vision_backends.engine.machine_limits import processors


class Watched:
    """An image that counts how many of its kind are worked on, and can be held."""

    def __init__(self, gate, counts):
        self._image = open_image(PILImage.new("RGB", (320, 240), "teal"))
        self._gate = gate
        self._counts = counts

    def __getattr__(self, name):
        return getattr(self._image, name)

    def rgb(self, *, min_side_px=None):
        """Count, and wait for the gate."""
        self._counts.append(1)
        self._gate.wait(30)
        return self._image.rgb(min_side_px=min_side_px)


def test_pixels_of_a_few_images_are_in_memory_however_many_callers_there_are():
    """The others wait with what they were given, and who waits for too long is told."""
    gate, counts = threading.Event(), []
    backend, most = EmbeddedBackend(), 2 * processors()
    answers = []

    def ask():
        answers.extend(backend.embed([Watched(gate, counts)], EmbedRequest(), timeout_s=60))

    callers = [threading.Thread(target=ask) for _ in range(most + 6)]
    for caller in callers:
        caller.start()
    until = time.monotonic() + 30
    while len(counts) < most and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(TimedOutError, match="at work for other calls"):
        backend.embed([Watched(gate, counts)], EmbedRequest(), timeout_s=0.05)
    assert len(counts) == most
    gate.set()
    for caller in callers:
        caller.join(60)
    assert len(answers) == len(counts) == most + 6


def test_an_image_has_a_second_thread_only_where_that_takes_no_processor_from_another(monkeypatch):
    """So many images at a time use all processors anyway, and handing work over costs some of them."""
    started = []
    begin = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), begin(thread))[1])
    backend, picture = EmbeddedBackend(), open_image(PILImage.new("RGB", (320, 240), "teal"))
    with ExitStack() as others:
        for at_work in range(1, processors() + 1):
            started.clear()
            (said,) = backend.describe([picture], DescribeRequest(), timeout_s=60)
            assert said.text
            assert ("vision-overview" in started) == (2 * at_work <= processors())
            others.enter_context(backend._turn(5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_waits_for_nobody():
    """Whoever was at work in the parent is not there."""
    backend = EmbeddedBackend()
    with ExitStack() as others:
        for _ in range(2 * processors()):
            others.enter_context(backend._turn(5))
        child = os.fork()
        if child == 0:
            try:
                with backend._turn(5):
                    os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
