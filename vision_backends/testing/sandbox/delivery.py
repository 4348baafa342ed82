"""How a reply goes over a socket: in one piece, slowly, in part, or with a broken ending.

This module decides what a fault's delivery means in bytes. Its delays are in real time, because a client's timeouts
are. It must not know what is delivered.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.testing.sandbox.faults import Fault
    from vision_backends.testing.sandbox.wire import HttpReply

__all__ = ["HeldReplies", "Hold", "deliver"]

_LOOK_S = 0.02
"""Seconds between a waiting connection's checks for whether its client has gone."""


class HeldReplies:
    """Releases every reply that is being held back; safe to use from many threads."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._closed = False

    def release(self) -> None:
        """Release all replies that are held now; later ones are held again."""
        held, self._event = self._event, threading.Event()
        held.set()

    def close(self) -> None:
        """Release everything, now and from now on."""
        self._closed = True
        self._event.set()

    def hold(self, connection: socket.socket) -> Hold:
        """Return what holds one reply back; any later `release` frees it, even before it waits."""
        return Hold(connection, self._event, is_closed=lambda: self._closed)


class Hold:
    """Holds one reply back until it is released or its client has gone."""

    def __init__(self, connection: socket.socket, event: threading.Event, *, is_closed: Callable[[], bool]) -> None:
        self._connection = connection
        self._event = event
        self._is_closed = is_closed

    def wait(self, seconds: float) -> bool:
        """Wait, and return whether it was cut short by a release.

        Raises:
            ConnectionError: The client has gone, or the sandbox is closing.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            released = self._event.wait(min(left, _LOOK_S))
            if self._is_closed() or _has_gone(self._connection):
                raise ConnectionAbortedError("The client no longer waits for this reply.")
            if released:
                return True
        return False


def deliver(reply: HttpReply, connection: socket.socket, *, fault: Fault, hold: Hold) -> bool:
    """Send a reply as the fault says, and return whether the connection can be used again.

    Raises:
        OSError: The client has gone.
    """
    if fault.delay_s:
        hold.wait(fault.delay_s)
    head, pieces = reply.encode()
    count = {"all": len(pieces), "half": len(pieces) // 2, "nothing": 0}[fault.sends]
    if fault.sends != "nothing":
        _send(connection, [head, *pieces[:count]], fault=fault, hold=hold)
    match fault.then:
        case "keep":
            return True
        case "stall" if hold.wait(fault.stall_s):
            rest = pieces[count:] if fault.sends != "nothing" else [head, *pieces]
            _send(connection, rest, fault=fault, hold=hold)
            return True
        case "reset":
            # SO_LINGER with 0 s turns the close that follows into RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _send(connection: socket.socket, parts: list[bytes], *, fault: Fault, hold: Hold) -> None:
    if not fault.drip_s:
        connection.sendall(b"".join(parts))
        return
    for number, part in enumerate(parts):
        if number:
            hold.wait(fault.drip_s)
        connection.sendall(part)


def _has_gone(connection: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    return False
