"""One call amid chaos: what is asked, how long it took, how it ended, and what was recorded about it.

This module decides the mix of calls and what is logged of each, one line per call in a file, so that the records of a
run do not take up its memory. It must not know which faults are played, nor what the sums should be.
"""

from __future__ import annotations

import json
import random
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    CallerError,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    NotSupportedError,
    StreamInterruptedError,
    VisionError,
    open_image,
)
from vision_backends.observability.events import AttemptEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vision_backends import Attempt, Request, Router

__all__ = ["Caller", "Question", "make_question"]

DEADLINES_S = (0.3, 0.6, 1.2, 2.4)

METHODS = ("describe",) * 4 + ("detect",) * 2 + ("embed", "embed", "embed_text", "describe_stream")

SIZE = (64, 48)

_heard: ContextVar[list[AttemptEvent] | None] = ContextVar("what the call of this context has been told", default=None)


@dataclass(frozen=True, slots=True)
class Question:
    """One call to be made.

    Attributes:
        number: Its number, which is the colour of its image or in its text, and so identifies its requests.
        method: The method of the router.
        deadline_s: Seconds that it may take.
    """

    number: int
    method: str
    deadline_s: float

    def put(self, router: Router) -> Any:  # noqa: ANN401 — whatever the method returns
        """Make the call, and return its answer."""
        if self.method == "embed_text":
            return router.embed_text(self.text, deadline_s=self.deadline_s)
        if self.method != "describe_stream":
            return getattr(router, self.method)(self.image, deadline_s=self.deadline_s)
        stream = router.describe_stream(self.image, deadline_s=self.deadline_s)
        for _ in stream:
            pass
        return stream.description

    @property
    def image(self) -> PILImage.Image:
        """An image of one colour, which encodes the number."""
        return PILImage.new("RGB", SIZE, f"#{self.number:06x}")

    @property
    def text(self) -> str:
        """A text that contains the number as a colour."""
        return f"a square of colour #{self.number:06x}"

    def request(self) -> tuple[Request, Any]:
        """Return the request that a backend gets, and its input."""
        if self.method == "embed_text":
            return EmbedTextRequest(), self.text
        requests = {"detect": DetectRequest(), "embed": EmbedRequest()}
        return requests.get(self.method, DescribeRequest()), open_image(self.image)


def make_question(number: int) -> Question:
    """Return the question of that number, always the same one."""
    chance = random.Random(number)  # noqa: S311 — repeatable on purpose
    return Question(number, chance.choice(METHODS), chance.choice(DEADLINES_S))


@dataclass
class Caller:
    """Makes calls to routers from many threads, and logs the outcome of each.

    Args:
        routers: Called in turn.
        log: Where a line of JSON is written for each call.
        has_resets: Whether all gates are reset before each call.
    """

    routers: Sequence[Router]
    log: TextIO
    has_resets: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask_all(self, numbers: Iterable[int], *, threads: int) -> None:
        """Make the calls with these numbers, from this many threads."""
        left = iter(numbers)

        def work() -> None:
            while True:
                with self._lock:
                    number = next(left, None)
                if number is None:
                    return
                self._ask(make_question(number))

        endings = [router.subscribe(_hear) for router in self.routers]
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for end in endings:
            end()

    def _ask(self, question: Question) -> None:
        heard: list[AttemptEvent] = []
        _heard.set(heard)
        router = self.routers[question.number % len(self.routers)]
        if self.has_resets:
            router.reset()
        answer = error = None
        started = time.perf_counter()
        try:
            answer = question.put(router)
        except Exception as raised:  # noqa: BLE001 — to find out whether it is one of ours is the point
            error = raised
        late_s = time.perf_counter() - started - question.deadline_s
        line = {
            "number": question.number,
            "late_s": late_s,
            "ending": _ending(error),
            "error": None if error is None else type(error).__name__,
            "degraded": answer is not None and answer.trace.degraded,
            "told": [event.attempt for event in heard] == _told(answer, error, heard),
            "call_id": heard[0].call_id if heard else None,
            "attempts": [_row(event.attempt) for event in heard if _is_booked(event.attempt)],
        }
        text = json.dumps(line) + "\n"
        with self._lock:
            self.log.write(text)


def _hear(event: object) -> None:
    """Record an attempt with the call whose context this is."""
    heard = _heard.get()
    if isinstance(event, AttemptEvent) and heard is not None:
        heard.append(event)


def _ending(error: BaseException | None) -> str:
    """Return how a call ended: with an answer, with an error that is allowed, or otherwise."""
    if error is None:
        return "answer"
    for kind in (CallerError, AllBackendsFailedError, StreamInterruptedError):
        if isinstance(error, kind):
            return kind.__name__
    return "VisionError" if isinstance(error, VisionError) else "other"


def _told(answer: Any, error: BaseException | None, heard: Sequence[AttemptEvent]) -> list[Attempt]:  # noqa: ANN401
    """Return the attempts that the caller was told about; for errors that list none, all that were heard of."""
    if answer is not None:
        return list(answer.trace.attempts)
    if isinstance(error, AllBackendsFailedError):
        return list(error.attempts)
    return [event.attempt for event in heard]


def _is_booked(attempt: Attempt) -> bool:
    """Return whether the ledger should have it: all but rungs that could never have answered and were not called."""
    return attempt.outcome != "skipped" or attempt.error != NotSupportedError.kind


def _row(attempt: Attempt) -> dict[str, Any]:
    """Return what the ledger should say about an attempt; see ``chaos_sums.LOGGED``."""
    row = {key: getattr(attempt, key) for key in ("backend", "outcome", "error", "code", "at")}
    return row | {key: getattr(attempt.usage, key) for key in ("input_tokens", "output_tokens", "cost_usd")}
