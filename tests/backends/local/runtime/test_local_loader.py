"""Loading one model after the other, and what a fork in the middle of that leaves behind."""

from __future__ import annotations

import os
import threading

import pytest

from vision_backends.backends.local import LocalBackend
from vision_backends.backends.local.runtime import loader
from vision_backends.backends.requests import DescribeRequest
from vision_backends.errors import NotReadyError


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_was_forked_while_a_model_was_loaded_says_so_at_once():
    """The locks of that load are held for ever in the child, which would wait for them until its deadlines."""
    is_loading, may_end = threading.Event(), threading.Event()

    def load():
        with loader._loading:
            is_loading.set()
            may_end.wait(30)

    thread = threading.Thread(target=load)
    thread.start()
    is_loading.wait(30)
    child = os.fork()
    if child == 0:
        try:
            LocalBackend(caption_model="/nowhere").check(DescribeRequest())
        except NotReadyError as error:
            os._exit(0 if error.code == "forked" else 1)
        finally:
            os._exit(2)
    status = os.waitpid(child, 0)[1]
    may_end.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert not loader.was_forked_while_loading()
