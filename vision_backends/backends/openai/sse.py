"""Server-sent events, as far as OpenAI's streams use them.

This module decides how bytes become events. It must not know what the events mean, nor where the bytes come from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EventReader", "looks_like_events", "read_events", "read_object"]

FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of an event stream begins; the last is a comment."""


def looks_like_events(content: bytes | bytearray) -> bool:
    """Return True for the beginning of an event stream, whatever its content type claims."""
    return content.lstrip().startswith(FIELDS)


class EventReader:
    """Turns an event stream, chunk by chunk, into its JSON objects, until its end or ``[DONE]``.

    A server that does not stream may send one JSON object instead, which is then the only event.

    Attributes:
        done: True when no more events can come.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._is_stream: bool | None = None
        self.done = False

    @property
    def pending_bytes(self) -> int:
        """How much has been fed that is not part of an event yet."""
        return len(self._rest) + sum(map(len, self._data))

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events that a chunk completes.

        Raises:
            InvalidReplyError: An event is not a JSON object.
        """
        self._rest += chunk
        if b"\n" not in chunk or not self._knows_a_stream():
            return
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            yield from self._take(line.rstrip(b"\r"))

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield the event that the end of the bytes completes; errors as in `feed`."""
        rest = bytes(self._rest)
        if self._is_stream is None:
            self._is_stream = looks_like_events(rest)
        if not self._is_stream:
            yield read_object(rest)
        else:
            yield from self._take(rest.rstrip(b"\r"))
            yield from self._take(b"")
        self.done = True

    def _knows_a_stream(self) -> bool:
        """Tell whether events are coming, from the first line that is not blank."""
        if self._is_stream is None:
            self._rest = self._rest.lstrip()
            if b"\n" in self._rest:
                self._is_stream = looks_like_events(self._rest)
        return self._is_stream is True

    def _take(self, line: bytes) -> Iterator[dict[str, Any]]:
        if self.done:
            return
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif not line and self._data:
            event, self._data = b"\n".join(self._data), []
            self.done = event == b"[DONE]"
            if not self.done:
                yield read_object(event)


def read_events(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of a whole stream; errors as in `EventReader.feed`."""
    reader = EventReader()
    yield from reader.feed(content)
    yield from reader.end()


def read_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object that some bytes are.

    Raises:
        InvalidReplyError: They are something else; says what it looks like.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    looks = "an HTML page" if content.lstrip().startswith(b"<") else "not a JSON object"
    raise InvalidReplyError(
        f"The reply is {looks}.", code="not_json", remedy="Check base_url in [openai]: it often ends in /v1."
    )
