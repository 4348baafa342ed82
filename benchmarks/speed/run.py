"""One command for all that people wait for: ``python -m benchmarks speed``.

This module decides which subjects there are, that each is measured in a process of its own and within a time, and how
one that fails is told. It must not know how anything is measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from vision_backends import InvalidRequestError

from ..checks.timing import ROOT, Figure
from ..machine import commit_of_checkout, look_at_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["SUBJECTS", "Section", "Speed", "Subject", "choose_subjects", "measure_speed"]

WORDS_OF_TROUBLE = 300
"""Letters of what a subject said at last before it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that people wait for.

    Attributes:
        name: What it is called on the command line.
        title: What is measured.
        program: What the interpreter is given: a module of this package, or a script of ``checks/``.
        quick: Its options where time is short; None leaves it out then.
        longest_s: The seconds after which it is given up.
        usual: Whether it is measured without being asked for.
    """

    name: str
    title: str
    program: tuple[str, ...]
    quick: Mapping[str, int] | None = field(default_factory=dict)
    longest_s: float = 300.0
    usual: bool = True


def _module(name: str) -> tuple[str, ...]:
    return ("-m", f"benchmarks.speed.{name}")


def _check(name: str) -> tuple[str, ...]:
    return (str(ROOT / "benchmarks" / "checks" / f"{name}.py"),)


SUBJECTS = (
    Subject(
        name="lists",
        title="Lists against a hosted model of 100 ms",
        program=_module("lists"),
        quick={"calls": 48, "large_calls": 0, "rounds": 1},
        longest_s=600.0,
    ),
    Subject(
        name="flight",
        title="A thousand calls in flight at a server of 2 s",
        program=_module("flight"),
        quick={"callers": 50, "ramp_s": 1, "window_s": 2},
    ),
    Subject(name="limit", title="A list at the server's rate limit", program=_module("limit"), quick={"seconds": 2}),
    Subject(name="one", title="One call at a time", program=_module("one"), quick={"rounds": 3}),
    Subject(name="photo", title="A photo's way onto the wire", program=_module("photo"), quick={"rounds": 2}),
    Subject(name="ladder", title="The ladder's own cost", program=_module("ladder"), quick={"calls": 2}),
    Subject(name="last", title="The last rung", program=_check("embedded"), quick={"rounds": 2, "folder_rounds": 0}),
    Subject(name="start", title="A cold start", program=_check("startup"), quick={"rounds": 1}),
    Subject(
        name="growth",
        title="How cost grows",
        program=_module("growth"),
        quick={"longest_s": 1, "most": 10, "each": 200},
        longest_s=600.0,
    ),
    Subject(
        name="ledger",
        title="The state after a million attempts",
        program=_module("ledger"),
        quick={"rows": 10_000},
    ),
    Subject(name="local", title="The local rung", program=_check("local"), quick=None, longest_s=1800.0, usual=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What was found about one subject.

    Attributes:
        name: The subject.
        title: What was measured.
        figures: The figures; none where it failed.
        taken_s: Seconds that it took.
        load: How many processes wanted a processor before it began, on average of the last minute; None if unknown.
        trouble: Why there are no figures; None where there are.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    taken_s: float
    load: float | None
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One run.

    Attributes:
        sections: What was found, subject by subject.
        machine: Where.
        commit: Of what; None outside of a checkout.
        began_at: When, in seconds since 1970 UTC.
        quick: Whether it was a short one, whose figures are rough.
    """

    sections: tuple[Section, ...]
    machine: Mapping[str, Any]
    commit: str | None
    began_at: float
    quick: bool

    @property
    def targets(self) -> list[Figure]:
        """Return all figures that have a target."""
        return [figure for section in self.sections for figure in section.figures if figure.target is not None]

    def to_json(self) -> str:
        """Return it as JSON."""
        sections = [
            asdict(section) | {"figures": [asdict(figure) | {"verdict": figure.verdict} for figure in section.figures]}
            for section in self.sections
        ]
        rest = {"machine": self.machine, "commit": self.commit, "began_at": self.began_at, "quick": self.quick}
        return json.dumps({**rest, "sections": sections}, indent=2)


def choose_subjects(names: Sequence[str] | None, *, quick: bool, local: bool) -> list[Subject]:
    """Return the subjects of a run.

    Args:
        names: Those that were named; None for the usual ones.
        quick: Whether time is short.
        local: Whether the local rung belongs to the usual ones.

    Raises:
        InvalidRequestError: There is no such subject.
    """
    known = {subject.name: subject for subject in SUBJECTS}
    for name in names or ():
        if name not in known:
            raise InvalidRequestError(f"--only {name!r} is not a subject.", remedy=f"Choose from {', '.join(known)}.")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    chosen = [subject for subject in SUBJECTS if subject.usual or (local and subject.name == "local")]
    return [subject for subject in chosen if subject.quick is not None or not quick]


def measure_speed(subjects: Sequence[Subject], *, quick: bool, tell: Callable[[str], object]) -> Speed:
    """Measure one subject after the other.

    Args:
        subjects: Which.
        quick: Whether time is short.
        tell: Hears what is measured now.
    """
    began_at = time.time()
    sections = []
    for subject in subjects:
        tell(f"{subject.title} …")
        sections.append(_measure(subject, quick=quick))
        if sections[-1].trouble:
            tell(f"  not measured: {sections[-1].trouble}")
    return Speed(
        sections=tuple(sections),
        machine=look_at_machine().model_dump(),
        commit=commit_of_checkout(),
        began_at=began_at,
        quick=quick,
    )


def _measure(subject: Subject, *, quick: bool) -> Section:
    options = (subject.quick or {}) if quick else {}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    load = _load()
    started = time.perf_counter()
    printed, trouble = _run([sys.executable, *subject.program, "--json", *words], longest_s=subject.longest_s)
    figures: tuple[Figure, ...] = ()
    if trouble is None:
        figures = tuple(map(_figure, json.loads(printed)["figures"]))
    return Section(
        name=subject.name,
        title=subject.title,
        figures=figures,
        taken_s=time.perf_counter() - started,
        load=load,
        trouble=trouble,
    )


def _run(command: Sequence[str], *, longest_s: float) -> tuple[str, str | None]:
    """Return what a program printed, and why that is nothing; it and all that it started is ended in time."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=longest_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return "", f"it took longer than {longest_s:g} s"
        except BaseException:
            _end(process)
            raise
        said.seek(0)
        words = said.read().strip()
    if process.returncode != 0:
        return "", words[-WORDS_OF_TROUBLE:] or f"it ended with exit code {process.returncode}"
    return printed, None


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and the servers and clients that it has started, which are of its session."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def _figure(row: Mapping[str, Any]) -> Figure:
    names = {each.name for each in fields(Figure)}
    return Figure(**{name: value for name, value in row.items() if name in names})


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
