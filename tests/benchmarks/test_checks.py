"""The checks run, and what does not depend on the machine holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "benchmarks" / "checks"

RUNS = {
    "failover": ("--calls=5", "--callers=6", "--processes=2"),
    "engine_overhead": ("--rounds=100",),
    "sigkill": ("--kills=2",),
    "chaos": ("--calls=60", "--threads=12"),
    "hostile_images": ("--cases=66", "--callers=2"),
    "startup": ("--rounds=1",),
    "search": ("--photos=2", "--vectors=300", "--rounds=2", "--copied=3"),
    "embedded": ("--rounds=1", "--folder-rounds=0"),
    "joint_space": ("--texts=50",),
    "descriptions": (),
}

SURE = {
    "failover": ("requests",),
    "sigkill": ("files", "entries", "totals", "states", "routers", "reported", "tokens"),
    "chaos": ("calls that ended otherwise", "budget", "answers", "threads", "sockets", "requests per call"),
    "hostile_images": ("untyped", "answers"),
    "startup": ("imported", "describe"),
    "joint_space": ("a caption first", "first three", "all the same"),
    "descriptions": ("described", "wrong"),
    "search": ("groups of different photos",),
}
"""Words in the names of figures that reach their targets on any machine."""


@pytest.mark.timeout(600)  # on however busy a machine
@pytest.mark.parametrize("name", RUNS)
def test_the_benchmark_runs_and_what_it_counts_is_right(name):
    """Figures in time depend on the machine; figures that are counted do not."""
    run = subprocess.run(
        [sys.executable, str(CHECKS / f"{name}.py"), "--json", *RUNS[name]],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)["figures"]
    sure = [
        each
        for each in figures
        if each["unit"] in {"", "%"} and any(word in each["name"] for word in SURE.get(name, ()))
    ]
    assert len(sure) >= len(SURE.get(name, ()))
    assert [each["name"] for each in sure if each["ok"] is False] == []
