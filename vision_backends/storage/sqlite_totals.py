"""What the ledger of a SQLite file adds up to, day by day, and how the totals of days that are over are remembered.

This module decides which attempts are added up together, and when a remembered total still holds. It must not know
which part of the ledger is of interest, nor what the totals are shown as.
"""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Any

from vision_backends.storage.base import DAY_S, LedgerTotal
from vision_backends.storage.sqlite_schema import KINDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

__all__ = ["first_day", "forget_days", "last_day", "read_day"]

ALIKE = ("task", "backend", "outcome", "model", "error")
"""What attempts of one total have in common, beside the day."""

SUMS = {
    "attempts": "count(*)",
    "elapsed_s": "total(elapsed_s)",
    "input_tokens": "CAST(total(input_tokens) AS INTEGER)",
    "unknown_input": "count(*) - count(input_tokens)",
    "output_tokens": "CAST(total(output_tokens) AS INTEGER)",
    "unknown_output": "count(*) - count(output_tokens)",
    "cost_usd": "total(cost_usd)",
    "unknown_cost": "count(*) - count(cost_usd)",
    "degraded": "CAST(total(degraded) AS INTEGER)",
    "unknown_degraded": "CASE WHEN outcome IN ('answered', 'cached') THEN count(*) - count(degraded) ELSE 0 END",
}
"""What is added up of them."""

NAMES = (*ALIKE, *SUMS)

PERIOD = "FROM ledger WHERE at >= ? AND at < ?"

FIRST_ROW = f"SELECT at {PERIOD} ORDER BY at LIMIT 1"

LAST_ROW = "SELECT at FROM ledger WHERE at < ? ORDER BY at DESC LIMIT 1"

CONTENT = f"SELECT count(*), total(at) {PERIOD}"
"""What differs as soon as an attempt is added or removed; attempts are never changed. The index on times has it all."""

TOTALS = f"SELECT {', '.join((*ALIKE, *SUMS.values()))} {PERIOD} GROUP BY {', '.join(ALIKE)}"

SORTED_ROWS = 2_000
"""About so many attempts are grouped in one go: SQLite sorts them for that, and 33,000 took a quarter longer."""

DAYS = "ledger_day/1/"
"""States whose keys begin so are the totals of a day. Another number says that they are written in another way."""


def first_day(db: sqlite3.Connection, since: float, until: float) -> float | None:
    """Return when the day of the first attempt with ``since <= at < until`` began, or None where there is none."""
    row = db.execute(FIRST_ROW, (since, until)).fetchone()
    return None if row is None else float(row[0] // DAY_S * DAY_S)


def last_day(db: sqlite3.Connection, until: float) -> float | None:
    """Return when the day of the last attempt with ``at < until`` began, or None where there is none."""
    row = db.execute(LAST_ROW, (until,)).fetchone()
    return None if row is None else float(row[0] // DAY_S * DAY_S)


def read_day(
    db: sqlite3.Connection, day: float, *, since: float, until: float, now: float
) -> tuple[list[LedgerTotal], tuple[str, str] | None]:
    """Return the totals of a day's attempts with ``since <= at < until``, and the state that remembers them.

    The state is a key and a text; None where the day is not over, not whole, or remembered already.
    """
    begins, ends = max(day, since), min(day + DAY_S, until)
    content = list(db.execute(CONTENT, (begins, ends)).fetchone())
    is_over = begins == day and ends == day + DAY_S and ends <= now
    found = _recall(db, day, content) if is_over else None
    state = None
    if found is None:
        found = _add_up(db, begins, ends, parts=1 + content[0] // SORTED_ROWS)
        if is_over:
            state = (_key(day), json.dumps({"of": content, "totals": found}))
    return [LedgerTotal(at=day, **dict(zip(NAMES, values, strict=True))) for values in found], state


def forget_days(db: sqlite3.Connection, until: float) -> None:
    """Forget the totals of days before a time."""
    db.execute("DELETE FROM state WHERE key >= ? AND key < ?", (DAYS, _key(until)))


def _key(at: float) -> str:
    """Return the key of a day; those of later days sort behind it."""
    return f"{DAYS}{at // DAY_S:08.0f}"


def _recall(db: sqlite3.Connection, day: float, content: Sequence[object]) -> list[list[Any]] | None:
    """Return what is remembered of a day if it is about some content, and not damaged."""
    row = db.execute("SELECT value FROM state WHERE key = ?", (_key(day),)).fetchone()
    if row is not None:
        with suppress(ValueError, TypeError, KeyError):
            kept = json.loads(row[0])
            if kept["of"] == content and all(len(values) == len(NAMES) for values in kept["totals"]):
                return list(kept["totals"])
    return None


def _add_up(db: sqlite3.Connection, begins: float, ends: float, *, parts: int) -> list[list[Any]]:
    """Return what attempts add up to, read in parts of the same length."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    times = [begins + (ends - begins) * part / parts for part in range(parts)]
    for period in pairwise([*times, ends]):
        for values in db.execute(TOTALS, period):
            alike, sums = values[: len(ALIKE)], values[len(ALIKE) :]
            if all(isinstance(value, KINDS[name]) for name, value in zip(ALIKE, alike, strict=True)):
                found[alike] = list(map(add, found[alike], sums)) if alike in found else list(sums)
    return [[*alike, *sums] for alike, sums in found.items()]
