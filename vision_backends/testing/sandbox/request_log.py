"""The log of received requests: what a test or a developer wants to see of them, and never a key.

This module decides what is remembered of a request. It must not know how it was answered beyond fault and status.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.testing.sandbox.pictures import Picture

__all__ = ["Journal", "ReceivedRequest", "summary"]

_REMEMBERED = 20_000
_LONGEST_TEXT = 4_000
_LONGEST_LIST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request to ``/v1/…`` as it was received, and what it was answered with.

    Attributes:
        index: Counted from 0, since the start or the last reset.
        method: ``"GET"``, ``"POST"``.
        path: Path without the query.
        headers: Names in lower case; authorization and cookies are left out.
        model: Model that was asked for.
        body: The JSON; data URLs and long texts are replaced by their length.
        size_bytes: Length of the body.
        pictures: The images that could be decoded.
        fault: Name of the fault that was played, ``"healthy"`` for none.
        status: Status of the reply, whether or not it got through.
        tokens: Billed tokens; 0 if the reply was an error.
        at_s: When it was answered, by the monotonic time of the sandbox's clock.
    """

    index: int
    method: str
    path: str
    headers: Mapping[str, str]
    model: str | None
    body: Any = field(repr=False)
    size_bytes: int
    pictures: tuple[Picture, ...]
    fault: str
    status: int
    tokens: int
    at_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {**asdict(self), "headers": dict(self.headers)}


class Journal:
    """Remembers the latest requests and counts them all; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[ReceivedRequest] = deque(maxlen=_REMEMBERED)
        self._counts: Counter[str] = Counter()

    def add(self, request: ReceivedRequest) -> None:
        """Remember a request."""
        with self._lock:
            self._requests.append(request)
            self._counts[request.path] += 1

    def requests(self) -> tuple[ReceivedRequest, ...]:
        """Return the latest requests, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def counts(self) -> dict[str, int]:
        """Return the number of requests to each path, the forgotten ones included."""
        with self._lock:
            return dict(self._counts)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._requests.clear()
            self._counts.clear()


def summary(value: Any) -> Any:  # noqa: ANN401 — any JSON
    """Return JSON with data URLs, long texts and long lists replaced by their length."""
    if isinstance(value, dict):
        return {key: summary(item) for key, item in value.items()}
    if isinstance(value, list):
        kept = [summary(item) for item in value[:_LONGEST_LIST]]
        return kept + ([f"<{len(value) - _LONGEST_LIST} more>"] if len(value) > _LONGEST_LIST else [])
    if isinstance(value, str) and value.startswith("data:"):
        return f"<data URL of {len(value)} characters>"
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}<{len(value) - _LONGEST_TEXT} more characters>"
    return value
