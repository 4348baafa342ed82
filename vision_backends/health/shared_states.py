"""Where gates and budgets are kept: texts that processes share, changed atomically; and who hears of it.

This module decides how the change of a state becomes one of its text, and that neither a store in trouble nor a
listener that fails ever fails a call. It must not know what a gate or a budget is.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from vision_backends.storage.guarded_states import GuardedStates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vision_backends.clock import Clock
    from vision_backends.health.budgets import Alert
    from vision_backends.health.policy import Transition
    from vision_backends.storage.base import States, StoreError

__all__ = ["Event", "SharedStates"]

Event: TypeAlias = "Transition | Alert"

_log = logging.getLogger(__name__)


class State(Protocol):
    """A state while it is changed."""

    def dump(self, *, now: float) -> str | None:
        """Return its text; None where there is nothing to keep."""


R = TypeVar("R")
S = TypeVar("S", bound=State)


class SharedStates:
    """The states of gates and budgets. Safe for many threads.

    Every change is given as two steps: ``parse`` makes a state of its text, or of None where there is none, and ``act``
    changes it and returns what is to be returned. Both may be called more than once.

    Args:
        states: Where the texts live.
        clock: Where time comes from.
        on_event: Told of what has happened, in the thread of the call that caused it.

    Attributes:
        blocking: Whether the store may block.
    """

    def __init__(self, states: States | GuardedStates, *, clock: Clock, on_event: Callable[[Event], object]) -> None:
        self.blocking = states.blocking
        self._states = GuardedStates.of(states)
        self._clock = clock
        self._on_event = on_event
        self._is_in_trouble = False

    @property
    def trouble(self) -> StoreError | None:
        """Why no state can be kept now; None when they can, as far as is known."""
        return self._states.trouble

    def read_many(self, keys: Sequence[str]) -> Mapping[str, str | None]:
        """Return some texts, in one go."""
        try:
            return self._states.read_many(keys)
        except OSError as error:
            self._complain(error)
            return dict.fromkeys(keys)

    def all(self, prefix: str) -> Mapping[str, str]:
        """Return all texts whose keys begin with ``prefix``."""
        try:
            return self._states.all(prefix)
        except OSError as error:
            self._complain(error)
            return {}

    def update(self, key: str, parse: Callable[[str | None], S], act: Callable[[S], R]) -> R | None:
        """Change a state, or its shadow while the store is away; None if not even that could be done."""
        try:
            return self._states.update(key, self._change(parse, act))
        except OSError as error:
            self._complain(error)
            return None

    def update_now(
        self,
        key: str,
        parse: Callable[[str | None], S],
        act: Callable[[S], R],
        *,
        on_made: Callable[[R], object] | None = None,
        on_late: Callable[[R], object] | None = None,
    ) -> R:
        """Change a state itself, or not at all. Arguments and errors as for `GuardedStates.update_now`."""
        return self._states.update_now(key, self._change(parse, act), on_made=on_made, on_late=on_late)

    def update_later(
        self,
        key: str,
        parse: Callable[[str | None], S],
        act: Callable[[S], R],
        *,
        on_made: Callable[[R], object],
        on_lost: Callable[[], object],
        waits: bool,
    ) -> None:
        """Change a state when that can be done. Arguments as for `GuardedStates.update_later`."""
        self._states.update_later(key, self._change(parse, act), on_made=on_made, on_lost=on_lost, waits=waits)

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the listener what has happened."""
        for event in events:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001 — a listener may raise anything, and must not fail a call
                _log.exception("A listener failed on %s.", type(event).__name__)

    def _change(
        self, parse: Callable[[str | None], S], act: Callable[[S], R]
    ) -> Callable[[str | None], tuple[str | None, R]]:
        now = self._clock.time()

        def change(text: str | None) -> tuple[str | None, R]:
            state = parse(text)
            result = act(state)
            return state.dump(now=now), result

        return change

    def _complain(self, error: OSError) -> None:
        if not self._is_in_trouble:
            self._is_in_trouble = True
            _log.warning("Gates and budgets are not shared or kept while the store is in trouble: %s", error)
