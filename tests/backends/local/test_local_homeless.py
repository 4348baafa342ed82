"""A user without a home, or with one that cannot be written, gets answers all the same: containers run so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vision_backends

STRANGER = ("unshare", "--user", "--map-user=12345")
"""Runs a program as a user who has no entry in passwd."""

PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from vision_backends import Router
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.requests import EmbedRequest
from vision_backends.engine.event_loop import engine_loop
from vision_backends import open_image

picture = Image.linear_gradient("L").convert("RGB")
with Router.from_config() as router:
    answer = router.describe(picture)
attempts = {attempt.backend: attempt.code for attempt in answer.trace.attempts}
backend = LocalBackend(embedding_model=sys.argv[2])
(vector,) = engine_loop().run(lambda: backend.embed([open_image(picture)], EmbedRequest(), timeout_s=100))
status = backend.status()["embedding"]
backend.close()
told = {"backend": answer.trace.backend, "attempts": attempts, "space": vector.space, "engine": status["engine"]}
print(json.dumps(told))
"""


def _stranger_can_run() -> bool:
    if shutil.which(STRANGER[0]) is None:
        return False
    return subprocess.run([*STRANGER, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _stranger_can_run(), reason="needs user namespaces")
@pytest.mark.parametrize("home", [{}, {"HOME": "/proc"}], ids=["no home", "a home that cannot be written"])
def test_every_rung_answers_or_says_what_it_lacks(home, model, tmp_path):
    """The last rung, and a model of a folder; only models by name need a place to be kept."""
    root = str(Path(vision_backends.__file__).parent.parent)
    command = [*STRANGER, sys.executable, "-c", PROGRAM, root, str(model("clip"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path, env=home)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["backend"] == "embedded"
    assert told["attempts"]["local"] == ("not_fetched" if home else "no_home")
    assert told["space"].startswith("local/clip@")
    assert str(told["engine"]["image"]).startswith("torch (openvino failed: ")
    assert list(tmp_path.iterdir()) == []
