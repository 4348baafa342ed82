"""Devices, memory, exceptions and quiet."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from answering import answer

from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.runtime.loader import LoaderSettings, load, placement_for
from vision_backends.backends.local.runtime.memory import memory_for
from vision_backends.backends.local.runtime.torch_environment import check_packages, free_device_memory, translated
from vision_backends.clock import Deadline
from vision_backends.errors import (
    InvalidRequestError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    TimedOutError,
    UnavailableError,
)
from vision_backends.testing import FakeClock


def loaded(folder, *, device="cpu", threads=None):
    """Return a tiny CLIP in memory."""
    settings = LoaderSettings(device=device, threads=threads, engine="torch", dtype="float32")
    checkpoint = read_checkpoint(folder)
    placement = placement_for(checkpoint, settings, has_parts=True)
    return load(checkpoint, placement, auto_class="AutoModel", settings=settings)


def test_a_model_that_does_not_fit_is_not_loaded(model):
    """The message has both figures; with enough memory it passes."""
    checkpoint = read_checkpoint(model("clip"))
    refused = pytest.raises(NotReadyError, match=r"needs about \d+ MB of memory for cpu, but only 0 MB may be used")
    with refused as caught, memory_for(checkpoint, device="cpu", max_bytes=1000):
        pytest.fail("It was let through.")
    assert caught.value.code == "out_of_memory"
    for most in (10**9, None):
        with memory_for(checkpoint, device="cpu", max_bytes=most):
            pass


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_named(model, device):
    """And what to configure instead."""
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(NotReadyError, match=f"no device '{device}'") as caught:
        loaded(model("clip"), device=device)
    assert 'device = "auto"' in caught.value.remedy


def test_memory_of_a_mac_is_given_back_too(monkeypatch):
    """Torch keeps some of it for itself, as on other GPUs."""
    freed = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: freed.append("mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    free_device_memory()
    assert freed == []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    free_device_memory()
    assert freed == ["mps"]


def threads_of_torch():
    """Return what torch uses in a thread of its own."""
    seen = []
    asking = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    return seen[0]


@pytest.mark.parametrize("extra", [0, 1])
def test_the_applications_threads_are_left_alone(model, extra):
    """Whether the rung's are configured or not: in this thread, in new ones, and where the model runs."""
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:  # as the rung does
        made = pool.submit(loaded, model("clip"), threads=before + extra if extra else None).result()
    seen = ask(made, [1], run=lambda batch, _options, _wanted: [torch.get_num_threads()] * len(batch["x"]))
    assert seen == [before + extra]
    assert torch.get_num_threads() == before
    assert threads_of_torch() == before


FEW_PROCESSORS = """
import os, threading
import torch
from vision_backends.backends.local.runtime.torch_environment import limit_threads

def threads_of_a_model():
    seen = []
    def see():
        limit_threads(None)
        seen.append(torch.get_num_threads())
    asked = threading.Thread(target=see)
    asked.start()
    asked.join()
    return seen[0]

before = torch.get_num_threads()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(before, threads_of_a_model(), torch.get_num_threads())
os.environ["OMP_NUM_THREADS"] = str(before)
print(threads_of_a_model())
"""


@pytest.mark.skipif("not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2")
def test_models_use_no_more_threads_than_there_are_processors():
    """Torch has counted them once, and knows no quota; a number in the environment is the user's own."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", FEW_PROCESSORS], env=env, capture_output=True, text=True, check=True)
    counts, told = done.stdout.splitlines()
    before, model_s, after = counts.split()
    assert (model_s, after, told) == ("1", before, before)
    assert int(before) > 1


def test_loading_is_quiet_and_leaves_the_settings_of_others(model, capfd, caplog):
    """No progress bar, no remark about torchvision, and the application's verbosity as it was."""
    transformers.utils.logging.enable_propagation()
    verbosity = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    folder = model("siglip")
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG, logger="vision_backends"):
        caplog.clear()
        loaded(folder)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert transformers.utils.logging.get_verbosity() == verbosity
    assert transformers.utils.logging.is_progress_bar_enabled() == bars


def test_weights_are_float32_and_cannot_learn(model, tmp_path):
    """Whatever they were saved as."""
    folder = tmp_path / "clip"
    shutil.copytree(model("clip"), folder)
    transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    made = loaded(folder)
    made.settle()
    assert {(p.dtype, p.requires_grad) for p in made.model.parameters()} == {(torch.float32, False)}
    assert not made.model.training
    assert made.memory_bytes >= 4 * made.checkpoint.parameters


def ask(made, items, *, run, prepare=lambda item: {"x": torch.tensor([[item]])}, alike=lambda _item: 0.0):
    """Ask a model for what a function computes."""
    return answer(made.ask, items, prepare=prepare, alike=alike, run=run, deadline=Deadline(FakeClock(), 30))


def test_results_come_in_the_order_of_the_items(model):
    """However they were sorted, prepared and batched; every batch has inputs of one shape."""
    shapes = []

    def run(batch, _options, _wanted):
        shapes.append(tuple(batch["x"].shape))
        assert torch.is_inference_mode_enabled()
        return batch["x"][:, 0].tolist()

    items = [(number, 1 + number % 3) for number in range(50)]
    seen = ask(
        loaded(model("clip")),
        items,
        prepare=lambda item: {"x": torch.full((1, item[1]), item[0])},
        alike=lambda item: item[1],
        run=run,
    )
    assert seen == list(range(50))
    assert max(count for count, _ in shapes) == 8
    assert len(shapes) <= 9  # sorted, so that hardly a batch is cut short by a change of shape


def test_a_failure_while_preparing_ends_the_call(model):
    """Named as ours, as a fault of that input and not of the model; nothing of it is left in the queue."""
    made = loaded(model("clip"))

    def prepare(item):
        if item == 20:
            raise ValueError("a bad picture")
        return {"x": torch.tensor([[item]])}

    with pytest.raises(NotSupportedError, match="a bad picture"):
        ask(made, range(40), prepare=prepare, run=lambda batch, _options, _wanted: batch["x"][:, 0].tolist())
    assert made.batcher.waiting == 0
    assert ask(made, [3], run=lambda batch, _options, _wanted: batch["x"][:, 0].tolist()) == [3]


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (MemoryError(), OverloadedError),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), OverloadedError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OverloadedError),
        (RuntimeError("shapes do not match"), UnavailableError),
        (ValueError("no"), UnavailableError),
        (TimedOutError("late"), TimedOutError),
        (InvalidRequestError("bad"), InvalidRequestError),
    ],
)
def test_exceptions_of_others_become_ours(raised, error):
    """Shortages are told apart from faults; our own pass."""
    with pytest.raises(error) as caught, translated("the model"):
        raise raised
    if caught.value is not raised:
        assert caught.value.__cause__ is raised
        assert "the model" in caught.value.message


def test_the_packages_are_here():
    """The tests would not run without."""
    for engine in ("auto", "torch", "openvino"):
        check_packages(engine=engine)
