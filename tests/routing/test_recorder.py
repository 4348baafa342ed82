"""What a call leaves behind is written down, and no other call waits for that."""

import threading

from PIL import Image as PILImage

from vision_backends import Router
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeBackend


class OnDisk(MemoryStore):
    """One that may have to wait for its disk."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.threads = set()

    def record(self, rows):
        """Note who waits."""
        self.threads.add(threading.current_thread().name)
        super().record(rows)

    def put(self, key, value):
        """Note who waits."""
        self.threads.add(threading.current_thread().name)
        super().put(key, value)


def test_a_store_that_may_block_is_written_beside_the_event_loop():
    """Which has other calls to serve meanwhile."""
    store = OnDisk()
    with Router([FakeBackend()], store=store) as router:
        for width in (8, 9):
            router.describe(PILImage.new("RGB", (width, 8), "teal"))
    assert len(list(store.rows())) == store.cache_info().entries == 2
    assert "vision-loop" not in store.threads
