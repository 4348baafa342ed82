"""One call at a time, to a server that answers at once: what the router takes, in multiples of the SDK.

Both ask in one process, in turns, as a program that uses either would: with the SDK, it encodes the bytes of the photo
and reads the text of the answer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks.timing import Figure, measure, show
from ..sandbox_process import API_KEY, client_environment
from .clients import ask_sdk, cpu_s
from .photos import as_another_file, make_photo
from .upstream import running_upstream

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

TARGETS = {"20 kB": 1.15, "210 kB": 1.3, "12 megapixels": None}
"""The router's time for each photo, times the SDK's; None where nothing is promised."""

WARM_UP = 3


def measure_one(*, rounds: int) -> list[Figure]:
    """Return the figures of all sizes, each in a process of its own."""
    figures = []
    for size, target in TARGETS.items():
        turns = max(3, rounds // 4) if target is None else rounds
        with running_upstream() as upstream, tempfile.TemporaryDirectory() as home:
            own = {"HOME": home, "OPENAI_API_KEY": API_KEY, "VISION_OPENAI__BASE_URL": upstream.url}
            paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    __name__ if __name__ != "__main__" else "benchmarks.speed.one",
                    size,
                    str(turns),
                ],
                env=client_environment() | own | {"PYTHONPATH": paths},
                cwd=home,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        found = json.loads(done.stdout.splitlines()[-1])
        figures += _compare(size, target, found)
    return figures


def _compare(size: str, target: float | None, found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    ratios, cpu = (
        [ours / theirs for ours, theirs in zip(found["router"][what], found["sdk"][what], strict=True) if theirs > 0]
        for what in ("wall_ms", "cpu_ms")
    )
    figures = [
        measure(f"{size}: one call, times the SDK's", ratios, "×", target=target),
        measure(f"{size}: CPU of one call, times the SDK's", cpu, "×"),
    ]
    for who, label in (("sdk", "the SDK"), ("router", "the router")):
        figures.append(measure(f"{size}: {label}", found[who]["wall_ms"], "ms"))
        figures.append(Figure(name=f"{size}: {label}, CPU", value=statistics.fmean(found[who]["cpu_ms"]), unit="ms"))
    return figures


def ask_in_turns(size: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return what each call took, in milliseconds of time and of CPU, by who made it."""
    import openai

    from vision_backends import Router

    photo = make_photo(size)
    client = openai.OpenAI(base_url=os.environ["VISION_OPENAI__BASE_URL"], max_retries=0)
    with Router.from_config() as router:

        def ask_router(data: bytes) -> None:
            answer = router.describe(data)
            if answer.trace.backend != "openai":
                sys.exit(f"The server did not answer: {answer.trace}")

        ways: dict[str, Callable[[bytes], object]] = {
            "sdk": lambda data: ask_sdk(client, data),
            "router": ask_router,
        }
        found: dict[str, dict[str, list[float]]] = {way: {"wall_ms": [], "cpu_ms": []} for way in ways}
        for number in range(rounds + WARM_UP):
            data = as_another_file(photo, number)
            for way, ask in ways.items():
                before_s, started = cpu_s(), time.perf_counter()
                ask(data)
                ended = time.perf_counter()
                if number >= WARM_UP:
                    found[way]["wall_ms"].append((ended - started) * 1e3)
                    found[way]["cpu_ms"].append((cpu_s() - before_s) * 1e3)
    return found


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in TARGETS:
        print(json.dumps(ask_in_turns(sys.argv[1], int(sys.argv[2]))))
    else:
        show("One call at a time", measure_one, options={"rounds": 80})
