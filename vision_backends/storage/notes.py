"""What a backend has learned and would rather not learn again: kept for a week, and shared by processes.

This module decides how long a note is believed and where it lies. It must not know what notes mean.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.clock import Clock
    from vision_backends.storage.base import States
    from vision_backends.storage.guarded_states import GuardedStates

__all__ = ["Notes"]

PREFIX = "notes/"

KEPT_S = 7 * 86_400.0
"""Servers learn too: after a week they are asked again."""

REREAD_S = 60.0
"""How long what was read is used before other processes' notes are looked for."""

_log = logging.getLogger(__name__)


class Notes:
    """The notes of one backend, by subject and name. Safe for many threads; its methods may block.

    Args:
        states: Where they lie.
        owner: Name of the backend.
        clock: Where time comes from.
    """

    def __init__(self, states: States | GuardedStates, *, owner: str, clock: Clock) -> None:
        self._states = states
        self._prefix = f"{PREFIX}{owner}/"
        self._clock = clock
        self._read: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def about(self, subject: str) -> Mapping[str, Any]:
        """Return what is noted about a subject: values by their names, in the order in which they were noted."""
        now = self._clock.monotonic()
        read_at, notes = self._read.get(subject, (-REREAD_S, {}))
        if now - read_at >= REREAD_S:
            try:
                notes = self._valid(self._states.read(self._prefix + subject))
            except OSError as error:
                _log.warning("What was learned about %s cannot be read: %s", subject, error)
            self._read[subject] = (now, notes)
        return notes

    def is_at_hand(self, subject: str) -> bool:
        """Return whether `about` knows without reading anything."""
        read_at, _ = self._read.get(subject, (-REREAD_S, {}))
        return self._clock.monotonic() - read_at < REREAD_S

    def dated(self, subject: str) -> dict[str, tuple[Any, float]]:
        """Return what is noted about a subject now, each value with the time at which it was noted; always reads."""
        now = self._clock.time()
        try:
            noted = _parsed(self._states.read(self._prefix + subject))
        except OSError as error:
            _log.warning("What was learned about %s cannot be read: %s", subject, error)
            return {}
        return {name: (value, at) for name, (value, at) in noted.items() if abs(now - at) <= KEPT_S}

    def note(self, subject: str, values: Mapping[str, Any]) -> None:
        """Note JSON-able values about a subject beside those that stand there."""
        at = self._clock.time()

        def change(text: str | None) -> tuple[str | None, None]:
            kept = _parsed(text) | {name: [value, at] for name, value in values.items()}
            return json.dumps(kept, separators=(",", ":")), None

        self._read[subject] = (self._clock.monotonic(), {**self.about(subject), **values})
        try:
            self._states.update(self._prefix + subject, change)
        except OSError as error:
            _log.warning("What was learned about %s cannot be kept: %s", subject, error)

    def all(self) -> dict[str, Mapping[str, Any]]:
        """Return what is noted, by subject."""
        try:
            texts = self._states.all(self._prefix)
        except OSError:
            return {subject: notes for subject, (_, notes) in self._read.items() if notes}
        noted = {key.removeprefix(self._prefix): self._valid(text) for key, text in texts.items()}
        return {subject: notes for subject, notes in noted.items() if notes}

    def forget(self) -> None:
        """Forget everything."""
        self._read.clear()
        try:
            for key in self._states.all(self._prefix):
                self._states.update(key, lambda _text: (None, None))
        except OSError as error:
            _log.warning("What was learned cannot be forgotten: %s", error)

    def _valid(self, text: str | None) -> Mapping[str, Any]:
        now = self._clock.time()
        return {name: value for name, (value, at) in _parsed(text).items() if abs(now - at) <= KEPT_S}


def _parsed(text: str | None) -> dict[str, list[Any]]:
    """Return notes with the times at which they were taken; none if they cannot be read."""
    try:
        noted = json.loads(text or "{}")
        return {str(name): [value, float(at)] for name, (value, at) in noted.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
