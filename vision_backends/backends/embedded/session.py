"""ONNX files, each loaded once, when it is first needed, and run from any number of threads.

This module decides when and how a model file is checked, loaded and given up. It must not know what the model computes.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision_backends.clock import measured
from vision_backends.engine.machine_limits import processors
from vision_backends.engine.threads import awaited_at_exit
from vision_backends.errors import NotReadyError, UnavailableError
from vision_backends.freed_memory import return_freed_memory
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    import numpy as np
    import numpy.typing as npt
    import onnxruntime

__all__ = [
    "LONGEST_EXIT_S",
    "Lazy",
    "OnnxModel",
    "check_intact",
    "check_there",
    "default_threads",
    "import_onnxruntime",
]

T = TypeVar("T")

MOST_THREADS = 4
"""More gain little: beyond four threads both models spend their time on handing out work."""

LONGEST_EXIT_S = 10.0
"""How long the interpreter's exit waits for a model that is being loaded or run."""

REINSTALL = f"Reinstall it: {pip_command('--force-reinstall', 'vision-backends')}"


def default_threads() -> int:
    """Return the default number of threads per model: one per processor that this process may use, four at most."""
    return min(MOST_THREADS, processors())


class Lazy(Generic[T]):
    """A place for one heavy thing, made by the first `get`, while other threads that ask wait.

    A forked child finds the place empty and makes its own: the threads that the parent's thing works with do not exist
    there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thing: T | None = None
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _abandon(this()))

    @property
    def made(self) -> bool:
        """Whether the thing is there."""
        return self._thing is not None

    def get(self, make: Callable[[], T]) -> T:
        """Return the thing, made by ``make`` unless it is there; an error leaves the place empty."""
        thing = self._thing
        if thing is not None:
            return thing
        with self._lock:
            if self._thing is None:
                self._thing = make()
            return self._thing

    def drop(self) -> None:
        """Give the thing up; the next `get` makes another."""
        with self._lock:
            self._thing = None


class OnnxModel:
    """A model file on this machine's CPU.

    The first `run` loads it. Any number of threads may run it simultaneously; a forked child loads its own.

    Args:
        path: The ONNX file.
        sha256: Its hex digest, checked before anything is loaded.
        threads: Threads per run.
        input_name: What the model calls its input.
    """

    def __init__(self, path: Path, *, sha256: str, threads: int, input_name: str = "image") -> None:
        self._path = path
        self._input_name = input_name
        self._sha256 = sha256
        self._threads = threads
        self._session: Lazy[onnxruntime.InferenceSession] = Lazy()
        self._was_there = False

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._session.made

    def check(self) -> None:
        """Return if the file exists; one that was there once is not looked for again.

        Raises:
            NotReadyError: It does not.
        """
        if not self._was_there:
            check_there(self._path)
            self._was_there = True

    def run(self, outputs: list[str] | None, image: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Compute the named outputs.

        Args:
            outputs: Names of the outputs wanted; None for all.
            image: Array [N, 3, H, W] for the input.

        Raises:
            NotReadyError: The file is missing, damaged or cannot be loaded; or Python is shutting down.
            UnavailableError: onnxruntime failed.
        """
        with awaited_at_exit(LONGEST_EXIT_S):
            session = self._session.get(self._load)
            try:
                with measured("model"):
                    results: list[npt.NDArray[np.float32]] = session.run(outputs, {self._input_name: image})
            except Exception as error:  # onnxruntime's exceptions have no common base
                raise UnavailableError(f"onnxruntime failed on {self._path.name}: {error}") from error
        return results

    def close(self) -> None:
        """Free the memory; the next run loads again."""
        self._session.drop()

    def _load(self) -> onnxruntime.InferenceSession:
        check_intact(self._path, sha256=self._sha256)
        try:
            return _make_session(self._path, threads=self._threads)
        except ImportError as error:
            raise NotReadyError(f"onnxruntime cannot be imported: {error}.", remedy=REINSTALL) from error
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise NotReadyError(f"onnxruntime cannot load {self._path.name}: {error}") from error


def check_there(path: Path) -> None:
    """Return if a model file exists.

    Raises:
        NotReadyError: It does not.
    """
    if not path.is_file():
        raise NotReadyError(f"The model file {path} is missing.", remedy=REINSTALL)


def check_intact(path: Path, *, sha256: str) -> None:
    """Return if a model file is the one that was shipped.

    Raises:
        NotReadyError: It is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"The model file {path} cannot be read: {error.strerror}."
        raise NotReadyError(message, remedy=REINSTALL) from error
    if digest != sha256:
        message = f"The model file {path} differs from the one that was shipped: the installation is damaged."
        raise NotReadyError(message, remedy=REINSTALL)


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime without its telemetry.

    Since 1.32, importing it writes a device id to the user's home and sends usage events to its maker, unless this
    variable is set first. If the application has imported it already, that was the application's choice.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def _make_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # An arena, and a plan for it, keep the memory of the largest run for ever: reading a page then takes 27 MB
    # more, and no run is faster by it.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    # Threads that wait sleep instead of spinning, and take work in small blocks. Measured on two cores, NanoDet: a run
    # takes 11.4 ms, and 22 ms when others use the cores as well; with spinning during runs 10.7 and 54 ms; with free
    # spinning 10.7 ms alone, but 29 ms after a run of the other model, whose threads still spin then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    # From the path: made from bytes, the two models together would keep 30 MB more.
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return_freed_memory()  # 30 MB of each model: reading a page, for which four are loaded, takes 30 MB less in all
    return session


def _abandon(lazy: Lazy[Any] | None) -> None:
    """Give a forked child a fresh lock and an empty place.

    The destructor of the parent's thing would wait forever for threads that do not exist in the child. So the thing
    is not destroyed there: its reference count is raised once more than it is ever lowered.
    """
    if lazy is None:
        return
    lazy._lock = threading.Lock()  # noqa: SLF001 — the same module
    if lazy._thing is not None:  # noqa: SLF001
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(lazy._thing))  # noqa: SLF001
        lazy._thing = None  # noqa: SLF001
