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
    "Cost",
    "Figure",
    "cost_in_turns",
    "cost_of_python",
    "measure",
    "run_python",
    "show",
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
        exact: Whether nothing but the target itself is good enough.
        at_least: Whether the target is the smallest value instead.
        low: The 10th percentile; None if there was only one measurement.
        high: The 90th percentile, likewise.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    exact: bool = False
    at_least: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def ok(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        if self.exact:
            return self.value == self.target
        return self.value >= self.target if self.at_least else self.value <= self.target


def measure(
    name: str, samples: Sequence[float], unit: str, *, target: float | None = None, at_least: bool = False
) -> Figure:
    """Return the median of some measurements, and the range in which the middle 80 % of them lie."""
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    median = statistics.median(samples)
    return Figure(name=name, value=median, unit=unit, target=target, at_least=at_least, low=tenths[0], high=tenths[-1])


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

    Returns:
        What it printed, and the seconds from its start to its end.
    """
    own = ("VISION_", "OPENAI_", "XDG_")
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
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{default} by default")
    given = vars(parser.parse_args())  # where --two-words is two_words
    as_json = given.pop("json")
    figures = measured(**given)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if as_json:
        rows = [asdict(figure) | {"ok": figure.ok} for figure in figures]
        print(json.dumps({"title": title, "machine": machine, "figures": rows}, indent=2))
        return
    width = max(len(figure.name) for figure in figures)
    print(f"{title} ({machine})\n")
    print(f"{'':<{width}}  {'target':>12}  {'figure':>12}  {'10 to 90 %':>17}")
    for figure in figures:
        sign = "=" if figure.exact else "≥" if figure.at_least else "≤"
        target = "" if figure.target is None else f"{sign} {_number(figure.target)} {figure.unit}"
        spread = "" if figure.low is None or figure.high is None else f"{figure.low:.4g} to {figure.high:.4g}"
        verdict = {True: "ok", False: "missed", None: ""}[figure.ok]
        value = f"{_number(figure.value)} {figure.unit}"
        print(f"{figure.name:<{width}}  {target:>12}  {value:>12}  {spread:>17}  {verdict}".rstrip())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
