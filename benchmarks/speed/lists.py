"""A list of photos for a hosted model of 100 ms: through the router, and as most people write it with the SDK."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks.timing import Figure, measure, show
from .clients import THREADS, Spent, run_client
from .photos import write_photos
from .upstream import running_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DELAY_S = 0.1

RATE = {"20 kB": (2.0, 2.8), "210 kB": (1.2, 1.5)}
"""Calls per second, times the SDK's: target and goal for each photo."""

CPU = {"20 kB": (0.5, 0.4), "210 kB": (1.2, 1.0)}
"""CPU per call, times the SDK's."""

MEMORY_MB = 200

WAYS = {"list": "describe_many", "gathered": "AsyncRouter, gathered"}


def measure_lists(*, calls: int, large_calls: int, rounds: int) -> list[Figure]:
    """Return the figures of both sizes; 0 calls leave one out."""
    wanted = {"20 kB": calls, "210 kB": large_calls}
    return [figure for size, count in wanted.items() if count for figure in _measure_size(size, count, rounds)]


def _measure_size(size: str, calls: int, rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, running_upstream(delay_s=DELAY_S) as upstream:
        photos = Path(name)
        sent_bytes = max(path.stat().st_size for path in write_photos(photos, size, calls + 1))
        spent: dict[str, list[Spent]] = {"sdk": [], **{way: [] for way in WAYS}}
        for _ in range(rounds):
            for way, found in spent.items():
                found.append(run_client(way, url=upstream.url, photos=photos, calls=calls))
        figures = [
            Figure(name=f"{size}: what the photo weighs", value=sent_bytes / 1e3, unit="kB"),
            *_absolute(size, f"the SDK in {THREADS} threads", spent["sdk"]),
        ]
        for way, label in WAYS.items():
            compared = [*_compare(size, label, spent["sdk"], spent[way])]
            figures += [*compared, *_absolute(size, label, spent[way])]
            if any(figure.ok is False for figure in compared):
                profiled = run_client(way, url=upstream.url, photos=photos, calls=calls, profiled=1)
                figures += show_modules(f"{size}: {label}", profiled)
    return figures


def _compare(size: str, label: str, theirs: Sequence[Spent], ours: Sequence[Spent]) -> Iterator[Figure]:
    """Yield what we took in multiples of what they took, turn by turn."""
    pairs = list(zip(ours, theirs, strict=True))
    rates = [mine.per_s / reference.per_s for mine, reference in pairs]
    cpu = [mine.cpu_ms / reference.cpu_ms for mine, reference in pairs]
    rate, rate_goal = RATE[size]
    limit, cpu_goal = CPU[size]
    yield measure(f"{size}: {label}: calls/s, times the SDK's", rates, "×", target=rate, goal=rate_goal, at_least=True)
    yield measure(f"{size}: {label}: CPU per call, times the SDK's", cpu, "×", target=limit, goal=cpu_goal)
    peak_mb = [each.peak_bytes / 1e6 for each in ours]
    yield measure(f"{size}: {label}: peak memory", peak_mb, "MB", target=MEMORY_MB)
    answered = min(min(each.answered, each.booked or 0) / each.calls for each in ours)
    yield Figure(
        name=f"{size}: {label}: answered by the server and booked",
        value=min(1.0, answered),
        unit="of all",
        target=1,
        exact=True,
    )


def _absolute(size: str, label: str, spent: Sequence[Spent]) -> Iterator[Figure]:
    yield measure(f"{size}: {label}: calls/s", [each.per_s for each in spent], "/s")
    yield measure(f"{size}: {label}: CPU per call", [each.cpu_ms for each in spent], "ms")
    if label.startswith("the SDK"):
        peak_mb = statistics.median(each.peak_bytes / 1e6 for each in spent)
        yield Figure(name=f"{size}: {label}: peak memory", value=peak_mb, unit="MB")


def show_modules(label: str, spent: Spent) -> Iterator[Figure]:
    """Yield where the CPU time of a profiled client went, in per cent."""
    for name, share in (spent.modules or {}).items():
        yield Figure(name=f"{label}: CPU in {name}", value=share * 100, unit="%")


if __name__ == "__main__":
    show(
        f"Lists against a hosted model of {DELAY_S * 1000:.0f} ms",
        measure_lists,
        options={"calls": 600, "large_calls": 300, "rounds": 3},
    )
