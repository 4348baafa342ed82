"""Two local rungs: what they run alike is in memory once, and is fetched once."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest
from PIL import Image as PILImage

from vision_backends import Router
from vision_backends.backends.local.runtime.loader import LoaderSettings
from vision_backends.backends.local.runtime.sharing import Shared, Turns
from vision_backends.backends.requests import DescribeRequest, EmbedRequest

IMAGE = PILImage.new("RGB", (64, 48), "teal")
EMBED = EmbedRequest()


def engine_of(backend, role="embedding"):
    """Return what runs a model of a backend."""
    return backend._models[role]._slot.value


def wait_for(condition) -> None:
    """Return when a condition holds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestInMemory:
    """The same model on the same device in the same precision is one copy."""

    def test_two_rungs_share_what_they_run_alike(self, make_backend, model):
        """What else they are configured for makes no difference: thresholds, waiting, fetching."""
        first = make_backend(embedding_model=model("clip"))
        second = make_backend(embedding_model=model("clip"), min_score=0.1, download="never", max_memory_bytes=10**10)
        for backend in (first, second):
            backend.warm_up(EMBED)
        assert engine_of(first) is engine_of(second)
        assert second.status()["embedding"]["shared_by"] == 2
        assert second.status()["embedding"]["state"] == "loaded"

    def test_the_second_load_takes_no_memory(self, make_backend, model):
        """So that it is not refused where there is room for one only."""
        first, second = (make_backend(embedding_model=model("clip")) for _ in range(2))
        first.warm_up(EMBED)
        tight = make_backend(embedding_model=model("clip"), max_memory_bytes=1)
        tight.warm_up(EMBED)
        second.warm_up(EMBED)
        assert engine_of(tight) is engine_of(first)

    def test_one_load_serves_both_when_they_begin_together(self, make_backend, model):
        """The second waits for the first."""
        backends = [make_backend(embedding_model=model("clip")) for _ in range(3)]
        threads = [threading.Thread(target=backend.warm_up, args=(EMBED,)) for backend in backends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len({id(engine_of(backend)) for backend in backends}) == 1

    @pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"threads": 1}, {"max_queue": 3}])
    def test_what_runs_otherwise_is_another_copy(self, make_backend, model, other):
        """Another precision, and limits that a rung has for itself."""
        first = make_backend(embedding_model=model("clip"))
        second = make_backend(embedding_model=model("clip"), **other)
        for backend in (first, second):
            backend.warm_up(EMBED)
        assert engine_of(first) is not engine_of(second)
        assert "shared_by" not in first.status()["embedding"]

    def test_the_same_model_for_another_task_is_another_copy(self, make_backend, model):
        """It is loaded as something else."""
        first = make_backend(caption_model=model("blip"))
        second = make_backend(caption_model=model("blip"), embedding_model=model("clip"))
        second.warm_up(EMBED)
        first.warm_up(DescribeRequest())
        second.warm_up(DescribeRequest())
        assert engine_of(first, "caption") is engine_of(second, "caption")
        assert engine_of(second, "embedding") is not engine_of(second, "caption")

    def test_changed_files_are_another_model(self, make_backend, model_copy):
        """The rung that has loaded them before keeps what it has."""
        folder = model_copy("clip")
        first, second = (make_backend(embedding_model=folder) for _ in range(2))
        first.warm_up(EMBED)
        weights = folder / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
        second.warm_up(EMBED)
        assert engine_of(first) is not engine_of(second)
        assert first.model_for(EMBED).space != second.model_for(EMBED).space

    def test_it_goes_when_the_last_rung_lets_go(self, make_backend, model):
        """One that is closed, or idle, takes it from nobody else."""
        first, second = (make_backend(embedding_model=model("clip")) for _ in range(2))
        for backend in (first, second):
            backend.warm_up(EMBED)
        gone = weakref.ref(engine_of(first))
        first.close()
        assert engine_of(first) is None
        assert second.status()["embedding"]["state"] == "loaded"
        assert "shared_by" not in second.status()["embedding"]
        with Router([second]) as router:
            assert router.embed(IMAGE).trace.backend == "local"
        second.close()
        gc.collect()
        wait_for(lambda: gone() is None)

    def test_both_answer_as_one_alone_does(self, make_backend, model):
        """In one space, under their own names."""
        first = make_backend(embedding_model=model("clip")).named("first")
        second = make_backend(embedding_model=model("clip")).named("second")
        with Router([first, second], store=None, caching=False) as router:
            vectors = [router.embed(IMAGE, backend=name, deadline_s=60) for name in ("first", "second")]
        assert [vector.trace.backend for vector in vectors] == ["first", "second"]
        assert vectors[0].similarity(vectors[1]) == pytest.approx(1.0)


class TestFetching:
    """One fetch for all rungs that name the same model."""

    @pytest.mark.parametrize("download", ["background", "wait"])
    def test_a_model_that_two_rungs_name_is_fetched_once(self, make_backend, folder_hub, model, download):
        """The second waits for it, and says so."""
        hub = folder_hub({"org/clip": model("clip")})
        backends = [make_backend(embedding_model="org/clip", hub=hub, download=download) for _ in range(2)]
        threads = [threading.Thread(target=backend.warm_up, args=(EMBED,)) for backend in backends]
        for thread in threads:
            thread.start()
        wait_for(lambda: hub.fetches)
        states = {"being fetched: 1 of 2 MB, 50%", "waiting for another rung, which fetches it"}
        wait_for(lambda: {backend.status()["embedding"]["state"] for backend in backends} == states)
        hub.allowed.set()
        for thread in threads:
            thread.join(60)
        assert hub.fetches == ["org/clip"]
        assert engine_of(backends[0]) is engine_of(backends[1])

    def test_one_that_fails_is_tried_by_the_other(self, make_backend, folder_hub):
        """Each tells its own failure."""
        hub = folder_hub()
        hub.allowed.set()
        for backend in (make_backend(embedding_model="org/none", hub=hub, download="wait") for _ in range(2)):
            with pytest.raises(Exception, match="could not be fetched"):
                backend.warm_up(EMBED)
        assert hub.fetches == ["org/none"] * 2


class Thing:
    """Something that can be shared."""


class TestShared:
    """The registry itself."""

    def test_what_nobody_holds_is_forgotten(self):
        """Also where nobody has said goodbye."""
        shared, holder = Shared(), Thing()
        gone = weakref.ref(shared.take("key", Thing, holder=holder))
        gc.collect()
        assert gone() is None
        assert shared.take("key", lambda: None, holder=holder) is None

    def test_the_last_one_to_leave_is_told(self):
        """Those that are gone do not count."""
        shared, first, second = Shared(), Thing(), Thing()
        thing = shared.take("key", Thing, holder=first)
        assert shared.take("key", Thing, holder=second) is thing
        assert shared.take("other", Thing, holder=second) is not thing
        assert shared.holders(thing) == 2
        assert not shared.leave(thing, first)
        del second
        gc.collect()
        assert shared.leave(thing, first)

    def test_an_error_of_one_is_no_error_of_the_next(self):
        """Nothing stays locked."""
        shared, holder = Shared(), Thing()
        with pytest.raises(ZeroDivisionError):
            shared.take("key", lambda: 1 / 0, holder=holder)
        assert isinstance(shared.take("key", Thing, holder=holder), Thing)

    def test_turns_of_different_keys_do_not_wait(self):
        """Nor does anything remain of them."""
        turns = Turns()
        with turns.alone("a"), turns.alone("b"):
            assert len(turns._turns) == 2
        assert turns._turns == {}


def test_all_that_shapes_a_loaded_model_tells_two_apart():
    """A setting that is added to the loader has to be decided upon here."""
    shaping = {"device", "dtype", "engine", "threads", "max_queue", "tuning_cache"}
    assert set(LoaderSettings.__dataclass_fields__) - shaping == {"max_memory_bytes"}


FORK = """
import os
from vision_backends.backends.local.runtime.sharing import Shared

class Thing:
    pass

shared, holder = Shared(), Thing()
thing = shared.take("key", Thing, holder=holder)
with shared._turns.alone("busy"), shared._lock:
    child = os.fork()
    if child == 0:
        other = shared.take("key", Thing, holder=holder)
        shared.take("busy", Thing, holder=holder)
        os._exit(0 if other is not thing and shared.holders(thing) == 0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shared.holders(thing))
"""


def test_a_forked_child_has_nothing_of_it():
    """The threads that a model has are the parent's; no lock of theirs is waited for either."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0 1\n"
