"""A program that asks a server about many photos, in a process of its own: with the SDK, or through a router.

This module decides how such a program is written, and what of itself it measures: time, CPU of all its threads, memory.
It must not know what the figures are compared with.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..sandbox_process import API_KEY, client_environment
from .cpu_profile import CpuProfile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

__all__ = ["MODEL", "QUESTION", "Spent", "ask_sdk", "cpu_s", "peak_bytes", "run_client"]

ROOT = Path(__file__).parents[2]

MODEL = "gpt-6-luna"

QUESTION = "Describe this image in plain prose, in one to three sentences, without any preamble."

THREADS = 32
"""As people write it: a pool of so many threads."""

BEHIND_S = 0.3
"""What is written behind the calls has been written after this, and its CPU time is counted with theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a client has measured of itself.

    Attributes:
        calls: Photos that it asked about.
        answered: Answers of the server that was asked; those of lower rungs do not count.
        wall_s: Seconds from the first call to the last answer.
        cpu_s: CPU seconds of all its threads.
        peak_bytes: The most memory that it had.
        slowest_s: What each call took, where that was noted: the 50th, 99th and 100th percentile.
        booked: Rows that it left in its ledger; None where they were not counted.
        missed: Calls, those before and after the measured ones included, that the server did not answer.
        modules: Share of the CPU time by module, where that was profiled.
    """

    calls: int
    answered: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    slowest_s: tuple[float, float, float] | None = None
    booked: int | None = None
    missed: int | None = None
    modules: Mapping[str, float] | None = None

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return self.answered / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per call."""
        return self.cpu_s / self.calls * 1e3


def cpu_s() -> float:
    """Return the CPU seconds of this process so far, all threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run_client(
    way: str, *, url: str, photos: Path, calls: int, environment: Mapping[str, str] | None = None, **options: object
) -> Spent:
    """Run one client as a user who has configured nothing but the server.

    Args:
        way: One of `WAYS`.
        url: The server.
        photos: The folder with its photos; one more than calls, which is asked about before anything is measured.
        calls: How many of them it asks about.
        environment: More variables.
        options: More arguments of this program.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", __name__, way, f"--photos={photos}", f"--calls={calls}", f"--url={url}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory() as home:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"HOME": home, "PYTHONPATH": paths, "OPENAI_API_KEY": API_KEY, "VISION_OPENAI__BASE_URL": url}
        done = subprocess.run(
            command,
            env=client_environment() | own | dict(environment or {}),
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-2000:]}")
    fields: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Spent(**fields)


def ask_sdk(client: Any, photo: bytes) -> str | None:  # noqa: ANN401 — an OpenAI client
    """Ask the SDK about a photo in the words of its documentation."""
    url = "data:image/jpeg;base64," + base64.b64encode(photo).decode("ascii")
    content = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    said: str | None = reply.choices[0].message.content
    return said


class _Meter:
    """Measures a block: time, CPU, and by module where that is wanted."""

    def __init__(self, *, profiled: bool) -> None:
        self.profile = CpuProfile() if profiled else None
        self.wall_s = 0.0
        self.cpu_s = 0.0

    def __enter__(self) -> Self:
        if self.profile is not None:
            self.profile.start()
        self._cpu_s = cpu_s()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self._started
        time.sleep(BEHIND_S)
        self.cpu_s = cpu_s() - self._cpu_s
        if self.profile is not None:
            self.profile.stop()

    def spent(self, answers: Sequence[object], *, booked: int | None = None) -> Spent:
        """Return what was spent on some answers."""
        return Spent(
            calls=len(answers),
            answered=sum(map(_is_from_server, answers)),
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            peak_bytes=peak_bytes(),
            booked=booked,
            modules=None if self.profile is None else self.profile.shares(),
        )


def _is_from_server(answer: object) -> bool:
    """Return whether the server gave an answer: a text of the SDK, or one whose trace says so."""
    trace = getattr(answer, "trace", None)
    return isinstance(answer, str) if trace is None else trace.backend == "openai"


def _with_sdk(photos: Sequence[Path], given: argparse.Namespace) -> Spent:
    """A pool of threads and the SDK."""
    import openai

    client = openai.OpenAI(base_url=given.url, api_key=API_KEY, max_retries=0)

    def ask(path: Path) -> str | None:
        return ask_sdk(client, path.read_bytes())

    ask(photos[0])
    with ThreadPoolExecutor(THREADS) as pool, _Meter(profiled=given.profiled) as meter:
        answers = list(pool.map(ask, photos[1:]))
    return meter.spent(answers)


def _with_list(photos: Sequence[Path], given: argparse.Namespace) -> Spent:
    """A router, and a list of photos."""
    from vision_backends import Router

    with Router.from_config() as router:
        router.describe(photos[0])
        with _Meter(profiled=given.profiled) as meter:
            answers = router.describe_many(photos[1:], priority=given.priority)
        booked = sum(1 for _ in router.ledger())
    return meter.spent(answers, booked=booked)


def _gathered(photos: Sequence[Path], given: argparse.Namespace) -> Spent:
    """An asynchronous router, and a coroutine for each photo."""
    from vision_backends import AsyncRouter

    async def ask() -> Spent:
        async with AsyncRouter.from_config() as router:
            await router.describe(photos[0])
            with _Meter(profiled=given.profiled) as meter:
                answers = await asyncio.gather(
                    *(router.describe(path, priority=given.priority) for path in photos[1:]), return_exceptions=True
                )
            booked = [None async for _ in router.ledger()]
        return meter.spent(answers, booked=len(booked))

    return asyncio.run(ask())


def _in_flight(photos: Sequence[Path], given: argparse.Namespace) -> Spent:
    """An asynchronous router, and many callers that ask one call after the other.

    What counts are the answers of the last `given.window_s` seconds: until then calls in flight may still become more.
    """
    from vision_backends import AsyncRouter

    from .photos import as_another_file

    files = [path.read_bytes() for path in photos]
    ends: list[tuple[float, float, object]] = []
    numbers = iter(range(2**31))

    async def call_on(ask: Callable[[bytes], Awaitable[object]], until: float) -> None:
        while (started := time.perf_counter()) < until:
            number = next(numbers)
            try:
                answer = await ask(as_another_file(files[number % len(files)], number))
            except Exception as error:  # noqa: BLE001 — counted as no answer
                answer = error
            ended = time.perf_counter()
            ends.append((ended, ended - started, answer))

    async def ask_all() -> Spent:
        async with AsyncRouter.from_config() as router:
            await router.describe(photos[0])
            began = time.perf_counter()
            until = began + given.ramp_s + given.window_s
            callers = [asyncio.create_task(call_on(router.describe, until)) for _ in range(given.calls)]
            await asyncio.sleep(given.ramp_s)
            first = time.perf_counter()
            with _Meter(profiled=given.profiled) as meter:
                await asyncio.sleep(given.window_s)
                last = time.perf_counter()
            await asyncio.gather(*callers)
        inside = [each for each in ends if first <= each[0] < last]
        times_s = sorted(each[1] for each in ends)
        percentiles = (times_s[len(times_s) // 2], times_s[int(len(times_s) * 0.99)], times_s[-1])
        missed = sum(not _is_from_server(each[2]) for each in ends)
        return replace(meter.spent([each[2] for each in inside]), slowest_s=percentiles, missed=missed)

    return asyncio.run(ask_all())


WAYS: dict[str, Callable[[Sequence[Path], argparse.Namespace], Spent]] = {
    "sdk": _with_sdk,
    "list": _with_list,
    "gathered": _gathered,
    "in-flight": _in_flight,
}
"""How a client asks."""


def main(words: Iterable[str] | None = None) -> None:
    """Ask, and print what that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--priority", default="interactive")
    parser.add_argument("--profiled", type=int, default=0)
    parser.add_argument("--ramp-s", type=float, default=0.0)
    parser.add_argument("--window-s", type=float, default=0.0)
    given = parser.parse_args(None if words is None else list(words))
    photos = sorted(given.photos.iterdir())
    spent = WAYS[given.way](photos if given.way == "in-flight" else photos[: given.calls + 1], given)
    print(json.dumps(asdict(spent)))


if __name__ == "__main__":
    main()
