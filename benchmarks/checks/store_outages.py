"""A thousand calls while the state is held by another process for a minute, and what is left when it lets go.

The other process holds the lock for writing amid a transaction and is stopped with SIGSTOP, so that it does not let go
by itself. Calls come from ten threads, evenly over the minute, with a deadline of two seconds; a rung with a budget is
on the ladder as well. When the other has gone, everything that was done has to be in the ledger, once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image as PILImage
from timing import Figure, measure, show

from vision_backends import Router, Usage, VisionError
from vision_backends.health.budgets import Limits
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend

DEADLINE_S = 2.0

THREADS = 10

USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.001)

HOLDER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM cache")
print("held", flush=True)
time.sleep(600)
"""


class Paid(FakeBackend):
    """A rung that costs money, and says so before."""

    def estimate(self, request: object, inputs: object) -> Usage:  # noqa: ARG002
        """Return the same for every call."""
        return USAGE


def make_router(state: Path) -> Router:
    """Return a router with a rung that has a budget, and one below."""
    paid = Paid("paid", local=False, credential="account", usage=USAGE)
    limits = {"paid": Limits(daily_budget_usd=1000.0)}
    store = open_store(state)
    return Router([paid, FakeBackend("spare")], store=store, limits=limits, deadline_s=DEADLINE_S)


def measure_outage(calls: int, held_s: int) -> list[Figure]:
    """Return the figures."""
    answered: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        state = Path(name, "state.sqlite")
        with make_router(state) as router:
            router.describe(PILImage.new("RGB", (8, 8)))
            command = [sys.executable, "-c", HOLDER, str(state)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
                if holder.stdout is not None:
                    holder.stdout.readline()
                os.kill(holder.pid, signal.SIGSTOP)
                taken_s = call(router, calls, held_s, answered)
                holder.kill()
        with make_router(state) as router:
            rows = list(router.ledger())
            spent = router.spending()[0].spent
    booked = Counter(row.backend for row in rows if row.outcome == "answered")
    paid = booked["paid"] * (USAGE.cost_usd or 0.0)
    return [
        measure("a call while the state is held", taken_s, "ms"),
        Figure(name="the slowest of them", value=max(taken_s), unit="ms", target=DEADLINE_S * 1000),
        Figure(name="calls", value=calls, unit=""),
        Figure(name="calls without an answer", value=answered["error"], unit="", target=0),
        Figure(name="answers of the rung with a budget", value=answered["paid"], unit=""),
        Figure(name="answers that are not in the ledger", value=calls + 1 - booked.total(), unit="", target=0),
        Figure(name="dollars that the budget has missed", value=max(0.0, round(paid - spent, 9)), unit="", target=0),
    ]


def call(router: Router, calls: int, held_s: int, answered: Counter[str]) -> list[float]:
    """Make calls, evenly over a time, and return how many milliseconds each took."""
    began = time.monotonic()

    def call_one(number: int) -> float:
        time.sleep(max(0.0, began + held_s * number / calls - time.monotonic()))
        image = PILImage.new("RGB", (8, 8), (1 + number % 255, number // 255, 0))
        started = time.monotonic()
        try:
            answered[router.describe(image).trace.backend or ""] += 1
        except VisionError:
            answered["error"] += 1
        return (time.monotonic() - started) * 1000

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call_one, range(calls)))


if __name__ == "__main__":
    show("The state held by another process", measure_outage, options={"calls": 1000, "held_s": 60})
