"""What every store promises, in memory and in a file."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimistic_states import OptimisticStates, Server

from vision_backends.storage.base import MAX_ENTRY_BYTES, LedgerRow, StoreError, add_up
from vision_backends.storage.guarded import GuardedLedger
from vision_backends.storage.guarded_states import GuardedStates
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.sqlite import SQLiteStore
from vision_backends.testing import FakeClock


@pytest.fixture
def clock():
    """A clock that only moves when told to."""
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request, tmp_path, clock):
    """A maker of stores of one kind that are closed when the test ends."""
    made = []

    def make(**options):
        if request.param == "memory":
            store = MemoryStore(**options)
        else:
            store = SQLiteStore(tmp_path / f"{len(made)}.sqlite", clock=clock, **options)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store):
    """One store."""
    return make_store()


@pytest.fixture(params=["memory", "sqlite", "optimistic"])
def states(request, tmp_path):
    """A store of states."""
    if request.param == "memory":
        store = MemoryStore()
    elif request.param == "sqlite":
        store = SQLiteStore(tmp_path / "states.sqlite")
    else:
        store = OptimisticStates(Server())
    yield store
    store.close()


NOW = FakeClock().time()


def row(after, **more):
    """An attempt that ended some seconds after the beginning."""
    return LedgerRow(
        **({"at": NOW + after, "call_id": "c", "task": "embed", "backend": "b", "outcome": "answered"} | more)
    )


def test_what_was_put_is_found(store):
    """The last value of a key counts."""
    assert store.get("k") is None
    store.put("k", b"one")
    store.put("k", b"two\x00\xff")
    assert store.get("k") == b"two\x00\xff"


def test_the_least_recently_used_make_room(make_store, clock):
    """What was asked for lately stays; the size never exceeds the limit."""
    store = make_store(max_cache_bytes=1000)
    for name in "abcdefghij":
        store.put(name, name.encode() * 100)
        clock.advance(100)
    assert store.get("a") is not None
    clock.advance(100)
    store.put("k", b"k" * 100)
    assert store.get("a") == b"a" * 100
    assert store.get("b") is None
    assert store.get("k") == b"k" * 100
    assert store.cache_info().size_bytes <= 1000


def test_an_entry_larger_than_the_cache_is_not_kept(make_store):
    """It would only drive out everything else."""
    store = make_store(max_cache_bytes=1000)
    store.put("small", b"x" * 900)
    store.put("large", b"x" * 1001)
    assert store.get("large") is None
    assert store.get("small") is not None


def test_an_entry_may_fill_the_whole_cache(make_store):
    """Then it is alone."""
    store = make_store(max_cache_bytes=1000)
    store.put("small", b"x")
    store.put("large", b"x" * 1000)
    assert (store.get("small"), store.cache_info().size_bytes) == (None, 1000)


def test_very_large_answers_are_not_kept(store):
    """They are no answers of this package's."""
    store.put("k", bytes(MAX_ENTRY_BYTES + 1))
    assert store.get("k") is None


def test_the_cache_says_how_full_it_is_and_can_be_cleared(store):
    """Replaced entries count once."""
    store.put("a", b"12345")
    store.put("b", b"123")
    store.put("a", b"1234567")
    info = store.cache_info()
    assert (info.entries, info.size_bytes) == (2, 10)
    assert store.clear_cache() == 2
    assert (store.cache_info().entries, store.cache_info().size_bytes) == (0, 0)
    assert store.get("a") is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)), max_size=30))
def test_the_size_is_the_sum_of_what_can_be_found(make_store, puts):
    """However entries are replaced and evicted."""
    store = make_store(max_cache_bytes=100)
    for key, size in puts:
        store.put(key, bytes(size))
    found = [value for key in "abcdef" if (value := store.get(key)) is not None]
    info = store.cache_info()
    assert (info.entries, info.size_bytes) == (len(found), sum(map(len, found)))
    assert info.size_bytes <= info.max_bytes == 100
    assert not puts or store.get(puts[-1][0]) is not None
    store.close()


def test_the_ledger_returns_what_was_booked_by_time(store):
    """Every column survives; the beginning is included, the end is not."""
    full = row(
        20.0,
        outcome="failed",
        model="m",
        error="timed_out",
        code="c",
        request_id="r",
        elapsed_s=0.25,
        input_tokens=3,
        output_tokens=0,
        cost_usd=0.1,
        degraded=True,
    )
    store.record([row(30.0), full])
    store.record([row(10.0)])
    store.record([])
    assert list(store.rows()) == [row(10.0), full, row(30.0)]
    assert list(store.rows(since=NOW + 20.0, until=NOW + 30.0)) == [full]


def test_rows_of_the_same_time_stay_in_their_order(store):
    """The last attempt of a call is the one that answered."""
    rows = [row(5.0, call_id=str(number)) for number in range(2500)]
    store.record(rows)
    assert list(store.rows()) == rows


def test_totals_are_those_of_the_rows(store, clock):
    """Whoever adds them up: the file itself, or its guard for a store that cannot."""
    day = 86_400.0
    first = clock.time() // day * day - 20 * day
    rows = [
        LedgerRow(
            at=at,
            call_id=str(number),
            task="describe",
            backend="best",
            outcome="failed" if number % 3 == 0 else "answered",
            model=None if number % 5 == 0 else "big",
            error="timed_out" if number % 3 == 0 else None,
            elapsed_s=0.5,
            input_tokens=None if number % 3 == 0 else number,
            output_tokens=number,
            cost_usd=None if number % 2 else 0.25,
            degraded=None if number % 3 == 0 or number % 4 == 0 else number % 2 == 0,
        )
        for number, at in enumerate(
            first + after for after in (0.0, day - 0.01, day, day + 1, day + 2, 5 * day, 5 * day + 7, 9 * day)
        )
    ]
    store.record(rows)
    guarded = GuardedLedger(store)
    periods = ((0.0, float("inf")), (day, 5 * day + 7), (day - 1, day), (3 * day, 4 * day))
    for since, until in ((first + begin, first + end) for begin, end in periods):
        expected = add_up([row for row in rows if since <= row.at < until])
        found = list(guarded.totals(since=since, until=until))
        assert sorted(map(repr, found)) == sorted(map(repr, expected))


def test_a_state_is_read_replaced_and_removed(states):
    """`update` hands over the old state and returns what the change returns."""
    assert states.read("k") is None
    assert states.update("k", lambda old: ("one", old)) is None
    assert states.update("k", lambda old: ("two", old)) == "one"
    assert states.read("k") == "two"
    assert states.update("k", lambda old: (old, "same")) == "same"
    assert states.update("k", lambda old: (None, old)) == "two"
    assert states.update("k", lambda old: (None, old)) is None
    assert states.read("k") is None


def test_states_are_read_together_as_one_by_one(states):
    """Those that are not there as well, and none at all; a store need not be able to."""
    guarded = GuardedStates(states)
    for key in ("a", "b"):
        guarded.update(key, lambda _old, new=key: (new.upper(), None))
    assert guarded.read_many(["b", "none", "a"]) == {"b": "B", "none": None, "a": "A"}
    assert guarded.read_many([]) == {}


def test_a_change_that_raises_changes_nothing(states):
    """Neither the state nor the next update suffers."""
    states.update("k", lambda _: ("one", None))

    def fail(_):
        raise LookupError

    with pytest.raises(LookupError):
        states.update("k", fail)
    assert states.update("k", lambda old: ("two", old)) == "one"


def test_states_are_listed_by_prefix(states):
    """Wildcards are no wildcards here."""
    for key in ("gates/a", "gates/b", "gates%", "book/a"):
        states.update(key, lambda _, key=key: (key.upper(), None))
    assert states.all("gates/") == {"gates/a": "GATES/A", "gates/b": "GATES/B"}
    assert set(states.all()) == {"gates/a", "gates/b", "gates%", "book/a"}


def test_no_update_of_a_state_is_lost_among_threads(states):
    """Whether a lock is held meanwhile, or the change is made again after another was faster."""
    start = threading.Barrier(8)

    def work(_):
        start.wait()
        return [states.update("sum", lambda old: (str(int(old or 0) + 1), int(old or 0))) for _ in range(30)]

    with ThreadPoolExecutor(8) as pool:
        seen = [value for values in pool.map(work, range(8)) for value in values]
    assert states.read("sum") == "240"
    assert sorted(seen) == list(range(240))


@pytest.mark.parametrize(("kind", "blocking"), [(MemoryStore, False), (SQLiteStore, True)])
def test_a_store_says_whether_it_may_wait_for_a_disk(kind, blocking):
    """An event loop has to know before it asks."""
    assert kind.blocking is blocking


def test_many_threads_share_a_store(make_store):
    """No update is lost, no row, and the size stays exact."""
    store = make_store(max_cache_bytes=20_000)
    start = threading.Barrier(8)

    def work(thread):
        start.wait()
        for number in range(30):
            store.update("sum", lambda old: (str(int(old or 0) + 1), None))
            store.put(f"{thread}-{number}", bytes(200))
            store.get(f"{thread}-{number // 2}")
            store.record([row(float(number)), row(float(number))])
            store.read("sum")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store.read("sum") == "240"
    assert len(list(store.rows())) == 480
    info = store.cache_info()
    assert info.size_bytes == info.entries * 200 <= 20_000


def test_memory_remembers_a_bounded_ledger():
    """The oldest rows go first."""
    store = MemoryStore(max_ledger_rows=3)
    store.record([row(float(number)) for number in range(5)])
    assert list(store.rows()) == [row(2.0), row(3.0), row(4.0)]


def test_closing_twice_is_harmless(store):
    """Whoever does it."""
    store.close()
    store.close()


def test_a_closed_file_is_not_opened_again(tmp_path):
    """Not even by a thread that has never used it."""
    store = SQLiteStore(tmp_path / "s.sqlite")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.read("k")
