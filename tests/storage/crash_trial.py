"""Kills writing processes at random moments and looks at what they leave behind.

``python tests/storage/crash_trial.py --rounds 50`` prints one line and exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from vision_backends.storage.base import LedgerRow
from vision_backends.storage.cache import decode, encode
from vision_backends.storage.sqlite import SQLiteStore
from vision_backends.types import Description

ROOM_BYTES = 200_000
"""So little that entries are evicted all the time."""


@dataclass
class Trial:
    """What came out.

    Attributes:
        rounds: How many processes were killed.
        acknowledged: How many operations they had reported as done.
        faults: What was wrong afterwards; nothing, it is hoped.
    """

    rounds: int = 0
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)


def kill_writers(path: Path, *, rounds: int, seed: int) -> Trial:
    """Let one process after the other write to a file, and kill each with SIGKILL after 0 to 40 ms of work."""
    chance = random.Random(seed)  # noqa: S311 — repeatable on purpose
    trial = Trial()
    before = 0
    for _ in range(rounds):
        writer = subprocess.Popen(
            [sys.executable, __file__, "--write", str(path), "--first", str(before)], stdout=subprocess.PIPE
        )
        first = writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.04))
        writer.send_signal(signal.SIGKILL)
        lines = [first, *writer.stdout.readlines()]
        writer.stdout.close()
        writer.wait()
        acknowledged = [int(line) for line in lines if line.endswith(b"\n")]
        trial.rounds += 1
        trial.acknowledged += len(acknowledged)
        before = max(acknowledged, default=before)
        trial.faults += inspect(path, acknowledged=before)
    return trial


def inspect(path: Path, *, acknowledged: int) -> list[str]:
    """Return what is wrong with a file whose writers have reported so many operations."""
    faults = []
    with contextlib.closing(sqlite3.connect(path)) as db:
        verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            faults.append(f"integrity_check: {verdict}")
        entries = db.execute("SELECT key, value FROM cache").fetchall()
        total = db.execute("SELECT entries, bytes FROM cache_total").fetchone()
    if total != (len(entries), sum(len(value) for _, value in entries)):
        faults.append("the total of the cache is wrong")
    faults += [f"the entry {key} is damaged" for key, value in entries if decode(value) != answer(key)]
    with contextlib.closing(SQLiteStore(path)) as store:
        booked = {int(row.call_id) for row in store.rows()}
        faults += [f"the row {number} is lost" for number in range(1, acknowledged + 1) if number not in booked]
        if int(store.read("last") or 0) < acknowledged:
            faults.append("an update is lost")
    return faults


def write(path: Path, *, first: int) -> None:
    """Write until killed; say after each round that it is done."""
    store = SQLiteStore(path, max_cache_bytes=ROOM_BYTES)
    number = max(first, int(store.read("last") or 0))
    while True:
        number += 1
        store.record([row(number), row(number)])
        key = hashlib.sha256(str(number).encode()).hexdigest()
        store.put(key, encode(answer(key)))
        store.update("last", lambda _, number=number: (str(number), None))
        os.write(1, f"{number}\n".encode())


def answer(key: str) -> Description:
    """Return an answer of some size that follows from its key."""
    return Description(text=key * (int(key[:4], 16) % 300))


def row(number: int) -> LedgerRow:
    """Return an attempt."""
    return LedgerRow(at=time.time(), call_id=str(number), task="embed", backend="b", outcome="answered")


def main() -> int:
    """Run the trial, or be one of its writers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    if options.write:
        write(options.write, first=options.first)
    with tempfile.TemporaryDirectory() as folder:
        trial = kill_writers(Path(folder) / "store.sqlite", rounds=options.rounds, seed=options.seed)
    print(f"{trial.rounds} killed, {trial.acknowledged} acknowledged, faults: {trial.faults}")  # noqa: T201
    return 1 if trial.faults else 0


if __name__ == "__main__":
    sys.exit(main())
