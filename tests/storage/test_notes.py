"""Notes of what a server was found to be like."""

from __future__ import annotations

import pytest

from vision_backends.storage import open_store
from vision_backends.storage.base import StoreError
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.notes import KEPT_S, REREAD_S, Notes
from vision_backends.testing import FakeClock


@pytest.fixture
def clock():
    """Time that moves when it is told to."""
    return FakeClock()


def test_a_note_is_believed_for_a_week(clock):
    """Then the server is asked again."""
    store = MemoryStore()
    Notes(store, owner="one", clock=clock).note("a", {"x": 1})
    clock.advance(KEPT_S - 1)
    assert Notes(store, owner="one", clock=clock).about("a") == {"x": 1}
    clock.advance(2)
    assert Notes(store, owner="one", clock=clock).about("a") == {}
    assert KEPT_S == 7 * 24 * 3600


def test_notes_are_shared_and_each_backend_has_its_own(clock, tmp_path):
    """Another process hears of them within a minute."""
    store = open_store(tmp_path / "state.sqlite")
    one, other, third = (Notes(store, owner=name, clock=clock) for name in ("one", "one", "third"))
    assert other.about("a") == {}
    one.note("a", {"x": None})
    one.note("a", {"y": [1, 2]})
    clock.advance(REREAD_S)
    assert other.about("a") == one.about("a") == {"x": None, "y": [1, 2]}
    assert other.all() == {"a": {"x": None, "y": [1, 2]}}
    assert third.all() == {}
    one.forget()
    assert one.all() == {}
    assert one.about("a") == {}
    store.close()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "7", '{"x": 1}', '{"x": [1]}', '{"x": [1, "a"]}', "{" * 5_000])
def test_what_cannot_be_read_is_no_note(clock, text):
    """Somebody else may have written it."""
    store = MemoryStore()
    store.update("notes/one/a", lambda _: (text, None))
    notes = Notes(store, owner="one", clock=clock)
    assert notes.about("a") == {}
    notes.note("a", {"x": 1})
    assert Notes(store, owner="one", clock=clock).about("a") == {"x": 1}


def test_a_store_in_trouble_fails_nothing(clock, caplog):
    """What was learned is known to this process all the same."""

    class Broken(MemoryStore):
        def read(self, key):
            raise StoreError("locked")

        def update(self, key, change):
            raise StoreError("locked")

        def all(self, prefix=""):
            raise StoreError("locked")

    notes = Notes(Broken(), owner="one", clock=clock)
    notes.note("a", {"x": 1})
    assert notes.about("a") == {"x": 1}
    assert notes.all() == {"a": {"x": 1}}
    notes.forget()
    assert "cannot be kept" in caplog.text
