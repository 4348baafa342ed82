"""The sandbox in a process of its own, so that its threads, sockets and memory are not counted as its client's.

This module decides how it is started, told what to play and asked what it has received, and which variables a client
in another process finds. It must not know what is measured with it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["API_KEY", "RemoteSandbox", "client_environment"]

API_KEY = "sk-sandbox"

TIMEOUT_S = 60.0

SERVE = "from vision_backends.testing.sandbox.command import SandboxOptions, serve; serve(SandboxOptions())"

OWN = ("VISION_", "OPENAI_", "XDG_", "LITELLM_", "LANGCHAIN_", "LANGSMITH_")
"""Beginnings of variables that would change what is measured."""


def client_environment() -> dict[str, str]:
    """Return the variables for a client in a process of its own: nothing configured, no other server called."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return kept | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false"}


class RemoteSandbox:
    """What can be said to a running sandbox; see ``vision_backends.testing.sandbox``.

    Args:
        url: The ``base_url`` for clients.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url).netloc

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Self]:
        """Run one as long as the block does."""
        process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
        try:
            first_line = process.stdout.readline() if process.stdout else ""
            _, _, url = first_line.strip().partition("=")
            if not url:
                sys.exit("The sandbox did not start.")
            yield cls(url)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            process.communicate()

    def play(self, plan: object, *, times: int | None = None, instead: bool = True) -> None:
        """Play a fault by its name or fields, a script or chaos, instead of whatever it plays now, or before that."""
        if instead:
            self._tell("POST", "heal", {})
        self._tell("POST", "play", {"play": plan, "times": times})

    def heal(self) -> None:
        """Play nothing any more."""
        self._tell("POST", "heal", {})

    def reset(self) -> None:
        """Forget what was played and received."""
        self._tell("POST", "reset", {})

    def requests(self) -> list[dict[str, Any]]:
        """Return the last 20,000 requests, oldest first."""
        requests: list[dict[str, Any]] = self._tell("GET", "requests", None)["requests"]
        return requests

    def count(self) -> int:
        """Return the number of requests to all paths together."""
        return sum(self._tell("GET", "counts", None).values())

    def _tell(self, method: str, action: str, body: dict[str, Any] | None) -> dict[str, Any]:
        line = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        with contextlib.closing(line):
            text = None if body is None else json.dumps(body)
            line.request(method, f"/_sandbox/{action}", text, {"content-type": "application/json"})
            reply = line.getresponse()
            answer: dict[str, Any] = json.load(reply)
        if reply.status != 200:
            sys.exit(f"The sandbox refused {action}: {answer}")
        return answer
