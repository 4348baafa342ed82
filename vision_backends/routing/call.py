"""The records that a call is made of: its inputs, its rungs, and the turn of one rung.

This module decides what is known of a call while it runs. It must not know how a rung is asked, nor what its answer
means.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vision_backends.errors import SpaceUnavailableError
from vision_backends.types import Description, Detections, Embedding, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Model, Request
    from vision_backends.clock import Deadline
    from vision_backends.errors import BackendError, VisionError
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.health.policy import Scope
    from vision_backends.images import Image, ImageSource
    from vision_backends.images.image import Opening
    from vision_backends.images.several import Images, SeveralOpenings
    from vision_backends.routing.places import ListPlaces
    from vision_backends.types import Attempt

__all__ = ["Answer", "Call", "Item", "Rung", "Turn"]

Answer = Description | Embedding | Detections | Reply


@dataclass(slots=True)
class Item:
    """One input on its way down: what was tried for it, and how it ended.

    Attributes:
        source: As the caller gave it; for a question, a tuple of its images.
        names: Paths or names of its images, as the caller gave them, None for those that have none; of a text nothing.
        content: The opened image, those of a question, or the text; None until it is opened, and when it is settled.
        opening: An image that was read and not yet decoded.
        keys: Its cache key for each rung that may answer, by the rung's name.
        recalled: Cached answers that no better rung's would beat, as they are kept, by the rung's name.
        attempts: What was tried, in order.
        answer: The answer, once there is one.
        revision: The revision of the model that gave it.
        error: Why nobody can be asked: what the caller did wrong, or an input that was not read in time.
        notes: What is wrong with it although it can be asked about.
        position: Where a file stood when it was opened first.
        opened_bytes: How much memory its content has taken.
        elapsed_s: Seconds that were spent on it.
        opening_s: Seconds of them that it took to open.
    """

    source: ImageSource | tuple[ImageSource, ...] | str
    names: tuple[str | None, ...] = ()
    content: Image | Images | str | None = None
    opening: Opening | SeveralOpenings | None = None
    keys: dict[str, str] = field(default_factory=dict)
    recalled: dict[str, bytes] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    answer: Answer | None = None
    revision: str | None = None
    error: VisionError | None = None
    notes: tuple[str, ...] = ()
    position: int | None = None
    opened_bytes: int = 0
    elapsed_s: float = 0.0
    opening_s: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether no rung needs to be asked any more."""
        return self.answer is not None or self.error is not None

    @property
    def opened(self) -> Image | Images | str:
        """The content, once it has been opened."""
        if self.content is None:
            raise AssertionError("An item is opened before it walks.")
        return self.content

    @property
    def digest(self) -> str:
        """Hash of the content, for the cache."""
        content = self.opened
        if isinstance(content, str):
            return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        return content.digest

    def close(self) -> None:
        """Let go of the content, and give back the room that it takes: an error that is kept may still refer to it."""
        if self.content is not None and not isinstance(self.content, str):
            self.content.leave_room()
        self.content = self.opening = None

    def twin(self) -> Item:
        """Return the same opened input with an account of its own."""
        return Item(
            source=self.source,
            content=self.content,
            keys=self.keys,
            recalled=self.recalled,
            opening_s=self.opening_s,
        )

    def adopt(self, *twins: Item) -> None:
        """Take over what was tried for twins, and how the last of them ended."""
        for twin in twins:
            self.attempts += twin.attempts
            self.answer, self.revision, self.error = twin.answer, twin.revision, twin.error

    def forget_skipped(self) -> None:
        """Strike from the account the rungs that were not asked; they get another chance."""
        self.attempts = [attempt for attempt in self.attempts if attempt.outcome != "skipped"]

    def discard(self, reason: str) -> None:
        """Take back an answer that may not be used after all; what it cost stays on the account."""
        if self.answer is not None:
            *before, last = self.attempts
            kind = SpaceUnavailableError.kind
            self.attempts = [*before, replace(last, outcome="failed", error=kind, message=reason)]
            self.answer = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One backend as it stands for one request, before anybody is asked.

    Attributes:
        backend: The backend.
        scope: What a blocked gate applies to.
        model: What would answer; None when the backend has no model for this.
        refusal: Why it cannot be asked, in its own words; None when it can. Blocked gates come on top.
    """

    backend: Backend
    scope: Scope
    model: Model | None
    refusal: BackendError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one call asks of every rung.

    Attributes:
        request: What is asked of each item.
        gates: What the gates of the rungs were when the call began.
        deadline: When to stop.
        each_s: Seconds that one rung may spend on each item; a long list shall not wait for one that hangs.
        on_settled: Told which items have just been settled.
        on_admitted: Told when the first rung has been let in, where anybody waits for that.
        places: How many calls of the list, that this one is a part of, may be under way at each rung; None for a call
            of its own.
    """

    request: Request
    gates: GateSnapshot
    deadline: Deadline
    each_s: float
    on_settled: Callable[[Sequence[Item]], None] = lambda _items: None
    on_admitted: Callable[[], None] | None = None
    places: ListPlaces | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One rung's turn in a call.

    Attributes:
        rung: Who is asked.
        place: Its place on the ladder.
        call: What is asked.
        spare: The next rung that could be asked; None when this is the last one.
        last: The last rung that could be asked; None when this is it.
        kept_s: Seconds of the deadline that are kept back for these two.
    """

    rung: Rung
    place: int
    call: Call
    spare: Rung | None
    last: Rung | None
    kept_s: float

    def timeout_s(self, items: Sequence[Item]) -> float:
        """Return the seconds that the rung is given now for some items."""
        return min(self.call.deadline.share(self.kept_s), self.call.each_s * len(items))
