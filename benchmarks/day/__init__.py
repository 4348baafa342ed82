"""A day on which the best server fails and recovers: who answers, how fast, at what cost, and who leaves it in peace?

This module decides who goes through the day and with which settings. It must not know how a day is played.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends import UnavailableError

from ..checks.sandbox_process import RemoteSandbox
from ..peers.libraries import FOLDER, LIBRARIES, Library, install
from ..peers.trial import make_png
from ..records import FailoverResult
from .scenario import Scenario
from .summary import phases_of, points_of
from .visit import Visit, Visitor, visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..plan import Plan
    from ..run_file import RunFile

__all__ = ["measure"]

GATE_S = 15 * 60.0
"""How long this package leaves a server alone whose quota is gone; whoever has a cooldown is given the same."""

OURS = LIBRARIES[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Who goes through the day, how it is set up, and how that is called."""

    library: Library
    module: str
    settings: str
    words: str


def measure(plan: Plan, run_file: RunFile) -> None:
    """Play the same day to this package and, where asked and installed, to its peers; write how each came through.

    Raises:
        KeyboardInterrupt: It was interrupted; those who have come through are in the run file.
    """
    if plan.install_peers:
        for library in LIBRARIES:
            install(library, FOLDER)
    scenario = Scenario(day_s=plan.day_s)
    entries = list(_entries(plan, scenario))
    with tempfile.TemporaryDirectory() as name, RemoteSandbox.started() as a, RemoteSandbox.started() as b:
        picture = Path(name) / "picture.png"
        picture.write_bytes(make_png())
        with run_file.progress("failover", total=len(entries)) as advance:
            for entry in entries:
                key = f"day/{entry.library.name}/{entry.settings}"
                if not run_file.done(key):
                    try:
                        made = visit(_visitor(entry, scenario), scenario, a, b, picture)
                    except UnavailableError as error:
                        run_file.stop(f"Failover: {error.message}")
                    else:
                        run_file.add_failover(_result(entry, scenario, made))
                        run_file.note(key, value=True)
                advance()


def _entries(plan: Plan, scenario: Scenario) -> Iterator[_Entry]:
    clock = f"the clock of its gates runs {scenario.speed:.4g} times as fast"
    yield _Entry(
        library=OURS, module="ask_ladder", settings="embedded", words=f"OpenAI above the embedded rung; {clock}"
    )
    if not plan.peers:
        return
    yield _Entry(library=OURS, module="ask_ladder", settings="second", words=f"OpenAI above a second server; {clock}")
    for library in LIBRARIES[1:]:
        if library.python(FOLDER).exists():
            words = (
                "OpenAI above a second server; no retries underneath, a timeout of 20 s, a cooldown where it has one"
            )
            yield _Entry(library=library, module=library.module, settings="best", words=words)
        else:
            print(f"{library.name} is left out: it is not installed. Add --install-peers.", file=sys.stderr)


def _visitor(entry: _Entry, scenario: Scenario) -> Visitor:
    return Visitor(
        python=entry.library.python(FOLDER),
        module=entry.module,
        settings=entry.settings,
        distribution=entry.library.distribution,
        cooldown_s=GATE_S / scenario.speed,
        is_fast=entry.library is OURS,
    )


def _result(entry: _Entry, scenario: Scenario, made: Visit) -> FailoverResult:
    return FailoverResult(
        library=entry.library.name,
        version=made.version,
        settings=entry.words,
        phases=tuple(phases_of(made, scenario)),
        calls=points_of(made, scenario),
    )
