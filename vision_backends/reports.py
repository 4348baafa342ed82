"""What the router reports about its ladder before any backend is asked: the state of each rung, and why.

This module decides the shape of `Router.explain`, `Router.status` and `Router.warm_up`. It must not know how a rung is
judged.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 — the same
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.serialization import Record, VersionedRecord, to_versioned
from vision_backends.traces import Task  # noqa: TC001 — `read_record` looks annotations up

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Explanation", "RungStatus", "Verdict", "WarmUp", "WarmUpReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """The state of one rung for one request, now.

    Attributes:
        backend: Name of the backend.
        ready: Whether it would be asked.
        model: The model that would answer; None when the backend has none for this.
        space: For embeddings, the vector space.
        spaces: For embeddings, all that may be asked for with ``space=``, that one first.
        error: Kind of the obstacle, such as ``"not_ready"``; None when ready.
        reason: The obstacle, in a sentence.
        remedy: What the reader can do about it.
        code: The backend's or provider's own code for it, such as ``"not_fetched"``.
        retry_after_s: Seconds until it may be asked again, where that is known.
        expected_s: Seconds that one call is expected to take.
        notes: What has been learned about asking it, in sentences: fields that its server refuses.
        unpriced: The models that would be asked and whose price is unknown, so that their cost is too.
    """

    backend: str
    ready: bool
    model: str | None = None
    space: str | None = None
    spaces: tuple[str, ...] = ()
    error: str | None = None
    reason: str | None = None
    remedy: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    expected_s: float | None = None
    notes: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(VersionedRecord):
    """What would happen if the task were asked now; ``str(explanation)`` is a small table.

    Attributes:
        task: What would be asked.
        verdicts: The state of each rung, best first.

    Examples:
        >>> explanation = router.explain("describe", prompt="What does the sign say?")
        >>> print(explanation.chosen)
        None
        >>> explanation.verdicts[0].error
        'not_supported'
    """

    task: Task
    verdicts: tuple[Verdict, ...]

    @property
    def chosen(self) -> str | None:
        """Name of the backend that would be asked first; None when no backend could answer."""
        return next((verdict.backend for verdict in self.verdicts if verdict.ready), None)

    def __str__(self) -> str:
        width = max((len(verdict.backend) for verdict in self.verdicts), default=0)
        rows = [f"{self.task}: {self.chosen or 'no backend'} would answer"]
        for verdict in self.verdicts:
            if verdict.ready:
                place = "answers" if verdict.backend == self.chosen else "stands by"
                took = f", about {verdict.expected_s:.2g} s" if verdict.expected_s is not None else ""
                rows.append(f"  {verdict.backend:<{width}}  {place}: {verdict.model}{took}")
            else:
                rows.append(f"  {verdict.backend:<{width}}  {verdict.error}: {verdict.reason}")
                rows += [f"  {'':<{width}}  → {verdict.remedy}"] if verdict.remedy else []
            rows += [f"  {'':<{width}}  space {space}" for space in verdict.spaces if verdict.ready]
            rows += [f"  {'':<{width}}  {note}" for note in verdict.notes]
            rows += [f"  {'':<{width}}  The price of {model} is unknown." for model in verdict.unpriced]
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values, with the backend that would be asked first."""
        return to_versioned(self) | {"chosen": self.chosen}


@dataclass(frozen=True, slots=True, kw_only=True)
class RungStatus(VersionedRecord):
    """One backend, and its state for each task that has it on its ladder.

    Attributes:
        backend: Name of the backend.
        local: Whether images stay on this machine.
        tasks: Its state for a plain request of each task.
        facts: What the backend reports about itself: loaded models, device, versions.

    Examples:
        >>> for rung in router.status():
        ...     print(rung.backend, rung.local, sorted(rung.tasks))
        embedded True ['describe', 'detect', 'embed', 'embed_text']
    """

    backend: str
    local: bool
    tasks: Mapping[Task, Verdict]
    facts: Mapping[str, Any]

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models that it would ask for some task and whose price is unknown."""
        return tuple(dict.fromkeys(model for verdict in self.tasks.values() for model in verdict.unpriced))


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp(Record):
    """How far one rung is ready for one task.

    Attributes:
        backend: Name of the backend.
        task: The task.
        state: ``"ready"``; ``"warming"`` while it is under way; ``"not_ready"`` when it could not be done.
        error: Kind of the obstacle, such as ``"not_supported"``.
        reason: The obstacle, in a sentence.
        remedy: What the reader can do about it.
        elapsed_s: Seconds that it took; None while it is under way.
    """

    backend: str
    task: Task
    state: Literal["ready", "warming", "not_ready"]
    error: str | None = None
    reason: str | None = None
    remedy: str | None = None
    elapsed_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpReport(VersionedRecord):
    """The result of `Router.warm_up`; ``str(report)`` is a small table, iterating gives each `WarmUp`.

    Attributes:
        warm_ups: One for each rung of each task, best first.

    Examples:
        >>> for each in router.warm_up(["detect", "embed"], wait_s=30):
        ...     print(each.backend, each.task, each.state)
        embedded detect ready
        embedded embed ready
    """

    warm_ups: tuple[WarmUp, ...]

    @property
    def done(self) -> bool:
        """Whether nothing is still under way."""
        return all(each.state != "warming" for each in self.warm_ups)

    def __iter__(self) -> Iterator[WarmUp]:
        return iter(self.warm_ups)

    def __str__(self) -> str:
        widths = [max((len(text) for text in column), default=0) for column in zip(*map(_cells, self), strict=True)]
        rows = []
        for each in self:
            named = "  ".join(f"{text:<{width}}" for text, width in zip(_cells(each), widths, strict=True))
            took = f", after {each.elapsed_s:.2g} s" if each.state == "ready" and each.elapsed_s is not None else ""
            rows.append(f"{named}  {each.error or each.state}{took}{f': {each.reason}' if each.reason else ''}")
            rows += [f"{' ' * (sum(widths) + 2)}  → {each.remedy}"] if each.remedy else []
        return "\n".join(rows)


def _cells(warm_up: WarmUp) -> tuple[str, str]:
    return warm_up.task, warm_up.backend
