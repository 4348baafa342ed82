"""Hubs that lie: whatever a listing says, a model is fetched whole and into its own place, or refused by name."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_hub import LoopbackHub, write_model
from odd_values import ODD, changed, places

from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.hub.source import Source
from vision_backends.errors import VisionError
from vision_backends.foreign_text import UNPRINTABLE

LIES = [*ODD, 10**18, "f" * 64, "a" * 40, "config.json"]
LIES += ["../../../outside", "/outside", "C:\\outside", "a/../../outside"]


@pytest.fixture(scope="module")
def hub_and_room(tmp_path_factory):
    """A hub with one model, and a folder in which a cache may lie."""
    hub, room = LoopbackHub(), tmp_path_factory.mktemp("room")
    hub.publish("acme/tiny", write_model(room / "published", megabytes=0.01))
    yield hub, room
    hub.close()


def fetch_tiny(hub):
    """Return the folder of the model, or why it is refused."""
    try:
        return hub.fetch(Source.parse("acme/tiny"), Progress())[0]
    except VisionError as error:
        return error


@settings(max_examples=settings.default.max_examples // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=st.randoms(use_true_random=False))
def test_a_listing_that_lies_is_refused_or_harmless(hub_and_room, tmp_path_factory, chance):
    """No untyped error, no file outside of the cache, and no model that is not what was published."""
    hub, room = hub_and_room
    cache = tmp_path_factory.mktemp("home") / "inner" / "cache"

    def distort(listing):
        for _ in range(chance.choice([1, 1, 2, 5])):
            listing = changed(listing, chance.choice(list(places(listing))), chance.choice(LIES))
        return listing

    hub.distort = distort
    outcome = fetch_tiny(HuggingFaceHub(cache=cache, endpoint=hub.endpoint))
    if isinstance(outcome, VisionError):
        assert not UNPRINTABLE.search(str(outcome))
        assert len(str(outcome)) < 5_000
    else:
        published = {path.name: path.read_bytes() for path in (room / "published").iterdir()}
        for path in outcome.rglob("*"):
            assert path.is_dir() or path.read_bytes() == published[path.name]
    assert not [path for path in cache.parents[1].rglob("*") if path.is_file() and cache not in path.parents]
