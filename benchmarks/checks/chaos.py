"""Thousands of calls from many threads against a server that plays every fault at random.

Two routers, one for each of OpenAI's APIs, share a state file as two processes would. All their gates are reset every
few milliseconds, so that calls keep meeting faults: with blocked gates nearly all would be answered by the rung below.
"""

from __future__ import annotations

import gc
import logging
import random
import re
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chaos_calls import Caller, make_question
from chaos_sums import Books, compare
from timing import Figure, show

from benchmarks.sandbox_process import API_KEY, RemoteSandbox
from vision_backends import Router, UnavailableError
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.health.budgets import Limits
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend
from vision_backends.testing.sandbox import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vision_backends import Request

RATE = 0.4
"""Fraction of the requests that meet a fault."""

THINK_S = 0.2
"""How long the server takes for each reply: far less than a real one, but enough that callers wait for it rather than
for each other on the few cores of a small machine."""

TIMEOUT_S = 0.6
"""How long one request may take."""

SLOW = {
    "slow": {"delay_s": 0.4},
    "slow_drip": {"drip_s": 0.04},
    "stall": {"stall_s": 2.0},
    "stall_midway": {"stall_s": 2.0},
}
"""The slow faults, shortened: some just in time, some not."""

SPARE_STEPS = (0.0,) * 90 + (0.02,) * 8 + (2.0, None)
"""Seconds that the lowest rung takes: it is fast, a little slow, or hangs; None makes it fail."""

RESET_EVERY_S = 0.02

GRACE_S = 0.1

MAX_LEFT_MB = 20.0

WARM_UP = 0.2
"""Fraction of the calls after which memory is first measured: caches of fixed size are full by then."""

NO_LIMITS = Limits(daily_budget_tokens=10**12, daily_budget_usd=1e9)


def measure_chaos(calls: int, threads: int, seed: int) -> list[Figure]:
    """Return the figures of a run with a rung below, and of one in which nothing works and there is no rung below."""
    logging.getLogger("vision_backends").setLevel(logging.CRITICAL)  # the failures here are on purpose
    with RemoteSandbox.started() as sandbox, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with make_routers(sandbox, folder / "first.sqlite", has_spare=True) as routers:  # loads what is loaded once
            ask(sandbox, routers, folder / "first.jsonl", range(1, 50), threads=threads, seed=seed, rate=RATE)
        return [
            *run_with_spare(sandbox, folder, calls=calls, threads=threads, seed=seed),
            *count_amid_ruins(sandbox, folder, calls=max(100, calls // 5), threads=threads, seed=seed),
        ]


def run_with_spare(sandbox: RemoteSandbox, folder: Path, *, calls: int, threads: int, seed: int) -> list[Figure]:
    """Make calls amid chaos, and compare all counts with each other."""
    log = folder / "calls.jsonl"
    sandbox.reset()
    first = round(calls * WARM_UP)
    before = Footprint.now()
    with make_routers(sandbox, folder / "state.sqlite", has_spare=True) as routers:
        taken_s = ask(sandbox, routers, log, range(1, first + 1), threads=threads, seed=seed, rate=RATE)
        warm = Footprint.now()
        taken_s += ask(sandbox, routers, log, range(first + 1, calls + 1), threads=threads, seed=seed + 1, rate=RATE)
        grown_mb = (Footprint.now().memory_bytes - warm.memory_bytes) / 1e6
        wait_for_stragglers()
        requests = sandbox.requests()
        kinds_played = {request["fault"] for request in requests} - {"healthy"}
        books = Books.read(log, requests)
        estimator = OpenAIBackend(api_key=API_KEY, base_url=sandbox.url)
    with make_routers(sandbox, folder / "state.sqlite", has_spare=True) as closed:  # closing gives back what was drawn
        sums = compare(books, ledger=closed[0].ledger(), spending=closed[0].spending(), backend=estimator)
    left = before.left()
    kinds = ("answer", "CallerError", "AllBackendsFailedError", "StreamInterruptedError", "VisionError", "other")
    endings = {kind: books.count(ending=kind) for kind in kinds}
    return [
        Figure(name="calls", value=len(books.calls), unit=""),
        Figure(name="calls per second", value=calls / taken_s, unit=""),
        Figure(name="requests that the server received", value=len(requests), unit=""),
        Figure(name="kinds of fault that it played", value=len(kinds_played), unit=""),
        *[Figure(name=f"calls that ended with: {kind}", value=endings[kind], unit="") for kind in kinds[:4]],
        Figure(name="calls that ended otherwise", value=endings["VisionError"] + endings["other"], unit="", target=0),
        Figure(name="latest call, beyond its deadline", value=books.late_ms(), unit="ms", target=GRACE_S * 1e3),
        Figure(name="calls more than 100 ms beyond it", value=books.later_than(GRACE_S), unit="", target=0),
        Figure(name="calls that had no time left for the lowest rung", value=books.left_no_time(), unit="", target=0),
        *sums,
        Figure(name="threads left behind", value=left.threads, unit="", target=0),
        Figure(name="sockets left behind", value=left.sockets, unit="", target=0),
        Figure(name="file descriptors left behind", value=left.descriptors, unit="", target=0),
        Figure(name="memory grown after the first fifth", value=grown_mb, unit="MB", target=MAX_LEFT_MB),
    ]


def count_amid_ruins(sandbox: RemoteSandbox, folder: Path, *, calls: int, threads: int, seed: int) -> list[Figure]:
    """Count the requests per call when every request meets a fault: with gates, and with gates reset before each call.

    Images are not embedded here, as that takes two requests even when nothing fails.
    """
    figures = []
    numbers = [number for number in range(1, 2 * calls) if make_question(number).method != "embed"][:calls]
    for label, has_resets in (("", False), (", all gates reset before each call", True)):
        log = folder / f"ruins-{has_resets}.jsonl"
        sandbox.reset()
        with make_routers(sandbox, log.with_suffix(".sqlite"), has_spare=False) as routers:
            reset = "call" if has_resets else None
            ask(sandbox, routers, log, numbers, threads=threads, seed=seed, rate=1.0, reset=reset)
        books = Books.read(log, sandbox.requests())
        ratio = sandbox.count() / len(books.calls)
        late_ms = books.late_ms()
        figures += [
            Figure(name=f"requests per call, all faults at 100 %{label}", value=ratio, unit="", target=1.2),
            Figure(name=f"latest call, beyond its deadline{label}", value=late_ms, unit="ms", target=GRACE_S * 1e3),
        ]
    return figures


def ask(
    sandbox: RemoteSandbox,
    routers: Sequence[Router],
    log: Path,
    numbers: Iterable[int],
    *,
    threads: int,
    seed: int,
    rate: float,
    reset: Literal["clock", "call"] | None = "clock",
) -> float:
    """Make calls amid faults, and return the seconds that they took; gates are reset by a clock or before each call."""
    sandbox.play({"seed": seed, "rate": 1.0, "faults": list_faults(rate)})
    over = threading.Event()

    def reset_gates() -> None:
        while reset == "clock" and not over.wait(RESET_EVERY_S):
            for router in routers:
                router.reset()

    resetter = threading.Thread(target=reset_gates)
    resetter.start()
    started = time.perf_counter()
    try:
        with log.open("a", encoding="utf-8") as lines:
            Caller(routers, lines, has_resets=reset == "call").ask_all(numbers, threads=threads)
    finally:
        over.set()
        resetter.join()
        sandbox.heal()
    return time.perf_counter() - started


def list_faults(rate: float) -> list[dict[str, object]]:
    """Return all faults, with as many healthy replies as make the faults this fraction of all."""
    names = [name for name in FAULTS if name != "healthy"]
    names += ["healthy"] * round(len(names) * (1 - rate) / rate)
    return [{"name": name, "delay_s": THINK_S, **SLOW.get(name, {})} for name in names]


class ForgetfulBackend(FakeBackend):
    """A fake that does not remember its calls, which would look like a leak."""

    def check(self, request: Request) -> None:
        """Forget the calls, then check."""
        self.calls.clear()
        super().check(request)


@contextmanager
def make_routers(sandbox: RemoteSandbox, state: Path, *, has_spare: bool) -> Iterator[list[Router]]:
    """Yield a router for each API, on one state file and, if wanted, with one rung below."""
    chance = random.Random(0)  # noqa: S311 — repeatable on purpose
    spare = ForgetfulBackend("spare")
    steps = chance.choices(SPARE_STEPS, k=50_000)
    # One error each: an error that is raised again and again would collect tracebacks.
    spare.play(*(UnavailableError("It fails as scripted.") if step is None else step for step in steps))
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Router(
                    [
                        OpenAIBackend(api_key=API_KEY, base_url=sandbox.url, api=api, timeout_s=TIMEOUT_S),
                        *([spare] if has_spare else []),
                    ],
                    store=open_store(state),
                    limits={"openai": NO_LIMITS},
                )
            )
            for api in ("chat", "responses")
        ]


def wait_for_stragglers() -> None:
    """Give abandoned calls the time to end: they hang for 2 s at most."""
    time.sleep(2.5)


class Footprint:
    """What this process holds: threads, sockets, files, memory."""

    def __init__(self, *, threads: int, sockets: int, descriptors: int, memory_bytes: int) -> None:
        self.threads = threads
        self.sockets = sockets
        self.descriptors = descriptors
        self.memory_bytes = memory_bytes

    @classmethod
    def now(cls) -> Footprint:
        """Return what it holds now; 0 where the system does not tell."""
        gc.collect()
        folder = Path("/proc/self/fd")
        links = []
        for place in folder.iterdir() if folder.exists() else ():
            try:
                links.append(str(place.readlink()))
            except OSError:
                continue  # the descriptor that lists the folder is gone by now
        status = Path("/proc/self/status")
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return cls(
            threads=threading.active_count(),
            sockets=sum(link.startswith("socket:") for link in links),
            descriptors=len(links),
            memory_bytes=int(found[1]) * 1024 if found else 0,
        )

    def left(self) -> Footprint:
        """Return what has been added since, once threads that are ending have ended."""
        until = time.monotonic() + 5
        while threading.active_count() > self.threads and time.monotonic() < until:
            time.sleep(0.05)
        now = Footprint.now()
        return Footprint(
            threads=now.threads - self.threads,
            sockets=now.sockets - self.sockets,
            descriptors=now.descriptors - self.descriptors,
            memory_bytes=now.memory_bytes - self.memory_bytes,
        )


if __name__ == "__main__":
    show("Chaos", measure_chaos, options={"calls": 10_000, "threads": 32, "seed": 0})
