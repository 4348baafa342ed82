"""An hour in the life of a service, played in seconds: what the upper server does when.

Twelve minutes all is well. Twelve minutes the server admits callers for one minute in three, and tells the others when
to come back. Twelve minutes the account is empty. Then it is topped up.

This module decides how long each part lasts. It must not know who calls it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CALLS_PER_S", "LOWER", "UPPER", "Scenario", "Stretch", "cost_usd", "who_said"]

PLAYED_S = 3600.0

MINUTES = {"healthy": 12, "rate limits": 12, "quota gone": 12, "recovery": 24}

CALLS_PER_S = 5.0
"""A third of what the embedded rung answers on two idle cores, so that what is measured is who answers, not a queue."""

WINDOWS = 4
OPEN_SHARE = 1 / 3
HINTS = 4
"""How often, while a window is closed, the server brings its "retry after" up to date."""

SERVICE_S = 0.15
"""Until a server answers: a tenth of what a hosted model takes, since the day is short as well."""

INPUT_TOKENS, OUTPUT_TOKENS = 1_100, 60
INPUT_USD, OUTPUT_USD = 0.10e-6, 0.50e-6
"""What an answer takes, and a token costs, of a small hosted model: an assumption, the same for everybody."""

SIGNED = "{}: a ramp of greys"
"""What a server answers; some libraries hand it on with something around it."""

UPPER, LOWER, EMBEDDED, NOBODY = "openai", "second server", "embedded", "nobody"


class Stretch(NamedTuple):
    """One part of the day."""

    name: str
    starts_s: float
    ends_s: float


class Turn(NamedTuple):
    """From when on the upper server plays something else."""

    at_s: float
    fault: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The day as it is played.

    Attributes:
        day_s: How long it takes.
    """

    day_s: float

    @property
    def speed(self) -> float:
        """How much faster it passes than the hour that it stands for."""
        return PLAYED_S / self.day_s

    @property
    def stretches(self) -> list[Stretch]:
        """The parts of the day in order."""
        ends_s = [minutes * 60 / self.speed for minutes in accumulate(MINUTES.values())]
        return [Stretch(*each) for each in zip(MINUTES, [0.0, *ends_s], ends_s, strict=False)]

    def turns(self, *, is_fast: bool) -> Iterator[Turn]:
        """Yield what the upper server plays, in order.

        Args:
            is_fast: Whether the caller's clock runs as fast as the day: then it is told the seconds of that clock.
        """
        well, limited, empty, paid = self.stretches
        yield Turn(well.starts_s, answer_of(UPPER))
        window_s = (limited.ends_s - limited.starts_s) / WINDOWS
        for opens_s in (limited.starts_s + place * window_s for place in range(WINDOWS)):
            yield Turn(opens_s, answer_of(UPPER))
            closed_s = window_s * (1 - OPEN_SHARE)
            for hint in range(HINTS):
                left_s = closed_s * (1 - hint / HINTS)
                yield Turn(opens_s + window_s - left_s, _refusal(left_s * (self.speed if is_fast else 1.0)))
        yield Turn(empty.starts_s, {"name": "quota_gone"})
        yield Turn(paid.starts_s, answer_of(UPPER))


def answer_of(server: str) -> dict[str, Any]:
    """Return what a server plays that answers, and says which one it is."""
    message = {"role": "assistant", "content": SIGNED.format(server)}
    total = INPUT_TOKENS + OUTPUT_TOKENS
    body = {
        "id": "chatcmpl-day",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-sandbox",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": total},
    }
    return {"name": "healthy", "status": 200, "body": body, "delay_s": SERVICE_S}


def who_said(text: str) -> str:
    """Return who has answered with a text."""
    return next((server for server in (UPPER, LOWER) if SIGNED.format(server) in text), EMBEDDED)


def cost_usd(answered_by: dict[str, int]) -> float:
    """Return what answers cost, by the number of those that each has given."""
    each_usd = INPUT_TOKENS * INPUT_USD + OUTPUT_TOKENS * OUTPUT_USD
    return each_usd * sum(answered_by.get(server, 0) for server in (UPPER, LOWER))


def _refusal(retry_after_s: float) -> dict[str, Any]:
    """Return what a server plays that has had too many callers; like the real one, it rounds up to whole seconds."""
    headers = {"retry-after": str(math.ceil(retry_after_s)), "retry-after-ms": str(math.ceil(retry_after_s * 1000))}
    return {"name": "rate_limited", "headers": headers}
