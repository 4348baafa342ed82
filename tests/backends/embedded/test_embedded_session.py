"""Model files are checked, loaded once, shared by threads, and never taken across a fork."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vision_backends.backends.embedded.session import Lazy, OnnxModel, default_threads
from vision_backends.backends.model_cards import asset, model_card
from vision_backends.errors import NotReadyError, UnavailableError

CARD = model_card("efficientnet-lite0-224")
ROOT = Path(__file__).parents[3]
IMAGE = np.zeros((1, 3, 224, 224), dtype=np.float32)


def shipped(path=None):
    """The shipped classifier, or a copy of it elsewhere."""
    return OnnxModel(path or asset(CARD.file), sha256=CARD.sha256, threads=1)


class CountingPath(type(Path())):
    """A path that counts how often its file is opened."""

    opened = 0

    def open(self, *args, **kwargs):
        """Open the file and count."""
        type(self).opened += 1
        return super().open(*args, **kwargs)


def test_it_loads_at_the_first_run_only():
    """Making a model costs nothing; running it loads it."""
    model = shipped()
    model.check()
    assert not model.loaded
    (features,) = model.run(["features"], IMAGE)
    assert features.shape == (1, 1280)
    assert model.loaded


def test_threads_that_come_together_share_one_load():
    """Eight threads open the file once and get the same numbers."""
    model = shipped(CountingPath(asset(CARD.file)))
    with ThreadPoolExecutor(8) as pool:
        results = [job.result() for job in [pool.submit(model.run, ["logits"], IMAGE) for _ in range(8)]]
    assert CountingPath.opened == 1
    assert all(np.array_equal(result[0], results[0][0]) for result in results)


def test_a_closed_model_loads_again():
    """Close frees the memory; it is no end."""
    model = shipped()
    model.run(["logits"], IMAGE)
    model.close()
    assert not model.loaded
    assert model.run(["logits"], IMAGE)[0].shape == (1, 1000)


def test_a_batch_may_have_any_size():
    """The files take N images at once, for those who want that."""
    assert shipped().run(["features"], np.repeat(IMAGE, 3, axis=0))[0].shape == (3, 1280)


@pytest.mark.parametrize("damage", ["one byte", "cut short", "empty"])
def test_a_damaged_file_is_never_loaded(tmp_path, damage):
    """A file that is not the shipped one is an installation to mend, whatever is wrong with it."""
    content = bytearray(asset(CARD.file).read_bytes())
    content[5000] ^= 1
    kept = {"one byte": len(content), "cut short": 5000, "empty": 0}[damage]
    path = tmp_path / "model.onnx"
    path.write_bytes(content[:kept])
    model = shipped(path)
    model.check()
    with pytest.raises(NotReadyError, match=r"damaged.*pip install --force-reinstall"):
        model.run(["logits"], IMAGE)
    assert not model.loaded


def test_a_missing_file_is_noticed_before_it_is_needed(tmp_path):
    """Both the cheap check and the run say which file is missing."""
    model = shipped(tmp_path / "absent.onnx")
    with pytest.raises(NotReadyError, match=r"absent\.onnx is missing"):
        model.check()
    with pytest.raises(NotReadyError, match=r"absent\.onnx cannot be read"):
        model.run(["logits"], IMAGE)


def test_a_file_that_is_no_model_is_not_ready(tmp_path):
    """A right checksum of a wrong file is a typed error, not one of onnxruntime's."""
    path = tmp_path / "text.onnx"
    path.write_bytes(b"no model")
    model = OnnxModel(path, sha256=hashlib.sha256(b"no model").hexdigest(), threads=1)
    with pytest.raises(NotReadyError, match=r"cannot load text\.onnx"):
        model.run(["logits"], IMAGE)


def test_a_failing_run_is_unavailable():
    """An input of the wrong shape is onnxruntime's error, translated."""
    with pytest.raises(UnavailableError, match="onnxruntime failed"):
        shipped().run(["logits"], IMAGE[:, :1])


def test_threads_are_bounded():
    """At least one, at most four."""
    assert 1 <= default_threads() <= 4


FORK = """
import os, signal, sys
import numpy as np
from pathlib import Path
from vision_backends.backends.embedded.session import OnnxModel

model = OnnxModel(Path(sys.argv[1]), sha256=sys.argv[2], threads=2)
image = np.zeros((1, 3, 224, 224), dtype=np.float32)
before = model.run(["features"], image)[0]
child = os.fork()
if child == 0:
    signal.alarm(30)
    assert not model.loaded
    assert np.array_equal(model.run(["features"], image)[0], before)
    model.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(model.run(["features"], image)[0], before)
print("both answered")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_loads_its_own():
    """Parent and child both answer, and neither waits for the other's threads."""
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(asset(CARD.file)), CARD.sha256]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "both answered\n"), done.stderr
    assert done.stderr == ""


def test_what_could_not_be_made_is_tried_again():
    """An error leaves the place empty."""
    lazy = Lazy()

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        lazy.get(fail)
    assert not lazy.made
    assert lazy.get(lambda: "thing") == "thing"


def test_what_was_dropped_is_made_anew():
    """Until then the first one stays."""
    lazy = Lazy()
    assert (lazy.get(lambda: 1), lazy.get(lambda: 2)) == (1, 1)
    lazy.drop()
    assert not lazy.made
    assert lazy.get(lambda: 2) == 2
