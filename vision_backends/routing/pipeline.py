"""From a list of inputs to a list of answers or errors, in order; a single input is a list of one.

This module decides how a long list is cut into windows, that one bad input fails alone, and that one list of
embeddings lives in one space. It must not know what callers' options are called, nor how a rung is asked.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import TYPE_CHECKING

from vision_backends.backends.requests import EmbedRequest, EmbedTextRequest
from vision_backends.clock import Deadline
from vision_backends.errors import (
    AllBackendsFailedError,
    CallerError,
    InvalidRequestError,
    SpaceUnavailableError,
    VisionError,
)
from vision_backends.images import open_image
from vision_backends.routing.call import Call, Item
from vision_backends.routing.trace import complete, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from vision_backends.backends.requests import Request
    from vision_backends.clock import Clock
    from vision_backends.images import ImageLimits, ImageSource
    from vision_backends.routing.call import Answer, Rung
    from vision_backends.routing.ladder import Ladder
    from vision_backends.routing.recorder import Journal

__all__ = ["Batches", "failure"]

WINDOW = 32
"""Inputs that are open at once; bounds the memory of a long list."""

OPENERS = 2
"""Threads that open the next window beside the backend's work; decoding releases the interpreter lock."""


class Batches:
    """Runs calls of any length.

    Args:
        ladder: Who answers.
        journal: Where calls are written down.
        clock: Where time comes from.
        limits: What an image may cost to read.
        deadline_s: Seconds that each input may take where the call sets no deadline of its own.
    """

    def __init__(
        self, ladder: Ladder, *, journal: Journal, clock: Clock, limits: ImageLimits, deadline_s: float
    ) -> None:
        self._ladder = ladder
        self._journal = journal
        self._clock = clock
        self._limits = limits
        self._deadline_s = deadline_s

    def run(
        self,
        items: Sequence[Item],
        request: Request,
        rungs: Sequence[Rung],
        *,
        deadline_s: float | None,
        patience_s: float | None,
        progress: Callable[[int, int], None] | None,
    ) -> list[Answer | VisionError]:
        """Return an answer or an error for each item, in order.

        Args:
            items: The inputs, not yet opened.
            request: What is asked of each.
            rungs: How the backends stand, best first.
            deadline_s: Seconds for all of them together; None gives each the configured time.
            patience_s: Seconds to wait for a better rung to recover; None takes the next one at once.
            progress: Told about every settled input.
        """
        budget = _TimeBudget(clock=self._clock, each_s=self._deadline_s, whole_s=deadline_s, patience_s=patience_s)
        with self._journal.call(request.task, items):
            spaces = _by_space(rungs) if len(items) > 1 and _is_embedding(request) else [rungs]
            for place, group in enumerate(spaces):
                below = [rung for later in spaces[place + 1 :] for rung in later]
                retreat = any(self._ladder.attempts.blocked(rung) is None for rung in below)
                tick = _counter(len(items), progress)
                if self._pass(items, request, group, tick=tick, budget=budget, retreat=retreat):
                    break
                if not retreat:
                    self._give_up(items, below)
                    break
                for item in items:
                    item.discard("It could not answer the whole list, and one list is one vector space.")
        return [_outcome(item, request) for item in items]

    def open(self, source: ImageSource, request: Request, rungs: Sequence[Rung]) -> Item:
        """Return one opened image.

        Raises:
            CallerError: It cannot be used.
        """
        started = self._clock.monotonic()
        content = open_image(source, min_side_px=self._side_px(request, rungs), limits=self._limits)
        return Item(source=source, content=content, opening_s=self._clock.monotonic() - started)

    def _side_px(self, request: Request, rungs: Sequence[Rung]) -> int | None:
        """Return how long the shorter side has to be for the rung that will be asked first."""
        if isinstance(request, EmbedTextRequest):
            return None
        first = next((rung for rung in rungs if self._ladder.attempts.blocked(rung) is None), None)
        return None if first is None else first.backend.image_px(request)

    def _pass(
        self,
        items: Sequence[Item],
        request: Request,
        rungs: Sequence[Rung],
        *,
        tick: Callable[[int], None],
        budget: _TimeBudget,
        retreat: bool,
    ) -> bool:
        """Take all items down these rungs; with ``retreat``, stop at the first window with a gap."""
        settled = True
        for window in self._opened(items, request, rungs, tick):
            started = self._clock.monotonic()
            pending = [item for item in window if not item.settled]
            self._ladder.walk(rungs, budget.call(request, count=len(window), tick=tick), pending)
            for item in pending:
                item.elapsed_s += self._clock.monotonic() - started
            unsettled = sum(not item.settled for item in window)
            settled = settled and not unsettled
            if retreat and unsettled:
                break
            tick(unsettled)
            for item in window:
                item.content = None
        return settled

    def _opened(
        self, items: Sequence[Item], request: Request, rungs: Sequence[Rung], tick: Callable[[int], None]
    ) -> Iterator[Sequence[Item]]:
        """Yield window after window with its inputs opened, the next one being opened meanwhile."""
        side_px = self._side_px(request, rungs)
        if len(items) == 1:
            self._open(items[0], request, side_px, tick)
            yield items
            return
        windows = [items[start : start + WINDOW] for start in range(0, len(items), WINDOW)]
        pool = ThreadPoolExecutor(OPENERS, thread_name_prefix="vision-open")

        def begin(window: Sequence[Item]) -> list[Future[None]]:
            return [pool.submit(self._open, item, request, side_px, tick) for item in window]

        try:
            coming = begin(windows[0]) if windows else []
            for window, following in zip_longest(windows, windows[1:], fillvalue=()):
                for opened in coming:
                    opened.result()
                coming = begin(following)
                yield window
        finally:
            pool.shutdown(cancel_futures=True)

    def _open(self, item: Item, request: Request, side_px: int | None, tick: Callable[[int], None]) -> None:
        if item.settled or item.content is not None:
            return
        started = self._clock.monotonic()
        try:
            if isinstance(request, EmbedTextRequest):
                item.content = _text(item.source)
            else:
                item.content = open_image(item.source, min_side_px=side_px, limits=self._limits)
        except CallerError as error:
            item.error = error
            tick(1)
        item.opening_s = self._clock.monotonic() - started
        item.elapsed_s += item.opening_s

    def _give_up(self, items: Sequence[Item], below: Sequence[Rung]) -> None:
        """Note on what is left why the rungs of other spaces did not answer either."""
        left = [item for item in items if not item.settled]
        for rung in below:
            blocked = self._ladder.attempts.blocked(rung)
            if blocked is not None:
                note(left, rung, "skipped", error=blocked, at=self._clock.time())


def _outcome(item: Item, request: Request) -> Answer | VisionError:
    answer = complete(item)
    if answer is not None:  # even one that is empty: finding nothing is an answer
        return answer
    return item.error or failure(item, request)


class _TimeBudget:
    """How long a call may take: all of it together, or else each input by itself, and waiting on top."""

    def __init__(self, *, clock: Clock, each_s: float, whole_s: float | None, patience_s: float | None) -> None:
        self._clock = clock
        self._each_s = each_s if whole_s is None else whole_s
        self._patience_s = patience_s
        self._whole = None if whole_s is None else Deadline(clock, whole_s + (patience_s or 0.0))

    def call(self, request: Request, *, count: int, tick: Callable[[int], None]) -> Call:
        """Return what is asked of the next so many inputs."""
        seconds = (self._each_s + (self._patience_s or 0.0)) * count
        return Call(
            request=request,
            deadline=self._whole or Deadline(self._clock, seconds),
            each_s=self._each_s,
            patience_s=self._patience_s,
            tick=tick,
        )


def _is_embedding(request: Request) -> bool:
    return isinstance(request, EmbedRequest | EmbedTextRequest)


def _by_space(rungs: Sequence[Rung]) -> list[list[Rung]]:
    """Return the rungs in groups that share a vector space, best first."""
    groups: dict[str | None, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(rung.model.space if rung.model else None, []).append(rung)
    return list(groups.values())


def _counter(total: int, progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """Return a function that adds to what is done and tells ``progress``; callable from any thread."""
    done = 0
    lock = threading.Lock()

    def tick(count: int) -> None:
        nonlocal done
        if progress is None or count == 0:
            return
        with lock:
            done += count
            progress(done, total)

    return tick


def _text(source: object) -> str:
    if not isinstance(source, str):
        raise InvalidRequestError(f"A text is a str, not {type(source).__name__}.")
    if not source.strip():
        raise InvalidRequestError("The text is empty.")
    return source


def failure(item: Item, request: Request) -> VisionError:
    """Return the error for an item that nobody has answered."""
    space = getattr(request, "space", None)
    if space is not None:
        return SpaceUnavailableError(
            f"No backend can produce vectors of {space!r} now.",
            attempts=item.attempts,
            remedy="Wait for its backend, or embed everything again in another space.",
        )
    return AllBackendsFailedError(f"No backend could answer {request.task}.", attempts=item.attempts)
