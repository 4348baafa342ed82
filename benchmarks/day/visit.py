"""One library on its way through the day: a process that calls, and a server that plays along.

This module decides that both begin at the same moment, and what is counted of them. It must not know any library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import IO, TYPE_CHECKING, Any, cast

import vision_backends
from vision_backends import UnavailableError

from ..sandbox_process import client_environment
from .scenario import CALLS_PER_S, LOWER, answer_of

if TYPE_CHECKING:
    from ..sandbox_process import RemoteSandbox
    from .scenario import Scenario

__all__ = ["Visit", "Visitor", "visit"]

PROGRAM = Path(__file__).with_name("caller.py")

READY_S = 120.0
"""Within this it has been imported and has answered once."""

AFTERWARDS_S = 120.0
"""Within this the last call of the day has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who goes through the day.

    Attributes:
        python: The interpreter of its environment.
        folder: Where the module is that asks it.
        module: That module.
        settings: Which of that module's settings.
        distribution: What its version is asked of.
        cooldown_s: Seconds for which it leaves alone who has failed, where it does so.
        is_fast: Whether its clock runs as fast as the day.
    """

    python: Path
    folder: Path
    module: str
    settings: str
    distribution: str
    cooldown_s: float
    is_fast: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What came of it.

    Attributes:
        version: The library's version.
        calls: For each call when it was due (``at_s``), ``late_s``, ``elapsed_s``, and ``text`` or ``error``.
        wire_requests: How many requests reached the upper server in each part of the day.
        turns_late_s: How long after it was due the upper server did what it was to do, at most.
    """

    version: str
    calls: list[dict[str, Any]]
    wire_requests: list[int]
    turns_late_s: float


def visit(visitor: Visitor, scenario: Scenario, upper: RemoteSandbox, lower: RemoteSandbox, picture: Path) -> Visit:
    """Let a library call all day long.

    Raises:
        UnavailableError: It did not get through; says what its process said last.
    """
    upper.reset()
    lower.reset()
    lower.play(answer_of(LOWER))
    upper.play(next(scenario.turns(is_fast=visitor.is_fast)).fault)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        with _process(visitor, scenario, upper, lower, picture, complaints) as process:
            try:
                made = _accompany(process, scenario, upper, is_fast=visitor.is_fast)
            finally:
                process.kill()
        if made is not None:
            return made
        complaints.seek(0)
        words = complaints.read().strip().splitlines() or ["nothing"]
    raise UnavailableError(f"{visitor.distribution} did not get through the day; the last it said was: {words[-1]}")


def _accompany(
    process: subprocess.Popen[str], scenario: Scenario, upper: RemoteSandbox, *, is_fast: bool
) -> Visit | None:
    """Return what came of the day; None when the process did not get through it."""
    ready = _listen(process, READY_S)
    if ready is None:
        return None
    counts, turns_late_s = _play(scenario, upper, process, is_fast=is_fast)
    calls = _listen(process, AFTERWARDS_S)
    if calls is None:
        return None
    counts.append(upper.count())
    return Visit(
        version=ready["ready"],
        calls=calls,
        wire_requests=[after - before for before, after in pairwise(counts)],
        turns_late_s=turns_late_s,
    )


def _process(
    visitor: Visitor,
    scenario: Scenario,
    upper: RemoteSandbox,
    lower: RemoteSandbox,
    picture: Path,
    complaints: IO[str],
) -> subprocess.Popen[str]:
    words = [visitor.module, visitor.settings, upper.url, lower.url, visitor.cooldown_s, visitor.distribution]
    found = client_environment()
    paths = [str(visitor.folder)]
    if visitor.python == Path(sys.executable):  # this package, which may run from a checkout
        paths += [str(Path(vision_backends.__file__).parents[1]), found.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [str(visitor.python), str(PROGRAM), *map(str, [*words, CALLS_PER_S, scenario.day_s, picture])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        env=found | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=visitor.folder,
    )


def _listen(process: subprocess.Popen[str], seconds: float) -> Any:  # noqa: ANN401 — JSON
    """Return what a process says next; None when it ends, or takes longer than it may."""
    impatience = Timer(seconds, process.kill)
    impatience.start()
    try:
        while line := cast("IO[str]", process.stdout).readline():
            with suppress(ValueError):  # some libraries greet
                return json.loads(line)
    finally:
        impatience.cancel()
    return None


def _play(
    scenario: Scenario, upper: RemoteSandbox, process: subprocess.Popen[str], *, is_fast: bool
) -> tuple[list[int], float]:
    """Let the day begin and pass.

    Returns:
        How many requests the server had received as each part began, and how late it was told what to do, at most.
    """
    counts: list[int] = []
    late_s = 0.0
    starts = [stretch.starts_s for stretch in scenario.stretches]
    with suppress(BrokenPipeError), cast("IO[str]", process.stdin) as line:
        line.write("go\n")
    began = time.perf_counter()
    for turn in scenario.turns(is_fast=is_fast):
        time.sleep(max(0.0, began + turn.at_s - time.perf_counter()))
        upper.play(turn.fault, instead=False)
        late_s = max(late_s, time.perf_counter() - began - turn.at_s)
        if len(counts) < len(starts) and turn.at_s >= starts[len(counts)]:
            counts.append(upper.count())
    time.sleep(max(0.0, began + scenario.day_s - time.perf_counter()))
    return counts, late_s
