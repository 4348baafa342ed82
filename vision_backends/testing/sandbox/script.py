"""When faults are played: a script in fixed order, or chaos at a rate; both can be replayed exactly.

This module decides which fault the n-th request meets. It must not know what a fault does.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vision_backends.config.text_file import read_text
from vision_backends.testing.sandbox.fault_table import FAULTS, dump_fault, parse_fault
from vision_backends.testing.sandbox.faults import HEALTHY, Fault

if TYPE_CHECKING:
    import os

__all__ = ["Chaos", "Script", "Step", "parse_plan"]


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, a number of times in a row.

    Attributes:
        fault: What is played; ``HEALTHY`` plays nothing.
        times: How many requests meet it; None for all that follow. Requests that the fault does not match are answered
            as if healthy, and do not count.
    """

    fault: Fault
    times: int | None = 1

    def __post_init__(self) -> None:
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(f"A step must be played at least once, not {self.times!r} times.")


@dataclass(frozen=True, slots=True)
class Script:
    """Steps in order; after the last one everything is healthy, or the script begins again.

    Attributes:
        steps: The steps.
        repeat: Whether it begins again.
    """

    steps: tuple[Step, ...]
    repeat: bool = False

    @classmethod
    def of(cls, *steps: tuple[str | Fault, int | None] | str | Fault, repeat: bool = False) -> Self:
        """Return a script of names or faults, each alone or with the number of times.

        ``Script.of(("healthy", 10), ("quota_gone", 5), "server_error")``
        """
        pairs = (step if isinstance(step, tuple) else (step, 1) for step in steps)
        return cls(tuple(Step(parse_fault(fault), times) for fault, times in pairs), repeat)

    def to_dict(self) -> dict[str, Any]:
        """Return the script as JSON-able values."""
        steps = [{"play": dump_fault(step.fault), "times": step.times} for step in self.steps]
        return {"steps": steps, "repeat": self.repeat}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the script to a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the script in a JSON file.

        Raises:
            ValueError: The file is not a script.
        """
        return cls.from_dict(json.loads(read_text(Path(path))))

    @classmethod
    def from_dict(cls, value: Any) -> Self:  # noqa: ANN401 — any JSON
        """Return the script that `to_dict` wrote.

        Raises:
            ValueError: The value is not a script.
        """
        if not isinstance(value, dict) or not isinstance(value.get("steps"), list):
            raise ValueError('A script is an object such as {"steps": [{"play": "quota_gone", "times": 3}]}.')  # noqa: TRY004 — one error for all bad JSON
        steps = [step if isinstance(step, dict) else {"play": step} for step in value["steps"]]
        made = (Step(parse_fault(step.get("play")), step.get("times", 1)) for step in steps)
        return cls(tuple(made), bool(value.get("repeat", False)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """Faults at random, the same ones again for the same seed and the same list of faults.

    The list is the whole table by default, which grows from version to version: save `script` to keep a run for good.

    Attributes:
        seed: What the choices depend on, together with the index of the request.
        rate: Fraction of the requests that meet a fault, 0 to 1.
        faults: What is chosen from, all equally likely; by default the whole table.

    Raises:
        ValueError: The rate is not in [0, 1], or there is nothing to choose from.
    """

    seed: int = 0
    rate: float = 0.2
    faults: tuple[Fault, ...] = field(
        default_factory=lambda: tuple(fault for fault in FAULTS.values() if fault is not HEALTHY)
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "faults", tuple(parse_fault(fault) for fault in self.faults))
        if not 0 <= self.rate <= 1 or not self.faults:
            message = f"Chaos needs a rate in [0, 1] and at least one fault, not {self.rate} and {len(self.faults)}."
            raise ValueError(message)

    def fault_at(self, index: int) -> Fault:
        """Return the fault that the request of that index meets, counted from 0."""
        rng = random.Random(f"{self.seed}:{index}")  # noqa: S311 — replayable on purpose, protects nothing
        return rng.choice(self.faults) if rng.random() < self.rate else HEALTHY

    def script(self, length: int) -> Script:
        """Return the first choices, as many as ``length``, as a script."""
        return Script(tuple(Step(self.fault_at(index)) for index in range(length)))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {"seed": self.seed, "rate": self.rate, "faults": [dump_fault(fault) for fault in self.faults]}


def parse_plan(value: Any, *, times: int | None = None) -> Script | Chaos:  # noqa: ANN401 — any JSON
    """Return the plan that a fault, a script or chaos stands for, given as JSON or as a record.

    Args:
        value: A fault (name, object, record), ``{"steps": …}``, ``{"seed": …, "rate": …}``, or such a record.
        times: How often a single fault is played; None means always.

    Raises:
        ValueError: The value is none of these.
    """
    if isinstance(value, Script | Chaos):
        return value
    if isinstance(value, dict) and "steps" in value:
        return Script.from_dict(value)
    if isinstance(value, dict) and {"seed", "rate"} & set(value):
        try:
            return Chaos(**value)
        except TypeError as exc:
            raise ValueError(f"Chaos has the fields seed, rate and faults only, not {value!r}.") from exc
    return Script((Step(parse_fault(value), times),))
