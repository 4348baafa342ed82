"""The permit of one call, and the records of how the call began and ended.

This module decides that a call ends once, however often it is said. It must not know what an ending means.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision_backends.backends.requests import RateLimits
    from vision_backends.errors import VisionError
    from vision_backends.health.admission import AdmissionControl
    from vision_backends.health.limits import Amount
    from vision_backends.health.scopes import Scope
    from vision_backends.types import Usage

__all__ = ["Ending", "Entry", "Permit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A call that was admitted.

    Attributes:
        scope: What it is about.
        caller: A random id of the call.
        amount: What it is estimated to take; reserved where there is a budget.
        is_priced: Whether the cost in that estimate is known.
        is_probe: Whether it probes a gate.
        timeout_s: Seconds that it may take.
        lease_s: Seconds after which it is taken for dead.
    """

    scope: Scope
    caller: str
    amount: Amount
    is_priced: bool
    is_probe: bool
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
    """Leave to make one call. May be ended from any thread; only the first ending counts.

    A permit that is never ended, because its process died, lapses after twice its timeout.

    Args:
        entry: The call.
        issuer: Has admitted it, and is told how it ends.
    """

    __slots__ = ("_ending", "_entry", "_issuer", "_late", "_lock")

    def __init__(self, entry: Entry, issuer: AdmissionControl) -> None:
        self._entry = entry
        self._issuer = issuer
        self._lock = threading.Lock()
        self._ending: Ending | None = None
        self._late: Usage | None = None

    def may_block(self, error: VisionError | None = None) -> bool:
        """Return whether ending it may have to wait for the store: with this error, or without one.

        False is reliable as long as no other call of the same scope fails in between.
        """
        return self._issuer.end_may_block(self._entry, error)

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
        """Book the true usage of a call whose answer came when nobody waited for it any more.

        To be called once, from any thread; whether before or after the call was ended does not matter.
        """
        with self._lock:
            self._late = usage
            ending = self._ending
        if ending is not None:
            self._issuer.correct(self._entry, ending, usage)

    def _finish(self, ending: Ending) -> None:
        with self._lock:
            if self._ending is not None:
                return
            if self._late is not None:
                ending = replace(ending, usage=self._late)
            self._ending = ending
        self._issuer.end(self._entry, ending)
