"""What travels between a client and the sandbox: calls, replies, events and the bytes they become.

This module decides how a reply is framed in HTTP/1.1. It must not know what a reply says, who asked for it or
which faults exist.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ApiError", "Event", "HttpReply", "HttpRequest"]

_SLICES = 16
"""How many pieces a document is cut into, so that a fault can send a part of it or drip it."""

_LAST_CHUNK = b"0\r\n\r\n"


class ApiError(Exception):
    """A request that the real API would refuse.

    Args:
        fault: Name of the row of the fault table that says so.
        message: Overrides the row's message, to name the value that is wrong.
        param: Name of the parameter that is wrong.
    """

    def __init__(self, fault: str, *, message: str | None = None, param: str | None = None) -> None:
        super().__init__(message or fault)
        self.fault = fault
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request as it arrived.

    Attributes:
        method: ``"GET"``, ``"POST"``.
        path: Path without the query.
        headers: Names in lower case, without credentials.
        key: The bearer token; None if none was sent. Kept out of every repr.
        body: The parsed JSON; None if there was no body or it was not valid JSON.
        size_bytes: Length of the body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    key: str | None = field(repr=False)
    body: Any = field(repr=False)
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; ``data`` is JSON, or a string that is sent as it is."""

    data: Any
    name: str | None = None

    def encode(self) -> bytes:
        """Return the event's lines."""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        line = f"event: {self.name}\n" if self.name else ""
        return f"{line}data: {data}\n\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """One reply.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        body: JSON, or a string that is sent as it is; ignored if there are events.
        events: The event stream; None for a document.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    events: tuple[Event, ...] | None = None

    def encode(self) -> tuple[bytes, list[bytes]]:
        """Return the head and the pieces of the body, framed for the wire."""
        if self.events is None:
            data = (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()
            step = len(data) // _SLICES + 1
            pieces = [data[start : start + step] for start in range(0, len(data), step)]
            kind = "text/plain" if isinstance(self.body, str) else "application/json"
            framing = {"content-type": kind, "content-length": str(len(data))}
        else:
            pieces = [_chunk(event.encode()) for event in self.events] + [_LAST_CHUNK]
            framing = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        return self._head(framing), pieces

    def _head(self, framing: Mapping[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_reason(self.status)}"]
        lines += [f"{name}: {value}" for name, value in {**framing, **self.headers}.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Sandbox"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
