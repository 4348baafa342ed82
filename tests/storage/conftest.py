"""What tests of several parts of this room start from."""

from __future__ import annotations

import pytest

from vision_backends.storage.base import Stores
from vision_backends.storage.guarded import GuardedStores


@pytest.fixture
def stores(store):
    """The guards of the store that a test is about."""
    return GuardedStores(Stores.of(store))
