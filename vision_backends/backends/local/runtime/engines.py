"""Which engine computes a part of a model: torch, or OpenVINO where that is installed, right and faster.

This module decides between engines, by a trial on this machine whose verdict is remembered. It must not know what a
part computes, nor how an engine works. Torch in 32-bit floats is the measure of what is right, and torch as it will
run here, in whatever numbers, the measure of what is fast; whatever is off about another engine, be it its conversion,
its results or its speed, leaves the part with torch.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.local.runtime.openvino import OpenVino
from vision_backends.backends.local.runtime.tuning_cache import TuningCache, processor_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from vision_backends.backends.local.hub.checkpoint import Checkpoint
    from vision_backends.backends.local.runtime.parts import Compute, Part, Tensors

    Cast = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["EngineName", "Engines", "PartRunner", "Trial", "may_convert"]

EngineName = Literal["auto", "torch", "openvino"]
"""What ``[local] engine`` may be."""

ROUNDS = 3

GAIN = 0.95
"""The largest share of torch's time at which another engine is worth its disk and memory."""

VERSIONS = frozenset({"openvino", "torch", "transformers", "parts"})

PARTS = 1
"""Changes with any change of the modules in `parts`: what was converted from the old ones is not theirs."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of trying an engine on a part.

    Attributes:
        flaw: Why it cannot be used; None where it computes what torch computes.
        torch_s: Seconds of torch for one input, in the numbers that it computes in here.
        engine_s: Seconds of the engine.
    """

    flaw: str | None = None
    torch_s: float | None = None
    engine_s: float | None = None

    def reason_against(self, wanted: EngineName) -> str | None:
        """Return why the engine is not to be used, in a few words for ``vision status`` and the log."""
        if self.flaw is not None or self.torch_s is None or self.engine_s is None:
            return self.flaw or "openvino was not measured"
        if self.engine_s <= GAIN * self.torch_s or wanted == "openvino":
            return None
        return f"openvino takes {self.engine_s * 1000:.0f} ms, torch {self.torch_s * 1000:.0f} ms"


class PartRunner:
    """Computes a part by an engine other than torch, as long as there is one and it does well.

    Args:
        compute: The engine's function; None leaves everything to torch.
        engine: What to call it, such as ``"openvino"``.
        shape: Of the inputs that it takes, without the rows.
        race: Returns why torch is better, or None, where that is not known yet; given what turns an input into the
            numbers that torch computes in.

    Attributes:
        engine: The same; says why when it is torch after all.
    """

    def __init__(
        self,
        compute: Compute | None,
        *,
        engine: str,
        shape: Sequence[int] = (),
        race: Callable[[Cast], str | None] | None = None,
    ) -> None:
        self.engine = engine
        self._compute = compute
        self._shape = tuple(shape)
        self._race = race

    def settle(self, cast: Cast) -> None:
        """Run the race, if there is to be one; torch has to be as fast by now as it will ever be.

        Args:
            cast: Turns an input into the numbers that torch computes in.
        """
        race, self._race = self._race, None
        why = race(cast) if race else None
        if why is not None:
            self._compute, self.engine = None, f"torch ({why})"

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Tensors | None:
        """Return what the part makes of pixels [B, …]; None where torch has to do it."""
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
    """Chooses who computes the parts of models.

    Args:
        wanted: As configured.
        device: Where models run; OpenVINO is for CPUs only.
        threads: Threads of each model; None for all.
        numbers: What torch will compute in, such as ``"bfloat16"``.
        full: Whether to compute in 32-bit floats, whatever the processor can.
        remembered: Where verdicts and converted parts are kept.
    """

    def __init__(
        self,
        wanted: EngineName,
        *,
        device: str,
        threads: int | None,
        numbers: str,
        full: bool,
        remembered: TuningCache,
    ) -> None:
        self._remembered = remembered
        self._openvino = OpenVino(threads=threads, full=full) if may_convert(wanted, device=device) else None
        self._numbers = numbers
        self._wanted = wanted

    def runner(self, part: Part, checkpoint: Checkpoint) -> PartRunner:
        """Return what computes a part if that is as good as torch, and, after `PartRunner.settle`, faster.

        The first time a part is converted and tried, which takes seconds; later ones only read what came of it.
        """
        engine = self._openvino
        if engine is None:
            return PartRunner(None, engine="torch")
        state = {
            "model": checkpoint.name,
            "revision": checkpoint.revision,
            "part": part.name,
            "input": list(part.example.shape[1:]),
            "processor": processor_name(),
            "numbers": self._numbers,
            "parts": PARTS,
            **engine.state(),
        }
        kept = _Kept(f"{checkpoint.name}-{part.name}", state, remembered=self._remembered)
        known = kept.trial()
        why = known.reason_against(self._wanted) if known else None
        if why is not None:
            return PartRunner(None, engine=f"torch ({why})")
        try:
            compute = engine.load(part, kept.folder)
            flaw = None if known or _agree(part, compute) else "openvino computes something else"
        except Exception as error:  # noqa: BLE001 — an engine that fails in whatever way is not used
            flaw = _failure(error)
            if known or isinstance(error, OSError | MemoryError):  # it may be better next time
                kept.forget()
                return PartRunner(None, engine=f"torch ({flaw})")
        if flaw is not None:
            return PartRunner(None, engine=f"torch ({kept.judge(Trial(flaw=flaw), self._wanted)})")
        race = None if known else partial(self._race, part, compute, kept)
        return PartRunner(compute, engine=engine.name, shape=part.example.shape[1:], race=race)

    def _race(self, part: Part, compute: Compute, kept: _Kept, cast: Cast) -> str | None:
        """Let torch and the engine compute in turns; the best round of each counts."""
        import torch

        inputs = cast(part.example)
        try:
            with torch.inference_mode():
                turns = [(_seconds(part.module, inputs), _seconds(compute, part.example)) for _ in range(ROUNDS)]
        except Exception as error:  # noqa: BLE001 — the same
            return kept.judge(Trial(flaw=_failure(error)), self._wanted)
        torch_s, engine_s = (min(times) for times in zip(*turns, strict=True))
        return kept.judge(Trial(torch_s=torch_s, engine_s=engine_s), self._wanted)


class _Kept:
    """What is kept of an engine and a part on this machine: what came of the trial, and the converted part."""

    def __init__(self, name: str, state: dict[str, Any], *, remembered: TuningCache) -> None:
        self.folder = remembered.place(name, state=state)
        self._name, self._state = name, state
        self._remembered = remembered

    def trial(self) -> Trial | None:
        known = self._remembered.read(self._name, state=self._state)
        return Trial(**{key: known.get(key) for key in ("flaw", "torch_s", "engine_s")}) if known else None

    def judge(self, trial: Trial, wanted: EngineName) -> str | None:
        """Keep what came of a trial; return why the engine is not to be used, and then keep nothing else."""
        self._remembered.write(self._name, asdict(trial), state=self._state)
        why = trial.reason_against(wanted)
        if why is not None:
            _log.info("%s stays with torch: %s", self._name, why)
            shutil.rmtree(self.folder, ignore_errors=True)
        else:  # what was made by other versions will hardly be wanted again
            self._remembered.forget(lambda state: state != self._state and _lasting(state) == _lasting(self._state))
        return why

    def forget(self) -> None:
        self._remembered.forget(lambda state: state == self._state)


def _lasting(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in VERSIONS}


def may_convert(wanted: EngineName, *, device: str) -> bool:
    """Tell whether parts of models will be tried on another engine than torch."""
    return wanted != "torch" and device == "cpu" and OpenVino.available()


def _agree(part: Part, compute: Compute) -> bool:
    """Tell whether an engine computes what torch computes in 32-bit floats."""
    import torch

    with torch.inference_mode():
        return part.agrees(_tensors(part.module(part.example)), compute(part.example))


def _failure(error: Exception) -> str:
    return f"openvino failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _seconds(compute: Callable[[torch.Tensor], object], example: torch.Tensor) -> float:
    started = time.perf_counter()
    compute(example)
    return time.perf_counter() - started


def _tensors(outputs: torch.Tensor | Tensors) -> Tensors:
    return outputs if isinstance(outputs, tuple) else (outputs,)
