"""The permit of one call, and the records of how the call began and ended.

This module decides that a call ends once, however often it is said. It must not know what an ending means.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.backends.requests import RateLimits
    from vision_backends.errors import VisionError
    from vision_backends.health.limits import Amount
    from vision_backends.health.scopes import Scope
    from vision_backends.types import Usage

__all__ = ["Ending", "Entry", "Permit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A call that was let in.

    Attributes:
        scope: What it is about.
        caller: A random id of the call.
        amount: What it is estimated to take; reserved where there is a budget.
        is_priced: Whether the cost in that estimate is known.
        timeout_s: Seconds that it may take.
        lease_s: Seconds after which it is taken for dead.
    """

    scope: Scope
    caller: str
    amount: Amount
    is_priced: bool
    timeout_s: float
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call has ended.

    Attributes:
        error: What it failed with; None otherwise.
        counted: False when it says nothing about the backend's health.
        usage: What it has consumed; None leaves it to the kind of the error.
        elapsed_s: How long it took.
        limits: What its reply said about the server's limits.
    """

    error: VisionError | None = None
    counted: bool = True
    usage: Usage | None = None
    elapsed_s: float = 0.0
    limits: RateLimits | None = None


class Permit:
    """Leave to make one call; ended exactly once, whatever is called how often.

    A permit that is never ended, because its process died, lapses after twice its timeout.

    Args:
        entry: The call.
        end: Is given the entry and its ending.
        correct: Is given the entry, its ending, and the true usage that was not known when it ended.
    """

    __slots__ = ("_correct", "_end", "_ending", "_entry", "_late", "_lock")

    def __init__(
        self,
        entry: Entry,
        end: Callable[[Entry, Ending], None],
        correct: Callable[[Entry, Ending, Usage], None],
    ) -> None:
        self._entry = entry
        self._end = end
        self._correct = correct
        self._lock = threading.Lock()
        self._ending: Ending | None = None
        self._late: Usage | None = None

    def succeeded(self, *, usage: Usage, elapsed_s: float, limits: RateLimits | None = None) -> None:
        """The backend has answered.

        Args:
            usage: What it consumed; what is unknown in it is booked as it was estimated.
            elapsed_s: Seconds that it took.
            limits: What the reply said about the server's limits.
        """
        self._finish(Ending(usage=usage, elapsed_s=elapsed_s, limits=limits))

    def failed(self, error: VisionError, *, elapsed_s: float, usage: Usage | None = None) -> None:
        """The backend has failed.

        Args:
            error: With what.
            elapsed_s: Seconds that it took.
            usage: What it consumed all the same. By default that is nothing, or what was estimated after
                errors that may come after the work was done: a timeout, an outage, an unusable reply.
        """
        self._finish(Ending(error=error, elapsed_s=elapsed_s, usage=usage))

    def released(self, *, usage: Usage | None = None) -> None:
        """The call was cancelled, or its input was at fault: it says nothing about the backend's health.

        Args:
            usage: What it consumed all the same; nothing by default.
        """
        self._finish(Ending(counted=False, usage=usage))

    def corrected(self, usage: Usage) -> None:
        """BudgetState what a call has really used whose answer came after nobody waited for it any more.

        To be called once, from any thread; whether before or after the call was ended does not matter.
        """
        with self._lock:
            self._late = usage
            ending = self._ending
        if ending is not None:
            self._correct(self._entry, ending, usage)

    def _finish(self, ending: Ending) -> None:
        with self._lock:
            if self._ending is not None:
                return
            if self._late is not None:
                ending = replace(ending, usage=self._late)
            self._ending = ending
        self._end(self._entry, ending)
