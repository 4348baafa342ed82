"""The local rung keeps the contract of a backend, and says truly why it cannot answer yet."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from answering import answer
from PIL import Image as PILImage

from vision_backends import Router, open_image
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.runtime.memory import _reservations
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.registry import make_backend as make_registered
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.engine.machine_limits import free_memory
from vision_backends.errors import (
    ConfigError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    TimedOutError,
)
from vision_backends.testing import BackendContract, FakeClock

EVERY_REQUEST = [
    DescribeRequest(),
    DescribeRequest(prompt="What is it?"),
    EmbedRequest(),
    EmbedTextRequest(),
    DetectRequest(),
    DetectRequest(labels=("a scooter",)),
]


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory):
    """What all users of a machine share, so that it is measured for the first of them only."""
    return TuningCache(tmp_path_factory.mktemp("tuning"))


class TestContract(BackendContract):
    """What the router relies on, with CLIP, BLIP, D-FINE and Grounding DINO."""

    kinds = ("blip_of_two_cats", "sentence_clip", "d_fine", "grounding_dino")

    @pytest.fixture(autouse=True)
    def folders(self, model, measured_once):
        """Build the models."""
        keys = ("caption_model", "embedding_model", "detection_model", "open_vocabulary_model")
        self.settings = {key: str(model(kind)) for key, kind in zip(keys, self.kinds, strict=True)}
        self.tuning_cache = measured_once

    def make_backend(self):
        """Return one with tiny models in folders."""
        return LocalBackend(**self.settings, engine="torch", min_score=0.1, tuning_cache=self.tuning_cache)


class TestContractOfOtherModels(TestContract):
    """The same with LLaVA, SigLIP 2, DETR and OWLv2."""

    kinds = ("llava", "siglip2", "detr", "owlv2")


def test_importing_it_loads_nothing_heavy():
    """Making one and asking whether it is ready do not either."""
    code = """
import sys
from vision_backends import DescribeRequest, EmbedRequest
from vision_backends.backends.local import LocalBackend
backend = LocalBackend(caption_model="/nowhere/model")
for request in (DescribeRequest(), EmbedRequest()):
    try:
        backend.check(request)
    except Exception as error:
        print(type(error).__name__)
    backend.model_for(request)
backend.status()
backend.close()
heavy = {"torch", "transformers", "sentence_transformers", "numpy", "tqdm"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["NotReadyError", "NotReadyError", "[]"]


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (DescribeRequest(), "caption_model"),
        (EmbedRequest(), "embedding_model"),
        (EmbedTextRequest(), "embedding_model"),
        (DetectRequest(), "detection_model"),
        (DetectRequest(labels=("a scooter",)), "open_vocabulary_model"),
    ],
)
def test_the_configured_model_is_the_one_that_would_answer(request_, key):
    """Each task has its key; labels of any kind need a model of their own."""
    assert make_registered("local", {key: "acme/tiny"}).model_for(request_).name == "acme/tiny"
    assert LocalBackend().model_for(request_).name != "acme/tiny"


def test_only_embeddings_name_a_space(make_backend, model):
    """Images and texts share it."""
    backend = make_backend(embedding_model=model("clip"), caption_model=model("blip"), detection_model=model("detr"))
    assert backend.model_for(EmbedRequest()).space == backend.model_for(EmbedTextRequest()).space is not None
    assert backend.model_for(DescribeRequest()).space is None
    assert backend.model_for(DetectRequest()).space is None


def test_a_pinned_revision_is_known_before_the_fetch(make_backend):
    """So is its vector space."""
    backend = make_backend(embedding_model=f"acme/tiny@{'c' * 40}")
    assert backend.model_for(EmbedRequest()).revision == "c" * 40
    assert backend.model_for(EmbedRequest()).space == f"local/acme/tiny@{'c' * 40}"


def test_pixels_stay_on_this_machine():
    """`local_only=True` keeps it on the ladder."""
    assert LocalBackend().local


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "abacus"),
        ("device", "cuda:x"),
        ("download", "often"),
        ("caption_model", 5),
        ("min_score", 1.5),
        ("threads", 0),
        ("max_queue", 0),
        ("max_memory_bytes", 0),
        ("max_memory_bytes", -1),
    ],
)
def test_a_bad_value_is_an_error_of_the_configuration(key, value):
    """It names the key."""
    with pytest.raises(ConfigError, match=rf"^\[local\].*{key}"):
        make_registered("local", {key: value})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_every_device_can_be_configured(device):
    """Whether it is there shows when a model is loaded."""
    make_registered("local", {"device": device})


@pytest.mark.parametrize("request_", EVERY_REQUEST)
def test_a_task_without_a_model_is_not_supported(make_backend, request_):
    """An empty name takes the model out of the configuration."""
    backend = make_backend()
    with pytest.raises(NotSupportedError):
        backend.model_for(request_)
    with pytest.raises(NotSupportedError):
        backend.check(request_)


class TestFolders:
    """A folder may stand wherever a model's name may."""

    def test_one_that_appears_later_is_used_then(self, make_backend, model, tmp_path, make_image):
        """Until then the rung is not ready, and says which folder is missing."""
        folder = tmp_path / "later"
        backend = make_backend(embedding_model=folder)
        for ask in (
            lambda: backend.check(EmbedRequest()),
            lambda: answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60),
        ):
            with pytest.raises(NotReadyError, match=r"later in \[local\] does not exist"):
                ask()
        shutil.copytree(model("clip"), folder)
        backend.check(EmbedRequest())
        assert answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)

    def test_one_that_is_mended_is_used_then(self, make_backend, model_copy, make_image):
        """What was wrong is looked at again when a file has changed."""
        folder = model_copy("clip")
        hidden = folder.with_name("config.json")
        (folder / "config.json").rename(hidden)
        backend = make_backend(embedding_model=folder)
        with pytest.raises(NotReadyError, match=r"config\.json is missing"):
            backend.check(EmbedRequest())
        hidden.rename(folder / "config.json")
        assert answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)

    def test_what_is_loaded_keeps_its_revision(self, make_backend, model_copy, make_image):
        """Whatever happens to the folder meanwhile; loading again takes the new one."""
        folder = model_copy("clip")
        backend = make_backend(embedding_model=folder)
        (before,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        (folder / "extra.json").write_text("{}")
        (again,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert again.space == before.space
        backend.close()
        (after,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert after.space != before.space

    @pytest.mark.parametrize("download", ["never", "background", "wait"])
    def test_unsafe_ones_are_refused_before_loading(self, make_backend, model_copy, download):
        """Nothing is imported or read for it."""
        folder = model_copy("clip")
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["auto_map"] = {"AutoConfig": "evil.Config"}
        (folder / "config.json").write_text(json.dumps(config))
        backend = make_backend(embedding_model=folder, download=download)
        with pytest.raises(NotReadyError, match="auto_map") as caught:
            backend.check(EmbedRequest())
        assert caught.value.code == "remote_code"
        assert backend.status()["embedding"]["state"] == "not loaded"


class TestFetching:
    """What comes from a hub comes once, and callers hear how far it is."""

    def test_never_means_never(self, make_backend, folder_hub, make_image):
        """The remedy is the command that fetches it."""
        hub = folder_hub()
        backend = make_backend(caption_model="acme/tiny", download="never", hub=hub)
        for ask in (
            lambda: backend.check(DescribeRequest()),
            lambda: answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60),
        ):
            with pytest.raises(NotReadyError, match="acme/tiny is not on this machine") as caught:
                ask()
            assert caught.value.remedy == "Run: vision models pull acme/tiny"
        assert hub.fetches == []

    def test_what_is_there_is_not_fetched(self, make_backend, folder_hub, model, make_image):
        """Its revision is the commit."""
        hub = folder_hub({"acme/tiny": model("clip")}, arrived=["acme/tiny"])
        backend = make_backend(embedding_model="acme/tiny", download="never", hub=hub)
        (vector,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert vector.space == "local/acme/tiny@0123456789abcdef0123456789abcdef01234567"
        assert hub.fetches == []

    def test_in_the_background_the_first_request_starts_it(self, make_backend, folder_hub, model, make_image):
        """It is refused like those after it, until the weights are there; looking starts nothing."""
        hub = folder_hub({"acme/tiny": model("blip")})
        backend = make_backend(caption_model="acme/tiny", hub=hub)
        with pytest.raises(NotReadyError, match="the first request that reaches this rung fetches it"):
            backend.check(DescribeRequest())
        assert hub.fetches == []
        with pytest.raises(NotReadyError, match=r"acme/tiny is being (fetched|loaded)"):
            answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
        wait_until(lambda: "50%" in backend.status()["caption"]["state"])
        with pytest.raises(NotReadyError, match=r"acme/tiny is being fetched: 1 of 2 MB, 50%\."):
            backend.check(DescribeRequest())
        hub.allowed.set()
        wait_until(lambda: backend.status()["caption"]["state"] == "loaded")
        backend.check(DescribeRequest())
        (caption,) = answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
        assert caption.trace.revision == "0123456789abcdef0123456789abcdef01234567"
        assert hub.fetches == ["acme/tiny"]

    def test_the_next_rung_answers_meanwhile(self, make_backend, folder_hub, model, make_image):
        """And the local one does once it can."""
        hub = folder_hub({"acme/tiny": model("d_fine")})
        local = make_backend(detection_model="acme/tiny", hub=hub, min_score=0.1)
        with Router([local, EmbeddedBackend(threads=1)]) as router:
            router.status()
            router.explain("detect")
            assert hub.fetches == []
            for _ in range(2):
                found = router.detect(make_image().rgb())
                assert (found.trace.backend, found.trace.degraded) == ("embedded", True)
                assert "acme/tiny is " in found.trace.reason
                assert router.explain("detect").chosen == "embedded"
            wait_until(lambda: hub.fetches)
            hub.allowed.set()
            wait_until(lambda: local.status()["detection"]["state"] == "loaded")
            found = router.detect(make_image().rgb())
            assert (found.trace.backend, found.trace.degraded) == ("local", False)

    def test_waiting_is_for_all_callers_together(self, make_backend, folder_hub, model, make_image):
        """Four threads, one fetch."""
        hub = folder_hub({"acme/tiny": model("blip")})
        backend = make_backend(caption_model="acme/tiny", download="wait", hub=hub)
        backend.check(DescribeRequest())
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(answer, backend.describe, [make_image()], DescribeRequest(), timeout_s=60) for _ in range(4)
            ]
            wait_until(lambda: hub.fetches)
            hub.allowed.set()
            assert len({job.result()[0].text for job in jobs}) == 1
        assert hub.fetches == ["acme/tiny"]

    def test_a_space_that_only_just_became_known_is_not_the_one_announced(
        self, make_backend, folder_hub, model, make_image
    ):
        """The first call fetched the weights and learnt their revision; the second may use them."""
        hub = folder_hub({"acme/tiny": model("clip")})
        hub.allowed.set()
        backend = make_backend(embedding_model="acme/tiny", download="wait", hub=hub)
        with pytest.raises(NotReadyError, match="have just arrived") as caught:
            answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert caught.value.remedy == "Ask again."
        (vector,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert vector.space == backend.model_for(EmbedRequest()).space

    def test_a_stream_starts_it_as_well(self, make_backend, folder_hub, model, make_image):
        """However the description is asked for."""
        hub = folder_hub({"acme/tiny": model("blip")})
        hub.allowed.set()
        local = make_backend(caption_model="acme/tiny", hub=hub)
        with Router([local, EmbeddedBackend(threads=1)]) as router:
            assert "".join(router.describe_stream(make_image().rgb()))
            wait_until(lambda: local.status()["caption"]["state"] == "loaded")

    def test_a_fetch_that_fails_is_told(self, make_backend, folder_hub, make_image):
        """And not tried again at once."""
        hub = folder_hub()
        hub.allowed.set()
        backend = make_backend(caption_model="acme/gone", download="wait", hub=hub)
        for _ in range(2):
            with pytest.raises(NotReadyError, match="acme/gone could not be fetched"):
                answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
        assert hub.fetches == ["acme/gone"]
        assert backend.status()["caption"]["state"].startswith("failed")

    def test_half_a_model_is_fetched_again(self, make_backend, folder_hub, model, model_copy, make_image):
        """A fetch may have been interrupted; with download="never" it is said what is missing."""
        half = model_copy("blip")
        (half / "model.safetensors").unlink()
        hub = folder_hub({"acme/tiny": half}, arrived=["acme/tiny"])
        hub.allowed.set()
        never = make_backend(caption_model="acme/tiny", download="never", hub=hub)
        with pytest.raises(NotReadyError, match="is not on this machine"):
            never.check(DescribeRequest())
        backend = make_backend(caption_model="acme/tiny", download="wait", hub=hub)
        backend.check(DescribeRequest())
        hub.folders["acme/tiny"] = model("blip")
        assert answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)


class TestAnIdleRung:
    """It is asked about with every call of a better one."""

    def test_one_look_serves_many_calls(self, make_backend, folder_hub, model):
        """Files are not read anew for each of them."""
        hub = folder_hub({"acme/tiny": model("clip")}, arrived=["acme/tiny"])
        backend = make_backend(embedding_model="acme/tiny", hub=hub, clock=FakeClock())
        for _ in range(10):
            backend.check(EmbedRequest())
            assert backend.model_for(EmbedRequest()).revision is not None
            assert backend.image_px(EmbedRequest()) == 64
            backend.expected_s(EmbedRequest())
        assert hub.looks == 1

    def test_what_another_process_fetches_is_noticed_within_a_second(self, make_backend, folder_hub, model):
        """By the clock of the rung."""
        hub, clock = folder_hub({"acme/tiny": model("clip")}), FakeClock()
        backend = make_backend(embedding_model="acme/tiny", download="never", hub=hub, clock=clock)
        with pytest.raises(NotReadyError, match="not on this machine"):
            backend.check(EmbedRequest())
        hub.arrived.add("acme/tiny")
        clock.advance(1.0)
        backend.check(EmbedRequest())


class TestCoroutines:
    """The rung is awaited, on any event loop."""

    def test_each_loop_has_its_own_answers(self, make_backend, model, make_image):
        """One after the other, and beside each other."""
        backend = make_backend(embedding_model=model("clip"))

        def ask(number):
            return asyncio.run(backend.embed([make_image(64 + number)], EmbedRequest(), timeout_s=60))[0]

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(ask, range(4)))
        assert min(vector.similarity(ask(number)) for number, vector in enumerate(together)) > 0.999999

    def test_a_cancelled_call_lets_go_of_the_model(self, make_backend, model, make_image):
        """Its generation ends long before its last token, and its inputs leave the queue."""
        backend = make_backend(caption_model=model("llava"))
        answer(backend.describe, [make_image()], DescribeRequest(max_words=1), timeout_s=60)
        loaded = backend._models["caption"]._slot.value.loaded
        steps, begun = [], threading.Event()

        def count(*_ignored):
            steps.append(1)
            begun.set()
            time.sleep(0.01)

        loaded.model.lm_head.register_forward_hook(count)

        async def cancelled():
            call = asyncio.create_task(
                backend.describe([make_image()] * 20, DescribeRequest(max_words=100), timeout_s=60)
            )
            await asyncio.to_thread(begun.wait, 20)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return loaded.batcher.waiting

        assert answer(cancelled) == 0
        answer(backend.describe, [make_image()], DescribeRequest(max_words=1), timeout_s=60)
        assert len(steps) < 30

    def test_the_loop_is_never_held_up(self, make_backend, model, photos, make_image):
        """Whatever is decoded, computed and read meanwhile."""
        backend = make_backend(detection_model=model("d_fine"), embedding_model=model("clip"), min_score=0.0)
        answer(backend.detect, [make_image()], DetectRequest(), timeout_s=60)
        answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        images = [open_image(photo) for photo in sorted(photos.glob("*.jpg"))[:4]] * 4
        own_s = []

        async def watch():
            calls = [
                asyncio.ensure_future(backend.detect(images, DetectRequest(), timeout_s=60)),
                asyncio.ensure_future(backend.embed(images, EmbedRequest(), timeout_s=60)),
            ]
            while not all(call.done() for call in calls):
                before = time.thread_time()
                await asyncio.sleep(0)
                own_s.append(time.thread_time() - before)

        gc.disable()  # a collection may fall on any thread
        try:
            answer(watch)
        finally:
            gc.enable()
        assert max(own_s) < 0.02


def test_many_threads_load_a_model_once(make_backend, model, make_image):
    """And get the answer that one would."""
    backend = make_backend(embedding_model=model("clip"))
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(answer, backend.embed, [make_image()], EmbedRequest(), timeout_s=60) for _ in range(8)]
        vectors = [job.result()[0] for job in jobs]
    assert min(vector.similarity(vectors[0]) for vector in vectors) > 0.999999


def test_the_memory_limit_comes_before_loading(make_backend, model, make_image):
    """The reason has the figures."""
    backend = make_backend(caption_model=model("blip"), max_memory_bytes=1000)
    with pytest.raises(NotReadyError, match="needs about"):
        answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)


@pytest.mark.parametrize("request_", [DescribeRequest(), EmbedRequest(), DetectRequest()])
def test_no_time_is_no_answer(make_backend, model, make_image, request_):
    """Whatever the model."""
    backend = make_backend(
        caption_model=model("blip"), embedding_model=model("clip"), detection_model=model("rt_detr_v2")
    )
    answer(getattr(backend, request_.task), [make_image()], request_, timeout_s=60)
    with pytest.raises((TimedOutError, OverloadedError)):
        answer(getattr(backend, request_.task), [make_image()] * 20, request_, timeout_s=1e-4)


def test_status_tells_what_is_loaded(make_backend, model, make_image):
    """JSON-able; closing gives the memory back."""
    backend = make_backend(embedding_model=model("clip"), caption_model=model("blip"), device="cpu")
    answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
    status = backend.status()
    assert json.loads(json.dumps(status)) == status
    assert status["caption"]["state"] == "not loaded"
    assert (status["embedding"]["state"], status["embedding"]["device"]) == ("loaded", "cpu")
    assert status["embedding"]["memory_bytes"] > 10_000
    backend.close()
    assert backend.status()["embedding"]["state"] == "not loaded"
    assert answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)


def test_images_are_decoded_no_larger_than_needed(make_backend, model):
    """Twice the model's input; unknown before the model is on this machine."""
    backend = make_backend(embedding_model=model("clip"), caption_model="acme/tiny")
    assert backend.image_px(EmbedRequest()) == 64
    assert backend.image_px(DescribeRequest()) is None


@pytest.fixture(scope="module")
def forked_and_ended(model):
    """A process that forked before it loaded a model and afterwards, and ended while daemon threads asked."""
    code = f"""
import contextlib, os, threading, time, warnings
warnings.simplefilter("ignore")  # Python's own, about forking with threads
import transformers.models.clip.modeling_clip  # once for both that load it
from PIL import Image
from vision_backends import DetectRequest, EmbedRequest, open_image
from vision_backends.backends.local import LocalBackend
from vision_backends.engine.event_loop import engine_loop

def answer(task, *args, **options):
    return engine_loop().run(lambda: task(*args, **options))

models = {{"embedding_model": {str(model("clip"))!r}, "detection_model": {str(model("d_fine"))!r}}}
backend = LocalBackend(**models, engine="torch", min_score=0.0)
image, request = open_image(Image.new("RGB", (64, 64))), EmbedRequest()
if os.fork() == 0:
    print(len(answer(backend.embed, [image], request, timeout_s=60)), flush=True)
    os._exit(0)
os.wait()
answer(backend.embed, [image], request, timeout_s=60)
if os.fork() == 0:
    try:
        answer(backend.embed, [image], request, timeout_s=60)
    except Exception as error:
        print(type(error).__name__, error.code, flush=True)
    os._exit(0)
os.wait()

images = [open_image(Image.new("RGB", (640, 480)))] * 8
answer(backend.detect, images, DetectRequest(), timeout_s=60)

def ask():
    while True:
        answer(backend.detect, images, DetectRequest(), timeout_s=60)

def keep_asking():
    with contextlib.suppress(BaseException):  # the loop that ends cancels what it cannot finish
        ask()

for _ in range(2):
    threading.Thread(target=keep_asking, daemon=True).start()
time.sleep(0.5)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_says_so_instead_of_hanging(forked_and_ended):
    """Before the first load a fork does no harm."""
    assert forked_and_ended.stdout.splitlines() == ["1", "NotReadyError forked"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_may_end_while_daemon_threads_ask(forked_and_ended):
    """Torch is not cut off in the midst of its code, which would abort the process."""
    assert (forked_and_ended.stderr, forked_and_ended.returncode) == ("", 0)


def test_no_request_touches_the_network_or_the_terminal(make_backend, model, make_image, capfd):
    """Sockets are blocked in these tests anyway; nothing is printed either."""
    backend = make_backend(
        caption_model=model("blip"), detection_model=model("detr"), open_vocabulary_model=model("grounding_dino")
    )
    capfd.readouterr()
    answer(backend.describe, [make_image()], DescribeRequest(), timeout_s=60)
    answer(backend.detect, [make_image()], DetectRequest(), timeout_s=60)
    answer(backend.detect, [make_image()], DetectRequest(labels=("a dog",)), timeout_s=60)
    assert capfd.readouterr() == ("", "")


def wait_until(happens):
    """Return when something has happened."""
    pause = threading.Event()
    for _ in range(1000):
        if happens():
            return
        pause.wait(0.01)
    raise AssertionError("it has not happened within 10 s")


def test_answers_of_other_numbers_are_others(make_backend, model):
    """A cache must not give those of one engine or type of numbers for those of another."""
    prints = {
        make_backend(caption_model=model("blip"), dtype=dtype, engine=engine).model_for(DescribeRequest()).fingerprint
        for dtype in ("float32", "bfloat16")
        for engine in ("torch", "openvino")
    }
    assert len(prints) == 4


def test_closing_what_was_never_loaded_looks_for_no_garbage(model):
    """Every router closes this rung, also where another one has answered all calls."""
    found = []

    def note(phase, info):
        found.append((phase, info))

    backend = LocalBackend(caption_model=str(model("blip_of_two_cats")))
    was_enabled = gc.isenabled()
    gc.disable()
    gc.callbacks.append(note)
    try:
        backend.close()
    finally:
        gc.callbacks.remove(note)
        if was_enabled:
            gc.enable()
    assert found == []


class TestAFolderHereThatIsCalledLikeAModel:
    """It is not what the name means, and whoever has put it there is told how to write it."""

    HINT = "for the folder here, write ./acme/clip in [local]"

    @pytest.fixture
    def here(self, model, tmp_path, monkeypatch):
        """The working directory, with such a folder."""
        shutil.copytree(model("clip"), tmp_path / "acme" / "clip")
        monkeypatch.chdir(tmp_path)

    @pytest.mark.usefixtures("here")
    def test_a_model_that_was_not_fetched_says_so(self, make_backend):
        """The remedy has both ways."""
        backend = make_backend(embedding_model="acme/clip", download="never")
        with pytest.raises(NotReadyError) as caught:
            backend.check(EmbedRequest())
        assert self.HINT in caught.value.remedy

    @pytest.mark.usefixtures("here")
    def test_a_hub_without_the_model_says_so(self, make_backend, tmp_path, loopback_hub, make_image):
        """What the hub answers is not all that can be said."""
        hub = HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint)
        backend = make_backend(embedding_model="acme/clip", download="wait", hub=hub)
        with pytest.raises(ModelNotFoundError) as caught:
            answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert self.HINT in caught.value.remedy

    @pytest.mark.usefixtures("here")
    def test_a_cached_model_is_used_and_says_so(self, make_backend, folder_hub, model, make_image, caplog):
        """Its space names the commit, not the folder."""
        hub = folder_hub({"acme/clip": model("clip")}, arrived=["acme/clip"])
        backend = make_backend(embedding_model="acme/clip", hub=hub)
        (found,) = answer(backend.embed, [make_image()], EmbedRequest(), timeout_s=60)
        assert found.space == "local/acme/clip@0123456789abcdef0123456789abcdef01234567"
        assert self.HINT in caplog.text


class TestTwoLocalRungs:
    """On one ladder, with models of their own."""

    @pytest.fixture
    def router(self, make_backend, model):
        """A captioner, and another one below it."""
        rungs = [make_backend(caption_model=model("llava")), make_backend(caption_model=model("blip")).named("small")]
        with Router(rungs, caching=False) as router:
            yield router

    def test_each_answers_with_its_own_model(self, router, model):
        """And under its own name."""
        for name, folder in (("local", "llava"), ("small", "blip")):
            trace = router.describe(PILImage.new("RGB", (40, 30), "teal"), backend=name).trace
            assert (trace.backend, trace.model) == (name, str(model(folder)))
        facts = {rung.backend: rung.facts["caption"]["state"] for rung in router.status()}
        assert facts == {"local": "loaded", "small": "loaded"}

    def test_both_count_for_the_memory_of_the_process(self, router):
        """What one reserves while it loads, the other does not have; its message names its own table."""
        free = free_memory().size_bytes
        with _reservations.reserve(free, free=free):
            report = router.warm_up(["describe"], backend="small", wait_s=60)
        (warm_up,) = report
        assert (warm_up.backend, warm_up.error) == ("small", "not_ready")
        assert "of memory" in warm_up.reason
        assert warm_up.remedy == "Free some memory, or configure a smaller model under [backends.small]."
