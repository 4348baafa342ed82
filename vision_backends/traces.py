"""The account of an answer: who was asked, what it took, how it ended.

This module decides the shape of these records. It must not know the answers themselves, nor how any is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from vision_backends.serialization import Record, VersionedRecord

__all__ = [
    "FREE",
    "TASKS",
    "UNTRACED",
    "Attempt",
    "Outcome",
    "ProbeReport",
    "Purpose",
    "Task",
    "Timing",
    "Trace",
    "Usage",
]

Task = Literal["describe", "embed", "embed_text", "detect", "ask"]
"""What can be asked of a backend."""

TASKS: tuple[Task, ...] = ("describe", "embed", "embed_text", "detect")
"""The tasks that every ladder has; ``ask`` goes down that of ``describe`` to the rungs that follow instructions."""

Purpose = Literal["describe", "embed", "embed_text", "detect", "ask", "probe"]
"""What a backend is asked for, as the ledger has it: a task of the user's, or finding out what its server can do."""

Outcome = Literal["answered", "cached", "failed", "skipped"]
"""How one attempt ended; ``skipped`` means that the backend was not asked at all."""


MAX_TOKENS = 10**12
MAX_USD = 1e9
"""More than the whole world asks in a day: a count beyond is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Record):
    """What an answer consumed; ``None`` means unknown, never 0.

    Numbers that nobody can have consumed, such as negative ones or NaN, become unknown.

    Attributes:
        input_tokens: Billed tokens sent.
        output_tokens: Billed tokens received.
        cost_usd: Money in US dollars.

    Examples:
        >>> from vision_backends import Usage
        >>> Usage(input_tokens=100, output_tokens=20) + Usage(input_tokens=10, output_tokens=2)
        Usage(input_tokens=110, output_tokens=22, cost_usd=None)
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def __post_init__(self) -> None:
        for name, most in (("input_tokens", MAX_TOKENS), ("output_tokens", MAX_TOKENS), ("cost_usd", MAX_USD)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                object.__setattr__(self, name, None)

    def __add__(self, other: Usage) -> Usage:
        """Add two usages; what is unknown in either is unknown in the sum."""
        return Usage(
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cost_usd=_sum(self.cost_usd, other.cost_usd),
        )


FREE = Usage(input_tokens=0, output_tokens=0, cost_usd=0.0)
"""The usage of a backend that costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Record):
    """The outcome of asking, or of not asking, one rung.

    Attributes:
        backend: Name of the backend.
        outcome: How it ended.
        model: The model that was or would have been asked.
        error: Kind of the error, such as ``"quota_exhausted"`` (see ``VisionError.kind``); None on success.
        message: What happened, in a sentence.
        remedy: What the reader can do about it.
        code: The provider's own error code.
        status: HTTP status.
        request_id: The provider's id of the request.
        at: When it ended, in seconds since 1970 UTC.
        elapsed_s: Seconds spent on this attempt.
        usage: What it consumed; a failed attempt may have been billed, and its cost is then unknown (None).
        retry_after_s: Seconds after which the rung may be asked again, where that is known.

    Examples:
        >>> from vision_backends.testing import FakeBackend
        >>> with Router([FakeBackend("best", tasks=["describe"]), FakeBackend("last")]) as ladder:
        ...     for attempt in ladder.describe("cat.jpg").trace.attempts:
        ...         print(attempt.backend, attempt.outcome, attempt.error)
        best answered None
    """

    backend: str
    outcome: Outcome
    model: str | None = None
    error: str | None = None
    message: str | None = None
    remedy: str | None = None
    code: str | None = None
    status: int | None = None
    request_id: str | None = None
    at: float = 0.0
    elapsed_s: float = 0.0
    usage: Usage = FREE
    retry_after_s: float | None = None

    @property
    def is_miss(self) -> bool:
        """Whether the rung should have answered and has not; one that cannot do it at all is not even asked."""
        return self.error is not None and not (self.outcome == "skipped" and self.error == "not_supported")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport(VersionedRecord):
    """What was found out about a model of a server.

    Attributes:
        model: The model that looks at images.
        sees: Whether it does; None where its answers say neither.
        at: When that was found out, in seconds since 1970 UTC.
        follows_schemas: Whether it answers in JSON that follows a schema without being told so in words; None where
            that is not known.
        refuses: The fields of requests that the server refuses, or does not follow.
        questions: How many questions were asked for it now; 0 for what was known before.
        usage: What they have consumed.
    """

    model: str
    sees: bool | None
    at: float
    follows_schemas: bool | None = None
    refuses: tuple[str, ...] = ()
    questions: int = 0
    usage: Usage = FREE

    def __str__(self) -> str:
        sight = "answers neither like one that sees images nor like one that does not"
        if self.sees is not None:
            sight = "sees images" if self.sees else "sees no images"
        day = f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d}"
        parts = [f"{self.model} {sight} (found out on {day})"]
        if self.follows_schemas is not None:
            parts.append("follows JSON schemas" if self.follows_schemas else "is asked for JSON in words")
        if self.refuses:
            parts.append(f"its server refuses {', '.join(self.refuses)}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(Record):
    """Where the time of an answer went, as far as it was measured; ``None`` means unknown, never 0.

    Time that the inputs of one batch shared counts in full for each of them. Parts may overlap, and some time belongs
    to none, such as loading a model: their sum is not the elapsed time.

    Attributes:
        decode_s: Seconds from the file to what the model or the server takes: reading, decoding, scaling, encoding.
        queue_s: Seconds spent waiting for other callers of the same model.
        model_s: Seconds of computing on this machine.
        wire_s: Seconds from sending requests to having read the replies.
    """

    decode_s: float | None = None
    queue_s: float | None = None
    model_s: float | None = None
    wire_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(VersionedRecord):
    """Who gave an answer, and what it took to get it.

    A backend fills in ``model``, ``revision``, ``usage``, ``flawed_boxes``, ``timing`` and ``notes`` of its own; the
    router fills in the rest.

    Attributes:
        backend: Name of the backend that answered.
        model: The model that answered.
        revision: The exact version of that model, where it has one, or what the server calls the model that answered.
        degraded: True when a better rung could have been asked for this but did not answer.
        reason: Why it is degraded, in one line; None when it is not.
        cached: True when the answer came from the cache.
        attempts: Every rung that was considered, best first; the last one answered.
        usage: What this answer cost, failed attempts included; a cached answer costs nothing.
        elapsed_s: Seconds from the call to the answer.
        flawed_boxes: How many boxes of the reply were mended or left out, because they were inside out, outside of the
            image, of a label that was not asked for, or no boxes at all.
        notes: What was wrong with the input although it was answered, in a sentence each: a little of an image was
            missing, or it was wholly transparent; a text was cut off.
        timing: Where the time of the attempt that answered went; None for a cached answer, and where the backend
            does not measure it. It is ignored when traces are compared.

    Examples:
        >>> trace = router.describe("cat.jpg").trace
        >>> trace.backend, trace.degraded, [(attempt.backend, attempt.outcome) for attempt in trace.attempts]
        ('embedded', False, [('embedded', '...')])
    """

    backend: str = ""
    model: str | None = None
    revision: str | None = None
    degraded: bool = False
    reason: str | None = None
    cached: bool = False
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = Usage()
    elapsed_s: float = 0.0
    flawed_boxes: int = 0
    notes: tuple[str, ...] = ()
    timing: Timing | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        said = [self.backend, self.model, "degraded" if self.degraded else None, "cached" if self.cached else None]
        count = len(self.attempts)
        said += [f"{count} attempt{'' if count == 1 else 's'}", f"{self.elapsed_s:.2g} s"] if self.backend else []
        return f"<Trace{': ' if self.backend else ''}{', '.join(each for each in said if each)}>"


UNTRACED = Trace()
"""The trace of an answer that no router has given."""


def _sum(a: float | None, b: float | None) -> Any:  # noqa: ANN401 — int stays int, float stays float
    return None if a is None or b is None else a + b
