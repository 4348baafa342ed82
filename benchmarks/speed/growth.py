"""How cost grows with the length of a list: time, CPU, memory and rows of the ledger for 1 to 10,000 inputs.

Each rung and task has a process of its own, in which lists become ten times as long each time, until the next one
would take too long; the last but one is then answered once more, so that a machine which others use meanwhile is no
growth. The upper rung is OpenAI's, played by the sandbox; the last is the embedded one. A rung that costs nothing
answers ten times as many photos that come one by one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends import Backend, Description, Model, Trace

from ..checks.timing import Figure, show
from ..sandbox_process import API_KEY, RemoteSandbox, client_environment
from .clients import BEHIND_S, cpu_s, peak_bytes
from .photos import as_another_file, make_photo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vision_backends import DescribeRequest, Image, Request, Router

ROOT = Path(__file__).parents[2]

TASKS = ("describe", "embed", "detect")

RUNGS = {"openai": "sandbox", "embedded": "embedded"}

LINEAR = 1.2
"""Time and CPU of an input of the longest list, times those of one ten times as short."""

ANSWER_KB = 10
"""What an answer with its trace takes at most, and thus each further input of a list."""

FLAT = 1.1
"""Memory for ten times as many inputs that come one by one."""

SIZE = "20 kB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One list.

    Attributes:
        inputs: How long it is.
        wall_s: Seconds until its last answer.
        cpu_s: CPU seconds.
        peak_bytes: The most memory that the process has had until then.
        rows: Rows that it added to the ledger.
        answered: Inputs that were answered.
    """

    inputs: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    rows: int
    answered: int


class FreeBackend(Backend):
    """Describes every image in the same words, and keeps nothing."""

    name = "free"
    local = True

    def model_for(self, request: Request) -> Model:  # noqa: ARG002 — it has only one
        """Return its only model."""
        return Model(name="free")

    def check(self, request: Request) -> None:
        """Refuse nothing."""

    def describe(self, images: Sequence[Image], request: DescribeRequest, *, timeout_s: float) -> list[Description]:  # noqa: ARG002
        """Return the same text for each image."""
        return [Description(text="An image.", trace=Trace(model="free")) for _ in images]


def measure_growth(*, longest_s: int, most: int, each: int) -> list[Figure]:
    """Return the figures.

    Args:
        longest_s: A list that would take longer than this is left out.
        most: Inputs of the longest list.
        each: Photos that come one by one; 0 leaves them out.
    """
    figures = []
    with RemoteSandbox.started() as sandbox:
        for rung, label in RUNGS.items():
            for task in TASKS:
                steps = _run(rung, task, str(most), str(longest_s), url=sandbox.url)
                figures += [*_judge(f"{label}, {task}", steps), *_tabulate(f"{label}, {task}", steps)]
    if each:
        first, last = _run("free", "describe", str(each), "0", url="")
        name = f"{last.inputs:,} photos by describe_each"
        figures += [
            Figure(
                name=f"{name}: memory, times that of {first.inputs:,}",
                value=last.peak_bytes / first.peak_bytes,
                unit="×",
                target=FLAT,
            ),
            Figure(name=f"{name}: time each", value=last.wall_s / last.inputs * 1e3, unit="ms"),
            Figure(name=f"{name}: peak memory", value=last.peak_bytes / 1e6, unit="MB"),
        ]
    return figures


def _judge(label: str, steps: Sequence[Step]) -> Iterator[Figure]:
    """Yield whether the longest list cost as much for each input as one of a tenth of its length."""
    if len(steps) < 2:
        return
    short, long = steps[-2:]
    name = f"{label}, {long.inputs:,} inputs"
    for what in ("wall_s", "cpu_s"):
        ratio = getattr(long, what) / long.inputs / (getattr(short, what) / short.inputs)
        told = "time" if what == "wall_s" else "CPU"
        yield Figure(name=f"{name}: {told} each, times that of {short.inputs:,}", value=ratio, unit="×", target=LINEAR)
    more_kb = (long.peak_bytes - short.peak_bytes) / (long.inputs - short.inputs) / 1e3
    if short.inputs >= 1000:  # until then the process itself grows
        yield Figure(name=f"{name}: memory for each further one", value=more_kb, unit="kB", target=ANSWER_KB)


def _tabulate(label: str, steps: Sequence[Step]) -> Iterator[Figure]:
    for step in steps:
        name = f"{label}, {step.inputs:,}"
        yield Figure(name=f"{name}: time each", value=step.wall_s / step.inputs * 1e3, unit="ms")
        yield Figure(name=f"{name}: CPU each", value=step.cpu_s / step.inputs * 1e3, unit="ms")
        yield Figure(name=f"{name}: peak memory", value=step.peak_bytes / 1e6, unit="MB")
        yield Figure(name=f"{name}: ledger rows each", value=step.rows / step.inputs, unit="")


def _run(rung: str, task: str, most: str, longest_s: str, *, url: str) -> list[Step]:
    with tempfile.TemporaryDirectory() as home:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"HOME": home, "PYTHONPATH": paths, "OPENAI_API_KEY": API_KEY, "VISION_OPENAI__BASE_URL": url}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.growth", rung, task, most, longest_s],
            env=client_environment() | own,
            cwd=home,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [Step(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def grow(rung: str, task: str, most: int, longest_s: float) -> list[Step]:
    """Ask one rung about longer and longer lists of files, each of which it has never seen."""
    from vision_backends import Router
    from vision_backends.config.loading import load_settings

    steps: list[Step] = []
    photo, begun = make_photo(SIZE), 0
    settings = load_settings().model_copy(update={"ladder": (rung,)})
    with tempfile.TemporaryDirectory() as folder, Router.from_config(settings) as router:

        def step(inputs: int) -> Step:
            nonlocal begun
            paths = [Path(folder, f"{number}.jpg") for number in range(begun, begun + inputs)]
            for number, path in enumerate(paths, start=begun):
                path.write_bytes(as_another_file(photo, number))
            begun += inputs
            taken = _step(router, lambda: getattr(router, f"{task}_many")(paths), inputs)
            for path in paths:
                path.unlink()
            return taken

        getattr(router, task)(as_another_file(photo, 2**31 - 1))
        inputs = 1
        while inputs <= most and (not steps or steps[-1].wall_s * 10 <= longest_s):
            steps.append(step(inputs))
            inputs *= 10
        if len(steps) > 1:
            before, behind = steps[-2], step(steps[-2].inputs)
            wall_s, cpu_s = (before.wall_s + behind.wall_s) / 2, (before.cpu_s + behind.cpu_s) / 2
            steps[-2] = replace(before, wall_s=wall_s, cpu_s=cpu_s)
    return steps


def answer_each(count: int) -> list[Step]:
    """Have photos described that come one by one: a tenth of them, and then all."""
    from vision_backends import Router
    from vision_backends.storage import open_store

    photo, begun = make_photo(SIZE), 0
    steps = []
    with Router([FreeBackend()], store=open_store(Path("state.sqlite").resolve())) as router:
        for inputs in (count // 10, count):
            photos = (as_another_file(photo, number) for number in range(begun, begun + inputs))
            begun += inputs
            steps.append(_step(router, lambda photos=photos: router.describe_each(photos), inputs))
    return steps


def _step(router: Router, ask: Any, inputs: int) -> Step:  # noqa: ANN401 — a list or an iterator of answers
    since = time.time()
    before_s, started = cpu_s(), time.perf_counter()
    answered = sum(not isinstance(answer, Exception) for answer in ask())
    wall_s = time.perf_counter() - started
    time.sleep(BEHIND_S)
    used_s, peak = cpu_s() - before_s, peak_bytes()
    rows = sum(1 for _ in router.ledger(since=since))
    return Step(inputs=inputs, wall_s=wall_s, cpu_s=used_s, peak_bytes=peak, rows=rows, answered=answered)


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[2] in TASKS:
        rung, task, most, longest_s = sys.argv[1:]
        found = answer_each(int(most)) if rung == "free" else grow(rung, task, int(most), float(longest_s))
        print(json.dumps([{name: getattr(step, name) for name in Step.__slots__} for step in found]))
    else:
        show("How cost grows", measure_growth, options={"longest_s": 45, "most": 10_000, "each": 100_000})
