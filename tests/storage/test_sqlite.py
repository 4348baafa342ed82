"""What the file promises: permissions, processes, damage, upgrades, eviction, age."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import shutil
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from crash_trial import kill_writers

from vision_backends.errors import ConfigError
from vision_backends.storage import open_store
from vision_backends.storage import sqlite as sqlite_store
from vision_backends.storage.base import LedgerRow, StoreError
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.sqlite import KEEP_LEDGER_S, PRUNE_EVERY_S, SQLiteStore
from vision_backends.storage.sqlite_schema import MIGRATIONS
from vision_backends.testing import FakeClock

DESCRIPTORS = Path("/proc/self/fd")

forks_among_threads = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and forks")


@pytest.fixture
def clock():
    """A clock that only moves when told to."""
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    """Where the store is."""
    return tmp_path / "state" / "store.sqlite"


@pytest.fixture
def open_it(path, clock):
    """A maker of stores on that path that are closed when the test ends."""
    made = []

    def make(**options):
        made.append(SQLiteStore(path, **({"clock": clock} | options)))
        return made[-1]

    yield make
    for store in made:
        store.close()


def used_at(path, key):
    """When the file says that an entry was used last."""
    db = sqlite3.connect(path)
    (used,) = db.execute("SELECT used FROM cache WHERE key = ?", (key,)).fetchone()
    db.close()
    return used


def row(at):
    """An attempt."""
    return LedgerRow(at=at, call_id="c", task="embed", backend="b", outcome="answered")


@posix
def test_the_file_is_for_its_owner_alone(open_it, path):
    """So are its companions and the folder that was made for it."""
    open_it().put("k", b"v")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_everything_survives_a_restart(open_it):
    """Cache, ledger and states."""
    first = open_it()
    first.put("k", b"v")
    first.record([row(FakeClock().time())])
    first.update("s", lambda _: ("state", None))
    first.close()
    second = open_it()
    assert (second.get("k"), second.read("s"), len(list(second.rows()))) == (b"v", "state", 1)


def test_a_hit_within_a_minute_writes_nothing(open_it, path, clock):
    """Marking an entry as used is only worth a write once in a while, in whichever direction the clock went."""
    store = open_it()
    store.put("k", b"v")
    put_at = clock.time()
    clock.advance(59)
    store.get("k")
    assert used_at(path, "k") == put_at
    clock.advance(2)
    store.get("k")
    assert used_at(path, "k") == put_at + 61
    clock.jump(-1000)
    store.get("k")
    assert used_at(path, "k") == put_at + 61 - 1000


def test_answers_are_looked_up_together_and_marked_together(open_it, path, clock, monkeypatch):
    """Those that are there, however many are asked for."""
    monkeypatch.setattr(sqlite_store, "MOST_KEYS", 2)
    store, put_at = open_it(), clock.time()
    for key in ("a", "b", "c", "d"):
        store.put(key, key.encode())
    clock.advance(61)
    assert store.get_many(["none", "c", "b", "a", "other"]) == {"a": b"a", "b": b"b", "c": b"c"}
    assert [used_at(path, key) for key in "abcd"] == [put_at + 61] * 3 + [put_at]
    assert store.get_many(["none"]) == store.get_many([]) == {}


def test_making_room_leaves_some_to_spare(open_it, clock):
    """So that not every put has to evict: a full cache is emptied to 95 %."""
    store = open_it(max_cache_bytes=1000)
    for number in range(101):
        store.put(str(number), bytes(10))
        clock.advance(1)
    assert store.cache_info().size_bytes == 950
    assert store.get("100") is not None


def test_a_cleared_cache_gives_the_room_back(open_it, path):
    """The file shrinks."""
    store = open_it()
    for number in range(50):
        store.put(str(number), os.urandom(20_000))
    store.clear_cache()
    assert path.stat().st_size < 200_000


def test_attempts_older_than_400_days_are_forgotten(open_it, clock):
    """Looked for once an hour, not at each booking."""
    store = open_it()
    old, young = clock.time() - KEEP_LEDGER_S - 1, clock.time()
    store.record([row(young)])
    store.record([row(old)])
    assert len(list(store.rows())) == 2
    clock.advance(PRUNE_EVERY_S)
    store.record([row(young)])
    assert [each.at for each in store.rows()] == [young, young]


def test_a_newer_file_is_left_alone(open_it, path):
    """Its tables are not understood, so nothing is read or written; the message says what to do."""
    open_it().close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match=r"format 99.*Upgrade"):
        open_it()
    with pytest.raises(ConfigError):
        open_store(path)


def test_a_file_of_the_first_version_is_brought_up_to_date_and_keeps_its_rows(open_it, path, clock):
    """Whether an answer was a fallback is unknown where it was not booked, and known from then on."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        db.execute(statement)
    first = "INSERT INTO ledger (at, call_id, task, backend, outcome, elapsed_s) VALUES (?, 'c', 'x', 'b', 'cached', 0)"
    db.execute(first, (clock.time(),))
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()
    store = open_it()
    store.record([replace(row(clock.time()), degraded=degraded) for degraded in (True, False)])
    assert [each.degraded for each in store.rows()] == [None, True, False]
    totals = sorted((total.outcome, total.attempts, total.degraded, total.unknown_degraded) for total in store.totals())
    assert totals == [("answered", 2, 1, 0), ("cached", 1, 0, 1)]


def test_an_empty_file_is_a_new_one(open_it, path):
    """Somebody may have made it to say where the state shall be."""
    path.parent.mkdir()
    path.write_bytes(b"")
    store = open_it()
    store.put("k", b"v")
    assert store.get("k") == b"v"
    assert not list(path.parent.glob("*.damaged-*"))


def damage_pages(path):
    """Overwrite everything behind the first page, as a dying disk would."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad" * ((size - 4096) // 2))


def in_thread(action):
    """Do something in another thread, which has no connection yet; return what it returns or raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(action).exception() or pool.submit(action).result()


def test_damage_found_on_opening_is_mended_on_opening(open_it, path, caplog):
    """The log says where the old file lies."""
    open_it().close()
    damage_pages(path)
    with caplog.at_level(logging.WARNING):
        store = open_it()
    store.put("1", b"v")
    assert store.get("1") == b"v"
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.name in caplog.text


def test_damage_found_on_the_way_is_mended_on_the_way(open_it, path, caplog):
    """One operation fails, the next one works on a new file; other threads follow."""
    store = open_it()
    for number in range(50):
        store.put(str(number), os.urandom(2000))
    store.clear_cache()  # moves everything from the log into the file
    store.update("k", lambda _: ("one", None))
    damage_pages(path)
    with caplog.at_level(logging.WARNING):
        assert isinstance(in_thread(lambda: store.rows().__next__()), StoreError)
        assert store.update("k", lambda _: ("two", "done")) == "done"
    assert store.read("k") == "two"
    assert len({name.name.split("-")[1] for name in path.parent.glob("*.damaged-*")}) == 1


def test_a_sound_file_is_not_moved_aside_twice(open_it, path, clock, caplog):
    """A second process that has met the same damage finds the new file, and uses it."""
    store, late = open_it(), open_it()
    store.update("k", lambda _: ("one", None))
    store.put("k", b"v")
    late.read("k")
    late._file._repair(sqlite3.DatabaseError("met before the first process has mended it"), late._file._identity)
    assert late.get("k") == b"v"
    assert not list(path.parent.glob("*.damaged-*"))


def test_a_place_that_cannot_be_used_now_is_used_as_soon_as_it_can(tmp_path, caplog):
    """One warning that names the place; until then the store says so whenever it is asked."""
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        store = open_store(blocker / "store.sqlite", max_cache_bytes=1_000)
    assert len(caplog.records) == 1
    assert str(blocker) in caplog.text
    with pytest.raises(StoreError, match="cannot be used"):
        store.read("k")
    blocker.unlink()
    store.put("k", b"v")
    assert (store.get("k"), store.cache_info().max_bytes) == (b"v", 1_000)
    store.close()


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write whatever the mode says")
def test_a_read_only_file_cannot_be_used_now(open_it, path):
    """It would open well, but nothing could be kept."""
    open_it().close()
    path.chmod(0o400)
    with pytest.raises(StoreError):
        open_it()


def test_no_path_means_memory():
    """And memory takes no more than its own default."""
    store = open_store(None, max_cache_bytes=10**12)
    assert isinstance(store, MemoryStore)
    assert store.cache_info().max_bytes < 10**9


def test_a_writable_place_means_a_file(path):
    """The usual case."""
    store = open_store(path, max_cache_bytes=1_000)
    assert (store.cache_info().location, store.cache_info().max_bytes) == (str(path), 1_000)
    store.close()


def test_a_full_disk_is_said_and_breaks_nothing(open_it, path):
    """Whatever is written says that it failed; what was there stays, and the file stays in its place."""
    store = open_it()
    store.put("before", b"v")
    with store._file.connection() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="full"):
        store.put("k", bytes(100_000))
    with pytest.raises(StoreError, match="full"):
        store.record([row(FakeClock().time())] * 2000)
    with pytest.raises(StoreError, match="full"):
        store.update("k", lambda _: ("x" * 100_000, None))
    assert store.get("before") == b"v"
    assert list(store.rows()) == []
    assert not list(path.parent.glob("*.damaged-*"))


def test_connections_of_ended_threads_are_closed(open_it):
    """A thread takes its connection with it."""
    store = open_it()
    descriptors = []
    for _ in range(8):
        thread = threading.Thread(target=store.read, args=("k",))
        thread.start()
        thread.join()
        gc.collect()
        descriptors.append(len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0)
    assert descriptors[-1] <= descriptors[1]  # fewer where other tests' leavings end meanwhile
    assert len(store._file._all) == 0


def test_a_damaged_time_or_name_is_in_no_total(open_it, path, clock):
    """A time that no day has, and bytes where a name was."""
    store = open_it()
    now = clock.time()
    store.record([row(now), row(now + 1), row(1e300)])
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE ledger SET backend = x'00ff' WHERE at = ?", (now + 1,))
    db.close()
    assert [total.attempts for total in store.totals()] == [1]


def test_no_query_reads_a_table_from_end_to_end(open_it):
    """However many answers, attempts and states there are: SQLite's own plan of each statement says so."""
    store = open_it()
    store.put("answer", b"1")
    statements = []
    with store._file.connection() as db:
        db.set_trace_callback(statements.append)
    store.get("answer")
    store.put("answer", b"2")
    store.update("gate/1", lambda _: ("old", None))
    store.update("gate/1", lambda _: (None, None))
    store.record([LedgerRow(at=1.0, call_id="c", task="embed", backend="b", outcome="answered")])
    store.read("gate/1")
    store.all("gate/")
    list(store.rows(since=0.5, until=2.5))
    list(store.totals(since=0.5, until=2.5))
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE")
    asked = [text for text in dict.fromkeys(statements) if text.startswith(verbs)]
    with store._file.connection() as db:
        db.set_trace_callback(None)
        plans = {text: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")] for text in asked}
    assert len(plans) >= 11
    tables = ("SCAN cache", "SCAN ledger", "SCAN state")
    whole = {text: plan for text, plan in plans.items() if {step.partition(" USING")[0] for step in plan} & set(tables)}
    assert whole == {}


def test_a_folder_that_vanishes_is_made_again(open_it, path):
    """Somebody has emptied the cache folder: it begins anew, in threads that had a connection as well."""
    store = open_it()
    store.put("k", b"v")
    shutil.rmtree(path.parent)
    assert store.get("k") is None
    store.put("k", b"w")
    store.close()
    assert open_it().get("k") == b"w"


class Impatient(FakeClock):
    """A clock that calls a function whenever somebody sleeps."""

    def __init__(self, on_sleep):
        super().__init__()
        self._on_sleep = on_sleep

    def sleep(self, seconds):
        """Call it."""
        self._on_sleep(self)


def test_opening_waits_for_another_process_that_makes_the_file(path):
    """SQLite itself does not wait for the lock that this takes."""
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = SQLiteStore(path, clock=Impatient(lambda _: other.close()))
    assert store.read("k") is None
    store.close()


def test_opening_does_not_wait_for_ever(path):
    """A file that stays locked cannot be used; it is not damaged and stays where it is."""
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked"):
        SQLiteStore(path, clock=Impatient(lambda clock: clock.advance(10)))
    other.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def count_up(path, times):
    """What another process does to the file."""
    store = SQLiteStore(path)
    for number in range(times):
        store.update("sum", lambda old: (str(int(old or 0) + 1), None))
        store.put(f"{os.getpid()}-{number}", bytes(100))
        store.record([row(1.8e9)] * 2)
    store.close()


def test_processes_share_a_file_from_its_first_moment(path):
    """Two that create it at the same time, and then write at the same time, lose nothing."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(path, 60)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    store = SQLiteStore(path)
    assert store.read("sum") == "120"
    assert store.cache_info().entries == 120
    assert len(list(store.rows())) == 240
    store.close()


@posix
def test_writers_that_are_killed_break_nothing(path):
    """SIGKILL at random moments: the file is sound, what was acknowledged is there, what is there is whole."""
    trial = kill_writers(path, rounds=3, seed=1)
    assert trial.faults == []
    assert trial.acknowledged > 0


@posix
@forks_among_threads
def test_a_forked_child_uses_connections_of_its_own(open_it):
    """None is open while the process forks, and afterwards parent and child both go on."""
    store = open_it()
    store.update("k", lambda _: ("parent", None))

    def in_child():
        assert all(each.db is None for each in store._file._all)
        store.update("k", lambda old: (f"{old} child", None))

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.update("k", lambda old: (f"{old} parent", old)) == "parent child"


@posix
@forks_among_threads
def test_forking_waits_for_what_other_threads_write(open_it):
    """Threads that write all the while neither break the child nor block it, and lose nothing."""
    store = open_it()
    stop = threading.Event()
    counts = []

    def write():
        count = 0
        while not stop.is_set():
            store.update("sum", lambda old: (str(int(old or 0) + 1), None))
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=store.update, args=("sum", lambda old: (str(int(old or 0) + 1), None))) for _ in range(5)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    stop.set()
    for thread in threads:
        thread.join()
    assert [child.exitcode for child in children] == [0] * 5
    assert int(store.read("sum")) == sum(counts) + 5


@posix
@forks_among_threads
def test_a_child_forked_while_the_file_is_in_use_does_without_it(open_it):
    """A thread stays in SQLite for longer than a fork waits: the child leaves the file alone, the parent goes on."""
    store = open_it()
    begun, end = threading.Event(), threading.Event()

    def use():
        with store._file.connection():
            begun.set()
            end.wait(30)

    thread = threading.Thread(target=use)
    thread.start()
    begun.wait(30)

    def in_child():
        with pytest.raises(StoreError, match="was in use when this process was forked"):
            store.read("k")

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(30)
    end.set()
    thread.join()
    assert child.exitcode == 0
    assert store.update("k", lambda _: ("parent", "done")) == "done"
