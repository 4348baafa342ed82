"""The state after a million attempts: what each of its queries takes and how SQLite goes about it, and `vision usage`.

Two state files are compared, with a thousand and a million rows in the ledger of the last 30 days. Every statement that
the store gives to SQLite is seen there, and its plan asked for: one that reads a whole table that grows is counted.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.storage import open_store
from vision_backends.storage.base import LedgerRow

from ..checks.timing import ROOT, Figure, show, time_in_turns
from ..sandbox_process import client_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vision_backends.storage.base import Store

FEW = 1_000

PERIOD_S = 30 * 86_400.0

PAGE = 20_000
"""Rows that are written in one transaction."""

STATES = 200

ENTRIES = 500

ROUNDS = 40

SLOWER = 2.0
"""What a query may take after a million rows, times what it takes after a thousand. Indices are a level deeper."""

USAGE_S = 1.0

GROWING = ("cache", "ledger", "state")
"""Tables that grow; ``cache_total`` has one row."""

MODELS = ("gpt-6-luna", "blip", "embedded")


def measure_ledger(*, rows: int) -> list[Figure]:
    """Return the figures; so many rows are a million."""
    connections = _remember_connections()
    with tempfile.TemporaryDirectory() as name:
        paths = {count: Path(name, f"{count}.sqlite") for count in (FEW, rows)}
        fill_s = {count: _fill(path, count) for count, path in paths.items()}
        stores = {count: open_store(path) for count, path in paths.items()}
        taken_s: dict[tuple[str, int], list[float]] = {}
        for query in _queries(stores[FEW]):
            actions: dict[str, Callable[[int], Any]] = {
                str(count): dict(_queries(store))[query[0]] for count, store in stores.items()
            }
            for count, times_s in time_in_turns(actions, rounds=ROUNDS).items():
                taken_s[query[0], int(count)] = times_s
        usage = [(_time_usage(paths[rows]), _time_usage(paths[FEW])) for _ in range(3)]
        plans = dict(_plans(paths[rows], _listen(stores[rows], connections)))
        for store in stores.values():
            store.close()
        size_bytes = paths[rows].stat().st_size
    return [
        Figure(
            name=f"vision usage for 30 days with {rows:,} rows, beyond its start, the first time",
            value=usage[0][0][0] - usage[0][1][0],
            unit="s",
            target=USAGE_S,
        ),
        Figure(
            name=f"vision usage for 30 days with {rows:,} rows, beyond its start",
            value=statistics.median(long_s - short_s for (long_s, _), (short_s, _) in usage),
            unit="s",
            target=USAGE_S,
        ),
        Figure(
            name=f"vision usage for 30 days with {rows:,} rows, beyond its start, CPU",
            value=statistics.median(long_s - short_s for (_, long_s), (_, short_s) in usage),
            unit="s",
        ),
        Figure(name="statements that read a whole table that grows", value=len(_scans(plans)), unit="", target=0),
        *_compare(taken_s, rows),
        Figure(name="statements seen", value=len(plans), unit=""),
        Figure(name=f"writing {rows:,} rows", value=fill_s[rows], unit="s"),
        Figure(name=f"the file with {rows:,} rows", value=size_bytes / 1e6, unit="MB"),
    ]


def _compare(taken_s: dict[tuple[str, int], list[float]], rows: int) -> Iterator[Figure]:
    for name in dict.fromkeys(name for name, _ in taken_s):
        short_s, long_s = (statistics.median(taken_s[name, count]) for count in (FEW, rows))
        yield Figure(name=f"{name}: times that of {FEW:,} rows", value=long_s / short_s, unit="×", target=SLOWER)
        yield Figure(name=f"{name}: time", value=long_s * 1e6, unit="µs")


def _queries(store: Store) -> Iterator[tuple[str, Callable[[int], object]]]:
    """Yield everything that is asked of a store in a call, by name."""
    now = time.time()

    def change(number: int) -> object:
        return store.update("gate/1", lambda _: (f"{number} {time.monotonic()}", None))

    yield "a cached answer", lambda number: store.get(_key(number % ENTRIES))
    yield "an answer that is not cached", lambda number: store.get(f"absent {number}")
    yield "keeping an answer", lambda number: store.put(_key(number % ENTRIES), bytes(500))
    yield "booking an attempt", lambda _: store.record([_row(now, 1)])
    yield "a state", lambda number: store.read(f"gate/{number % STATES}")
    yield "a state changed", change
    yield "the states of a kind", lambda _: len(store.all("gate/1"))
    yield "how full the cache is", lambda _: store.cache_info()
    yield "attempts of the last second", lambda _: sum(1 for _ in store.rows(since=now + 60))


def _fill(path: Path, rows: int) -> float:
    """Write a state as the package does, and return the seconds that it took to book the rows."""
    store = open_store(path)
    now = time.time()
    for number in range(STATES):
        store.update(f"gate/{number}", lambda _: ("{}", None))
    for number in range(ENTRIES):
        store.put(_key(number), bytes(500))
    started = time.perf_counter()
    for begun in range(0, rows, PAGE):
        places = range(begun, min(rows, begun + PAGE))
        store.record([_row(now - PERIOD_S * (1 - place / rows) * 0.95, place) for place in places])
    taken_s = time.perf_counter() - started
    store.close()
    return taken_s


def _row(at: float, number: int) -> LedgerRow:
    """Return an attempt: one of ten fails, and the next rung answers."""
    failed = number % 10 == 0
    return LedgerRow(
        at=at,
        call_id=f"{number:032x}",
        task="describe",
        backend="openai" if failed else MODELS[number % 3],
        outcome="failed" if failed else "answered",
        model=MODELS[number % 3],
        error="rate_limited" if failed else None,
        code="rate_limit_exceeded" if failed else None,
        request_id=f"req_{number:024x}",
        elapsed_s=0.8,
        input_tokens=None if failed else 1100,
        output_tokens=None if failed else 40,
        cost_usd=None if failed else 0.0004,
    )


def _key(number: int) -> str:
    return f"{number:064x}"


def _remember_connections() -> list[sqlite3.Connection]:
    """Return a list that gets every connection to SQLite that is opened from now on."""
    connections: list[sqlite3.Connection] = []

    def hear(event: str, words: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect/handle":
            connections.append(words[0])

    sys.addaudithook(hear)
    return connections


def _listen(store: Store, connections: Iterable[sqlite3.Connection]) -> set[str]:
    """Return the statements that the queries of a store consist of, as they are given to SQLite."""
    statements: set[str] = set()
    for connection in connections:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed
            connection.set_trace_callback(lambda text: statements.add(_shape(text)))
    for _, ask in _queries(store):
        ask(0)
    return statements


def _shape(statement: str) -> str:
    """Return a statement without its values: those of one kind are one."""
    return re.sub(
        r"(?<![\w])([xX]?'(?:[^']|'')*'|\d+\.\d+(?:e[+-]?\d+)?|\d+|-?Inf)(?![\w])", "?", " ".join(statement.split())
    )


def _plans(path: Path, statements: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield how SQLite goes about each statement."""
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE")
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in sorted(each for each in statements.copy() if each.startswith(verbs)):
            marks = [None] * statement.count("?")
            yield statement, [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", marks)]


def _scans(plans: dict[str, list[str]]) -> list[str]:
    """Return the statements that read a growing table from its beginning to its end, and print their plans."""
    found = []
    for statement, steps in plans.items():
        whole = [step for step in steps if re.fullmatch(rf"SCAN ({'|'.join(GROWING)})( USING .*)?", step)]
        print(f"{'WHOLE TABLE  ' if whole else ''}{statement}\n    {'; '.join(steps)}", file=sys.stderr)
        if whole:
            found.append(statement)
    return found


def _time_usage(path: Path) -> tuple[float, float]:
    """Return the seconds that ``vision usage`` takes, and those of CPU."""
    before = os.times()
    with tempfile.TemporaryDirectory() as home:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vision_backends", "usage", "--since", "30d"],
            env=client_environment() | {"HOME": home, "PYTHONPATH": paths, "VISION_STATE": str(path)},
            cwd=home,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        taken_s = time.perf_counter() - started
    after = os.times()
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return taken_s, used_s


if __name__ == "__main__":
    show("The state after a million attempts", measure_ledger, options={"rows": 1_000_000})
