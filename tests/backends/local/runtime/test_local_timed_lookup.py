"""What was found is believed for a second, or until something says that it has changed."""

from __future__ import annotations

import pytest

from vision_backends.backends.local.runtime.timed_lookup import LIFETIME_S, TimedLookup
from vision_backends.errors import NotReadyError
from vision_backends.testing import FakeClock


class Shelf:
    """Something to look at, which counts the looks."""

    def __init__(self):
        self.holds = "nothing"
        self.looks = 0
        self.mark = 0

    def look(self):
        """Return what is there; a refusal is raised."""
        self.looks += 1
        if isinstance(self.holds, Exception):
            raise self.holds
        return self.holds


@pytest.fixture
def clock():
    """A clock that moves when it is told to."""
    return FakeClock()


@pytest.fixture
def shelf():
    """A shelf with nothing on it."""
    return Shelf()


@pytest.fixture
def find(shelf, clock):
    """What looks at the shelf."""
    return TimedLookup(shelf.look, clock=clock, mark=lambda: shelf.mark)


def test_one_look_serves_for_a_second(find, shelf, clock):
    """And not longer."""
    assert [find() for _ in range(3)] == ["nothing"] * 3
    shelf.holds = "a model"
    clock.advance(LIFETIME_S * 0.9)
    assert (find(), shelf.looks) == ("nothing", 1)
    clock.advance(LIFETIME_S * 0.2)
    assert (find(), shelf.looks) == ("a model", 2)


def test_a_changed_mark_is_a_reason_to_look_again(find, shelf):
    """At any time."""
    find()
    shelf.holds, shelf.mark = "a model", 1
    assert (find(), find(), shelf.looks) == ("a model", "a model", 2)


def test_a_refusal_is_remembered_as_well(find, shelf, clock):
    """With its remedy and its code, as an error of its own each time."""
    shelf.holds = NotReadyError("Broken.", remedy="Mend it.", code="incomplete")
    raised = []
    for _ in range(3):
        with pytest.raises(NotReadyError, match="Broken") as caught:
            find()
        raised.append(caught.value)
    assert {(error.remedy, error.code) for error in raised} == {("Mend it.", "incomplete")}
    assert raised[1] is not raised[2]
    assert shelf.looks == 1
    shelf.holds = "a model"
    clock.advance(LIFETIME_S)
    assert find() == "a model"


@pytest.mark.parametrize("how", ["fresh", "forget"])
def test_whoever_knows_of_a_change_looks_again(find, shelf, how):
    """Such as who has made it."""
    find()
    shelf.holds = "a model"
    getattr(find, how)()
    assert (find(), shelf.looks) == ("a model", 2)
