"""OpenVINO: parts of models converted once, kept on disk, and computed on the CPU.

This module decides how a part is converted, kept and run. It must not know which part it is, nor whether it is worth
using. OpenVINO comes with the extra ``[openvino]`` and is imported when it is first used, without its telemetry, which
would report every import and conversion to its maker.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.runtime.torch_environment import ignored_warnings
from vision_backends.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from vision_backends.backends.local.runtime.parts import Part

__all__ = ["OpenVino"]

MODEL = "model.xml"
DIGESTS = "sha256.json"
"""What the files of a conversion were when it was made. A power cut may leave half of one as zeros."""

MOST_DIGESTS_BYTES = 10_000

TELEMETRY = "openvino_telemetry"

TRACED = ("openvino", "torch", "transformers", __name__.partition(".")[0])
"""Packages whose warnings, while a part is traced, are about models that are not the user's."""

ROOM = 1.2
"""Free disk space that a conversion needs, as a multiple of the size of the part's weights."""


class OpenVino:
    """The engine.

    Args:
        threads: Threads per part; None for all cores.
        full: Whether to compute in 32-bit floats; otherwise OpenVINO uses bfloat16 where the processor has it.
    """

    name = "openvino"

    def __init__(self, *, threads: int | None, full: bool) -> None:
        self._threads = threads
        self._full = full

    @staticmethod
    def available() -> bool:
        """Tell whether it is installed; imports nothing."""
        return find_spec("openvino") is not None

    def state(self) -> dict[str, Any]:
        """Return what converted parts and their results depend on."""
        return {
            "openvino": _version("openvino"),
            "torch": _version("torch"),
            "transformers": _version("transformers"),
            "full": self._full,
        }

    def load(self, part: Part, folder: Path) -> tuple[Callable[[torch.Tensor], tuple[torch.Tensor, ...]], bool]:
        """Return what computes a part, and whether it was converted just now: unless its folder is as it was made.

        Raises:
            OSError: There is not enough disk space for it.
            Exception: OpenVINO cannot convert or compile it.
        """
        with _without_telemetry():
            import openvino

        core = openvino.Core()
        is_new = not _is_whole(folder)
        if is_new:
            _convert(openvino, part, folder)
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self._threads
        if self._full:
            properties["INFERENCE_PRECISION_HINT"] = "f32"
        core.set_property({"ENABLE_MMAP": False})  # who cut a file that is mapped would kill this process
        compiled = core.compile_model(core.read_model(folder / MODEL), "CPU", properties)
        request = compiled.create_infer_request()

        def compute(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            import torch

            outputs = request.infer([inputs.float().contiguous().numpy()], share_inputs=True)
            return tuple(torch.from_numpy(each) for each in outputs.values())

        return compute, is_new


def _convert(openvino: Any, part: Part, folder: Path) -> None:  # noqa: ANN401 — the module
    """Convert a part for any batch size; its folder is complete or absent, even if another process converts it, too."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in part.module.parameters())
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < weights * ROOM:
        raise OSError(f"{folder.parent} has less than {weights * ROOM / 1e6:.0f} MB free")
    if folder.exists() and not _is_whole(folder):
        shutil.rmtree(folder)
    model = _traced(openvino, part)
    model.reshape([-1, *part.example.shape[1:]])
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as draft:
        openvino.save_model(model, Path(draft) / MODEL, compress_to_fp16=False)
        digests = {path.name: _digest(path) for path in sorted(Path(draft).iterdir())}
        (Path(draft) / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
        try:
            Path(draft).rename(folder)
        except OSError:
            if not _is_whole(folder):  # no other process was faster
                raise
        else:
            Path(draft).mkdir()  # for its removal


def _is_whole(folder: Path) -> bool:
    """Tell whether a conversion is there, each file as it was made."""
    with suppress(OSError, ValueError, RecursionError):
        digests = json.loads(read_regular(folder / DIGESTS, max_bytes=MOST_DIGESTS_BYTES))
        there = {path.name for path in folder.iterdir()} - {DIGESTS}
        if isinstance(digests, dict) and MODEL in there and digests.keys() == there:
            return all(_digest(folder / name) == digest for name, digest in digests.items())
    return False


def _digest(path: Path) -> str:
    if not path.is_file():
        return "no regular file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _traced(openvino: Any, part: Part) -> Any:  # noqa: ANN401 — both are OpenVINO's
    """Return a part as an OpenVINO model; ``openvino.convert_model`` does the same and reports it to its maker."""
    import torch
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with ignored_warnings(*TRACED), torch.no_grad():
        decoder = TorchScriptPythonDecoder(part.module, example_input=part.example)
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(decoder))


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Import OpenVINO as if its telemetry were not installed, unless the application has imported it before."""
    hidden = TELEMETRY not in sys.modules
    if hidden:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(TELEMETRY, None)  # another load may have been faster


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
