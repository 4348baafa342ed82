"""A description piece by piece: it falls back before the first piece, and never after it.

This module decides when a stream may still change its rung. It must not know what callers' options are called.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vision_backends.errors import BackendError, CallerError, InvalidReplyError, StreamInterruptedError
from vision_backends.routing.pipeline import failure
from vision_backends.routing.trace import complete
from vision_backends.types import Description

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from vision_backends.health.admission import Permit
    from vision_backends.routing.call import Call, Item, Rung, Turn
    from vision_backends.routing.ladder import Ladder
    from vision_backends.routing.recorder import Journal

__all__ = ["DescriptionStream", "stream"]


class DescriptionStream:
    """The pieces of a description as they come; iterate over it, or `close` it to stop early.

    Iterating raises what `Router.describe` does as long as there was no piece, and afterwards
    `StreamInterruptedError` with the text so far.

    Attributes:
        description: The whole record with its trace once the last piece has come; None until then.
    """

    def __init__(self, pieces: Generator[str, None, Description]) -> None:
        self.description: Description | None = None
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self.description = end.value or self.description
            raise

    def close(self) -> None:
        """Stop early; the backend is told, and what has come so far is booked."""
        self._pieces.close()


def stream(
    ladder: Ladder, journal: Journal, rungs: Sequence[Rung], call: Call, item: Item
) -> Generator[str, None, Description]:
    """Yield the pieces of a description and return it.

    Args:
        ladder: Who answers.
        journal: Where the call is written down.
        rungs: How the backends stand, best first.
        call: What is asked.
        item: The opened image.

    Raises:
        VisionError: As `Router.describe`, before the first piece.
        StreamInterruptedError: The backend failed after it.
    """
    with journal.call(call.request.task, [item]):
        for turn in ladder.turns(rungs, call):
            if not ladder.attempts.recall(turn, [item]):
                yield str(item.answer)
                break
            if turn.rung.refusal is not None:
                ladder.attempts.pass_by([item], turn, turn.rung.refusal)
                continue
            permit = ladder.attempts.admit(turn, [item])
            if permit is not None:
                yield from _listen(ladder, turn, item, permit)
            if item.settled:
                break
    answer = complete(item)
    if not isinstance(answer, Description):
        raise item.error or failure(item, call.request)
    return answer


def _listen(ladder: Ladder, turn: Turn, item: Item, permit: Permit) -> Generator[str, None, None]:
    """Yield what one rung says; settle the item when it has ended well."""
    clock = ladder.attempts.clock
    started = clock.monotonic()
    ends = started + turn.timeout_s([item])
    backend = turn.rung.backend
    pieces = backend.describe_stream(item.opened, turn.call.request, timeout_s=ends - started)  # type: ignore[arg-type]
    said: list[str] = []
    try:
        while True:
            piece = _next(ladder, turn, pieces, max(0.0, ends - clock.monotonic()))
            if isinstance(piece, Description):
                elapsed_s = clock.monotonic() - started
                limits = backend.rate_limits(turn.call.request)
                permit.succeeded(usage=piece.trace.usage, elapsed_s=elapsed_s, limits=limits)
                ladder.attempts.settle(item, turn, piece, elapsed_s=elapsed_s)
                return
            said.append(piece)
            yield piece
    except CallerError as error:
        permit.released(usage=error.usage)
        ladder.attempts.note([item], turn, "failed", error)
        item.error = error
    except BackendError as error:
        elapsed_s = clock.monotonic() - started
        permit.failed(error, elapsed_s=elapsed_s, usage=error.usage)
        ladder.attempts.note([item], turn, "failed", error, elapsed_s=elapsed_s)
        if said:
            partial = "".join(said)
            raise StreamInterruptedError(
                f"{backend.name} broke off after {len(partial)} characters: {error.message}",
                partial=partial,
                backend=backend.name,
                remedy="Ask again; the next rung answers if it is still out of order.",
            ) from error
    except GeneratorExit:
        permit.released()
        stopped = StreamInterruptedError("The caller has stopped listening.", partial="".join(said))
        ladder.attempts.note([item], turn, "failed", stopped, elapsed_s=clock.monotonic() - started)
        raise
    finally:
        with suppress(ValueError):  # it is stuck in a thread that nobody waits for any more
            pieces.close()


def _next(ladder: Ladder, turn: Turn, pieces: Generator[str, None, Description], timeout_s: float) -> str | Description:
    """Return the next piece, or the record after the last one."""

    def step() -> str | Description:
        try:
            return next(pieces)
        except StopIteration as end:
            if not isinstance(end.value, Description):
                raise InvalidReplyError("The stream ended without a record.") from None
            return end.value

    return ladder.attempts.run(turn, step, timeout_s)
