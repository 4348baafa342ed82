"""The embedded rung keeps the contract of a backend, and its own promises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as PILImage

from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.model_cards import asset, coco_categories, model_cards
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.config.validation import parse_table
from vision_backends.errors import ConfigError, NotReadyError, NotSupportedError, TimedOutError
from vision_backends.images import open_image
from vision_backends.testing import BackendContract

ROOT = Path(__file__).parents[3]
TASKS = {"describe": DescribeRequest(), "embed": EmbedRequest(), "detect": DetectRequest()}


class TestContract(BackendContract):
    """What the router relies on."""

    def make_backend(self):
        """Return one on two threads."""
        return EmbeddedBackend(threads=2)


class SteppingClock:
    """A clock that is one second later each time it is read."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        """Return the next second."""
        self.now += 1
        return self.now

    def time(self):
        """Return the current second."""
        return self.now

    def sleep(self, seconds):
        """Fail: the router sleeps, backends do not."""
        raise AssertionError("a backend never sleeps")


def ask(backend, request, images):
    """Ask a backend whatever the request is for."""
    return getattr(backend, request.task)(images, request, timeout_s=60)


def test_it_can_do_all_tasks_at_once_after_installation(backend):
    """Describe, embed, detect and embedding texts are ready."""
    for request in (*TASKS.values(), EmbedTextRequest()):
        backend.check(request)


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_costs_nothing(backend, photos, task):
    """Usage is known to be zero, and the trace names the models and their revisions."""
    request = TASKS[task]
    (answer,) = ask(backend, request, [open_image(photos["cat"])])
    assert (answer.trace.usage.cost_usd, answer.trace.usage.input_tokens) == (0.0, 0)
    assert (answer.trace.model, answer.trace.revision) == (
        backend.model_for(request).name,
        backend.model_for(request).revision,
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_trace_says_how_long_preparing_and_computing_took(backend, photos, task):
    """Each image has its own times; there is neither a queue nor a wire."""
    images = [open_image(photos["cat"]), open_image(photos["temple"])]
    first, second = (answer.trace.timing for answer in ask(backend, TASKS[task], images))
    for timing in (first, second):
        assert timing.decode_s > 0
        assert timing.model_s > 0
        assert (timing.queue_s, timing.wire_s) == (None, None)
    assert first != second


def test_a_description_says_what_it_is_made_from(backend, photos):
    """The evidence is JSON-able and holds the boxes; the language is English."""
    (described,) = ask(backend, DescribeRequest(language="en-GB"), [open_image(photos["photographer"])])
    evidence = json.loads(json.dumps(described.to_dict()))["evidence"]
    assert described.language == "en"
    assert evidence["objects"][0]["label"] == "person"
    assert evidence["scene"]["label"] == "tripod"
    assert evidence["colours"]["greyscale"]


def test_a_description_keeps_to_the_words_it_may_have(backend, photos):
    """max_words shortens the text."""
    image = open_image(photos["astronaut"])
    long, short = (ask(backend, DescribeRequest(max_words=words), [image])[0].text for words in (None, 8))
    assert len(short.split()) <= 8 < len(long.split())


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (DescribeRequest(prompt="What does the sign say?"), "cannot follow a prompt"),
        (DescribeRequest(language="de"), "English only"),
        (EmbedRequest(space="openai/other"), "not of 'openai/other'"),
        (EmbedTextRequest(space="embedded/efficientnet-lite0-224@44e9d91e8412-p2"), "vectors of 'embedded/conse"),
    ],
)
def test_what_it_cannot_do_is_refused_by_check_and_task(backend, photos, request_, why):
    """A refusal says what it can do instead, before and at the call."""
    with pytest.raises(NotSupportedError, match=why):
        backend.check(request_)
    with pytest.raises(NotSupportedError, match=why):
        ask(backend, request_, [open_image(photos["cat"])])


def test_its_own_space_may_be_pinned(backend, photos):
    """The space names the model, its revision and the preprocessing."""
    space = backend.model_for(EmbedRequest()).space
    assert space == "embedded/efficientnet-lite0-224@44e9d91e8412-p2"
    (vector,) = ask(backend, EmbedRequest(space=space), [open_image(photos["cat"])])
    assert (vector.space, vector.dimension) == (space, 1280)


def test_labels_of_the_vocabulary_are_answered_in_the_callers_words(backend, photos):
    """The person is found as "people", called as asked for, and nothing else."""
    image = open_image(photos["astronaut"])
    (found,) = ask(backend, DetectRequest(labels=("people", "ties"), min_score=0.3), [image])
    assert [item.label for item in found] == ["people"]
    assert found[0].category_id == coco_categories()["person"]


def test_the_lowest_score_comes_from_the_request_or_the_settings(photos):
    """A request's own score wins over the configured one, which is part of what the cache keys by."""
    image = open_image(photos["cat"])
    strict = EmbeddedBackend(threads=2, min_score=0.9)
    assert len(ask(strict, DetectRequest(), [image])[0]) == 0
    assert len(ask(strict, DetectRequest(min_score=0.5), [image])[0]) == 1
    assert strict.model_for(DetectRequest()) != EmbeddedBackend().model_for(DetectRequest())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (20, 3000), (640, 480)])
def test_every_image_gets_an_answer(backend, task, size):
    """The last rung always answers, be the image black and a pixel wide."""
    assert len(ask(backend, TASKS[task], [open_image(PILImage.new("RGB", size))])) == 1


def test_reduced_decoding_changes_vectors_hardly_at_all(backend, photos, tmp_path):
    """A large JPEG that was decoded at reduced scale has the vector of the whole, to a cosine of 0.998."""
    path = tmp_path / "large.jpg"
    with PILImage.open(photos["raccoon"]) as photo:
        photo.resize((4096, 3072)).save(path, quality=92)
    request = EmbedRequest()
    images = [open_image(path), open_image(path, min_side_px=backend.image_px(request))]
    assert images[1].rgb(min_side_px=backend.image_px(request)).width < 4096
    full, reduced = ask(backend, request, images)
    assert full.similarity(reduced) > 0.998


@pytest.mark.parametrize("task", TASKS)
def test_time_is_up_between_two_images(photos, task):
    """What is done when the time is over is given up; the error says how far it got."""
    backend = EmbeddedBackend(threads=2, clock=SteppingClock())
    images = [open_image(photos["cat"])] * 5
    with pytest.raises(TimedOutError, match="2 of 5"):
        getattr(backend, task)(images, TASKS[task], timeout_s=2.5)


def test_a_damaged_installation_is_not_ready(tmp_path, photos):
    """A missing file shows in check, a damaged one in the call; the other models go on working."""
    for card in model_cards():
        if card.backend == "embedded":
            shutil.copy(asset(card.file), tmp_path)
    detector = tmp_path / "nanodet-g-416.onnx"
    detector.write_bytes(detector.read_bytes()[:-1])
    backend = EmbeddedBackend(threads=2, models=tmp_path)
    image = open_image(photos["cat"])
    for request in (DetectRequest(), DescribeRequest()):
        with pytest.raises(NotReadyError, match="reinstall"):
            ask(backend, request, [image])
    assert len(ask(backend, EmbedRequest(), [image])) == 1
    detector.unlink()
    backend.check(EmbedRequest())
    shared = EmbedRequest(space=backend.model_for(EmbedTextRequest()).space)
    for request in (DetectRequest(), DescribeRequest(), shared):
        with pytest.raises(NotReadyError, match="missing"):
            backend.check(request)
    assert len(ask(backend, EmbedTextRequest(), ["a cat"])) == 1


@pytest.mark.parametrize("table", [{"threads": 0}, {"min_score": 1.5}, {"min_score": -0.1}])
def test_settings_without_a_meaning_are_refused(table):
    """The error names the key and the value."""
    with pytest.raises(ConfigError, match=next(iter(table))):
        EmbeddedBackend(**parse_table(EmbeddedBackend, table, section="[embedded]"))


def test_status_says_what_is_loaded(photos):
    """Before the first call all models are on disk; afterwards the one that was needed is loaded."""
    backend = EmbeddedBackend(threads=3)
    assert set(backend.status()["models"].values()) == {"on disk"}
    ask(backend, EmbedRequest(), [open_image(photos["cat"])])
    ask(backend, EmbedTextRequest(), ["a cat"])
    assert backend.status()["models"] == {
        "nanodet-g-416": "on disk",
        "efficientnet-lite0-224": "loaded",
        "minilm-l6-static-128": "loaded",
        "pp-ocrv6-tiny": "on disk",
    }
    assert backend.status()["threads"] == 3
    backend.close()
    assert set(backend.status()["models"].values()) == {"on disk"}
    json.dumps(backend.status())


def test_hints_for_the_router_are_sensible(backend):
    """Images need no more pixels than the models look at, and an answer is expected within a second."""
    assert [backend.image_px(TASKS[task]) for task in ("detect", "embed", "describe")] == [416, 336, 640]
    for request in TASKS.values():
        assert backend.expected_s(request) <= 1
        assert backend.concurrency(request) == 2
        assert backend.batch_size(request) == 1


LAZY = """
import sys
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
backend = EmbeddedBackend()
shared = EmbedRequest(space=backend.model_for(EmbedTextRequest()).space)
for request in (DescribeRequest(), DetectRequest(), EmbedRequest(), EmbedTextRequest(), shared):
    backend.check(request)
    backend.model_for(request)
backend.status()
print(sorted({"numpy", "onnxruntime", "PIL"} & set(sys.modules)))
"""


def test_nothing_heavy_is_imported_before_it_is_needed():
    """Making, asking and checking the backend imports neither numpy nor onnxruntime nor Pillow, and is silent."""
    command = [sys.executable, "-c", LAZY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("pause_s", [0.0, 0.1, 0.2])
def test_a_program_may_end_while_models_are_loaded(pause_s):
    """A thread that is stopped in native code would abort the process."""
    code = f"""
import contextlib, threading, time
from vision_backends import DescribeRequest, VisionError
from vision_backends.backends.embedded import EmbeddedBackend
backend = EmbeddedBackend(threads=1)

def load():
    with contextlib.suppress(VisionError, ImportError, RuntimeError):  # as Python shuts down
        backend.warm_up(DescribeRequest())

threading.Thread(target=load, daemon=True).start()
time.sleep({pause_s})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")


WORKING = """
import contextlib, threading, time
from pathlib import Path
from vision_backends import Router, VisionError

Path("vision.toml").write_text('ladder = ["embedded"]\\nstate = "memory"\\ncache.enabled = false\\n')
router = Router.from_config("vision.toml")
ready = threading.Barrier(3)

def work(photo):
    router.describe(photo)
    ready.wait()
    with contextlib.suppress(VisionError, RuntimeError):  # as Python shuts down
        while True:
            router.describe(photo)

for _ in range(2):
    threading.Thread(target=work, args=(PHOTO,), daemon=True).start()
ready.wait()
time.sleep(0.1)
"""


def test_a_program_may_end_while_models_run(photos, tmp_path):
    """Its exit waits for the run, and no new one is started."""
    code = WORKING.replace("PHOTO", repr(str(photos["cat"])))
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
