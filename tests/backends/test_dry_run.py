"""One pass over an example of each task."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vision_backends import (
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    UnavailableError,
)
from vision_backends.backends.base import AsyncBackend
from vision_backends.backends.dry_run import rehearse
from vision_backends.backends.requests import Model
from vision_backends.engine.event_loop import engine_loop
from vision_backends.testing import FakeBackend


@pytest.mark.parametrize(
    "request_", [EmbedRequest(), EmbedTextRequest(), DetectRequest(), DetectRequest(labels=("a scooter",))]
)
def test_each_task_is_run_once(request_):
    """As it was asked for, with one input."""
    backend = FakeBackend()
    rehearse(backend, request_)
    assert [(call.request, call.count) for call in backend.calls] == [(request_, 1)]


class Awaited(AsyncBackend):
    """A rung of coroutines, which notes where they run."""

    name = "awaited"

    def __init__(self):
        self.ran_on_the_loop = []

    def model_for(self, request):
        """Return the model of every task."""
        return Model(name="awaited")

    def check(self, request):
        """Return: it is ready."""

    async def embed_text(self, texts, request, *, timeout_s):
        """Return nothing."""
        self.ran_on_the_loop.append(engine_loop().runs_here())
        return []


def test_a_coroutine_runs_on_the_event_loop():
    """As that of a call does; the thread waits for it."""
    backend = Awaited()
    rehearse(backend, EmbedTextRequest())
    assert backend.ran_on_the_loop == [True]


def test_a_description_need_not_be_long():
    """One word shows that it works; the prompt stays."""
    backend = FakeBackend()
    rehearse(backend, DescribeRequest(prompt="What?", max_words=200))
    assert [call.request for call in backend.calls] == [DescribeRequest(prompt="What?", max_words=1)]


def test_what_fails_is_told():
    """A model that computes nonsense is not ready."""
    backend = FakeBackend()
    backend.play(UnavailableError("Broken."))
    with pytest.raises(UnavailableError, match="Broken"):
        rehearse(backend, EmbedRequest())


@pytest.mark.parametrize("pause_s", [0.0, 0.1, 0.2])
def test_a_program_may_end_while_it_runs(pause_s):
    """A thread that is stopped in native code would abort the process."""
    code = f"""
import threading, time
from vision_backends import DescribeRequest
from vision_backends.backends.embedded import EmbeddedBackend
backend = EmbeddedBackend(threads=1)
threading.Thread(target=backend.warm_up, args=(DescribeRequest(),), daemon=True).start()
time.sleep({pause_s})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
