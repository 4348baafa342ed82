"""The totals of the ledger in a file: those of its attempts, and added up once for days that are over."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision_backends.storage.base import DAY_S, LedgerRow, add_up
from vision_backends.storage.sqlite import KEEP_LEDGER_S, PRUNE_EVERY_S, SQLiteStore
from vision_backends.storage.sqlite_totals import DAYS, SORTED_ROWS
from vision_backends.testing import FakeClock


@pytest.fixture
def clock():
    """A clock that stands at noon until it is told to move."""
    clock = FakeClock()
    clock.jump(clock.time() // DAY_S * DAY_S + DAY_S / 2 - clock.time())
    return clock


@pytest.fixture
def path(tmp_path):
    """Where the store is."""
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path, clock):
    """A store in that file."""
    with closing(SQLiteStore(path, clock=clock)) as store:
        yield store


@pytest.fixture
def today(clock):
    """When today began."""
    return clock.time() // DAY_S * DAY_S


def attempt(at, **fields):
    """An attempt that answered."""
    return LedgerRow(at=at, call_id="c", task="embed", backend="b", outcome="answered", elapsed_s=0.5, **fields)


def in_order(totals):
    """Totals in an order of their own, to be compared."""
    return sorted(totals, key=repr)


def ask(store, **period):
    """Return the totals, and how often attempts had to be added up for them."""
    statements = []
    with store._file.connection() as db:
        db.set_trace_callback(statements.append)
    totals = in_order(store.totals(**period))
    with store._file.connection() as db:
        db.set_trace_callback(None)
    return totals, sum("GROUP BY" in statement for statement in statements)


def remembered(path):
    """Return the states by which days are remembered."""
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT key, value FROM state WHERE key >= ? ORDER BY key", (DAYS,)))


def test_a_day_that_is_over_is_added_up_once(store, path, today, clock):
    """By whoever asks first, in any process; today is added up each time, until it is over as well."""
    rows = [attempt(today - 2 * DAY_S), attempt(today - 1, cost_usd=0.25), attempt(today), attempt(clock.time())]
    store.record(rows)
    assert ask(store) == (in_order(add_up(rows)), 2)  # today, and the day before yesterday
    with closing(SQLiteStore(path, clock=clock)) as another:
        assert ask(another) == (in_order(add_up(rows)), 1)
    clock.advance(DAY_S)
    assert [ask(store) for _ in range(2)] == [(in_order(add_up(rows)), 1), (in_order(add_up(rows)), 0)]


@pytest.mark.parametrize("days", [1, 5])
def test_the_last_day_is_added_up_when_the_first_attempt_of_another_is_booked(store, path, today, days):
    """Who asks for the first time after a month does not wait for all of it; a day without attempts is no day."""
    store.record([attempt(today - days * DAY_S)])
    store.record([attempt(today - days * DAY_S + 1)])
    assert remembered(path) == {}
    store.record([attempt(today)])
    assert list(remembered(path)) == [f"{DAYS}{today // DAY_S - days:08.0f}"]
    store.record([attempt(today + 1)])
    assert ask(store)[1] == 1


def test_a_day_that_is_not_over_is_not_remembered_when_the_clock_was_wrong(store, path, today):
    """Whatever is booked for tomorrow."""
    store.record([attempt(today)])
    store.record([attempt(today + DAY_S)])
    assert remembered(path) == {}


def test_a_part_of_a_day_is_added_up_from_its_attempts(store, today):
    """What is remembered of the whole day is of no use there, and stays as it is."""
    rows = [attempt(today - DAY_S + hour * 3600.0, input_tokens=hour) for hour in range(24)]
    store.record(rows)
    for times in (1, 0):
        part, _ = ask(store, since=today - DAY_S + 3600.0)
        assert part == add_up(rows[1:])
        part, _ = ask(store, until=today - 3600.0)
        assert part == add_up(rows[:-1])
        assert ask(store) == (add_up(rows), times)


def test_an_attempt_that_is_booked_late_is_in_the_totals_of_its_day(store, today):
    """As the cost of a call that becomes known after midnight is, whoever books it."""
    rows = [attempt(today - 60, cost_usd=0.5)]
    store.record(rows)
    assert ask(store) == (add_up(rows), 1)
    rows.append(attempt(today - 120, cost_usd=0.25))
    store.record(rows[1:])
    assert [ask(store) for _ in range(2)] == [(add_up(rows), 1), (add_up(rows), 0)]


def test_attempts_that_were_removed_are_in_no_total(store, path, today):
    """Even if as many others took their places."""
    store.record([attempt(today - 60), attempt(today - 50)])
    ask(store)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM ledger WHERE at = ?", (today - 50,))
    assert ask(store) == (add_up([attempt(today - 60)]), 1)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM ledger")
    store.record([attempt(today - 40, cost_usd=1.0)])
    assert ask(store) == (add_up([attempt(today - 40, cost_usd=1.0)]), 1)


def test_days_are_forgotten_with_their_attempts(store, path, today, clock):
    """A file that is used for years does not grow by them."""
    store.record([attempt(today - DAY_S), attempt(today - 2 * DAY_S)])
    ask(store)
    assert len(remembered(path)) == 2
    clock.advance(KEEP_LEDGER_S - DAY_S + PRUNE_EVERY_S)
    store.record([attempt(clock.time())])
    (left,) = remembered(path)
    assert left == f"{DAYS}{today // DAY_S - 1:08.0f}"


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "{",
        lambda _: "[]",
        lambda _: '{"of": [1, 2, 3.0]}',
        lambda _: b"\xff",
        lambda text: json.dumps(json.loads(text) | {"totals": [["embed"]]}),
        lambda text: json.dumps(json.loads(text) | {"totals": [7]}),
        lambda text: json.dumps(json.loads(text) | {"totals": None}),
    ],
)
def test_a_damaged_memory_of_a_day_is_replaced(store, path, today, damage):
    """It is no more than that: the attempts say what they add up to."""
    rows = [attempt(today - 60)]
    store.record(rows)
    ask(store)
    ((key, text),) = remembered(path).items()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE state SET value = ?", (damage(text),))
    assert ask(store) == (add_up(rows), 1)
    assert remembered(path) == {key: text}


def test_days_of_a_ledger_that_was_lost_are_not_believed(store, path, today, clock, tmp_path):
    """The states of a damaged file are carried over into a new one; its ledger is not."""
    store.record([attempt(today - 60, cost_usd=9.0)])
    ask(store)
    states = remembered(path)
    with closing(SQLiteStore(tmp_path / "new.sqlite", clock=clock)) as new:
        for key, text in states.items():
            new.update(key, lambda _, text=text: (text, None))
        new.record([attempt(today - 30)])
        assert ask(new)[0] == add_up([attempt(today - 30)])


def test_totals_wait_for_no_other_process_that_writes(store, path, today):
    """They are there without being remembered."""
    store.record([attempt(today - 60)])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert ask(store) == (add_up([attempt(today - 60)]), 1)
        db.execute("ROLLBACK")
    assert remembered(path) == {}


def test_a_copy_that_may_only_be_read_adds_up_as_well(store, path, today, tmp_path, clock):
    """Nothing is said about what could not be remembered."""
    store.record([attempt(today - 60)])
    store.close()
    shutil.copy(path, tmp_path / "copy.sqlite")
    with closing(SQLiteStore(tmp_path / "copy.sqlite", clock=clock)) as copy:
        with copy._file.connection() as db:
            db.execute("PRAGMA query_only=1")
        assert [ask(copy)[0] for _ in range(2)] == [add_up([attempt(today - 60)])] * 2


def test_a_busy_day_is_added_up_in_parts(store, today):
    """None of its attempts is in two of them or in none."""
    rows = [
        attempt(today - DAY_S + (number * 37 % DAY_S), model=str(number % 3), input_tokens=number)
        for number in range(2 * SORTED_ROWS + 5)
    ]
    store.record(rows)
    assert ask(store) == (in_order(add_up(rows)), 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pages=st.lists(st.lists(st.tuples(st.integers(-72, 20), st.integers(0, 3)), max_size=6), max_size=4),
    since=st.integers(-80, 20),
    hours=st.integers(0, 100),
)
def test_totals_are_those_of_the_attempts(path, clock, today, pages, since, hours):
    """Whatever is booked in between, and whichever period is asked for: in quarters of dollars, so to the last bit."""
    path.unlink(missing_ok=True)
    booked = []
    begin, end = today + since * 3600.0, today + (since + hours) * 3600.0
    with closing(SQLiteStore(path, clock=clock)) as store:
        for page in pages:
            rows = [
                attempt(today + hour * 3600.0, cost_usd=kind / 4 or None, degraded=(None, True, False)[kind % 3])
                for hour, kind in page
            ]
            store.record(rows)
            booked += rows
            assert in_order(store.totals()) == in_order(add_up(booked))
            part = [row for row in booked if begin <= row.at < end]
            assert in_order(store.totals(since=begin, until=end)) == in_order(add_up(part))
