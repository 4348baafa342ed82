"""What the checks share: timing in turns, fresh processes, and a table of figures against their targets.

This module decides how a figure is measured and shown. It must not know what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "PHOTOS",
    "ROOT",
    "Cost",
    "Figure",
    "cost_in_turns",
    "cost_of_python",
    "measure",
    "print_table",
    "run_python",
    "show",
    "show_number",
    "time_in_turns",
]

ROOT = Path(__file__).parents[2]

PHOTOS = ROOT / "benchmarks" / "photos"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        name: What was measured.
        value: The figure, a median if there was more than one measurement.
        unit: Its unit.
        target: The largest value that is good enough; None if there is no target.
        goal: A value better than the target, which is aimed at; None if there is none.
        exact: Whether nothing but the target itself is good enough.
        at_least: Whether the target is the smallest value instead.
        low: The 10th percentile; None if there was only one measurement.
        high: The 90th percentile, likewise.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    goal: float | None = None
    exact: bool = False
    at_least: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def ok(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.target is None else self._reaches(self.target)

    @property
    def verdict(self) -> str:
        """``goal``, ``ok`` or ``missed``; nothing where there is no target."""
        if self.goal is not None and self._reaches(self.goal):
            return "goal"
        return {True: "ok", False: "missed", None: ""}[self.ok]

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return f"{show_number(self.value)} {self.unit}".rstrip()

    @property
    def shown_target(self) -> str:
        """The target with its unit, and the goal in brackets."""
        if self.target is None:
            return ""
        sign = "=" if self.exact else "≥" if self.at_least else "≤"
        goal = "" if self.goal is None else f" ({show_number(self.goal)})"
        return f"{sign} {show_number(self.target)}{goal} {self.unit}".rstrip()

    @property
    def shown_spread(self) -> str:
        """The range of the middle 80 %; nothing where there was one measurement."""
        return "" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"

    def _reaches(self, value: float) -> bool:
        if self.exact:
            return self.value == value
        return self.value >= value if self.at_least else self.value <= value


def measure(
    name: str,
    samples: Sequence[float],
    unit: str,
    *,
    target: float | None = None,
    goal: float | None = None,
    at_least: bool = False,
) -> Figure:
    """Return the median of some measurements, and the range in which the middle 80 % of them lie."""
    low, high = None, None
    if len(samples) > 1:
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        low, high = tenths[0], tenths[-1]
    median = statistics.median(samples)
    return Figure(name=name, value=median, unit=unit, target=target, goal=goal, at_least=at_least, low=low, high=high)


def time_in_turns(actions: Mapping[str, Callable[[int], object]], *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each action took in each round.

    The actions take turns, so that whatever else the machine does affects all of them alike.

    Args:
        actions: Names and functions, which get the number of the round.
        rounds: How often each is run.
    """
    taken_s: dict[str, list[float]] = {name: [] for name in actions}
    for place in range(rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action(place)
            taken_s[name].append(time.perf_counter() - started)
    return taken_s


class Cost(NamedTuple):
    """What something took.

    Attributes:
        taken_s: Seconds from its start to its end, other work on the machine included.
        cpu_s: Seconds of all processors together.
    """

    taken_s: float
    cpu_s: float


def cost_in_turns(actions: Mapping[str, Callable[[int], object]], *, rounds: int) -> dict[str, list[Cost]]:
    """Return what each action took in each round; arguments as for `time_in_turns`."""
    costs: dict[str, list[Cost]] = {name: [] for name in actions}
    for place in range(rounds):
        for name, action in actions.items():
            started, started_cpu = time.perf_counter(), time.process_time()
            action(place)
            costs[name].append(Cost(time.perf_counter() - started, time.process_time() - started_cpu))
    return costs


def cost_of_python(*arguments: str) -> Cost:
    """Run this interpreter in a fresh process as `run_python` does; return what the process took."""
    before = _cpu_of_children()
    _, taken_s = run_python(*arguments)
    return Cost(taken_s, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_python(*arguments: str) -> tuple[str, float]:
    """Run this interpreter in a fresh process, as for a user who has configured and cached nothing.

    It keeps the bytecode of what it imports, as installing does: without it every process would compile the sources.

    Returns:
        What it printed, and the seconds from its start to its end.
    """
    own = ("VISION_", "OPENAI_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    with tempfile.TemporaryDirectory() as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        started = time.perf_counter()
        run = subprocess.run(
            [sys.executable, *arguments],
            env=environment | {"HOME": home, "PYTHONPATH": paths},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        taken_s = time.perf_counter() - started
    if run.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{run.stderr}")
    return run.stdout, taken_s


def show(title: str, measured: Callable[..., Sequence[Figure]], *, options: Mapping[str, int] | None = None) -> None:
    """Measure and print a table, or JSON if the command line says so.

    Args:
        title: What is measured.
        measured: Returns the figures.
        options: Its keyword arguments with their defaults; the command line has an option for each.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for name, default in (options or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{default} by default")
    given = vars(parser.parse_args())  # where --two-words is two_words
    as_json = given.pop("json")
    figures = measured(**given)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if as_json:
        rows = [asdict(figure) | {"ok": figure.ok} for figure in figures]
        print(json.dumps({"title": title, "machine": machine, "figures": rows}, indent=2))
        return
    print(f"{title} ({machine})\n")
    print_table(figures)


def print_table(figures: Sequence[Figure]) -> None:
    """Print a line for each figure: its target, itself, its spread, and whether the target is reached."""
    rows = [("", "target", "figure", "10 to 90 %", "")]
    rows += [(each.name, each.shown_target, each.shown, each.shown_spread, each.verdict) for each in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells[:3], widths[1:], strict=False)]
        print("  ".join([name.ljust(widths[0]), *padded, cells[3]]).rstrip())


def show_number(value: float) -> str:
    """Return a number with four digits, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
