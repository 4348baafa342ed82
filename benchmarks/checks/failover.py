"""What an exhausted quota costs: on the wire, in time, and when its gate ends. Likewise for a long Retry-After.

The real SDK calls a real server on loopback that replies as OpenAI does; the next rung is a fake that takes no time.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from timing import PHOTOS, Figure, measure, run_python, show

from vision_backends import Router
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PHOTO = PHOTOS / "cat.jpg"

QUOTA_GATE_S = 15 * 60.0
"""How long the gate of an exhausted quota is blocked at first."""

FIRST_CALL = """
import sys, time
from vision_backends import Router
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.testing import FakeBackend

url, photo, error = sys.argv[1:]

def seconds(action):
    started = time.perf_counter()
    action()
    return time.perf_counter() - started

def load():  # the SDK loads most of itself on first use
    import openai
    openai.OpenAI(api_key="none").chat.completions

loaded = seconds(load)
with Router([FakeBackend()], caching=False) as below:
    alone = sorted(seconds(lambda: below.describe(photo)) for _ in range(9))[4]
with Router([OpenAIBackend(api_key="sk-sandbox", base_url=url), FakeBackend()], caching=False) as router:
    first = seconds(lambda: router.describe(photo))
    assert [row.error for row in router.ledger()] == [error, None]
    router.reset()
    again = seconds(lambda: router.describe(photo))
    assert [row.error for row in router.ledger()] == [error, None] * 2
print(loaded, alone, first, again)
"""
"""Prints the seconds for loading the SDK, the next rung alone, the first call, and the first call after a reset."""


def measure_failover(calls: int, callers: int, processes: int) -> list[Figure]:
    """Return the figures.

    Args:
        calls: How many calls follow the first one.
        callers: How many threads meet at the moment when the gate ends.
        processes: How many fresh processes time their first answer.
    """
    with SandboxServer() as server:
        return [
            *count_requests(server, calls=calls),
            *time_first_answers(server, processes=processes),
            *[count_probes(server, callers=callers, **case) for case in PROBES],
        ]


def count_requests(server: SandboxServer, *, calls: int) -> list[Figure]:
    """Count the requests that a server without quota gets from the first call and from those that follow."""
    server.play("quota_gone")
    with make_router(server) as router:
        router.describe(PHOTO)
        first = len(server.requests)
        started = time.perf_counter()
        for _ in range(calls):
            router.describe(PHOTO)
        each_ms = (time.perf_counter() - started) / calls * 1e3
    later = len(server.requests) - first
    server.reset()
    return [
        Figure(name="quota gone: requests in the first call", value=first, unit="", target=1, exact=True),
        Figure(name=f"quota gone: requests in the next {calls:,} calls", value=later, unit="", target=0),
        Figure(name="quota gone: each of these, decoding included", value=each_ms, unit="ms"),
    ]


def time_first_answers(server: SandboxServer, *, processes: int) -> list[Figure]:
    """Time the first call in fresh processes, and one that meets the same error on an open connection."""
    figures = []
    for fault, error, label in (
        ("quota_gone", "quota_exhausted", "quota gone"),
        ("rate_limited", "rate_limited", "Retry-After: 20"),
    ):
        server.play(fault)
        prints = [run_python("-c", FIRST_CALL, server.url, str(PHOTO), error)[0] for _ in range(processes)]
        server.reset()
        rows = [[float(word) for word in text.split()] for text in prints]
        loaded_s, alone_s, first_s, again_s = ([row[place] for row in rows] for place in range(4))
        for what, times_s in (("first call of a process", first_s), ("a later call", again_s)):
            added_ms = [(each - alone) * 1e3 for each, alone in zip(times_s, alone_s, strict=True)]
            figures.append(measure(f"{label}: added to the next rung's time, {what}", added_ms, "ms", target=50))
    return [
        *figures,
        measure("the next rung's own time, decoding included", [each * 1e3 for each in alone_s], "ms"),
        measure("loading the SDK, not included above", [each * 1e3 for each in loaded_s], "ms"),
    ]


PROBES: Sequence[dict[str, str | int]] = (
    {"label": "still gone", "routers": 1},
    {"label": "still gone, two routers on one file", "routers": 2},
    {"label": "topped up, the probe takes 1 s", "routers": 1, "fault": "slow"},
)


def count_probes(server: SandboxServer, *, callers: int, label: str, routers: int, fault: str = "quota_gone") -> Figure:
    """Count the requests of callers that all meet at the moment when the gate of an exhausted quota ends."""
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Path(folder) / "state.sqlite"
        made = [stack.enter_context(make_router(server, clock=clock, state=store)) for _ in range(routers)]
        server.play("quota_gone", times=1)
        made[0].describe(PHOTO)
        server.play(fault)
        clock.advance(QUOTA_GATE_S + 1)
        before = len(server.requests)
        meet([lambda router=made[place % routers]: router.describe(PHOTO) for place in range(callers)])
        probes = len(server.requests) - before
    server.reset()
    return Figure(
        name=f"requests of {callers} callers as the gate ends, {label}", value=probes, unit="", target=1, exact=True
    )


def meet(actions: Sequence[Callable[[], object]]) -> None:
    """Run all these actions simultaneously, each in a thread of its own, and wait for them."""
    barrier = threading.Barrier(len(actions))

    def act(action: Callable[[], object]) -> None:
        barrier.wait()
        action()

    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def make_router(server: SandboxServer, *, clock: FakeClock | None = None, state: Path | None = None) -> Router:
    """Return a router with the sandbox above and a fake below, which caches no answers."""
    options = {} if clock is None else {"clock": clock}
    best = OpenAIBackend(api_key=server.api_key, base_url=server.url)
    return Router([best, FakeBackend()], store=open_store(state), caching=False, **options)


if __name__ == "__main__":
    show(
        "Failing over from a server without quota",
        measure_failover,
        options={"calls": 1000, "callers": 50, "processes": 7},
    )
