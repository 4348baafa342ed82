"""Models that nobody uses for a while give their memory back, and come again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from answering import answer

from vision_backends.backends.local.runtime.idle_unload import IdleWatch
from vision_backends.backends.requests import DescribeRequest, EmbedRequest, EmbedTextRequest
from vision_backends.errors import ConfigError
from vision_backends.testing import FakeClock


class Thing:
    """Something that is idle after so many looks."""

    def __init__(self, *looks):
        self.looks = list(looks)
        self.done = threading.Event()

    def drop_if_idle(self, idle_s):
        """Return what the next look finds."""
        found = self.looks.pop(0)
        if not self.looks:
            self.done.set()
        return found


def timers():
    """Return the threads that wait to drop something."""
    return [thread for thread in threading.enumerate() if thread.name == "drop idle models"]


def wait_for_timers():
    """Return when none waits any more."""
    for _ in range(100):  # one that rings may start the next
        for timer in timers():
            timer.join(1)
        if not timers():
            return
    pytest.fail("A timer never ends.")


def watch(*things, dropped=None):
    """Return a watch over some things."""
    return IdleWatch(things, idle_s=0.01, on_dropped=lambda: dropped.append(1) if dropped is not None else None)


def test_the_next_look_is_when_the_first_may_have_become_idle():
    """None when there is nothing to watch; memory is given back only after something was dropped."""
    dropped = []
    assert watch(Thing(3.0), Thing(2.0), Thing(None), dropped=dropped).look() == 2.0
    assert dropped == []
    assert watch(Thing(0.0), Thing(None), dropped=dropped).look() is None
    assert dropped == [1]


def test_a_warm_up_of_what_is_there_counts_as_use(make_backend, model):
    """Whoever asks for it is about to need it."""
    clock = FakeClock()
    backend = make_backend(embedding_model=model("clip"), idle_unload_s=60, clock=clock)
    for _ in range(3):
        backend.warm_up(EmbedRequest())
        clock.advance(50)
        assert backend.status()["embedding"]["idle_s"] == 50.0


def test_a_watch_that_is_stopped_while_it_looks_does_not_go_on():
    """Not even when something is still there."""
    looks = []

    class Stopping:
        def drop_if_idle(self, _idle_s):
            """Stop the watch from within."""
            looks.append(1)
            idle.stop()
            return 0.01

    idle = watch(Stopping())
    idle.start()
    wait_for_timers()
    assert looks == [1]


def test_one_timer_runs_while_there_is_something_to_watch():
    """And ends by itself."""
    thing = Thing(0.01, 0.01, 0.0)
    watching = watch(thing)
    for _ in range(5):
        watching.start()
    assert len(timers()) == 1
    assert thing.done.wait(10)
    wait_for_timers()


def test_a_stopped_watch_looks_no_more():
    """Until it is started again."""
    thing = Thing(None)
    watching = IdleWatch([thing], idle_s=3600, on_dropped=lambda: None)
    watching.start()
    (timer,) = timers()
    watching.stop()
    timer.join(10)
    assert not timer.is_alive()
    assert not thing.done.is_set()


class TestModels:
    """What is dropped, and when."""

    @pytest.fixture
    def clock(self):
        """Time that moves when it is told to."""
        return FakeClock()

    @pytest.fixture
    def backend(self, make_backend, model, clock):
        """One that drops its models after a minute."""
        return make_backend(embedding_model=model("clip"), caption_model=model("blip"), idle_unload_s=60.0, clock=clock)

    def test_a_model_that_was_not_used_for_so_long_is_dropped(self, backend, make_image, clock):
        """The other one stays; the next call loads it again and says the same."""
        (before,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        clock.advance(40)
        answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
        assert backend.status()["embedding"]["idle_s"] == 40
        assert backend._idle.look() == 20
        clock.advance(20)
        assert backend._idle.look() == 40
        states = {role: facts["state"] for role, facts in backend.status().items()}
        assert states == {"caption": "loaded", "embedding": "not loaded"}
        assert "memory_bytes" not in backend.status()["embedding"]
        (after,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert after == before

    def test_a_model_that_is_in_use_stays(self, backend, make_image, clock):
        """However long the call takes; it is idle from its end on."""
        model = backend._models["embedding"]
        with model.in_use("embed"):
            answer(backend.embed_text, ["two cats"], EmbedTextRequest(), timeout_s=60)
            clock.advance(1000)
            assert backend._idle.look() == 60
            assert backend.status()["embedding"]["idle_s"] == 0
        assert backend._idle.look() == 60
        clock.advance(60)
        assert backend._idle.look() is None
        assert backend.status()["embedding"]["state"] == "not loaded"

    def test_a_model_that_was_only_warmed_up_is_dropped_as_well(self, backend, clock):
        """A false alarm costs memory for a while only."""
        backend.warm_up(DescribeRequest())
        clock.advance(61)
        assert backend._idle.look() is None
        assert backend.status()["caption"]["state"] == "not loaded"

    def test_callers_never_notice(self, make_backend, model, make_image):
        """Threads ask while their model is dropped again and again, in every moment that nobody uses it."""
        backend = make_backend(embedding_model=model("clip"), idle_unload_s=1e-6)
        (expected,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        enough, dropped = threading.Event(), []
        watching = IdleWatch([*backend._models.values()], idle_s=1e-6, on_dropped=lambda: dropped.append(1))

        def drop():
            while not enough.wait(0.001):
                watching.look()

        def ask():
            vectors = []
            for _ in range(8):
                vectors += answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
                threading.Event().wait(0.05)
            return vectors

        with ThreadPoolExecutor(3) as pool:
            dropper = pool.submit(drop)
            jobs = [pool.submit(ask) for _ in range(2)]
            try:
                vectors = [vector for job in jobs for vector in job.result()]
            finally:
                enough.set()
            dropper.result()
        assert min(vector.similarity(expected) for vector in vectors) > 0.99999
        assert dropped

    def test_a_real_clock_rings(self, make_backend, model, make_image):
        """The timer drops it without anybody asking, and ends."""
        backend = make_backend(embedding_model=model("clip"), idle_unload_s=0.2)
        answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        wait_for_timers()
        assert backend.status()["embedding"]["state"] == "not loaded"

    def test_closing_ends_the_timer(self, make_backend, model, make_image):
        """Nothing is left to watch."""
        backend = make_backend(embedding_model=model("clip"), idle_unload_s=3600.0)
        answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert len(timers()) == 1
        backend.close()
        wait_for_timers()

    def test_without_the_setting_there_is_no_timer(self, make_backend, model, make_image):
        """Models stay, and no thread waits for anything."""
        backend = make_backend(embedding_model=model("clip"))
        answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert timers() == []

    def test_no_time_at_all_is_refused(self, make_backend):
        """It would load for every call."""
        with pytest.raises(ConfigError, match="idle_unload_s = 0"):
            make_backend(idle_unload_s=0.0)
