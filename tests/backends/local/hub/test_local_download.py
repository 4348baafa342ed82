"""Large files go on where they stopped, arrive once for all, and are believed only with the right checksum."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from loopback_hub import write_model

from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.hub.source import Source
from vision_backends.errors import NotReadyError

SOURCE = Source.parse("acme/tiny")

FETCH = """
import sys
from pathlib import Path
from vision_backends.backends.local.hub.hub import HuggingFaceHub, Source
from vision_backends.backends.local.runtime.lazy_load import Progress
HuggingFaceHub(cache=Path(sys.argv[1]), endpoint=sys.argv[2]).fetch(Source.parse("acme/tiny"), Progress())
"""


@pytest.fixture
def published(tmp_path, loopback_hub):
    """The server of acme/tiny, which has 25 MB of weights: huggingface_hub reads in pieces of 10 MB."""
    loopback_hub.publish("acme/tiny", write_model(tmp_path / "model", megabytes=25))
    return loopback_hub


@pytest.fixture
def hub(tmp_path, published):
    """The hub with an empty cache."""
    return HuggingFaceHub(cache=tmp_path / "cache", endpoint=published.endpoint)


def ranges(server):
    """Return the ranges that storage was asked for; an empty one for a whole file."""
    asked = (re.match(r"GET /[0-9a-f]{64}(?: bytes=(.*))?$", line) for line in server.asked)
    return [found[1] or "" for found in asked if found]


def wait_for_half(server, cache):
    """Return the file that is arriving, once ten megabytes are there."""
    for _ in range(500):
        there = [path for path in cache.glob("*/blobs/*.incomplete") if path.stat().st_size >= 10_000_000]
        if there:
            return there[0]
        time.sleep(0.02)
    raise AssertionError(server.asked)


def test_a_killed_fetch_goes_on_where_it_stopped(hub, published, tmp_path):
    """Not from the start, although it had no time to tidy up."""
    published.pace_s = 0.01
    command = [sys.executable, "-c", FETCH, str(hub.cache), published.endpoint]
    with subprocess.Popen(command) as process:
        arriving = wait_for_half(published, hub.cache)
        process.send_signal(signal.SIGKILL)
    here = arriving.stat().st_size
    offer = hub.offer(SOURCE)
    assert hub.missing_bytes(offer) == offer.weights[0].size_bytes - here
    published.pace_s = 0.0
    published.asked.clear()
    progress = Progress()
    folder, _ = hub.take(offer, progress)
    assert ranges(published) == [f"{here}-"]
    assert progress.done_bytes == progress.total_bytes
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert not list(hub.cache.glob("*/blobs/*.incomplete"))


def test_a_connection_that_breaks_off_is_taken_up_again(hub, published, tmp_path):
    """Within one fetch."""
    published.cut_after_bytes = 15_000_000
    folder, _ = hub.fetch(SOURCE, Progress())
    assert ranges(published) == ["", "10485760-"]
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()


def test_what_arrives_damaged_is_not_believed(hub, published):
    """It never gets its final name, and nothing of it stays to be gone on with."""
    offer = hub.offer(SOURCE)
    other = replace(offer.weights[0], digest="0" * 64)
    with pytest.raises(NotReadyError, match=r"model\.safetensors of acme/tiny arrived damaged") as caught:
        hub.take(replace(offer, weights=(other,)), Progress())
    assert caught.value.code == "damaged"
    assert not list(hub.cache.glob("*/blobs/0000*"))
    assert hub.cached(SOURCE) is None
    folder, _ = hub.fetch(SOURCE, Progress())
    assert (folder / "model.safetensors").is_file()


def test_what_was_left_too_long_is_cut_and_judged_by_its_checksum(hub, published):
    """Somebody has written into it; the next fetch mends that."""
    offer = hub.offer(SOURCE)
    arriving = hub.cache / "models--acme--tiny" / "blobs" / f"{offer.weights[0].digest}.incomplete"
    arriving.parent.mkdir(parents=True)
    arriving.write_bytes(b"x" * 30_000_000)
    with pytest.raises(NotReadyError, match="arrived damaged"):
        hub.take(offer, Progress())
    hub.take(offer, Progress())
    assert hub.discard_damaged(offer, Progress()) == []


@pytest.mark.parametrize("left", ["nothing", "half", "all", "too much", "something else"])
def test_a_file_whose_size_the_hub_does_not_say_is_fetched_all_the_same(hub, published, tmp_path, left):
    """It goes on where it stopped, and how long it is becomes known with the reply."""
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    offer = hub.offer(SOURCE)
    offer = replace(offer, weights=(replace(offer.weights[0], size_bytes=0),))
    arriving = hub.cache / "models--acme--tiny" / "blobs" / f"{offer.weights[0].digest}.incomplete"
    arriving.parent.mkdir(parents=True)
    half = content[:12_000_000]
    parts = {"nothing": b"", "half": half, "all": content, "too much": content + b"x", "something else": b"x" * 9}
    arriving.write_bytes(parts[left])
    progress = Progress()
    if left == "something else":
        with pytest.raises(NotReadyError, match="arrived damaged"):
            hub.take(offer, progress)
        progress = Progress()
    folder, _ = hub.take(offer, progress)
    assert (folder / "model.safetensors").read_bytes() == content
    assert progress.done_bytes == progress.total_bytes > len(content)
    assert ("12000000-" in ranges(published)) == (left == "half")
    assert hub.missing_bytes(offer) == 0


def test_another_error_costs_nothing_of_what_has_arrived(hub, published, tmp_path):
    """Only where there is no such range, a file whose size nobody says is begun anew."""
    offer = hub.offer(SOURCE)
    offer = replace(offer, weights=(replace(offer.weights[0], size_bytes=0),))
    arriving = hub.cache / "models--acme--tiny" / "blobs" / f"{offer.weights[0].digest}.incomplete"
    arriving.parent.mkdir(parents=True)
    arriving.write_bytes(b"x" * 1000)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(NotReadyError, match="could not be fetched"):
        hub.take(offer, Progress())
    assert arriving.stat().st_size == 1000


def test_two_processes_fetch_it_once(hub, published):
    """The second waits for the first, and sees how far it is."""
    published.pace_s = 0.01
    command = [sys.executable, "-c", FETCH, str(hub.cache), published.endpoint]
    progress, seen = Progress(), set()
    with subprocess.Popen(command) as first:
        wait_for_half(published, hub.cache)
        second = threading.Thread(target=hub.fetch, args=(SOURCE, progress))
        second.start()
        while second.is_alive():
            seen.add(progress.done_bytes)
            time.sleep(0.05)
        assert first.wait() == 0
    assert ranges(published) == [""]
    assert progress.done_bytes == progress.total_bytes
    assert len(seen - {0, progress.total_bytes}) > 1
    assert hub.missing_bytes(hub.offer(SOURCE)) == 0


def test_storage_elsewhere_does_not_get_the_token(published, hub, tmp_path):
    """The hub does; whoever serves the weights is another."""
    env = {**os.environ, "HF_TOKEN": "hf_canary"}
    subprocess.run([sys.executable, "-c", FETCH, str(hub.cache), published.endpoint], env=env, check=True)
    assert hub.cached(SOURCE) is not None
    assert published.tokens == []
    assert "Bearer hf_canary" in published.hub_tokens
