"""What a caller says beside the question itself: who may answer, how fast, and how patiently.

This module decides which backends such options leave, and that they make sense. It must not know what is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from vision_backends.arguments import check_flag, check_number, check_text
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.types import Task

__all__ = ["CallKeywords", "CallOptions", "ChoiceKeywords", "Priority", "positive_seconds"]

Priority = Literal["interactive", "batch"]
"""Whether the answer is waited for now, or may come later if that gives a better one."""

USUAL_PATIENCE_S = 600.0


class ChoiceKeywords(TypedDict, total=False):
    """The keywords by which a caller chooses who may answer, and how fast.

    Attributes:
        backend: Ask only this rung.
        local_only: Ask only backends that keep the input on this machine.
        deadline_s: Seconds for the call, instead of the router's for each input.
    """

    backend: str | None
    local_only: bool
    deadline_s: float | None


class CallKeywords(ChoiceKeywords, total=False):
    """The keywords that every call takes.

    Attributes:
        priority: ``"batch"`` waits for a rate limit, an empty account or an outage to pass, first come first served,
            instead of taking the next rung; ``"interactive"`` never stands behind those who wait.
        max_wait_s: Seconds that a batch call waits at most, on top of the deadline; 600 by default.
    """

    priority: Priority
    max_wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """`CallKeywords` with their defaults, checked.

    Raises:
        InvalidRequestError: A value has no meaning.
    """

    backend: str | None = None
    local_only: bool = False
    deadline_s: float | None = None
    priority: Priority = "interactive"
    max_wait_s: float | None = None

    @classmethod
    def of(cls, keywords: Mapping[str, Any], allowed: type[ChoiceKeywords]) -> Self:
        """Return the options that a method was called with.

        Args:
            keywords: What it was given beside its own parameters.
            allowed: The keywords that it takes.

        Raises:
            TypeError: There is no such option.
            InvalidRequestError: A value has no meaning.
        """
        names = sorted(allowed.__annotations__)
        for name in keywords:
            if name not in names:
                raise TypeError(f"There is no option {name!r} here; the options are: {', '.join(names)}.")
        return cls(**keywords)

    def __post_init__(self) -> None:
        check_text("backend", self.backend, example='"embedded"')
        check_flag("local_only", self.local_only)
        check_number("max_wait_s", self.max_wait_s, example=600)
        if self.deadline_s is not None:
            positive_seconds(self.deadline_s)
        if self.priority not in ("interactive", "batch"):
            raise InvalidRequestError(
                f"priority={self.priority!r} is neither 'interactive' nor 'batch'.", remedy="Pass one of them."
            )
        if self.max_wait_s is not None and self.priority != "batch":
            raise InvalidRequestError(
                f"max_wait_s={self.max_wait_s} has no effect on an interactive call.",
                remedy="Only priority='batch' waits.",
            )
        if self.max_wait_s is not None and not self.max_wait_s >= 0:
            message = f"max_wait_s={self.max_wait_s} is not a time."
            raise InvalidRequestError(message, remedy="Pass seconds, such as max_wait_s=600.")

    @property
    def patience_s(self) -> float | None:
        """Seconds to wait for a better rung; None to take the next one immediately."""
        if self.priority == "interactive":
            return None
        return USUAL_PATIENCE_S if self.max_wait_s is None else self.max_wait_s

    def choose(self, ladder: Sequence[Backend], task: Task) -> Sequence[Backend]:
        """Return the backends that are left of a ladder.

        Raises:
            InvalidRequestError: None is.
        """
        names = ", ".join(rung.name for rung in ladder)
        if self.backend is not None:
            ladder = [rung for rung in ladder if rung.name == self.backend]
            if not ladder:
                raise InvalidRequestError(
                    f"There is no backend {self.backend!r} on the ladder for {task}.",
                    remedy=f"The ladder has: {names}.",
                )
        if self.local_only and ladder:
            ladder = [rung for rung in ladder if rung.is_private]
            if not ladder:
                raise InvalidRequestError(
                    f"local_only leaves no backend: {self.backend or names} would send the input to another machine.",
                    remedy="Put 'embedded' or 'local' on the ladder, or a server on this machine with private = true.",
                )
        return ladder


def positive_seconds(deadline_s: float) -> float:
    """Return a deadline.

    Raises:
        InvalidRequestError: It is not positive, or no number.
    """
    check_number("deadline_s", deadline_s, example=5, optional=False)
    if not deadline_s > 0:
        message = f"deadline_s={deadline_s} leaves no time for an answer."
        raise InvalidRequestError(message, remedy="Pass seconds, such as deadline_s=5.")
    return deadline_s
