"""States that never hold up a call: while their store is away they change in memory, and in the store when it is back.

This module decides what stands in for a state that cannot be read or written now, and which changes are made up for
later. It must not know how long a store is waited for, nor what the texts mean. A store that does not block is used as
it is.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from vision_backends.storage.base import StoreClosedError, StoreError
from vision_backends.storage.guard import Guard
from vision_backends.storage.write_behind import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vision_backends.storage.base import States
    from vision_backends.storage.guard import Threads

__all__ = ["GuardedStates"]

T = TypeVar("T")

MAX_PENDING_CHANGES = 10_000
"""Changes of states that are kept for a store that is away; more are lost, which the log says."""

_log = logging.getLogger(__name__)


class GuardedStates(Guard):
    """States, or their shadow while they cannot be read or written.

    The shadow of a state is what it was when it was last read or written, with every change of this process since.
    """

    def __init__(self, states: States, threads: Threads | None = None) -> None:
        self._states = states
        self._read_together = getattr(states, "read_many", None)
        super().__init__(states, threads)

    @classmethod
    def of(cls, states: States | GuardedStates) -> GuardedStates:
        """Return guarded states, those that are guarded as they are."""
        return states if isinstance(states, GuardedStates) else cls(states)

    def begin(self) -> None:
        """Do as every guard."""
        super().begin()
        self._last: dict[str, str | None] = {}
        self._shadow: dict[str, str | None] = {}
        self._pending: dict[str, int] = {}

    @property
    def trouble(self) -> StoreError | None:
        """Why no state can be kept now; None when they can, as far as is known."""
        return (self._writer.trouble or self._reader.trouble) if self.blocking else None

    def read(self, key: str) -> str | None:
        """Return a state, or None."""
        return self.read_many([key])[key]

    def read_many(self, keys: Sequence[str]) -> Mapping[str, str | None]:
        """Return some states, in one go."""
        if not self.blocking:
            return self._read(keys)
        with self._lock:
            known = {key: self._shadow[key] for key in keys if key in self._shadow}
        asked = [key for key in keys if key not in known]
        if not asked:
            return known
        try:
            found: Mapping[str, str | None] = self._reader.ask(partial(self._read, asked))
        except StoreError:
            with self._lock:
                return known | {key: self._last.get(key) for key in asked}
        with self._lock:
            for key in asked:
                self._last[key] = found[key]
        return {**known, **found}

    def _read(self, keys: Sequence[str]) -> Mapping[str, str | None]:
        return (
            {key: self._states.read(key) for key in keys} if self._read_together is None else self._read_together(keys)
        )

    def all(self, prefix: str = "") -> Mapping[str, str]:
        """Return all states whose keys begin with ``prefix``."""
        if not self.blocking:
            return self._states.all(prefix)
        try:
            found: dict[str, str | None] = dict(self._reader.ask(lambda: self._states.all(prefix)))
        except StoreError:
            with self._lock:
                found = dict(self._last)
        with self._lock:
            found |= self._shadow
        return {key: text for key, text in found.items() if text is not None and key.startswith(prefix)}

    def update(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Replace a state, or its shadow now and the state itself later; ``change`` is then called once more."""
        if not self.blocking:
            return self._states.update(key, change)
        job = _Change(self, key, change)
        with self._lock:
            is_kept = sum(self._pending.values()) < MAX_PENDING_CHANGES
        if is_kept:
            self._writer.put(job)
            if self._writer.wait(job):
                return job.value
        else:
            self._overflows("changes of states")
            job.is_lost = True
        return self._in_shadow(job)

    def update_now(
        self,
        key: str,
        change: Callable[[str | None], tuple[str | None, T]],
        *,
        on_made: Callable[[T], object] | None = None,
        on_late: Callable[[T], object] | None = None,
    ) -> T:
        """Replace a state itself, or not at all.

        Args:
            key: Name of the state.
            change: As for `update`.
            on_made: Called with the value when it was replaced, before anything else is written.
            on_late: Called with it as well in case the error was raised before.

        Raises:
            StoreError: It could not be replaced in the time that the call has.
        """
        if not self.blocking:
            value = self._states.update(key, change)
            if on_made is not None:
                on_made(value)
            return value
        trouble = self._writer.trouble
        if trouble is not None and self._writer.is_away:
            raise StoreError(trouble.message, remedy=trouble.remedy) from trouble
        job = _Change(self, key, change, lasts=False, on_made=on_made)
        self._writer.put(job)
        try:
            is_done = self._writer.wait(job, is_probe=True)
        except StoreError:
            raise
        except BaseException:
            if self._give_up(job, on_late) and on_late is not None:
                on_late(job.value)
            raise
        if not is_done and not self._give_up(job, on_late):
            raise self._writer.trouble or StoreClosedError("The store is closed.")
        return job.value

    def update_later(
        self,
        key: str,
        change: Callable[[str | None], tuple[str | None, T]],
        *,
        on_made: Callable[[T], object] | None = None,
        on_lost: Callable[[], object] | None = None,
        waits: bool = False,
    ) -> None:
        """Replace a state when that can be done, without a shadow until then.

        Args:
            key: Name of the state.
            change: As for `update`.
            on_made: As for `update_now`.
            on_lost: Called when it is not tried any more although it was not replaced.
            waits: Whether that is waited for in the time that the call has.
        """
        job = _Change(self, key, change, on_made=on_made, on_lost=on_lost)
        if not self.blocking:
            self.make(job)
            return
        self._writer.put(job)
        if waits:
            with suppress(StoreError):
                self._writer.wait(job)

    def close(self) -> None:
        """Close the states."""
        self._states.close()

    def _give_up(self, job: _Change[T], on_late: Callable[[T], object] | None) -> bool:
        """Return whether a change that is not waited for any more has been made in this very moment."""
        if self._writer.withdraw(job):
            return False
        with self._lock:
            if not job.is_made:
                job.on_late = on_late
            return job.is_made

    def _in_shadow(self, job: _Change[T]) -> T:
        """Make a change in the shadow, until it is made in the state; one that never will be is soon forgotten."""
        with self._lock:
            if job.is_made:
                return job.value
            key = job.key
            new, value = job.change(self._shadow[key] if key in self._shadow else self._last.get(key))
            if not job.is_lost:
                self._pending[key] = self._pending.get(key, 0) + 1
                job.is_in_shadow = True
            if key in self._pending:
                self._shadow[key] = new
            return value

    def _leave_shadow(self, job: _Change[T]) -> None:
        if job.is_in_shadow:
            self._pending[job.key] -= 1
            if not self._pending[job.key]:
                del self._pending[job.key], self._shadow[job.key]

    def make(self, job: _Change[T]) -> None:
        """Make a change in the state; in the writer's thread."""
        made: list[str | None] = []

        def change(text: str | None) -> tuple[str | None, T]:
            new, value = job.change(text)
            made[:] = [new]
            return new, value

        value = self._states.update(job.key, change)
        with self._lock:
            job.value, job.is_made = value, True
            self._last[job.key] = made[0]
            self._leave_shadow(job)
            callbacks = job.on_made, job.on_late
        for callback in callbacks:
            if callback is not None:
                try:
                    callback(value)
                except Exception:  # noqa: BLE001 — the change is made, and must not be made twice
                    _log.exception("A change of a state has had a consequence that failed.")

    def lose(self, job: _Change[T]) -> None:
        """Forget a change that is not tried any more; in the writer's thread."""
        with self._lock:
            job.is_lost = True
            self._leave_shadow(job)
        if job.on_given_up is not None:
            job.on_given_up()


class _Change(Job, Generic[T]):
    """A change of one state."""

    __slots__ = ("change", "is_in_shadow", "is_lost", "is_made", "key", "on_given_up", "on_late", "on_made", "value")

    value: T

    def __init__(
        self,
        states: GuardedStates,
        key: str,
        change: Callable[[str | None], tuple[str | None, T]],
        *,
        lasts: bool = True,
        on_made: Callable[[T], object] | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> None:
        write, lose = partial(states.make, self), partial(states.lose, self)
        super().__init__(write, what="changes of states", lasts=lasts, on_lost=lose)
        self.key = key
        self.change = change
        self.is_made = self.is_in_shadow = self.is_lost = False
        self.on_made = on_made
        self.on_given_up = on_lost
        self.on_late: Callable[[T], object] | None = None
