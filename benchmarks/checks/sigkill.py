"""Routers that are killed with SIGKILL while they work, two processes at a time on one state file, and what is left.

A worker describes, embeds and detects, gets refusals, spends a budget and evicts from a small cache, and reports each
call that has returned. Whatever was reported must be in the ledger afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as PILImage
from timing import Figure, show

from vision_backends import QuotaExhaustedError, Router, TimedOutError, UnavailableError, Usage
from vision_backends.health.budgets import Limits
from vision_backends.storage import open_store
from vision_backends.storage.cache import decode
from vision_backends.testing import FakeBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS = 2

THREADS = 4

LONGEST_WORK_S = 0.3

ROOM_BYTES = 100_000
"""Small enough that entries are evicted all the time."""

USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.001)

LIMITS = Limits(daily_budget_usd=1e6, daily_budget_tokens=10**12, requests_per_minute=10**6)

TROUBLES = (UnavailableError("Out of order."), QuotaExhaustedError("No quota."), TimedOutError("Too slow."))


def measure_survival(kills: int, seed: int) -> list[Figure]:
    """Return the figures."""
    chance = random.Random(seed)  # noqa: S311 — repeatable on purpose
    faults: Counter[str] = Counter()
    reported = killed = 0
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.sqlite"
        while killed < kills:
            reported += kill_workers(state, chance, count=min(WORKERS, kills - killed))
            killed += min(WORKERS, kills - killed)
            faults.update(inspect(state))
        with make_router(state) as router:
            booked = len({row.call_id for row in router.ledger()})
            spent = {each.budget: each.spent for each in router.spending()}["daily_budget_tokens"]
            paid = sum((row.input_tokens or 0) + (row.output_tokens or 0) for row in router.ledger())
            damaged = sum(".damaged-" in path.name for path in state.parent.iterdir())
    checks = {
        "files that were damaged": faults["integrity"] + damaged,
        "entries of the cache that cannot be read": faults["cache"],
        "totals of the cache that are wrong": faults["total"],
        "states of gates and budgets that cannot be read": faults["state"],
        "routers that did not work afterwards": faults["router"],
        "reported calls that are not in the ledger": max(0, reported - booked),
        "tokens in the ledger that are missing from the budget": max(0, paid - spent),
    }
    return [
        Figure(name="processes killed", value=killed, unit=""),
        Figure(name="calls that they had reported", value=reported, unit=""),
        Figure(name="calls that the ledger has", value=booked, unit=""),
        *[Figure(name=name, value=value, unit="", target=0) for name, value in checks.items()],
    ]


def kill_workers(state: Path, chance: random.Random, *, count: int) -> int:
    """Start some workers, kill each after a random time, and return the number of calls that they have reported."""
    command = [sys.executable, __file__, "--work", str(state), "--seed", str(chance.getrandbits(32))]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    lines = []
    for worker in workers:
        lines.append(worker.stdout.readline() if worker.stdout else b"")
        time.sleep(chance.uniform(0, LONGEST_WORK_S))
        worker.send_signal(signal.SIGKILL)
    for worker in workers:
        with worker:
            lines += worker.stdout.readlines() if worker.stdout else []
    return sum(line == b"done\n" for line in lines)


def inspect(state: Path) -> list[str]:
    """Return what is wrong with a state file whose writers were killed."""
    faults = []
    with contextlib.closing(sqlite3.connect(state)) as db:
        if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            faults.append("integrity")
        values = [value for (value,) in db.execute("SELECT value FROM cache")]
        total = db.execute("SELECT entries, bytes FROM cache_total").fetchone()
        states = [value for (value,) in db.execute("SELECT value FROM state")]
    faults += ["cache"] * sum(decode(value) is None for value in values)
    faults += ["total"] * (total != (len(values), sum(map(len, values))))
    for text in states:
        try:
            json.loads(text)
        except ValueError:
            faults.append("state")
    with make_router(state) as router:
        router.status()
        router.reset()
        answer = router.describe(PILImage.new("RGB", (9, 9)), deadline_s=10)
        if answer.trace.backend != "paid" or not list(router.ledger()):
            faults.append("router")
    return faults


def work(state: Path, *, seed: int) -> None:
    """Call a router from several threads until killed, and report each call that has returned."""
    router = make_router(state, seed=seed)
    for number in range(THREADS):
        threading.Thread(target=work_alone, args=(router, random.Random(seed + number))).start()  # noqa: S311


def work_alone(router: Router, chance: random.Random) -> None:
    """Make one call after another."""
    methods = (router.describe, router.embed, router.detect)
    while True:
        chance.choice(methods)(PILImage.new("RGB", (8, 8), (chance.randrange(256), chance.randrange(256), 0)))
        os.write(1, b"done\n")
        if chance.random() < 0.1:
            router.reset()


def make_router(state: Path, *, seed: int | None = None) -> Router:
    """Return a router with a rung that costs money, and with a seed fails now and then, and one below."""
    paid = FakeBackend("paid", local=False, credential="account", usage=USAGE)
    if seed is not None:
        chance = random.Random(seed)  # noqa: S311 — repeatable on purpose
        steps: Sequence[Exception | float] = (*TROUBLES, *(0.0,) * 12, 0.002)
        paid.play(*chance.choices(steps, k=20_000))
    store = open_store(state, max_cache_bytes=ROOM_BYTES)
    return Router([paid, FakeBackend("spare")], store=store, limits={"paid": LIMITS}, deadline_s=5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options, _ = parser.parse_known_args()
    if options.work:
        work(options.work, seed=options.seed)
    else:
        show("Killed while working", measure_survival, options={"kills": 50, "seed": 0})
