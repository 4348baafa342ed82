"""Which engine computes a part of a model: OpenVINO where it is installed and as good as torch, else torch.

This module decides between engines, by a comparison on this machine whose outcome is remembered. It must not know what
a part computes, nor how an engine works. Torch in 32-bit floats is the reference; whatever is wrong with another
engine, in its conversion or in its results, leaves the part to torch.

Speed is not compared: the image towers of CLIP ViT-B/32 and BLIP base, D-FINE-S and RT-DETRv2-R18 were all faster with
OpenVINO, in 32-bit floats as well as in bfloat16, which it uses by default where the processor has it.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.local.runtime.openvino import OpenVino
from vision_backends.backends.local.runtime.tuning_cache import TuningCache, processor_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.runtime.parts import Compute, Part, Tensors

__all__ = ["EngineName", "Engines", "PartRunner", "may_convert"]

EngineName = Literal["auto", "torch", "openvino"]
"""What ``[local] engine`` may be."""

VERSIONS = frozenset({"openvino", "torch", "transformers", "parts"})

PARTS = 2
"""Changes with any change to the modules in `parts`, or to what is kept of a conversion: earlier ones are invalid."""

_log = logging.getLogger(__name__)


class PartRunner:
    """Computes a part with an engine other than torch, as long as there is one and it works.

    Args:
        compute: The engine's function; None leaves everything to torch.
        engine: What to call it, such as ``"openvino"``.
        shape: Shape of the inputs that it takes, without the batch dimension.

    Attributes:
        engine: The same; says why when it is torch after all.
    """

    def __init__(self, compute: Compute | None, *, engine: str, shape: Sequence[int] = ()) -> None:
        self.engine = engine
        self._compute = compute
        self._shape = tuple(shape)

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Tensors | None:
        """Return the part's output for pixels [B, …]; None where torch has to compute it."""
        pixels = batch["pixel_values"]
        if self._compute is None or len(batch) > 1 or tuple(pixels.shape[1:]) != self._shape:
            return None
        try:
            found = self._compute(pixels)
        except Exception as error:  # noqa: BLE001 — whatever it is, torch can still answer
            self._give_up(f"{type(error).__name__}: {error}")
            return None
        if not all(bool(each.isfinite().all()) for each in found):
            self._give_up("it computed numbers that are not finite")
            return None
        return found

    def _give_up(self, why: str) -> None:
        _log.warning("%s failed while running (%s); torch takes over.", self.engine, why)
        self._compute, self.engine = None, f"torch ({self.engine} failed: {why[:200]})"


class Engines:
    """Chooses the engine for each part of a model.

    Args:
        wanted: As configured.
        device: Where models run; OpenVINO is for CPUs only.
        threads: Threads per model; None for all.
        full: Whether to compute in 32-bit floats, whatever the processor supports.
        tuning_cache: Where outcomes and converted parts are kept.
    """

    def __init__(
        self, wanted: EngineName, *, device: str, threads: int | None, full: bool, tuning_cache: TuningCache
    ) -> None:
        self._tuning_cache = tuning_cache
        self._openvino = OpenVino(threads=threads, full=full) if may_convert(wanted, device=device) else None

    def runner(self, part: Part, checkpoint: Checkpoint) -> PartRunner:
        """Return what computes a part, with another engine if that is as good as torch.

        The first time, the part is converted and compared, which takes seconds; later calls only read the outcome.
        """
        engine = self._openvino
        if engine is None:
            return PartRunner(None, engine="torch")
        name = f"{checkpoint.name}-{part.name}"
        state = {
            "model": checkpoint.name,
            "revision": checkpoint.revision,
            "part": part.name,
            "input": list(part.example.shape[1:]),
            "processor": processor_name(),
            "parts": PARTS,
            **engine.state(),
        }
        known = _checked(self._tuning_cache.read(name, state=state))
        if known and known["flaw"] is not None:
            return PartRunner(None, engine=f"torch ({known['flaw']})")
        try:
            compute, is_new = engine.load(part, self._tuning_cache.place(name, state=state))
            trusted = known is not None and not is_new
            flaw = None if trusted or _agree(part, compute) else "openvino's results differ from torch's"
        except Exception as error:  # noqa: BLE001 — an engine that fails in whatever way is not used
            flaw = f"openvino failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if known or isinstance(error, OSError | MemoryError):  # it may work next time
                self._tuning_cache.forget(lambda each: each == state)
                return PartRunner(None, engine=f"torch ({flaw})")
        if known is None or flaw is not None:
            self._keep(name, flaw, state)
        if flaw is not None:
            return PartRunner(None, engine=f"torch ({flaw})")
        return PartRunner(compute, engine=engine.name, shape=part.example.shape[1:])

    def _keep(self, name: str, flaw: str | None, state: Mapping[str, Any]) -> None:
        """Record the outcome of a comparison, and keep converted parts only if they will be used."""
        self._tuning_cache.write(name, {"flaw": flaw}, state=state)
        if flaw is not None:
            _log.info("%s stays with torch: %s", name, flaw)
            shutil.rmtree(self._tuning_cache.place(name, state=state), ignore_errors=True)
        else:  # conversions by other versions will hardly be needed again
            self._tuning_cache.forget(lambda each: each != state and _lasting(each) == _lasting(state))


def may_convert(wanted: EngineName, *, device: str) -> bool:
    """Tell whether parts of models will be tried on an engine other than torch."""
    return wanted != "torch" and device == "cpu" and OpenVino.available()


def _checked(fact: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a fact if it is one that `Engines` writes; with any other content, parts are compared again."""
    is_one = fact is not None and fact.keys() == {"flaw"} and isinstance(fact["flaw"], str | None)
    return fact if is_one else None


def _lasting(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in VERSIONS}


def _agree(part: Part, compute: Compute) -> bool:
    """Tell whether an engine computes what torch computes in 32-bit floats."""
    import torch

    with torch.inference_mode():
        expected = part.module(part.example)
        return part.agrees(expected if isinstance(expected, tuple) else (expected,), compute(part.example))
