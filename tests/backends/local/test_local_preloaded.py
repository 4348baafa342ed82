"""A server that begins to load its models and then forks its workers, as ``gunicorn --preload`` does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time, warnings
from PIL import Image
from vision_backends import Router
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.local import LocalBackend

warnings.simplefilter("ignore")  # Python's own, about forking with threads
models = dict.fromkeys(("caption_model", "detection_model", "open_vocabulary_model"), "")
local = [LocalBackend(embedding_model=sys.argv[2], engine="torch", **models)] if sys.argv[2] else []
router = Router([*local, EmbeddedBackend()], caching=False, deadline_s=60)
router.warm_up(["embed", "describe"], wait_s=0)
time.sleep(float(sys.argv[1]))
if os.fork() == 0:
    trace = router.embed(Image.new("RGB", (64, 48), "red")).trace
    codes = [attempt.code for attempt in trace.attempts if attempt.outcome == "failed"]
    print(trace.backend, [code for code in codes if code != "loading"], flush=True)  # it takes as long as it takes
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("has_local", [False, True], ids=["the last rung alone", "a local model above it"])
@pytest.mark.parametrize("after_s", [0.02, 0.3])
def test_the_last_rung_answers_in_a_worker_that_was_forked_meanwhile(model, has_local, after_s):
    """What the threads of the parent were importing can be imported there as well."""
    folder = str(model("clip")) if has_local else ""
    command = [sys.executable, "-c", PROGRAM, str(after_s), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("embedded []\n", "")
