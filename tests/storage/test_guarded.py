"""What stands in for a store that is away, and how it is made up."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Timer

import pytest
from blocked_store import BlockedStore, attempt, until

from vision_backends.storage.base import StoreError, Stores
from vision_backends.storage.bounded import store_time
from vision_backends.storage.guarded import GuardedStores
from vision_backends.storage.guarded_states import GuardedStates
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.sqlite import SQLiteStore
from vision_backends.storage.write_behind import Job, Writer
from vision_backends.testing import FakeClock

NOT_LONG_S = 10.0
"""Far more than anybody waits here, on the busiest machine, and less than the store hangs for."""


@pytest.fixture
def store():
    """A store that answers, for now; at the end it lets go of everybody."""
    with BlockedStore().lent() as store:
        yield store


@pytest.fixture
def states(stores):
    """That of its states."""
    return stores.states


def append(text):
    """A change that adds something to a state, and returns all of it."""

    def change(old):
        new = f"{old or ''}{text}"
        return new, new

    return change


@pytest.fixture(params=["hangs", "fails"])
def take_away(request, store):
    """What takes the store away, in either way."""

    def take():
        if request.param == "hangs":
            store.answers.clear()
        else:
            store.error = StoreError("The disk is on fire.")

    return take


def bring_back(store):
    """Let it answer again."""
    store.error = None
    store.answers.set()


def test_while_the_store_answers_it_is_what_counts(states, store):
    """Whatever another process has written is seen at once."""
    assert states.update("k", append("a")) == "a"
    MemoryStore.update(store, "k", append("b"))
    assert (states.read("k"), states.all()) == ("ab", {"k": "ab"})


def test_a_state_lives_in_its_shadow_while_the_store_is_away(states, store, take_away):
    """It is what it was last, with every change since; a change is made once in the end, on what others have made."""
    states.update("k", append("a"))
    take_away()
    with store_time():
        assert [states.update("k", append(letter)) for letter in "bcd"] == ["ab", "abc", "abcd"]
        assert (states.read("k"), states.all()) == ("abcd", {"k": "abcd"})
        assert states.read("never seen") is None
    MemoryStore.update(store, "k", append("X"))
    bring_back(store)
    until(lambda: store.kept("k") == "aXbcd")
    until(lambda: states.read("k") == "aXbcd")


def test_nobody_waits_for_a_store_that_is_known_to_be_away(states, store, take_away):
    """A thousand calls in ten threads do not wait 50 ms each."""
    take_away()
    started = time.monotonic()

    def call(number):
        with store_time():
            states.read(str(number % 7))
            states.update("k", append("a"))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(call, range(1000)))
    assert time.monotonic() - started < NOT_LONG_S
    assert store.asked < 200


def test_a_call_waits_for_its_stores_for_50_ms_in_all(store):
    """One that always answers, but slowly, is asked as long as there is time, and then not any more."""
    reads = []

    class Slow(MemoryStore):
        blocking = True

        def read(self, key):
            reads.append(key)
            time.sleep(0.03)
            return "slow"

    states = GuardedStates(Slow())
    with store_time():
        for number in range(20):
            states.read(str(number))
    assert 1 <= len(reads) <= 3
    until(lambda: states.trouble is None)
    with store_time(inputs=20):
        for number in range(5):
            states.read(str(number))
    assert len(reads) > 3


def test_what_cannot_be_made_now_is_not_made_later(states, store):
    """A reservation of a call that went elsewhere would only be in the way."""
    store.answers.clear()
    with store_time(), pytest.raises(StoreError):
        states.update_now("first", append("a"))
    with store_time(), pytest.raises(StoreError):
        states.update_now("second", append("a"))
    store.answers.set()
    until(lambda: store.kept("first") == "a")  # it was under way
    states.update("third", append("a"))
    assert store.kept("second") is None


def test_who_has_given_up_hears_of_what_was_made_after_all(states, store):
    """To undo it."""
    late = []
    store.answers.clear()
    with store_time(), pytest.raises(StoreError):
        states.update_now("k", append("a"), on_late=late.append)
    assert late == []
    store.answers.set()
    until(lambda: late == ["a"])
    assert states.update_now("k", append("b"), on_late=late.append) == "ab"
    assert late == ["a"]


def test_what_was_made_has_not_failed(states):
    """However long its consequences take; nobody is told to undo it."""
    goes_on, late = Event(), []
    with store_time(inputs=10):
        made = states.update_now("k", append("a"), on_made=lambda _: goes_on.wait(NOT_LONG_S), on_late=late.append)
    goes_on.set()
    assert (made, late) == ("a", [])


def test_a_store_that_failed_is_tried_again_by_who_cannot_do_without(states, store):
    """Nothing else may be on its way that would find out."""
    store.error = StoreError("The disk is on fire.")
    with pytest.raises(StoreError, match="on fire"):
        states.update_now("k", append("a"))
    bring_back(store)

    def is_made():
        try:
            return states.update_now("k", append("a"))
        except StoreError:
            return False

    until(is_made)
    assert store.kept("k") == "a"


def test_a_consequence_that_fails_makes_no_change_twice(states, store, caplog):
    """The listener's mistake is logged."""
    with caplog.at_level(logging.ERROR):
        states.update_later("k", append("a"), on_made=lambda _: 1 / 0, waits=True)
    assert (states.read("k"), "ZeroDivisionError" in caplog.text) == ("a", True)


def test_answers_on_their_way_are_found(stores, store, take_away):
    """While the store is away, and as soon as it is back it has them; what it alone has is a miss meanwhile."""
    MemoryStore.put(store, "old", b"1")
    take_away()
    with store_time():
        assert stores.answers.get("old") is None
        stores.answers.put("new", b"2")
        assert stores.answers.get("new") == b"2"
        assert stores.answers.get_many(["old", "new"]) == {"new": b"2"}
        assert not stores.written()
    bring_back(store)
    until(lambda: MemoryStore.get(store, "new") == b"2")
    until(lambda: stores.answers.get("old") == b"1")
    assert stores.answers.get_many(["old", "new"]) == {"old": b"1", "new": b"2"}


def test_answers_are_found_wherever_they_are(stores, store, take_away):
    """On their way or in the store, which is not asked for the others."""
    MemoryStore.put(store, "in store", b"1")
    take_away()
    with store_time():
        for key in ("on its way", "too"):
            stores.answers.put(key, b"2")
        assert stores.answers.get_many(["none", "on its way", "in store"]) == {"on its way": b"2"}
    bring_back(store)
    until(stores.written)
    until(lambda: stores.answers.get_many(["none", "in store", "too"]) == {"in store": b"1", "too": b"2"})


def test_attempts_are_booked_when_the_store_is_back(stores, store, take_away):
    """In their order, none of them twice."""
    stores.ledger.record([attempt(1)])
    assert stores.written()
    take_away()
    with store_time():
        for number in (2, 3, 4):
            stores.ledger.record([attempt(number)])
        assert not stores.written()
    bring_back(store)
    until(lambda: store.booked() == [attempt(number) for number in (1, 2, 3, 4)])
    until(lambda: list(stores.ledger.rows(since=2.0, until=4.0)) == [attempt(2), attempt(3)])


def test_the_end_waits_a_moment_and_says_what_is_lost(stores, store, take_away, caplog):
    """An outage does not keep a program from ending."""
    take_away()
    started = time.monotonic()
    with store_time():
        stores.ledger.record([attempt(1), attempt(2)])
        stores.answers.put("k", b"v")
        stores.states.update("k", append("a"))
    with caplog.at_level(logging.WARNING):
        stores.close()
    assert time.monotonic() - started < NOT_LONG_S
    assert "2 attempts and 1 answers and 1 changes of states are lost" in caplog.text


def test_what_waits_for_a_store_in_memory_is_bounded(stores, take_away, caplog):
    """The oldest answers make room; of attempts and changes the last are lost, which the log says once each."""
    take_away()
    with caplog.at_level(logging.WARNING), store_time():
        for number in range(102):
            stores.ledger.record([attempt(number)] * 1000)
        for number in range(20):
            stores.answers.put(str(number), bytes(4_000_000))
        for number in range(10_002):
            stores.states.update(str(number % 10), append(""))
        assert [stores.answers.get(key) is not None for key in ("3", "4")] == [False, True]
        stores.close()
    lost = [message.partition(":")[0] for message in caplog.messages if "than can be kept" in message]
    assert lost == [
        f"More {what} wait for the store than can be kept in memory" for what in ("attempts", "changes of states")
    ]
    assert "100000 attempts and 16 answers and 10000 changes of states are lost" in caplog.text


def test_a_change_that_could_not_be_kept_hides_nothing(states, store, take_away):
    """As soon as the store is back it is what counts, also for what more has changed than could be kept."""
    take_away()
    with store_time():
        for _ in range(10_000):
            states.update("many", append(""))
        assert states.update("one more", append("a")) == "a"
    bring_back(store)
    until(lambda: states.trouble is None)
    MemoryStore.update(store, "one more", append("b"))
    until(lambda: states.read("one more") == "b")


def test_a_change_that_is_given_up_hides_nothing(states, store, caplog):
    """What a store refuses again and again, and not for want of a disk, is not tried for ever."""
    store.error = ValueError("A bug.")
    with store_time():
        assert states.update("k", append("a")) == "a"
        assert states.read("k") == "a"
    until(lambda: "is given up" in caplog.text)
    bring_back(store)
    MemoryStore.update(store, "k", append("b"))
    until(lambda: states.read("k") == "b")


def test_what_is_given_up_stops_nothing_that_comes_later(stores, store, caplog):
    """A client library of a server has errors of its own, which one cannot tell from bugs."""
    store.error = ValueError("A bug, or the server is restarted.")
    with store_time():
        stores.ledger.record([attempt(1)])
        stores.answers.put("1", b"1")
        stores.states.update_later("k", append("a"))
    until(lambda: caplog.text.count("is given up") == 3)
    bring_back(store)
    stores.ledger.record([attempt(2)])
    stores.answers.put("2", b"2")
    stores.states.update_later("k", append("b"))
    until(lambda: (store.booked(), MemoryStore.get(store, "2"), store.kept("k")) == ([attempt(2)], b"2", "b"))


def test_the_end_writes_what_can_be_written_after_all(stores, store):
    """Even if the store has just come back."""
    store.error = StoreError("The disk is on fire.")
    with store_time():
        stores.ledger.record([attempt(1)])
        stores.written()
    bring_back(store)
    stores.close()
    assert store.booked() == [attempt(1)]
    stores.close()
    stores.ledger.record([attempt(2)])  # too late, and nobody waits for it
    assert stores.written()
    assert store.booked() == [attempt(1)]


def test_every_store_is_waited_for(store):
    """Answers may be on their way although all attempts have arrived."""
    stores = GuardedStores(Stores(answers=store, ledger=BlockedStore(), states=BlockedStore()))
    store.answers.clear()
    stores.answers.put("k", b"v")
    Timer(0.1, store.answers.set).start()
    with store_time(inputs=100):
        asyncio.run(stores.until_written())
    assert MemoryStore.get(store, "k") == b"v"


def test_an_outage_is_logged_once(states, store, caplog):
    """And its end."""
    store.error = StoreError("The disk is on fire.")
    with caplog.at_level(logging.WARNING), store_time():
        for _ in range(20):
            states.update("k", append("a"))
        until(lambda: "on fire" in caplog.text)
        bring_back(store)
        until(lambda: store.kept("k") == "a" * 20)
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if "on fire" in message]) == 1
    assert messages[-1] == "The store is back."


def test_a_store_that_raises_anything_is_a_store_in_trouble(states, store):
    """A client library of a server has errors of its own."""

    class OddError(Exception):
        pass

    states.update("k", append("a"))
    store.error = OddError("Connection refused.")
    with store_time():
        assert states.read("k") == "a"
    with pytest.raises(StoreError, match="Connection refused"):
        states.update_now("k", append("b"))


def test_a_store_that_does_not_block_is_used_as_it_is():
    """In the caller's own thread, and its errors are its own."""
    memory = MemoryStore()
    stores = GuardedStores(Stores.of(memory))
    stores.ledger.record([attempt(1)])
    stores.answers.put("k", b"v")
    assert stores.states.update("k", append("a")) == "a"
    assert (list(memory.rows()), memory.get("k"), memory.read("k")) == ([attempt(1)], b"v", "a")
    assert stores.states.trouble is None


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_leaves_to_its_parent_what_is_on_its_way(stores, store):
    """Neither waits for a lock that was held at that moment, and nothing is written twice."""
    store.answers.clear()
    with store_time():
        stores.ledger.record([attempt(1)])
        stores.states.update("k", append("a"))
        stores.states.read("k")

    def in_child():
        store.answers = multiprocessing.get_context("fork").Event()
        store.answers.set()
        assert stores.written()
        assert store.booked() == []
        assert stores.states.update("k", append("b")) == "b"
        stores.close()

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(NOT_LONG_S)
    assert child.exitcode == 0
    store.answers.set()
    until(lambda: (store.booked(), store.kept("k")) == ([attempt(1)], "a"))


def test_who_cannot_do_without_does_not_stand_behind_what_fails(states, store):
    """What is tried again and again would keep him waiting for as long as he has."""
    store.error = StoreError("The disk is on fire.")
    store.answers.clear()
    states.update_later("k", append("a"))
    started = time.monotonic()

    def fail():
        store.answers.set()

    Timer(0.1, fail).start()
    with store_time(inputs=400), pytest.raises(StoreError, match="on fire"):
        states.update_now("k", append("b"))
    assert time.monotonic() - started < NOT_LONG_S


def test_a_mark_that_is_reached_is_no_sign_of_life(store):
    """Nothing was written."""
    writer, go = Writer("write it"), Event()

    def fail():
        go.wait(30)
        raise StoreError("The disk is on fire.")

    writer.put(Job(fail, what="changes", lasts=False))
    writer.put(Job(lambda: None))
    go.set()
    until(lambda: writer.is_idle)
    assert "on fire" in str(writer.trouble)


def test_a_hit_does_not_wait_to_be_marked_as_used(tmp_path):
    """Another process holds the lock for writing; the entry was last used more than a minute ago."""
    clock, path = FakeClock(), tmp_path / "state.sqlite"
    kept = SQLiteStore(path, clock=clock)
    kept.put("k", b"v")
    clock.advance(3_600)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with store_time(inputs=40):
        assert GuardedStores(Stores.of(kept)).answers.get("k") == b"v"
    other.close()
    kept.close()
