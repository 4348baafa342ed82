"""One ONNX file, loaded once, when it is first needed, and run from any number of threads.

This module decides when and how a model file is checked and loaded. It must not know what the model computes.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from vision_backends.backends.embedded.lazy import Lazy
from vision_backends.backends.timing import measured
from vision_backends.errors import NotReadyError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    import numpy as np
    import numpy.typing as npt
    import onnxruntime

__all__ = ["OnnxModel", "default_threads", "import_onnxruntime"]

MOST_THREADS = 4
"""More gain little: beyond four threads both models spend their time on handing out work."""

REINSTALL = "Reinstall it: pip install --force-reinstall vision-backends"


def default_threads() -> int:
    """Return how many threads a model uses by itself: one per usable core, four at most."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(MOST_THREADS, len(usable))


class OnnxModel:
    """A model file on this machine's CPU.

    The first `run` loads it; threads that come meanwhile wait for that one load. onnxruntime's sessions may be
    run from many threads at once. They do not survive a fork: a child process loads its own.

    Args:
        path: The ONNX file.
        sha256: Its hex digest, checked before anything is loaded.
        threads: Threads per run.
    """

    def __init__(self, path: Path, *, sha256: str, threads: int) -> None:
        self._path = path
        self._sha256 = sha256
        self._threads = threads
        self._session: Lazy[onnxruntime.InferenceSession] = Lazy()

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._session.made

    def check(self) -> None:
        """Return if the file is there.

        Raises:
            NotReadyError: It is not.
        """
        if not self._path.is_file():
            raise NotReadyError(f"The model file {self._path} is missing.", remedy=REINSTALL)

    def run(self, outputs: list[str], image: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Compute the named outputs.

        Args:
            outputs: Names of the outputs wanted.
            image: Array [N, 3, H, W] for the input ``image``.

        Raises:
            NotReadyError: The file is missing, damaged or not loadable.
            UnavailableError: onnxruntime failed.
        """
        session = self._session.get(self._load)
        try:
            with measured("model"):
                results: list[npt.NDArray[np.float32]] = session.run(outputs, {"image": image})
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise UnavailableError(f"onnxruntime failed on {self._path.name}: {error}") from error
        return results

    def close(self) -> None:
        """Free the memory; the next run loads again."""
        self._session.drop()

    def _load(self) -> onnxruntime.InferenceSession:
        try:
            with self._path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            message = f"The model file {self._path} cannot be read: {error.strerror}."
            raise NotReadyError(message, remedy=REINSTALL) from error
        if digest != self._sha256:
            message = f"The model file {self._path} is not the one that was shipped: the installation is damaged."
            raise NotReadyError(message, remedy=REINSTALL)
        try:
            return _make_session(self._path, threads=self._threads)
        except ImportError as error:
            raise NotReadyError(f"onnxruntime cannot be imported: {error}.", remedy=REINSTALL) from error
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise NotReadyError(f"onnxruntime cannot load {self._path.name}: {error}") from error


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime without its telemetry.

    Since 1.32, importing it writes a device id to the user's home and sends usage events to its maker, unless this
    variable is set before. Where the application has imported it already, that is the application's choice.
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
    # Threads that wait sleep instead of spinning, and take work in small blocks. Measured on two cores, NanoDet: a run
    # takes 11.4 ms, and 22 ms when others use the cores as well; with spinning during runs 10.7 and 54 ms; with free
    # spinning 10.7 ms alone, but 29 ms after a run of the other model, whose threads still spin then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    # From the path: made from bytes, the two models together would keep 30 MB more.
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
