"""What is heavy is made once, when it is needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vision_backends.backends.embedded.lazy import Lazy


def test_threads_that_come_together_share_one_making():
    """The first makes it; those that come before it is done wait for that one."""
    lazy, together, made = Lazy(), threading.Barrier(8), []

    def make():
        made.append(object())
        return made[-1]

    def ask():
        together.wait(timeout=10)
        return lazy.get(make)

    with ThreadPoolExecutor(8) as pool:
        got = [job.result() for job in [pool.submit(ask) for _ in range(8)]]
    assert len(made) == 1
    assert all(thing is made[0] for thing in got)


def test_a_failed_making_is_tried_again():
    """An error leaves the place empty."""
    lazy = Lazy()

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        lazy.get(fail)
    assert not lazy.made
    assert lazy.get(lambda: "thing") == "thing"


def test_what_was_dropped_is_made_anew():
    """Until then the first one stays."""
    lazy = Lazy()
    assert (lazy.get(lambda: 1), lazy.get(lambda: 2)) == (1, 1)
    lazy.drop()
    assert not lazy.made
    assert lazy.get(lambda: 2) == 2
