"""Access to the states in the store that never fails a call, and to listeners likewise.

This module decides what happens when the store cannot be used: it is logged once, and everything counts as healthy
and unspent. It must not know what the states mean.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vision_backends.storage.base import States

__all__ = ["SharedStates", "tell"]

T = TypeVar("T")
E = TypeVar("E")

_log = logging.getLogger(__name__)


class SharedStates:
    """The states of a store; safe for many threads."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._complained = False

    def read(self, key: str) -> str | None:
        """Return a state; None where there is none or the store is in trouble."""
        try:
            return self._states.read(key)
        except OSError as error:
            self._complain(error)
            return None

    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]], *, otherwise: T) -> T:
        """Replace a state atomically, as `States.update` does; return ``otherwise`` if the store is in trouble."""
        try:
            return self._states.update(key, change)
        except OSError as error:
            self._complain(error)
            return otherwise

    def all(self, prefix: str) -> Mapping[str, str]:
        """Return the states whose keys begin with ``prefix``; none if the store is in trouble."""
        try:
            return self._states.all(prefix)
        except OSError as error:
            self._complain(error)
            return {}

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("Gates and budgets are not shared or kept while the store is in trouble: %s", error)


def tell(listener: Callable[[E], object] | None, events: Iterable[E]) -> None:
    """Hand events to a listener; what it raises is logged and fails no call."""
    if listener is None:
        return
    for event in events:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 — a listener's own business
            _log.exception("A listener failed on %s.", type(event).__name__)
