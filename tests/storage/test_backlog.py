"""What of a call is written in one go, where one store keeps both its answers and its attempts."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from blocked_store import BlockedStore, attempt, until

from vision_backends.storage.base import StoreError
from vision_backends.storage.bounded import store_time
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.sqlite import SQLiteStore


class JointStore(BlockedStore):
    """A store that takes both at the same time; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def put_and_record(self, answers, rows):
        """As the store in memory does one after the other, when it answers."""
        self._answer()
        self.given.append((dict(answers), list(rows)))
        for key, value in answers.items():
            MemoryStore.put(self, key, value)
        MemoryStore.record(self, rows)


@pytest.fixture
def store():
    """A store that answers, for now; at the end it lets go of everybody."""
    with JointStore().lent() as store:
        yield store


def test_an_answer_is_written_with_the_attempts_of_its_call(stores, store):
    """In one go, and found meanwhile."""
    stores.answers.put("k", b"v")
    assert stores.answers.get("k") == b"v"
    time.sleep(0.1)  # in which a writer that does not wait for them would write it
    stores.ledger.record([attempt(1)])
    until(lambda: store.given == [({"k": b"v"}, [attempt(1)])])
    until(lambda: stores.answers.get("k") == b"v")
    assert list(stores.ledger.rows()) == [attempt(1)]


@pytest.mark.parametrize("wait", ["written", "close"])
def test_an_answer_without_attempts_is_written_when_that_is_waited_for(stores, store, wait):
    """No attempt has to come: whoever waits until everything is written gets it, and so does the end."""
    stores.answers.put("k", b"v")
    getattr(stores, wait)()
    until(lambda: store.given == [({"k": b"v"}, [])])


def test_both_are_kept_as_long_as_the_store_is_away(stores, store):
    """And are written once, whatever has come by then."""
    store.error = StoreError("The disk is on fire.")
    with store_time():
        for number in (1, 2):
            stores.answers.put(str(number), b"v")
            stores.ledger.record([attempt(number)])
        assert not stores.written()
        assert stores.answers.get_many(["1", "2"]) == {"1": b"v", "2": b"v"}
    store.error = None
    until(lambda: [each.at for each in store.booked()] == [1.0, 2.0])
    assert [MemoryStore.get(store, key) for key in ("1", "2")] == [b"v", b"v"]


def test_what_is_lost_at_the_end_is_said_of_both(stores, store, caplog):
    """Each by its name."""
    store.error = StoreError("The disk is on fire.")
    with store_time():
        stores.answers.put("k", b"v")
        stores.ledger.record([attempt(1), attempt(2)])
        stores.close()
    assert "2 attempts and 1 answers are lost" in caplog.text


def test_a_file_takes_all_of_a_call_or_nothing(tmp_path):
    """An attempt that cannot be booked leaves no answer behind; an answer that is too large keeps no attempt out."""
    booked = replace(attempt(1), at=time.time())
    store = SQLiteStore(tmp_path / "store.sqlite", max_cache_bytes=1_000)
    with pytest.raises(TypeError):
        store.put_and_record({"k": b"v"}, [booked, None])
    assert (store.get("k"), list(store.rows())) == (None, [])
    store.put_and_record({"k": b"v", "large": bytes(1_001)}, [booked])
    assert (store.get("k"), store.get("large"), list(store.rows())) == (b"v", None, [booked])
    store.put_and_record({str(number): bytes(400) for number in range(4)}, [])
    assert store.cache_info().size_bytes <= 1_000
    assert store.get("3") == bytes(400)
    store.close()
