"""What is on this machine is told without network, and only what was fetched is removed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_hub import commit_of, write_model

from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.backends.local.hub.source import Source
from vision_backends.backends.local.installed import find_holding, plan_removal
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.errors import InvalidRequestError, NotReadyError

MAIN, NEXT = commit_of("main"), commit_of("next")
TINY = Source.parse("acme/tiny")


@pytest.fixture
def hub(tmp_path, loopback_hub):
    """A hub with acme/tiny, which has two branches, and acme/clone, which has the same commits."""
    folders = {"main": write_model(tmp_path / "main"), "next": write_model(tmp_path / "next", seed=1)}
    for name in ("acme/tiny", "acme/clone"):
        loopback_hub.publish(name, folders["main"]).branches = folders
    return HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint)


@pytest.fixture
def fetch(hub):
    """A fetcher of models by name; returns their folder."""
    return lambda name="acme/tiny": hub.fetch(Source.parse(name), Progress())[0]


def begin(hub):
    """Leave of the weights of acme/tiny what a killed fetch leaves."""
    arriving = hub.cache / "models--acme--tiny" / "blobs" / f"{'0' * 64}.01234567.incomplete"
    arriving.parent.mkdir(parents=True, exist_ok=True)
    arriving.write_bytes(b"x" * 1_000_000)


def test_what_was_never_fetched_is_absent(hub):
    """There need not even be a cache."""
    held = find_holding(TINY, hub)
    assert (held.state, held.folder, held.size_bytes) == ("absent", None, 0)


def test_what_was_fetched_is_installed(hub, fetch, loopback_hub):
    """With its commit and size; nothing is asked on the network."""
    folder = fetch()
    loopback_hub.asked.clear()
    held = find_holding(TINY, hub)
    assert (held.state, held.folder, held.revision, held.flaw) == ("installed", folder, MAIN, None)
    assert held.size_bytes == sum(path.stat().st_size for path in folder.iterdir()) > 100_000
    assert find_holding(Source.parse("acme/tiny@next"), hub).state == "absent"
    assert loopback_hub.asked == []


def test_what_lacks_a_file_or_was_cut_short_is_there_partly(hub, fetch):
    """The flaw says which."""
    folder = fetch()
    weights = (folder / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-5])
    held = find_holding(TINY, hub)
    assert (held.state, held.revision) == ("partly", MAIN)
    assert "model.safetensors is cut short" in held.flaw
    (folder / "model.safetensors").unlink()
    assert "there is no model.safetensors" in find_holding(TINY, hub).flaw


def test_what_was_interrupted_before_its_end_is_there_partly(hub):
    """Nothing has a name yet, but bytes have arrived."""
    begin(hub)
    held = find_holding(TINY, hub)
    assert (held.state, held.size_bytes, held.folder) == ("partly", 1_000_000, None)


def test_what_a_killed_fetch_has_left_goes_with_the_last_revision(hub, fetch):
    """Until then it stays; it counts as nothing that is here."""
    folder = fetch()
    begin(hub)
    assert find_holding(TINY, hub).size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    fetch("acme/tiny@next")
    plan_removal(Source.parse("acme/tiny@next"), hub).execute()
    assert list(hub.cache.glob("models--acme--tiny/blobs/*.incomplete"))
    plan_removal(TINY, hub).execute()
    assert not list(hub.cache.glob("models--acme--tiny"))


def test_what_never_became_a_revision_is_removed_as_a_whole(hub):
    """A fetch was interrupted before its first file had a name."""
    begin(hub)
    (hub.cache / "models--acme--tiny" / "snapshots").mkdir()
    with pytest.raises(InvalidRequestError, match="no revision 'next'"):
        plan_removal(Source.parse("acme/tiny@next"), hub)
    removal = plan_removal(TINY, hub)
    assert (removal.freed_bytes, removal.revisions) == (1_000_000, {})
    removal.execute()
    assert not list(hub.cache.glob("models--acme--tiny"))


def test_what_may_not_be_used_is_refused(hub, fetch):
    """It is whole, but another program has fetched what this one never would."""
    (fetch() / "config.json").resolve().write_text('{"auto_map": {}}')
    held = find_holding(TINY, hub)
    assert held.state == "refused"
    assert "run code of its own" in held.flaw


def test_a_folder_of_the_user_is_told_as_it_is(hub, tmp_path):
    """It has an id of its content for a revision."""
    held = find_holding(Source.parse(str(tmp_path / "main")), hub)
    assert (held.state, held.folder, len(held.revision)) == ("installed", tmp_path / "main", 12)
    assert find_holding(Source.parse(str(tmp_path / "nowhere")), hub).state == "absent"


def test_removing_a_model_removes_all_its_revisions_and_nothing_else(hub, fetch):
    """Clones have the same commits, and stay."""
    fetch()
    fetch("acme/tiny@next")
    clone = fetch("acme/clone")
    removal = plan_removal(TINY, hub)
    assert removal.revisions == {MAIN: ("main",), NEXT: ("next",)}
    assert removal.freed_bytes > 200_000
    assert find_holding(TINY, hub).state == "installed"
    removal.execute()
    assert find_holding(TINY, hub).state == "absent"
    assert not list(hub.cache.glob("models--acme--tiny"))
    assert (clone / "model.safetensors").is_file()


def test_what_was_converted_from_a_model_goes_with_it(hub, fetch, tmp_path):
    """Of the revisions that go, under whatever name they were configured; of no other model."""
    for name in ("acme/tiny", "acme/tiny@next"):
        fetch(name)
    remembered = TuningCache(tmp_path / "remembered")
    states = [
        {"model": "acme/tiny", "revision": MAIN},
        {"model": "acme/tiny@next", "revision": NEXT},
        {"model": "acme/clone", "revision": MAIN},
    ]
    for state in states:
        remembered.write("image", {}, state=state)
        folder = remembered.place("image", state=state)
        folder.mkdir()
        (folder / "model.bin").write_bytes(bytes(5_000_000))
    removal = plan_removal(Source.parse("acme/tiny@next"), hub, remembered)
    assert 5_000_000 < removal.freed_bytes < 10_000_000
    removal.execute()
    assert [remembered.place("image", state=state).exists() for state in states] == [True, False, True]
    plan_removal(TINY, hub, remembered).execute()
    assert [remembered.place("image", state=state).exists() for state in states] == [False, False, True]


@pytest.mark.parametrize("revision", ["next", NEXT, NEXT[:7]])
def test_one_revision_is_removed_by_branch_or_commit(hub, fetch, revision):
    """A commit may be shortened; the other revision stays whole."""
    folder = fetch()
    fetch("acme/tiny@next")
    removal = plan_removal(Source.parse(f"acme/tiny@{revision}"), hub)
    assert list(removal.revisions) == [NEXT]
    removal.execute()
    assert find_holding(Source.parse("acme/tiny@next"), hub).state == "absent"
    assert hub.damaged(hub.offer(TINY), Progress()) == []
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acme/other", "not in the cache"),
        ("acme/tiny@v9", "no revision 'v9'"),
        ("acme/tiny@aaaaaa", "no revision"),
        ("./main", "a folder of your own"),
    ],
)
def test_what_is_not_in_the_cache_is_not_removed(hub, fetch, name, says, monkeypatch, tmp_path):
    """Least of all a folder of the user's."""
    fetch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequestError, match=says):
        plan_removal(Source.parse(name), hub)
    assert (tmp_path / "main" / "model.safetensors").is_file()


def test_a_damaged_folder_of_the_cache_is_removed_as_a_whole(hub, fetch):
    """A single revision of it cannot be told."""
    shutil.rmtree(fetch().parent)
    with pytest.raises(InvalidRequestError, match="is damaged"):
        plan_removal(Source.parse("acme/tiny@main"), hub)
    removal = plan_removal(TINY, hub)
    assert removal.freed_bytes > 100_000
    removal.execute()
    assert find_holding(TINY, hub).state == "absent"


def test_what_cannot_be_deleted_is_an_error(hub, fetch):
    """It is not reported as removed; folders of another file system cannot be deleted."""
    fetch()
    removal = plan_removal(TINY, hub)
    removal = replace(removal, strategy=replace(removal.strategy, repos=frozenset({Path("/proc/self/fd")})))
    with pytest.raises(NotReadyError, match="could not be removed: /proc/self/fd"):
        removal.execute()
