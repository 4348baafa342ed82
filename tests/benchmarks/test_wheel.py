"""The benchmark as the wheel carries it: without what is for checkouts only."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The command line of a copy of the benchmark that holds what the wheel holds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    left_out = {ROOT / path for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]}
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "benchmarks",
        folder / "benchmarks",
        ignore=lambda parent, names: [name for name in names if Path(parent) / name in left_out],
    )

    def run(*words):
        command = [sys.executable, "-m", "benchmarks", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)

    run.folder = folder
    return run


def test_it_holds_neither_checks_nor_other_libraries(bench):
    """What measures the project's own targets, and what asks other libraries, is of no use to its users."""
    assert {"checks", "peers", "photos", "speed"}.isdisjoint(
        path.name for path in (bench.folder / "benchmarks").iterdir()
    )


def test_a_day_is_played_from_it(bench):
    """What plays the day, and the program that calls, are in it."""
    done = bench("failover", "--day-s", "2", "--out", "run.json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((bench.folder / "run.json").read_text())["failover"]
    assert result["library"] == "vision-backends"


def test_the_projects_own_targets_need_a_checkout(bench):
    """The message says so and names the command."""
    done = bench("speed", "--quick")
    assert done.returncode == 2
    assert "and run there: python -m benchmarks speed" in " ".join(done.stderr.split())


@pytest.mark.parametrize("option", ["--peers", "--install-peers"])
def test_other_libraries_need_a_checkout(bench, option):
    """The message says so and names the command, before anything is measured."""
    done = bench("failover", option, "--out", "peers.json")
    assert done.returncode == 2
    assert "and run there: python -m benchmarks failover --peers" in " ".join(done.stderr.split())
    assert not (bench.folder / "peers.json").exists()
