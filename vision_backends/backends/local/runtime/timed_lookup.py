"""Remembering the result of a lookup for a moment, such as the files of a model.

This module decides when to look again. It must not know what is looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

from vision_backends.backends.local.runtime.lazy_load import again
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.clock import Clock

__all__ = ["TimedLookup"]

LIFETIME_S = 1.0
"""What another process installs is noticed within this time."""

T = TypeVar("T")


class _Known(NamedTuple, Generic[T]):
    until: float
    mark: object
    value: T | None
    error: NotReadyError | None


class TimedLookup(Generic[T]):
    """Looks something up at most once a second. Safe for many threads.

    Args:
        look: Looks it up; a `NotReadyError` that it raises is remembered as well.
        clock: Where time comes from.
        mark: Something cheap to compute, a change of which means that it is time to look again.
    """

    def __init__(self, look: Callable[[], T], *, clock: Clock, mark: Callable[[], object] = lambda: None) -> None:
        self._look = look
        self._clock = clock
        self._mark = mark
        self._known: _Known[T] | None = None

    def __call__(self) -> T:
        """Return what was found, or raise what was raised, after looking again where it is time to."""
        known, mark = self._known, self._mark()
        if known is None or known.mark != mark or self._clock.monotonic() >= known.until:
            return self.fresh()
        if known.error is not None:
            raise again(known.error) from known.error
        return known.value  # type: ignore[return-value]  # it is of the type that was found

    def fresh(self) -> T:
        """Look again."""
        mark, until = self._mark(), self._clock.monotonic() + LIFETIME_S
        try:
            value = self._look()
        except NotReadyError as error:
            self._known = _Known(until, mark, None, cast("NotReadyError", again(error)))
            raise
        self._known = _Known(until, mark, value, None)
        return value

    def forget(self) -> None:
        """Let the next call look again."""
        self._known = None
