"""Whether the same rung is asked once more, and after how long: the only place that retries.

This module decides when a second attempt is worth its price. It must not know who is asked, nor how to wait.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vision_backends.errors import InvalidReplyError, OverloadedError, RateLimitedError, UnavailableError

if TYPE_CHECKING:
    from vision_backends.errors import BackendError

__all__ = ["SHORT_PAUSE_S", "Retries"]

MAX_PAUSE_S = 2.0
PAUSE_SHARE = 0.25
"""A server that asks for more patience than this, or than this part of the time left, is passed over instead."""

SHORT_PAUSE_S = 0.2
"""Before asking again after an outage that nobody below can bridge."""

DEPOSIT = 0.1
MAX_TOKENS = 10.0
"""Every first attempt pays in a tenth of a retry: retries never add more than 10 % to the requests on the wire.
The shape is gRPC's retry throttling (proposal A6: 10 tokens, 0.1 per call)."""


class Retries:
    """A shared allowance of second attempts. Safe for many threads."""

    def __init__(self) -> None:
        self._tokens = 1.0
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """Count a first attempt."""
        with self._lock:
            self._tokens = min(MAX_TOKENS, self._tokens + DEPOSIT)

    def pause_s(self, error: BackendError, *, remaining_s: float, spare: bool) -> float | None:
        """Return the seconds to wait before the second and last attempt, or None to go on to the next rung.

        Args:
            error: What the first attempt ended with.
            remaining_s: What is left of the deadline.
            spare: Whether a lower rung is ready; then an outage is bridged by it and not by asking again.
        """
        if isinstance(error, RateLimitedError | OverloadedError):
            pause_s = error.retry_after_s
            if pause_s is None or pause_s > min(MAX_PAUSE_S, remaining_s * PAUSE_SHARE):
                return None
        elif isinstance(error, UnavailableError | InvalidReplyError) and not spare:
            pause_s = SHORT_PAUSE_S
        else:
            return None
        return pause_s if pause_s < remaining_s and self._withdraw() else None

    def _withdraw(self) -> bool:
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True
