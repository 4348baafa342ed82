"""Files that somebody changes under a running service change neither its answers nor their names, and never kill it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from answering import answer
from safetensors.torch import load_file, save_file

from vision_backends import open_image
from vision_backends.backends.local.hub.hub import HuggingFaceHub
from vision_backends.backends.requests import DescribeRequest, EmbedRequest
from vision_backends.errors import NotReadyError
from vision_backends.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"

PROGRAM = """
import json, shutil, sys
from pathlib import Path
from PIL import Image
from vision_backends import open_image
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.backends.requests import EmbedRequest
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import NotReadyError

model, twin, room = map(Path, sys.argv[1:])
image = open_image(Image.linear_gradient("L").convert("RGB"))
when = {}

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, Path)) and callers() & {"from_pretrained", "check_weights"}:
        for name in [name for name in when if str(arguments[0]).endswith(name)]:
            when.pop(name)()

def callers():
    frame, names = sys._getframe(), set()
    while frame:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names

sys.addaudithook(hook)

def overwrite(file):
    return lambda: file.open("r+b").write((twin / file.name).read_bytes())

def cut(file):
    return lambda: file.open("r+b").truncate(file.stat().st_size // 2)

def ask(backend):
    try:
        (found,) = engine_loop().run(lambda: backend.embed([image], EmbedRequest(), timeout_s=60))
    except NotReadyError as error:
        return {"space": None, "error": f"{error.code}: {error.message}"}
    return {"space": found.space, "vector": found.vector.tolist()}

def played(name, *, engine="torch", during=None, after=None):
    folder = Path(shutil.copytree(model, room / name))
    when.update({file: change(folder / "model.safetensors") for file, change in (during or {}).items()})
    cache = TuningCache(room / f"{name}-cache")
    none = dict.fromkeys(("caption_model", "detection_model", "open_vocabulary_model"), "")
    backend = LocalBackend(
        embedding_model=str(folder), engine=engine, dtype="float32", tuning_cache=cache, **none
    )
    backend.model_for(EmbedRequest())
    try:
        answers = [ask(backend)]
        if not answers[0]["space"]:
            answers.append(ask(backend))
        if after is not None:
            for file in [folder / "model.safetensors", *(room / f"{name}-cache").glob("*/*.bin")]:
                after(file)()
            answers.append(ask(backend))
        maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
        engine = backend.status()["embedding"].get("engine")
        mapped = str(folder) in maps or f"{name}-cache" in maps
        print(json.dumps({"name": name, "engine": engine, "answers": answers, "mapped": mapped}), flush=True)
    finally:
        backend.close()

played("cut", after=cut)
played("converted", engine="auto", after=cut)
played("overwritten", after=overwrite)
played("cut-while-read", during={"/config.json": cut})
played("overwritten-while-read", during={"/config.json": overwrite})
played("overwritten-when-read", during={"/model.safetensors": overwrite})
"""


@pytest.fixture(scope="module")
def twin(model, tmp_path_factory) -> Path:
    """The same model with other weights, in files of the same size."""
    folder = shutil.copytree(model("clip"), tmp_path_factory.mktemp("twin") / "clip")
    weights = {name: tensor.roll(1) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert (folder / WEIGHTS).stat().st_size == (model("clip") / WEIGHTS).stat().st_size
    return folder


@pytest.fixture(scope="module")
def played(model, twin, tmp_path_factory) -> dict[str, dict]:
    """What a process of its own answered, as one that maps a file dies when that is cut."""
    room = tmp_path_factory.mktemp("changed")
    arguments = [sys.executable, "-c", PROGRAM, str(model("clip")), str(twin), str(room)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stdout[-500:]}{done.stderr[-2000:]}"
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


def test_cut_weights_leave_a_loaded_model_as_it_is(played):
    """The weights are in memory: a mapping of the file would end the process (SIGBUS)."""
    first, second = played["cut"]["answers"]
    assert first == second


def test_a_cut_conversion_leaves_a_loaded_model_as_it_is(played):
    """What OpenVINO computes with is in memory as well."""
    first, second = played["converted"]["answers"]
    assert first == second
    assert "openvino" in str(played["converted"]["engine"])
    assert not played["converted"]["mapped"]


def test_overwritten_weights_leave_a_loaded_model_as_it_is(played):
    """Vectors of other weights under the old space would be compared with the old ones."""
    first, second = played["overwritten"]["answers"]
    assert first == second


def test_weights_that_are_cut_while_they_are_read_are_refused(played):
    """It is the files of now that are judged."""
    assert "model.safetensors is cut short" in played["cut-while-read"]["answers"][0]["error"]


@pytest.mark.parametrize("name", ["overwritten-while-read", "overwritten-when-read"])
def test_weights_that_change_while_they_are_read_have_the_name_of_the_new_ones(played, name, twin, make_backend):
    """The space that was announced is that of the old ones, so the first call is told to ask again."""
    backend = make_backend(embedding_model=twin)
    expected, answers = _vector(backend), played[name]["answers"]
    assert "space_became_known" in answers[0]["error"]
    assert answers[1]["space"].endswith(expected.space.rpartition("@")[2])
    np.testing.assert_allclose(answers[1]["vector"], expected.vector, atol=1e-6)


class TestTheCacheOfTheHub:
    """A commit stands for certain files; no others are loaded under its name."""

    @pytest.fixture
    def fetched(self, make_backend, model, tmp_path, loopback_hub):
        """The file of the weights in a cache, and a function that loads the model again and asks it."""
        loopback_hub.publish("acme/clip", model("clip"))
        hub = HuggingFaceHub(cache=tmp_path / "cache", endpoint=loopback_hub.endpoint)
        clock = FakeClock()
        backend = make_backend(embedding_model="acme/clip", hub=hub, download="wait", clock=clock)

        def ask(*, offline: bool = False):
            if offline:
                loopback_hub.close()
            backend.close()
            clock.advance(2.0)
            return _vector(backend)

        ask()
        (weights,) = (tmp_path / "cache").glob(f"models--acme--clip/snapshots/*/{WEIGHTS}")
        return weights, ask

    def test_overwritten_weights_are_fetched_again(self, fetched, twin):
        """The name of the commit is for the weights that were published."""
        weights, ask = fetched
        before = ask()
        _overwrite(weights, twin / WEIGHTS)
        with pytest.raises(NotReadyError, match="are not those of aaaa"):
            ask()
        after = ask()
        assert (after.space, after.vector.tolist()) == (before.space, before.vector.tolist())

    def test_overwritten_weights_are_not_used_without_a_network(self, fetched, twin):
        """Neither under the old name nor under any other."""
        weights, ask = fetched
        _overwrite(weights, twin / WEIGHTS)
        for _ in range(2):
            with pytest.raises(NotReadyError):
                ask(offline=True)

    def test_touched_weights_are_used_without_a_network(self, fetched):
        """Their checksum is still that by which the cache names them."""
        weights, ask = fetched
        before = ask()
        weights.touch()
        assert ask(offline=True).space == before.space


class TestAModelThatIsLoadedAgain:
    """A folder is read as it is then, and named by what is in it."""

    @pytest.fixture
    def served(self, make_backend, model_copy):
        """The folder of a model, and a function that loads and asks it."""
        folder = model_copy("clip")
        clock = FakeClock()
        backend = make_backend(embedding_model=folder, clock=clock)

        def ask():
            backend.close()
            clock.advance(2.0)
            return _vector(backend)

        return folder, ask

    def test_overwritten_weights_have_a_space_of_their_own(self, served, twin):
        """The same size makes no difference."""
        folder, ask = served
        before = ask()
        _overwrite(folder / WEIGHTS, twin / WEIGHTS)
        assert ask().space != before.space

    def test_a_time_that_was_set_back_hides_nothing(self, served, twin):
        """As ``cp --preserve`` and archives do."""
        folder, ask = served
        before, status = ask(), (folder / WEIGHTS).stat()
        _overwrite(folder / WEIGHTS, twin / WEIGHTS)
        os.utime(folder / WEIGHTS, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert ask().space != before.space

    def test_replaced_weights_have_a_space_of_their_own(self, served, twin):
        """As they arrive by a rename."""
        folder, ask = served
        before = ask()
        shutil.copy(twin / WEIGHTS, folder / "arriving")
        (folder / "arriving").replace(folder / WEIGHTS)
        assert ask().space != before.space

    def test_touched_weights_keep_their_space(self, served):
        """What counts is the content."""
        folder, ask = served
        before = ask()
        (folder / WEIGHTS).touch()
        after = ask()
        assert (after.space, after.vector.tolist()) == (before.space, before.vector.tolist())

    def test_a_deleted_folder_is_named_and_used_when_it_is_back(self, served):
        """Nothing is remembered against it."""
        folder, ask = served
        before = ask()
        folder.rename(folder.with_name("away"))
        with pytest.raises(NotReadyError, match="does not exist"):
            ask()
        folder.with_name("away").rename(folder)
        assert ask().space == before.space


def test_one_that_could_not_be_loaded_is_tried_as_soon_as_it_is_mended(make_backend, model_copy):
    """A failure is remembered for the files that failed only."""
    folder, clock = model_copy("clip"), FakeClock()
    backend = make_backend(embedding_model=folder, clock=clock)
    kept = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    for _ in range(2):
        with pytest.raises(NotReadyError):
            _vector(backend)
    (folder / "tokenizer.json").write_text(kept, encoding="utf-8")
    clock.advance(2.0)
    assert _vector(backend)


def test_two_models_of_one_folder_are_each_of_one_state(make_backend, model, model_copy):
    """One that is loaded later is named by what it has read."""
    folder = model_copy("blip")
    backends = [make_backend(caption_model=folder) for _ in range(2)]
    revisions = []
    for backend in backends:
        (found,) = answer(backend.describe, [_image()], DescribeRequest(), timeout_s=60)
        revisions.append(found.trace.revision)
        weights = {name: tensor.roll(1) for name, tensor in load_file(folder / WEIGHTS).items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (again,) = answer(backends[0].describe, [_image()], DescribeRequest(), timeout_s=60)
    assert revisions[0] != revisions[1]
    assert again.trace.revision == revisions[0]


def _vector(backend):
    try:
        (found,) = answer(backend.embed, [_image()], EmbedRequest(), timeout_s=60)
    except NotReadyError as error:
        if error.code != "space_became_known":
            raise
        (found,) = answer(backend.embed, [_image()], EmbedRequest(), timeout_s=60)
    return found


def _image():
    from PIL import Image

    return open_image(Image.linear_gradient("L").convert("RGB"))


def _overwrite(file: Path, other: Path) -> None:
    with file.open("r+b") as writing:
        writing.write(other.read_bytes())
