"""The sandbox's sockets and threads: one thread that accepts, one for each connection, none left after close.

This module decides how bytes become calls. It must not know what is answered to them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.delivery import HeldReplies, deliver
from vision_backends.testing.sandbox.faults import HEALTHY
from vision_backends.testing.sandbox.wire import HttpReply, HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.testing.sandbox.faults import Fault

    Answer = Callable[[HttpRequest], tuple[HttpReply, Fault]]

__all__ = ["Listener"]

_BACKLOG = 512
_PAUSE_S = 0.01
_MAX_BODY_BYTES = 100_000_000
_UNREADABLE = HttpReply(status=413, body="The sandbox takes bodies of up to 100 MB with a Content-Length.")
_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "cookie", "proxy-authorization"})


class Listener:
    """Accepts connections on a loopback address and hands each call to a function.

    Args:
        answer: Called from many threads simultaneously.
        host: A loopback address, or ``"localhost"``.
        port: 0 takes a free one.

    Raises:
        ValueError: The host is not a loopback address.
        OSError: The port is taken.
    """

    def __init__(self, answer: Answer, *, host: str, port: int) -> None:
        self._answer = answer
        self._held = HeldReplies()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._closing = threading.Event()
        self._accepted = 0
        self._socket = socket.create_server(
            (_loopback(host), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
        self._thread = threading.Thread(target=self._accept, name="sandbox-listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def accepted(self) -> int:
        """Connections accepted so far; a client that reuses its connections makes few."""
        return self._accepted

    def release(self) -> None:
        """Release every reply that is being held back."""
        self._held.release()

    def close(self) -> None:
        """Close every socket and wait for every thread."""
        self._closing.set()
        self._held.close()
        with contextlib.suppress(OSError):  # a connection of our own wakes the thread that accepts
            socket.create_connection(self._socket.getsockname()[:2], timeout=1).close()
        self._thread.join()
        self._socket.close()
        for connection in self._open.values():
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._open:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, address = self._socket.accept()
            except OSError:
                time.sleep(_PAUSE_S)  # out of file descriptors
                continue
            if self._closing.is_set():
                connection.close()
                return
            self._accepted += 1
            thread = threading.Thread(
                target=self._serve, args=(connection, address), name="sandbox-connection", daemon=True
            )
            thread.start()
            self._open = {other: its for other, its in self._open.items() if other.is_alive()}
            self._open[thread] = connection

    def _serve(self, connection: socket.socket, address: Any) -> None:  # noqa: ANN401 — the socket's own
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):  # the client has gone
                _Connection(connection, address, self._answer, self._held)
        finally:
            connection.close()


class _Connection(BaseHTTPRequestHandler):
    """Reads the calls of one connection until it ends."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: socket.socket, address: Any, answer: Answer, held: HeldReplies) -> None:  # noqa: ANN401
        self._answer = answer
        self._held = held
        super().__init__(connection, address, None)  # type: ignore[arg-type]  # only our own methods would use a server

    def handle_one_request(self) -> None:
        """Read one call and deliver its reply."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        hold = self._held.hold(self.connection)
        size = self.headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > _MAX_BODY_BYTES or "transfer-encoding" in self.headers:
            deliver(_UNREADABLE, self.connection, fault=HEALTHY, hold=hold)
            self.close_connection = True
            return
        reply, fault = self._answer(self._call(self.rfile.read(int(size))))
        if not deliver(reply, self.connection, fault=fault, hold=hold):
            self.close_connection = True

    def _call(self, data: bytes) -> HttpRequest:
        try:
            body = json.loads(data) if data else None
        except (ValueError, RecursionError):
            body = None
        headers = {name.lower(): value for name, value in self.headers.items()}
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return HttpRequest(
            method=self.command,
            path=self.path.partition("?")[0].rstrip("/"),
            headers={name: value for name, value in headers.items() if name not in _SECRET_HEADERS},
            key=token.strip() or None if scheme.lower() == "bearer" else None,
            body=body,
            size_bytes=len(data),
        )

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 — the base class's
        """Print nothing: the request log has it."""


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(f"The sandbox listens on loopback only, not on {host!r}: use 127.0.0.1 or ::1.")
    return host
