"""States over a server that can only read, and write if nobody else has written since.

That is what Redis offers with ``WATCH`` and ``MULTI``, and a web server with ``ETag`` and ``If-Match``: the change is
made without a lock, and made again where another was faster.
"""

from __future__ import annotations

import threading

__all__ = ["OptimisticStates", "Server"]


class Server:
    """A key-value server with a version for each key, as it would stand on another machine."""

    def __init__(self):
        self._lock = threading.Lock()
        self.values = {}
        self.versions = {}

    def get(self, key):
        """Return a value and its version."""
        with self._lock:
            return self.values.get(key), self.versions.get(key, 0)

    def set_if_unchanged(self, key, value, version):
        """Write a value, or remove it for None, unless it has another version by now; return whether."""
        with self._lock:
            if self.versions.get(key, 0) != version:
                return False
            self.versions[key] = version + 1
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
            return True


class OptimisticStates:
    """All that a store of states has to be."""

    blocking = True

    def __init__(self, server):
        self._server = server
        self.overtaken = 0

    def read(self, key):
        """Return a state, or None."""
        return self._server.get(key)[0]

    def update(self, key, change):
        """Make a change, and again as often as another was faster."""
        while True:
            old, version = self._server.get(key)
            new, value = change(old)
            if self._server.set_if_unchanged(key, new, version):
                return value
            self.overtaken += 1

    def all(self, prefix=""):
        """Return all states whose keys begin with ``prefix``."""
        return {key: value for key, value in self._server.values.items() if key.startswith(prefix)}

    def close(self):
        """Nothing is open."""
