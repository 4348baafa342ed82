"""A hosted model as a client sees it, in a process of its own: it answers after a while, and may limit its callers.

This module decides when a request is answered, and with what. It reads no request but for its path and its length, so
that next to none of the machine's time is the server's. It must not know who asks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Upstream", "running_upstream"]

TEXT = "A small cat looks at the camera."

USAGE = {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108}

REFUSAL = {"error": {"message": "Rate limit reached for requests.", "type": "requests", "code": "rate_limit_exceeded"}}

LONGEST_S = 1800.0
"""The server ends by itself after this, whatever has become of whoever started it."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running server.

    Attributes:
        url: The ``base_url`` for clients.
    """

    url: str

    def counts(self) -> dict[str, int]:
        """Return how many requests it has answered and refused, and how many it has had at a time."""
        line = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        with contextlib.closing(line):
            line.request("GET", "/counts")
            counts: dict[str, int] = json.load(line.getresponse())
        return counts


@contextmanager
def running_upstream(*, delay_s: float = 0.0, per_s: float = 0.0) -> Iterator[Upstream]:
    """Run a server as long as the block does.

    Args:
        delay_s: Seconds until each answer.
        per_s: Requests that it admits per second, a second's worth at once; 0 admits all.
    """
    command = [sys.executable, "-m", __name__, f"--delay-s={delay_s}", f"--per-s={per_s}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip() if process.stdout else ""
        if not url:
            sys.exit("The server did not start.")
        yield Upstream(url)
    finally:
        process.terminate()
        process.communicate()


class Bucket:
    """Admits so many requests per second, and says in the headers of a reply how many are left.

    Args:
        per_s: Requests per second; as many are admitted at once.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._at_s = time.monotonic()

    def admits(self) -> bool:
        """Return whether one more request is admitted, which it is then."""
        now_s = time.monotonic()
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def headers(self) -> dict[str, str]:
        """Return the rate-limit headers as OpenAI writes them."""
        headers = {
            "x-ratelimit-limit-requests": f"{self._per_s:.0f}",
            "x-ratelimit-remaining-requests": f"{math.floor(self._left)}",
            "x-ratelimit-reset-requests": f"{(self._per_s - self._left) / self._per_s * 1000:.0f}ms",
        }
        if self._left < 1:
            headers["retry-after-ms"] = f"{math.ceil((1 - self._left) / self._per_s * 1000)}"
        return headers


class Service:
    """What all connections share.

    Args:
        delay_s: Seconds until each answer.
        per_s: Requests that are admitted per second; 0 admits all.
    """

    def __init__(self, delay_s: float, per_s: float) -> None:
        self.delay_s = delay_s
        self._bucket = Bucket(per_s) if per_s else None
        self._answers = {name: _http(200, body) for name, body in _bodies().items()}
        self.counts = {"answered": 0, "refused": 0, "open": 0, "most_open": 0}

    def reply(self, path: str) -> tuple[bytes, float]:
        """Return the reply to a request as bytes, and the seconds until it is sent."""
        if path == "/counts":
            return _http(200, self.counts), 0.0
        if self._bucket is not None and not self._bucket.admits():
            self.counts["refused"] += 1
            return _http(429, REFUSAL, self._bucket.headers()), 0.0
        self.counts["answered"] += 1
        name = path.rpartition("/")[2]
        if self._bucket is not None:
            return _http(200, _bodies()[name], self._bucket.headers()), self.delay_s
        return self._answers.get(name) or _http(404, {}), self.delay_s

    def enter(self) -> None:
        """Count a request as being answered."""
        self.counts["open"] += 1
        self.counts["most_open"] = max(self.counts["most_open"], self.counts["open"])


class Connection(asyncio.Protocol):
    """One connection: a request after the other, whose bodies are passed over.

    Args:
        service: Whose answers it sends.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._head = b""
        self._path = ""
        self._coming_bytes = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read a request's head, pass over its body, and answer when it has ended."""
        if self._coming_bytes:
            self._coming_bytes -= len(data)
        else:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self._path, size_bytes = _read_head(head)
            self._coming_bytes = size_bytes - len(body)
        if self._coming_bytes <= 0:
            self._coming_bytes = 0
            self._answer()

    def _answer(self) -> None:
        reply, delay_s = self._service.reply(self._path)
        if not delay_s:
            self._write(reply)
            return
        self._service.enter()
        asyncio.get_running_loop().call_later(delay_s, self._leave, reply)

    def _leave(self, reply: bytes) -> None:
        self._service.counts["open"] -= 1
        self._write(reply)

    def _write(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply)


def _read_head(head: bytes) -> tuple[str, int]:
    """Return the path of a request, and how long its body is."""
    first, *lines = head.split(b"\r\n")
    sizes = [line.partition(b":")[2] for line in lines if line.lower().startswith(b"content-length:")]
    return first.split(b" ")[1].decode("latin-1"), int(sizes[0]) if sizes else 0


def _bodies() -> dict[str, Any]:
    """Return an answer for each path of the API, by its last part."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}
    envelope = {"id": "x", "created": 1, "model": "gpt-upstream"}
    words = [{"type": "output_text", "text": TEXT, "annotations": []}]
    message = {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": words}
    counted = {"input_tokens": 100, "output_tokens": 8, "total_tokens": 108}
    response = {"object": "response", "status": "completed", "output": [message], "usage": counted}
    return {
        "completions": envelope | {"object": "chat.completion", "choices": [choice], "usage": USAGE},
        "responses": envelope | response,
    }


def _http(status: int, body: object, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a reply as it is sent."""
    text = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(text)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {http.client.responses[status]}\r\n{head}\r\n".encode() + text


async def serve(service: Service) -> None:
    """Answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}/v1", flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.serve_forever(), LONGEST_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--per-s", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(serve(Service(given.delay_s, given.per_s)))
