"""Asking the next rung as well when one thinks for too long: when, and how often that may happen.

This module decides what a hedge may cost. It must not know who is asked. Its source is Dean and Barroso, "The Tail
at Scale" (2013): a second request after the 95th percentile cuts the tail for about 5 % more load.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Literal

from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Errand", "HedgeAfter", "Hedges"]

HedgeAfter = float | Literal["p95"] | None
"""Seconds after which the next rung is asked too; ``"p95"`` is what 95 % of the answers so far did not need."""

SHARE = 0.05
MOST_SAVED = 5.0
"""At most one call in twenty is hedged; what was not needed can be saved up for a bad minute."""


class Hedges:
    """The allowance of second questions. Safe for many threads.

    Args:
        after: When to ask the next rung as well; None never does.

    Raises:
        InvalidRequestError: The time is not positive.
    """

    def __init__(self, after: HedgeAfter) -> None:
        if isinstance(after, str):
            if after != "p95":
                raise InvalidRequestError(f"hedge_after_s={after!r} is neither a number nor 'p95'.")
        elif after is not None and not after > 0:
            raise InvalidRequestError(f"hedge_after_s={after} leaves the better rung no time.")
        self._after = after
        self._saved = 0.0
        self._lock = threading.Lock()

    @property
    def wanted(self) -> bool:
        """Whether there are hedges at all."""
        return self._after is not None

    def after_s(self, p95_s: float) -> float:
        """Return the seconds to wait for the better rung alone, and count the call.

        Args:
            p95_s: What 95 % of its answers do not need.
        """
        with self._lock:
            self._saved = min(MOST_SAVED, self._saved + SHARE)
        return p95_s if isinstance(self._after, str) or self._after is None else self._after

    def withdraw(self) -> bool:
        """Return whether one more call may be hedged, and count it."""
        with self._lock:
            if self._saved < 1.0 - 1e-9:  # twenty times 0.05 is not quite 1
                return False
            self._saved -= 1.0
            return True


class Errand:
    """One piece of work in a thread of its own, which can be waited for or left to itself.

    Args:
        work: What to do, in the caller's context variables.
        on_left: Called in that thread when the work is done and nobody waits for it any more.
    """

    def __init__(self, work: Callable[[], object], *, on_left: Callable[[], object]) -> None:
        self._work = work
        self._on_left = on_left
        self._done = threading.Event()
        self._claim = threading.Lock()
        threading.Thread(target=copy_context().run, args=(self._run,), name="vision-errand", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return whether it is done, after waiting for it; without a time, as long as it takes."""
        return self._done.wait(timeout_s)

    def leave(self) -> bool:
        """Stop waiting for it; return False when it is just done."""
        return self._claim.acquire(blocking=False)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            if not self._claim.acquire(blocking=False):
                self._on_left()
            self._done.set()
