"""What was measured or made once holds for one state of the machine, and goes when it is of no more use."""

from __future__ import annotations

import os
import time

import pytest

from vision_backends.backends.local.runtime.tuning_cache import WORK_S, TuningCache


@pytest.fixture
def remembered(tmp_path):
    """An empty memory."""
    return TuningCache(tmp_path)


def keep(remembered, name, state, *, size=0):
    """Keep a fact, and beside it a file of some size."""
    remembered.write(name, {"about": name}, state=state)
    if size:
        folder = remembered.place(name, state=state)
        folder.mkdir()
        (folder / "weights.bin").write_bytes(bytes(size))


def test_a_fact_holds_for_its_state_only(remembered):
    """Another state, a damaged file, or another kind of content: as if nothing had been kept."""
    keep(remembered, "speed", {"processor": "a"})
    assert remembered.read("speed", state={"processor": "a"}) == {"about": "speed"}
    assert remembered.read("speed", state={"processor": "b"}) is None
    for content in ("{", "[]", '{"state": {"processor": "a"}, "fact": 1}'):
        next(remembered.folder.glob("*.json")).write_text(content)
        assert remembered.read("speed", state={"processor": "a"}) is None


@pytest.mark.parametrize("what", ["pipe", "folder", "endless", "deep", "latin"])
def test_whatever_stands_in_place_of_a_fact_is_no_fact(remembered, what):
    """Nothing is waited for, and nothing endless is read; it can be written and forgotten as before."""
    state = {"processor": "a"}
    keep(remembered, "speed", state)
    (file,) = remembered.folder.glob("*.json")
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "endless":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(b"[" * 50_000 if what == "deep" else b'{"fact": "\xe9"}')
    assert remembered.read("speed", state=state) is None
    assert remembered.forget(bool) == 0
    keep(remembered, "speed", state)
    assert (remembered.read("speed", state=state) is None) == (what == "folder")


def test_what_is_forgotten_takes_its_files_along(remembered):
    """The rest stays; the bytes are told before and after."""
    keep(remembered, "x", {"model": "acme/a"}, size=1000)
    keep(remembered, "y", {"model": "acme/b"}, size=1000)

    def about(state):
        return state.get("model") == "acme/a"

    told = remembered.kept_bytes(about)
    assert 1000 < told < 2000
    assert remembered.forget(about) == told
    assert remembered.kept_bytes(about) == 0
    assert remembered.read("x", state={"model": "acme/a"}) is None
    assert remembered.read("y", state={"model": "acme/b"}) is not None
    assert len(list(remembered.folder.rglob("weights.bin"))) == 1


def test_what_the_killed_have_left_goes_when_it_is_old(remembered):
    """Somebody may still be at work on what is new."""
    for age_s, name in ((0.0, "new"), (2 * WORK_S, "old")):
        (remembered.folder / f".convert-{name}").mkdir()
        (remembered.folder / f".draft-{name}").write_text("{")
        (remembered.folder / f"somebody elses {name}").mkdir()
        (remembered.folder / f"{name}-0123456789abcdef").mkdir()
        for path in remembered.folder.glob(f"*{name}*"):
            os.utime(path, (time.time() - age_s,) * 2)
    remembered.forget(lambda _state: False)
    left = {path.name for path in remembered.folder.iterdir()}
    gone = {".convert-old", ".draft-old", "old-0123456789abcdef"}
    assert left == {name.replace("old", "new") for name in gone} | {"somebody elses new", "somebody elses old"}


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    """Nothing was ever kept."""
    assert TuningCache(tmp_path / "none").forget(lambda _state: True) == 0
