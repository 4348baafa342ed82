"""What the engine adds to a call: the round trip to its loop, and the one to a thread of a pool."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from timing import Figure, measure, show, time_in_turns

from vision_backends.engine.event_loop import EventLoop
from vision_backends.engine.pools import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROUNDS = 3000

TOGETHER = 100


async def _nothing() -> None:
    pass


def _do_nothing() -> None:
    pass


def measure_engine(rounds: int) -> list[Figure]:
    """Return the figures: waiting in a thread, awaiting on another loop, and one job in a thread of a pool."""
    engine, pool = EventLoop(), Pool("work", size=2)
    engine.attach()

    async def job() -> None:
        await pool.start(_do_nothing)

    async def call_together() -> None:
        await asyncio.gather(*(engine.run_from_loop(_nothing) for _ in range(TOGETHER)))

    with asyncio.Runner() as runner:
        actions: dict[str, Callable[[int], object]] = {
            "run": lambda _: engine.run(_nothing),
            "job": lambda _: engine.run(job),
            "await": lambda _: runner.run(engine.run_from_loop(_nothing)),
            "runner": lambda _: runner.run(_nothing()),
        }
        taken_s = time_in_turns(actions, rounds=rounds)
        together_s = time_in_turns({"together": lambda _: runner.run(call_together())}, rounds=max(2, rounds // 50))
    with _busy_thread():
        beside_s = time_in_turns({"run": actions["run"], "job": actions["job"]}, rounds=max(2, rounds // 10))
    engine.stop()
    pool.close()
    return [
        measure("caller → loop → caller", _us(taken_s["run"]), "µs", target=300),
        measure("the same with one job in a pool", _us(taken_s["job"]), "µs", target=600),
        measure("another loop → loop → another loop", _us(taken_s["await"]), "µs", target=500),
        measure("of which the other loop's own start and end", _us(taken_s["runner"]), "µs"),
        measure(f"each of {TOGETHER} awaited together", _us([s / TOGETHER for s in together_s["together"]]), "µs"),
        _mean("caller → loop → caller beside a busy thread, mean", _us(beside_s["run"])),
        _mean("the same with one job beside a busy thread, mean", _us(beside_s["job"])),
    ]


@contextmanager
def _busy_thread() -> Iterator[None]:
    """Have another thread compute in Python meanwhile, which holds the GIL for 5 ms at a time."""
    is_over = threading.Event()

    def compute() -> None:
        while not is_over.is_set():
            for _ in range(1000):
                pass

    thread = threading.Thread(target=compute)
    thread.start()
    time.sleep(0.05)
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _mean(name: str, samples: Sequence[float]) -> Figure:
    """Return a mean: few calls are delayed by the busy thread, but those wait long."""
    return Figure(name=name, value=statistics.fmean(samples), unit="µs")


def _us(seconds: Sequence[float]) -> list[float]:
    return [each * 1e6 for each in seconds]


if __name__ == "__main__":
    show("The engine's loop and its threads", measure_engine, options={"rounds": ROUNDS})
