"""A gatekeeper over a store in memory, on a clock that is moved by hand."""

from __future__ import annotations

import pytest

from vision_backends.health.admission import AdmissionControl, Scope
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeClock


class Steady:
    """A random generator that always says the middle."""

    def uniform(self, low, high):
        """Return the middle."""
        return (low + high) / 2


@pytest.fixture
def clock():
    """Noon of a Monday in UTC."""
    return FakeClock(start=1_795_435_200.0)


@pytest.fixture
def store():
    """What several gatekeepers may share."""
    return MemoryStore()


@pytest.fixture
def told():
    """Everything that listeners were told, in order."""
    return []


@pytest.fixture
def make_control(store, clock, told):
    """A maker of gatekeepers, as each process has one."""

    def make(**options):
        defaults = {"clock": clock, "random": Steady(), "on_event": told.append}
        return AdmissionControl(options.pop("store", store), **(defaults | options))

    return make


@pytest.fixture
def control(make_control):
    """One gatekeeper."""
    return make_control()


@pytest.fixture
def scope():
    """What most calls are about."""
    return Scope(backend="openai", account="account", model="gpt-x", task="describe")
