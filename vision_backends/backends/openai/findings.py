"""What was found out about a model of a server: whether it sees, and under which identity it was asked.

This module decides how a finding is kept beside what the server refuses, how long it is believed without another look,
and what a person reads of it. It must not know how a finding comes about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vision_backends.clock import Clock
    from vision_backends.storage.notes import Notes

__all__ = ["Finding", "Findings", "Sight", "day_of"]

Sight = Literal["sees", "blind", "unclear"]
"""Whether a model sees images; ``"unclear"`` where it was asked and its answers say neither."""

SIGHT, IDENTITY = "sight", "identity"
"""Names of the notes about a model."""

KEPT_S = 7 * 86_400.0
"""As long as notes are kept: after a week a server is asked again."""

REREAD_S = 60.0
"""How long it is believed that a model is blind before it is read again: another process may have reset that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about one model.

    Attributes:
        sight: Whether it sees images.
        at: When that was found, in seconds since 1970 UTC.
        read_at: When it was read, by the monotonic clock.
        identity: Which weights they were, as the server tells; empty where it does not.
    """

    sight: Sight
    at: float
    read_at: float
    identity: str = ""

    @property
    def day(self) -> str:
        """The day on which it was found, in UTC."""
        return day_of(self.at)


def day_of(at: float) -> str:
    """Return the day of a time in UTC, as ``2026-11-23``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


class Findings:
    """The findings about the models of one server. Safe for many threads.

    Args:
        server: Where its API begins.
        clock: Where time comes from.

    Attributes:
        known: What is known in this process, by the name of the model.
        blind: Those of them that see no images.
        notes: Where findings are kept for other processes; None keeps them here only.
    """

    def __init__(self, server: str, *, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self.known: dict[str, Finding] = {}
        self.blind: set[str] = set()
        self.notes: Notes | None = None

    def about(self, model: str) -> Finding | None:
        """Return what is known of a model, if it need not be read again; asks no store."""
        finding = self.known.get(model)
        if finding is None or self._clock.time() - finding.at > KEPT_S:
            return None
        is_old = finding.sight == "blind" and self._clock.monotonic() - finding.read_at >= REREAD_S
        return None if is_old else finding

    def recall(self, model: str) -> Finding | None:
        """Return what any process has found out about a model; may read the store."""
        if self.notes is not None:
            noted = self.notes.dated(self._subject(model))
            sight, at = noted.get(SIGHT, (None, 0.0))
            identity = str(noted.get(IDENTITY, ("", 0.0))[0])
            if sight in {"sees", "blind", "unclear"}:
                self._take_up(model, sight, at=at, identity=identity)
            else:
                self.forget(model)
        return self.about(model)

    def note(self, model: str, sight: Sight, *, identity: str = "") -> None:
        """Keep a finding; may write to the store."""
        self._take_up(model, sight, at=self._clock.time(), identity=identity)
        if self.notes is not None:
            self.notes.note(self._subject(model), {SIGHT: sight, IDENTITY: identity})

    def forget(self, model: str | None = None) -> None:
        """Forget in this process what is known of a model, or of all."""
        for each in [model] if model is not None else list(self.known):
            self.known.pop(each, None)
            self.blind.discard(each)

    def _take_up(self, model: str, sight: Sight, *, at: float, identity: str) -> None:
        finding = Finding(sight=sight, at=at, read_at=self._clock.monotonic(), identity=identity)
        self.known[model] = finding
        if sight == "blind":
            self.blind.add(model)
        else:
            self.blind.discard(model)

    def _subject(self, model: str) -> str:
        return f"model {model} at {self._server}"
