"""What every test starts from: a user who has configured nothing, and pictures to look at."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from loopback_hub import LoopbackHub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vision_backends import Image


# As many processes as there are cores run tests beside each other, and tiny models gain nothing by more threads.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell ignores Ctrl-C in the programs that it starts in the background, and so would every program of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


# An example takes as long as the machine is busy: no deadline, and no complaint that data comes slowly.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("suite"), max_examples=8_000)  # for --hypothesis-profile=fuzz
settings.load_profile("suite")


def pytest_configure(config) -> None:
    """Let xdist hand out files by their names: those that take long come early in the alphabet, short ones last.

    It would begin with the files of the most tests, and end with one worker alone at a file of few long ones.
    """
    config.option.loadscopereorder = False


@pytest.fixture(autouse=True)
def fresh_user(monkeypatch, tmp_path_factory) -> Path:
    """An empty home and working directory, and no variable that configures the package."""
    home = tmp_path_factory.mktemp("home")
    for name in os.environ:
        if name.upper().startswith(("VISION_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody fetches models in a test
    monkeypatch.chdir(home)
    return home


@pytest.fixture(autouse=True)
def small_heap() -> None:
    """Let a collection look at nothing older than the test, such as torch and all that it has imported.

    What earlier tests have dropped is collected first, so that whatever that says is still heard.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def slow_callbacks() -> Iterator[list[str]]:
    """What computed for longer than 50 ms at a stretch on an engine's event loop, where everything else waits for it.

    Processor time is what counts, without that of the garbage collector: neither depends on what the machine does
    besides.
    """
    slow: list[str] = []
    collections = threading.local()
    run = asyncio.Handle._run

    def time_collection(phase: str, _info: object) -> None:
        taken_s = getattr(collections, "taken_s", 0.0)
        collections.taken_s = taken_s + time.thread_time() * (1 if phase == "stop" else -1)

    def run_timed(handle: asyncio.Handle) -> None:
        if threading.current_thread().name != "vision-loop":
            run(handle)
            return
        collections.taken_s = 0.0
        started_s = time.thread_time()
        run(handle)
        taken_s = time.thread_time() - started_s - collections.taken_s
        if taken_s > (0.1 if sys.gettrace() else 0.05):  # tracing, as for the coverage, takes as much again
            task = getattr(getattr(handle, "_callback", None), "__self__", None)
            slow.append(f"{taken_s * 1000:.0f} ms: {task or handle!r}")

    gc.callbacks.append(time_collection)
    asyncio.Handle._run = run_timed
    yield slow
    asyncio.Handle._run = run
    gc.callbacks.remove(time_collection)


@pytest.fixture(autouse=True)
def nothing_holds_up_the_engine(slow_callbacks) -> Iterator[None]:
    """Whatever computes, imports or decodes does so in a thread of a pool."""
    yield
    slow, slow_callbacks[:] = [*slow_callbacks], []
    assert not slow, "Callbacks held up the engine's event loop; have a pool do that work."


@pytest.fixture
def patient_calls(monkeypatch) -> None:
    """Let calls wait for a store as long as a disk may take that others use as well."""
    monkeypatch.setattr("vision_backends.storage.bounded.CALL_S", 20.0)


@pytest.fixture
def loopback_hub() -> Iterator[LoopbackHub]:
    """A hub of models on loopback, empty at first."""
    hub = LoopbackHub()
    yield hub
    hub.close()


@pytest.fixture
def photos() -> Path:
    """The folder of real photos."""
    return Path(__file__).parents[1] / "benchmarks" / "photos"


@pytest.fixture
def make_image() -> Callable[..., Image]:
    """A maker of opened images of any size, whose halves have two colours."""
    from PIL import Image as PILImage

    from vision_backends import open_image

    def make(width: int = 96, height: int = 64, *, left: str = "navy", right: str = "orange") -> Image:
        picture = PILImage.new("RGB", (width, height), left)
        picture.paste(right, (width // 2, 0, width, height))
        return open_image(picture)

    return make


@pytest.fixture
def time_passes() -> Callable[..., object]:
    """A context in which a fake clock goes on to the next timer that is due soon, as often as there is one."""

    @contextmanager
    def passes(clock, *, within_s: float = 10.0) -> Iterator[None]:
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    clock.wait_for_timer(within_s=within_s, timeout_s=0.05)
                    due_s = [at - clock.monotonic() for at in clock.pending]
                    clock.advance(max(0.0, min((each for each in due_s if each <= within_s), default=0.0)))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return passes
