"""A day on which the best server fails and recovers: who answers, how fast, at what cost, and who leaves it in peace?

This module decides who goes through the day and with which settings. It must not know how a day is played.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import PIL.Image

from vision_backends import UnavailableError
from vision_backends.cli.rendering.exits import tell

from ..lateness import could_not_keep, measure_lateness, tell_lateness
from ..records import FailoverResult
from ..sandbox_process import RemoteSandbox
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

OURS = "vision-backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Who goes through the day, how it is set up, and how that is called."""

    library: str
    visitor: Visitor
    words: str


def measure(plan: Plan, run_file: RunFile) -> None:
    """Play the same day to this package and, where asked and installed, to its peers; write how each came through.

    Raises:
        KeyboardInterrupt: It was interrupted; those who have come through are in the run file.
    """
    scenario = Scenario(day_s=plan.day_s)
    entries = [_our_entry("embedded", "the embedded rung", scenario)]
    if plan.install_peers:
        _install_peers()
    if plan.peers:
        entries += [_our_entry("second", "a second server", scenario), *_peer_entries(scenario)]
    with tempfile.TemporaryDirectory() as name, RemoteSandbox.started() as a, RemoteSandbox.started() as b:
        picture = Path(name) / "picture.png"
        PIL.Image.radial_gradient("L").save(picture)
        with run_file.progress("failover", total=len(entries)) as advance:
            for entry in entries:
                key = f"day/{entry.library}/{entry.visitor.settings}"
                if not run_file.done(key):
                    try:
                        made = visit(entry.visitor, scenario, a, b, picture)
                    except UnavailableError as error:
                        run_file.stop(f"Failover: {error.message}")
                    else:
                        result = _result(entry, scenario, made)
                        run_file.add_failover(result)
                        if could_not_keep(result):
                            tell(tell_lateness(result))
                        run_file.note(key, value=True)
                advance()


def _our_entry(settings: str, below: str, scenario: Scenario) -> _Entry:
    return _Entry(
        library=OURS,
        visitor=Visitor(
            python=Path(sys.executable),
            folder=Path(__file__).parent,
            module="ask_ladder",
            settings=settings,
            distribution=OURS,
            cooldown_s=GATE_S / scenario.speed,
            is_fast=True,
        ),
        words=f"OpenAI above {below}; the clock of its gates runs {scenario.speed:.4g} times as fast",
    )


def _install_peers() -> None:
    from ..peers.libraries import FOLDER, LIBRARIES, install

    for library in LIBRARIES:
        install(library, FOLDER)


def _peer_entries(scenario: Scenario) -> Iterator[_Entry]:
    from ..peers import libraries

    for library in libraries.LIBRARIES[1:]:
        if not library.python(libraries.FOLDER).exists():
            print(f"{library.name} is left out: it is not installed. Add --install-peers.", file=sys.stderr)
            continue
        yield _Entry(
            library=library.name,
            visitor=Visitor(
                python=library.python(libraries.FOLDER),
                folder=Path(libraries.__file__).parent,
                module=library.module,
                settings="best",
                distribution=library.distribution,
                cooldown_s=GATE_S / scenario.speed,
                is_fast=False,
            ),
            words="OpenAI above a second server; no retries underneath, a timeout of 20 s, a cooldown where it has one",
        )


def _result(entry: _Entry, scenario: Scenario, made: Visit) -> FailoverResult:
    return FailoverResult(
        library=entry.library,
        version=made.version,
        settings=entry.words,
        phases=tuple(phases_of(made, scenario)),
        calls=points_of(made, scenario),
        lateness=measure_lateness([call["late_s"] for call in made.calls], turns_late_s=made.turns_late_s),
    )
