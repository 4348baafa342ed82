"""Loads that run beside each other share what is free."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest
import torch
from PIL import Image

from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.runtime.loader import LoaderSettings, placement_for
from vision_backends.backends.local.runtime.memory import (
    CONVERTED,
    OVERHEAD,
    WORK_BYTES,
    LoadReservations,
    give_back_memory,
    memory_for,
    needed_bytes,
)
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest
from vision_backends.engine.machine_limits import free_memory
from vision_backends.errors import NotReadyError


def test_a_load_counts_what_another_is_about_to_take():
    """Each fits alone; together they would not."""
    reservations = LoadReservations()
    with reservations.reserve(600, free=1000) as first, reservations.reserve(600, free=1000) as second:
        assert (first, second) == (1000, 400)
    with reservations.reserve(600, free=1000) as third:
        assert third == 1000


def test_what_a_running_load_has_already_taken_is_not_counted_twice():
    """Half-way through, its 300 bytes are missing from what is free as well as reserved."""
    reservations = LoadReservations()
    with reservations.reserve(600, free=1000), reservations.reserve(400, free=700) as second:
        assert second == 400


def test_what_others_take_meanwhile_counts():
    """The rest of the machine does not stand still."""
    reservations = LoadReservations()
    with reservations.reserve(600, free=1000), reservations.reserve(100, free=50) as second:
        assert second == 50


def test_a_load_that_ended_keeps_its_memory_while_others_run():
    """What it holds may not show in what is free: files that are mapped do not."""
    reservations = LoadReservations()
    with reservations.reserve(300, free=1000):
        with reservations.reserve(300, free=1000):
            pass
        with reservations.reserve(500, free=1000) as third:
            assert third == 400


def test_a_load_that_failed_gives_its_memory_back():
    """Also while others run."""
    reservations = LoadReservations()
    with reservations.reserve(300, free=1000):
        with pytest.raises(ZeroDivisionError), reservations.reserve(300, free=1000):
            raise ZeroDivisionError
        with reservations.reserve(700, free=1000) as third:
            assert third == 700


def test_two_models_that_fit_alone_do_not_load_together(model):
    """The second is told what is left, and fits once the first has failed; both in the room of this process."""
    checkpoint = read_checkpoint(model("clip"))
    huge = int(1e15)  # more than half of any machine

    def load(parameter_bytes):
        return memory_for(checkpoint, device="cpu", max_bytes=None, bytes_per_parameter=parameter_bytes)

    half = int(free_memory().size_bytes * 0.6 / OVERHEAD / checkpoint.parameters)
    with load(half), pytest.raises(NotReadyError, match=r"MB is free") as caught, load(half):
        pytest.fail("It was let through.")
    assert (caught.value.code, caught.value.retry_after_s) == ("out_of_memory", 30.0)
    with load(half):
        pass
    with pytest.raises(NotReadyError), load(huge):
        pytest.fail("It was let through.")


def test_half_the_bytes_for_each_parameter_need_half_the_memory(model):
    """16-bit floats; what computing takes comes on top."""
    checkpoint = read_checkpoint(model("clip"))
    full, half = (needed_bytes(checkpoint, bytes_per_parameter=size) - WORK_BYTES for size in (4, 2))
    assert full > 4 * checkpoint.parameters
    assert half == pytest.approx(full / 2, abs=1)


def test_an_engine_with_weights_of_its_own_needs_them_twice(model):
    """Torch keeps its own, to take over."""
    checkpoint = read_checkpoint(model("clip"))
    assert needed_bytes(checkpoint, bytes_per_parameter=4, converted=True) - WORK_BYTES > 8 * checkpoint.parameters


@pytest.mark.parametrize(
    ("settings", "per_parameter"),
    [
        ({"embedding_model": "clip", "engine": "auto"}, 4 * CONVERTED),
        ({"embedding_model": "clip", "engine": "torch"}, 4 * OVERHEAD),
        ({"caption_model": "blip", "engine": "openvino"}, 4 * CONVERTED),
        ({"caption_model": "qwen2_vl", "engine": "auto"}, 4 * OVERHEAD),
        ({"open_vocabulary_model": "owlv2", "engine": "auto"}, 4 * OVERHEAD),
    ],
)
def test_what_is_counted_depends_on_who_will_compute(make_backend, model, settings, per_parameter):
    """Only some kinds have parts that another engine computes."""
    settings = {key: model(value) if key.endswith("_model") else value for key, value in settings.items()}
    backend = make_backend(**settings, max_memory_bytes=1)
    request = DescribeRequest() if "caption_model" in settings else EmbedRequest()
    if "open_vocabulary_model" in settings:
        request = DetectRequest(labels=("a purple thing",))
    (folder,) = (value for key, value in settings.items() if key.endswith("_model"))
    needed = WORK_BYTES + read_checkpoint(folder).parameters * per_parameter
    with pytest.raises(NotReadyError, match=f"needs about {needed / 1e6:.0f} MB"):
        backend.warm_up(request)


def test_a_gpu_takes_16_bit_numbers_from_the_start(model, monkeypatch):
    """So that half as much passes through this memory; kinds that stay whole in 32 bits do not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    settings = LoaderSettings(device="cuda:0", dtype="bfloat16")
    for kind, size in (("clip", 2), ("grounding_dino", 4)):
        assert placement_for(read_checkpoint(model(kind)), settings, has_parts=True).loaded_as.itemsize == size
    settings = LoaderSettings(device="cpu", dtype="bfloat16", engine="openvino")  # which converts 32-bit numbers
    for has_parts, size in ((True, 4), (False, 2)):
        assert placement_for(read_checkpoint(model("clip")), settings, has_parts=has_parts).loaded_as.itemsize == size


SMALL_PROCESS = """
import sys
from vision_backends import Router
from vision_backends.backends.local import LocalBackend
from vision_backends.testing import FakeBackend
with Router([LocalBackend(embedding_model=sys.argv[1], download="never"), FakeBackend("next")]) as router:
    answer = router.embed(sys.argv[2])
print(answer.trace.backend, answer.trace.attempts[0].code, "torch" in sys.modules)
print(answer.trace.attempts[0].message)
"""


@pytest.mark.skipif("sys.platform != 'linux'")
def test_a_process_too_small_for_torch_itself_is_not_ended_by_importing_it(model, tmp_path):
    """The rung says how much is missing, and the next one answers."""
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(photo)

    def narrow():
        resource.setrlimit(resource.RLIMIT_AS, (800_000_000, 800_000_000))

    done = subprocess.run(
        [sys.executable, "-c", SMALL_PROCESS, str(model("clip")), str(photo)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=narrow,
    )
    outcome, message = done.stdout.splitlines()
    assert outcome == "next out_of_memory False"
    assert re.search(r"needs about 5\d\d MB of memory for torch and the model, but the limit of 800 MB", message)
    assert re.search(r"leaves only \d+ MB", message)


def _resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif("sys.platform != 'linux'")
def test_memory_that_is_given_back_leaves_the_process():
    """What many small pieces leave behind is kept by malloc until it is told."""
    pieces = [bytearray(2000) for _ in range(100_000)]
    last = bytearray(2000)  # keeps the top of the heap in place
    held = _resident_bytes()
    del pieces
    give_back_memory()
    assert held - _resident_bytes() > 100_000_000
    assert last


def _resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096
