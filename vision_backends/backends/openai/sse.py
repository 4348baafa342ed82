"""Server-sent events, as far as OpenAI's streams use them.

This module decides how bytes become events. It must not know what the events mean.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from vision_backends.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["looks_like_events", "read_events", "read_object"]

FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of an event stream begins; the last is a comment."""


def looks_like_events(content: bytes) -> bool:
    """Return True for the beginning of an event stream, whatever its content type claims."""
    return content.lstrip().startswith(FIELDS)


def read_events(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an event stream until its end or ``[DONE]``.

    A server that does not stream may send one JSON object instead, which is then the only event.

    Raises:
        InvalidReplyError: An event, or the whole, is no JSON object.
    """
    data: list[bytes] = []
    lines = _lines(chunks)
    first = next((line for line in lines if line), b"")
    if not looks_like_events(first):
        yield read_object(b"\n".join([first, *lines]))
        return
    for line in chain([first], lines):
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line and data:
            event = b"\n".join(data)
            data = []
            if event == b"[DONE]":
                return
            yield read_object(event)
    if data and data != [b"[DONE]"]:
        yield read_object(b"\n".join(data))


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
    looks = "an HTML page" if content.lstrip().startswith(b"<") else "no JSON object"
    raise InvalidReplyError(
        f"The reply is {looks}.", code="not_json", remedy="Check base_url in [openai]: it often ends in /v1."
    )


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
    yield rest.rstrip(b"\r")
