"""Using torch and transformers in a process that belongs to the application.

This module decides what has to be installed, how the exceptions of these libraries are translated, and how their
process-wide settings and log output are left to the application. It must not know what any model computes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vision_backends.engine.machine_limits import processors
from vision_backends.errors import BackendError, CallerError, NotReadyError, OverloadedError, UnavailableError
from vision_backends.installing import pip_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "check_packages",
    "free_device_memory",
    "ignored_warnings",
    "is_shortage",
    "limit_threads",
    "quiet",
    "translated",
]

NEEDED = ("torch", "transformers", "huggingface_hub", "safetensors")
INSTALL = pip_command("vision-backends[local]")
INSTALL_OPENVINO = pip_command("vision-backends[openvino]")

THREADS_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What tells torch how many threads to use: https://docs.pytorch.org/docs/stable/threading_environment_variables.html."""

_hush = threading.RLock()
"""Held by the one thread that turns transformers' log output off and on, which is process-wide."""


def check_packages(*, engine: str) -> None:
    """Return if everything is installed; imports nothing.

    Args:
        engine: As configured; ``"openvino"`` has to be installed if it is asked for.

    Raises:
        NotReadyError: Something is missing; names the command that installs it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        message = f"Local models need packages that are not installed: {', '.join(missing)}."
        raise NotReadyError(message, remedy=f"Run: {INSTALL}", code="missing_packages")
    if engine == "openvino" and find_spec("openvino") is None:
        message = '[local] engine = "openvino", but openvino is not installed.'
        raise NotReadyError(message, remedy=f"Run: {INSTALL_OPENVINO}", code="missing_packages")


def free_device_memory() -> None:
    """Release the GPU memory that torch still keeps after models have been dropped."""
    torch = sys.modules.get("torch")
    if torch is None or getattr(torch.__spec__, "_initializing", False):  # another thread is importing it
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():  # it cannot be asked whether it was used
        torch.mps.empty_cache()


def limit_threads(threads: int | None) -> None:
    """Set how many threads torch uses for work of the calling thread.

    OpenMP keeps that number per thread, but torch also keeps one for new threads, which is restored.

    Args:
        threads: How many; None for what the application lets torch use, but no more than there are processors, since
            torch does not know of a container's quota. What the environment says of threads is the user's word.
    """
    import torch

    before = torch.get_num_threads()
    if threads is None and not any(os.environ.get(name) for name in THREADS_VARIABLES):
        threads = min(before, processors())
    if threads is None or threads == before:
        return
    torch.set_num_threads(threads)
    restoring = threading.Thread(target=torch.set_num_threads, args=(before,), name="vision-threads")
    restoring.start()
    restoring.join()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and log output off the terminal while a model is loaded or converted.

    The bars of this thread only, and by a hook: transformers' own switch would also set that of huggingface_hub, which
    belongs to the application.
    """
    import transformers

    library: Any = transformers.utils.logging  # it has no types
    here = threading.get_ident()

    def make_bar(make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:  # noqa: ANN401
        make = library.EmptyTqdm if threading.get_ident() == here else make
        return make(*args, **options) if before is None else before(make, args, options)

    logger = logging.getLogger("transformers")
    with _hush:
        level, before = logger.level, None
        before = library.set_tqdm_hook(make_bar)
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:  # what the application has set meanwhile stays
            if logger.level == logging.CRITICAL:
                logger.setLevel(level)
            latest = library.set_tqdm_hook(before)
            if latest is not make_bar:
                library.set_tqdm_hook(latest)


@contextmanager
def ignored_warnings(*packages: str) -> Iterator[None]:
    """Ignore what some packages warn of, in all threads, while the block runs.

    One filter comes and goes. `warnings.catch_warnings` puts back a whole list of them, whatever other threads have
    done to it meanwhile.
    """
    entry = ("ignore", None, Warning, re.compile(rf"({'|'.join(packages)})\b"), 0)
    before: Any = warnings.filters
    before.insert(0, entry)
    try:
        yield
    finally:
        after: Any = warnings.filters
        for filters in [before] if after is before else [before, after]:
            with suppress(ValueError):
                filters.remove(entry)


@contextmanager
def translated(name: str, *, error: Callable[[str], BackendError] = UnavailableError) -> Iterator[None]:
    """Translate the exceptions of torch and transformers into this package's errors.

    Args:
        name: What was being run, for messages.
        error: What to raise for anything other than a lack of memory.
    """
    try:
        yield
    except (BackendError, CallerError):
        raise
    except Exception as cause:  # third parties raise whatever they like
        what = f"{name}: {type(cause).__name__}: {' '.join(str(cause).split())[:500]}"
        if is_shortage(cause):
            raise OverloadedError(f"There was not enough memory for {what}", code="out_of_memory") from cause
        raise error(f"transformers failed on {what}") from cause


def is_shortage(error: Exception) -> bool:
    """Tell whether an exception of torch means that there was not enough memory."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text))
    )
