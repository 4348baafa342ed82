"""How it was measured: machines, versions, revisions, seeds and settings of each run.

This module decides which circumstances a reader needs to repeat a run or to doubt it. It must not know any result.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from .cells import Cell, Column, Table
from .wording import RANDOM_WEIGHTS, UNKNOWN, join_words, show_bytes, show_count, show_date, show_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..records import Contestant, Run

__all__ = ["show_settings", "tabulate_contestants", "tabulate_runs"]

_FACTS: dict[str, Callable[[Run], str]] = {
    "command": lambda run: f"{run.program} {shlex.join(run.command)}",
    "begun": lambda run: show_date(run.started_at),
    "ended": lambda run: show_date(run.finished_at) if run.finished_at else "not finished",
    "stopped early": lambda run: run.stopped or "no",
    "spent": lambda run: show_usd(run.spent_usd) if run.spent_usd is not None else f"{UNKNOWN} (not known)",
    "commit": lambda run: run.commit or f"{UNKNOWN} (outside of a checkout)",
    "seed": lambda run: str(run.seed),
    "system": lambda run: run.machine.system,
    "processor": lambda run: f"{run.machine.processor}, {run.machine.cores} cores",
    "memory": lambda run: show_bytes(run.machine.memory_bytes),
    "accelerators": lambda run: join_words(run.machine.accelerators) if run.machine.accelerators else "none",
    "Python": lambda run: run.machine.python,
    "packages": lambda run: ", ".join(f"{name} {version}" for name, version in run.machine.packages.items()) or UNKNOWN,
}


def tabulate_runs(runs: Sequence[Run]) -> Table:
    """Return a row for each circumstance, and a column for each run."""
    return Table(
        caption="Runs",
        columns=(
            Column("", is_number=False),
            *(Column(f"run {number}", is_number=False) for number in range(1, len(runs) + 1)),
        ),
        rows=tuple((Cell(name), *(Cell(fact(run)) for run in runs)) for name, fact in _FACTS.items()),
    )


def tabulate_contestants(runs: Sequence[Run]) -> Table | None:
    """Return a row for each rung, task and model that was measured; None where nothing was."""
    found: dict[Contestant, list[str]] = {}
    for number, run in enumerate(runs, start=1):
        contestants = [each.contestant for each in run.quality] + [each.contestant for each in run.latency]
        for who in dict.fromkeys(contestants):
            found.setdefault(who, []).append(str(number))
    if not found:
        return None
    names = ("rung", "task", "model", "revision", "engine", "device", "numbers", "weights", "licence", "run")
    return Table(
        caption="Who was measured",
        columns=tuple(Column(name, is_number=False) for name in names),
        rows=tuple(
            (
                Cell(who.backend, backend=who.backend),
                Cell(who.task),
                Cell(who.model or UNKNOWN, None if who.model else "nothing answered"),
                *(Cell(fact or UNKNOWN) for fact in (who.revision, who.engine, who.device, who.dtype)),
                Cell(show_count(who.parameters), f"random: {RANDOM_WEIGHTS}" if who.random_weights else None),
                Cell(who.licence or UNKNOWN),
                Cell(join_words(numbers)),
            )
            for who, numbers in found.items()
        ),
        notes=(f"{UNKNOWN} means that the provider does not say.",),
    )


def show_settings(run: Run) -> str:
    """Return all options in force, as JSON."""
    return json.dumps(run.settings, indent=2, ensure_ascii=False, default=str)
