"""Long lists: written down as they go, in the backend's own batch size, with progress that goes forwards."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from PIL import Image as PILImage

from vision_backends import Embedding, QuotaExhaustedError, Router
from vision_backends.storage import open_store
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeBackend


def picture(number):
    """Return a picture of its own."""
    return PILImage.new("RGB", (32, 32), (number % 256, number // 256, 7))


def png(number):
    """Return one as an open file."""
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    file.seek(0)
    return file


@pytest.mark.parametrize(("count", "calls"), [(256, [256]), (300, [256, 44]), (20, [20])])
def test_texts_reach_a_backend_in_its_own_batch_size(count, calls):
    """The window of images is not theirs."""
    backend = FakeBackend("one", batch_size=256)
    with Router([backend]) as router:
        router.embed_text_many([f"text {number}" for number in range(count)])
    assert [call.count for call in backend.calls] == calls


def test_progress_goes_forwards_and_reaches_its_total():
    """Although the list starts over in another space, and one input cannot be read."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    best.play(0.0, QuotaExhaustedError("Gone."))
    seen = []
    with Router([best, spare]) as router:
        images = [picture(1), "no-such-file.png", picture(2), picture(3)]
        router.embed_many(images, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


class Socket(io.RawIOBase):
    """A file that cannot be read twice."""

    def __init__(self, content):
        super().__init__()
        self._content = io.BytesIO(content)

    def readable(self):
        """Return True."""
        return True

    def readinto(self, buffer):
        """Read on."""
        return self._content.readinto(buffer)


def test_open_files_are_read_again_where_a_list_starts_over():
    """From where they stood, or from memory where they cannot go back."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    best.play(*[0.0] * 32, QuotaExhaustedError("Gone."))
    late = io.BytesIO(b"something before" + png(40).getvalue())
    late.seek(len(b"something before"))
    with Router([best, spare], caching=False) as router:
        answers = router.embed_many([late, Socket(png(41).getvalue()), *map(png, range(31))])
    assert {type(answer) for answer in answers} == {Embedding}
    assert {answer.space for answer in answers} == {"b"}


def test_a_long_list_is_in_the_ledger_and_told_as_it_goes():
    """Not only when it has ended."""
    store, events, rows = MemoryStore(), [], []
    with Router([FakeBackend("one")], store=store) as router:
        router.subscribe(events.append)
        router.describe_many(
            [picture(number) for number in range(96)],
            progress=lambda _done, _total: rows.append((len(list(store.rows())), len(events))),
        )
        assert len(list(store.rows())) == 96
        assert len(events) == 97
    booked, told = rows[-1]
    assert booked >= 64
    assert told >= 64
    assert len({row.call_id for row in store.rows()}) == 1


class Counting(io.BytesIO):
    """A file that tells when it is read."""

    reads = 0

    def read(self, *size):
        """Count."""
        Counting.reads += not self.tell()
        return super().read(*size)


def test_only_two_windows_of_a_list_are_open():
    """However long it is: what is asked for, and what comes next."""
    ahead = []

    class Watching(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            ahead.append(Counting.reads - len(ahead))
            return super().describe(images, request, timeout_s=timeout_s)

    Counting.reads = 0
    with Router([Watching("one")], caching=False) as router:
        answers = router.describe_many([Counting(png(number).getvalue()) for number in range(300)])
    assert len(answers) == len(ahead) == 300
    assert max(ahead) <= 2 * 32 + 2


KILLED = """
    import os, sys, threading, time
    from PIL import Image
    from vision_backends import Router
    from vision_backends.storage import open_store
    from vision_backends.testing import FakeBackend

    backend = FakeBackend("one", concurrency=1)
    backend.play(*[0.02] * 500)
    router = Router([backend], store=open_store(sys.argv[1]))
    images = [Image.new("RGB", (32, 32), (number % 256, number // 256, 7)) for number in range(400)]
    router.describe_many(images, progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_list_that_is_killed_loses_only_what_was_in_flight(tmp_path):
    """Its answers are in the cache as well."""
    state = tmp_path / "state.sqlite"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            if int(line) >= 60:
                break
        threading.Event().wait(0.1)  # the rows of the last tenth of a second may be lost
        os.kill(program.pid, signal.SIGKILL)
        program.stdout.read()
    store = open_store(state)
    assert len(list(store.rows())) >= 60
    assert store.cache_info().entries >= 60
    store.close()
