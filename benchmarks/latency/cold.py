"""The first answer of a fresh process: interpreter, imports, loading and the answer itself.

This module decides how processes are started and what they are told. The settings with their secrets go through a
pipe: never onto a command line, into a variable or a file. It must not know what is made of the times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Timer
from typing import IO, TYPE_CHECKING, Any, cast

import vision_backends

from .subjects import Declined, check_budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..datasets import Photo
    from ..plan import Plan
    from ..run_file import RunFile
    from .subjects import Subject

__all__ = ["cold_answers", "measure_cold"]

PROGRAM = Path(__file__).with_name("first_answer.py")

LONGEST_S = 300.0

OWN = ("VISION_", "OPENAI_")
"""Variables that would change the settings a second time."""


def measure_cold(plan: Plan, run_file: RunFile, subjects: Sequence[Subject], photo: Photo) -> None:
    """Start a process for every rung and task, as often as the plan says, in an order drawn anew for each time.

    Models are in the system's memory by then, since they have answered before: what is timed is no slow disk.
    """
    with run_file.progress("latency, cold", total=plan.processes * len(subjects)) as advance:
        for turn in range(plan.processes):
            order = list(subjects)
            Random(f"{plan.seed}/{turn}").shuffle(order)  # noqa: S311 — no secret
            for subject in order:
                if subject.declined is None and not run_file.done(_key(subject, turn)):
                    _measure_one(plan, subject, turn, run_file, photo)
                advance()


def cold_answers(plan: Plan, run_file: RunFile, subject: Subject) -> list[dict[str, Any]]:
    """Return ``elapsed_s`` and ``memory_bytes`` of each process of a rung that has answered, from the run file."""
    notes = [
        run_file.recall(_key(subject, turn)) for turn in range(plan.processes) if run_file.done(_key(subject, turn))
    ]
    return [note for note in notes if "declined" not in note]


def _measure_one(plan: Plan, subject: Subject, turn: int, run_file: RunFile, photo: Photo) -> None:
    try:
        check_budget(subject, run_file)
    except Declined as declined:
        subject.give_up(declined)
    else:
        told = _first_answer(plan, subject, photo)
        run_file.note(_key(subject, turn), told, usd=told.get("usd") or 0.0)


def _first_answer(plan: Plan, subject: Subject, photo: Photo) -> dict[str, Any]:
    """Return what a fresh process tells of its first answer, and how long that took from its start."""
    source = photo.read()
    image = {"path": str(source.resolve())} if isinstance(source, Path) else {"bytes": b64encode(source).decode()}
    question = {
        "settings": plan.settings.model_dump(mode="json", exclude={"alerts"}),
        "backend": subject.backend,
        "task": subject.task,
        "options": dict(subject.options),
        "deadline_s": LONGEST_S,
        **image,
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        started = time.perf_counter()
        with _process(complaints) as process:
            line = _talk(process, json.dumps(question))
            elapsed_s = time.perf_counter() - started
            process.kill()  # what it does at its end is no part of the answer
        if not line:
            complaints.seek(0)
            words = complaints.read().strip().splitlines() or [f"It said nothing within {LONGEST_S:.0f} s."]
            return {"declined": words[-1]}
    told: dict[str, Any] = json.loads(line)
    return told | {"elapsed_s": elapsed_s}


def _process(complaints: IO[str]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(OWN)}
    paths = [str(Path(vision_backends.__file__).parents[1]), *filter(None, sys.path)]
    return subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def _talk(process: subprocess.Popen[str], question: str) -> str:
    """Put a question to a process, and return the line that it answers; nothing when it ends without one."""
    impatience = Timer(LONGEST_S, process.kill)
    impatience.start()
    try:
        with suppress(BrokenPipeError), cast("IO[str]", process.stdin) as pipe:
            pipe.write(question)
        return cast("IO[str]", process.stdout).readline()
    except BaseException:
        process.kill()
        raise
    finally:
        impatience.cancel()


def _key(subject: Subject, turn: int) -> str:
    return f"latency/cold/{subject.key}/{turn}"
