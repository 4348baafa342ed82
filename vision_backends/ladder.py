"""The walk down the ladder: who is asked, for how long, and what is noted about it.

This module decides the order of cache, gate and backend, and what every outcome means for the next rung. It
must not know any concrete backend, how images are decoded, or what callers' options are called.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING

from vision_backends.account import Answer, Item, Rung, note, settle
from vision_backends.errors import (
    BackendError,
    CallerError,
    InvalidReplyError,
    NotSupportedError,
    TimedOutError,
    UnavailableError,
)
from vision_backends.health.gates import Scope
from vision_backends.storage.codec import decode, encode
from vision_backends.storage.keys import cache_key
from vision_backends.types import Description, Detections, Embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Model, Request
    from vision_backends.clock import Clock
    from vision_backends.health.deadline import Deadline, Workers
    from vision_backends.health.gates import Health
    from vision_backends.storage.base import Store
    from vision_backends.types import Task

__all__ = ["Call", "Ladder", "survey"]

ANSWER_TYPES: dict[Task, type[Answer]] = {
    "describe": Description,
    "embed": Embedding,
    "embed_text": Embedding,
    "detect": Detections,
}

_log = logging.getLogger("vision_backends")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one call asks of every rung.

    Attributes:
        request: What is asked of each item.
        deadline: When to stop.
        tick: Told how many items have just been settled, from any thread.
    """

    request: Request
    deadline: Deadline
    tick: Callable[[int], None]


class Ladder:
    """Asks backends in order until every item has its answer.

    Args:
        health: The gates that every rung stands behind.
        workers: Threads in which backends are called, so that a deadline holds whatever they do.
        store: Where attempts are booked, and answers kept if ``caching``.
        caching: Whether answers are kept and asked for.
        clock: Where time comes from.
    """

    def __init__(self, *, health: Health, workers: Workers, store: Store, caching: bool, clock: Clock) -> None:
        self._health = health
        self._workers = workers
        self._store = store
        self._caching = caching
        self._clock = clock

    def walk(self, rungs: Sequence[Rung], call: Call, items: Sequence[Item]) -> None:
        """Ask rung after rung until every item is settled or nobody is left to ask.

        Args:
            rungs: How the backends stand, best first.
            call: What is asked.
            items: Opened inputs; their answers, errors and attempts are filled in.
        """
        for place, rung in enumerate(rungs):
            pending = self._recall(rung, call, [item for item in items if not item.settled])
            if not pending:
                return
            if rung.refusal is not None:
                note(pending, rung, "skipped", error=rung.refusal)
                continue
            following = next((below for below in rungs[place + 1 :] if below.refusal is None), None)
            kept_s = 0.0 if following is None else self.expected_s(following, call.request)
            size = max(1, rung.backend.batch_size(call.request))
            chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
            # The first goes alone: should the backend turn out to be dead, one request has found it out.
            self._ask(rung, call, chunks[0], kept_s=kept_s)
            _spread(
                partial(self._ask, rung, call, kept_s=kept_s),
                chunks[1:],
                threads=rung.backend.concurrency(call.request),
            )

    def expected_s(self, rung: Rung, request: Request) -> float:
        """Return the seconds that a rung is known or expected to take for one call."""
        return self._health.expected_s(rung.scope, rung.backend.expected_s(request))

    def closed(self, rung: Rung) -> BackendError | None:
        """Return why a rung would not be asked now, or None when it would."""
        return rung.refusal or self._health.peek(rung.scope)

    def _ask(self, rung: Rung, call: Call, items: Sequence[Item], *, kept_s: float) -> None:
        """Put one call to a backend; settle its items, or note on them why not."""
        timeout_s = call.deadline.share(kept_s)
        if timeout_s <= 0:
            note(items, rung, "skipped", error=TimedOutError("No time was left of the deadline."))
            return
        try:
            estimate = rung.backend.estimate(call.request, [item.opened for item in items])  # type: ignore[arg-type]
            permit = self._health.admit(rung.scope, timeout_s=timeout_s, estimate=estimate)
        except BackendError as closed:
            note(items, rung, "skipped", error=closed)
            return
        started = self._clock.monotonic()
        try:
            answers = self._call(rung, call.request, items, timeout_s)
        except CallerError as error:
            permit.released()
            self._blame(rung, call, items, error, kept_s=kept_s)
        except BackendError as error:
            elapsed_s = self._clock.monotonic() - started
            permit.failed(error, elapsed_s=elapsed_s)
            note(items, rung, "failed", error=error, elapsed_s=elapsed_s)
        except BaseException:
            permit.released()
            raise
        else:
            elapsed_s = self._clock.monotonic() - started
            usage = reduce(add, (answer.trace.usage for answer in answers))
            permit.succeeded(usage=usage, elapsed_s=elapsed_s, limits=rung.backend.rate_limits(call.request))
            for item, answer in zip(items, answers, strict=True):
                self._keep(rung, call.request, item, answer)
                settle(item, rung, answer, "answered", elapsed_s=elapsed_s)
            call.tick(len(items))

    def _blame(self, rung: Rung, call: Call, items: Sequence[Item], error: CallerError, *, kept_s: float) -> None:
        """Let the one item that is at fault fail; the others of its batch are asked for again, each alone."""
        if len(items) > 1:
            for item in items:
                self._ask(rung, call, [item], kept_s=kept_s)
            return
        note(items, rung, "failed", error=error)
        items[0].error = error
        call.tick(1)

    def _call(self, rung: Rung, request: Request, items: Sequence[Item], timeout_s: float) -> Sequence[Answer]:
        method = getattr(rung.backend, request.task)
        inputs = [item.opened for item in items]

        def ask() -> Sequence[Answer]:
            return _verified(method(inputs, request, timeout_s=timeout_s), rung, request, len(inputs))

        def keep_late(answers: Sequence[Answer]) -> None:
            """An answer that came too late was paid for all the same: the next call shall have it."""
            for item, answer in zip(items, answers, strict=True):
                self._keep(rung, request, item, answer)

        try:
            return self._workers.run_within(ask, timeout_s, on_late=keep_late)
        except (BackendError, CallerError):
            raise
        except Exception as crash:
            _log.exception("The %s backend crashed; the next rung is asked.", rung.backend.name)
            raise UnavailableError(
                f"The backend crashed with {type(crash).__name__}: {crash}",
                remedy="This is a bug in the backend; the log has its traceback.",
                code=type(crash).__name__,
            ) from crash

    def _recall(self, rung: Rung, call: Call, items: Sequence[Item]) -> Sequence[Item]:
        """Settle the items that this rung has answered before; return the others."""
        if not self._caching or rung.model is None:
            return items
        for item in items:
            kept = self._store.get(_key(rung, rung.model, call.request, item))
            answer = None if kept is None else decode(kept)
            if isinstance(answer, ANSWER_TYPES[call.request.task]):
                settle(item, rung, answer, "cached", elapsed_s=0.0)
        left = [item for item in items if not item.settled]
        call.tick(len(items) - len(left))
        return left

    def _keep(self, rung: Rung, request: Request, item: Item, answer: Answer) -> None:
        if self._caching and rung.model is not None:
            self._store.put(_key(rung, rung.model, request, item), encode(answer))


def survey(backends: Sequence[Backend], request: Request) -> list[Rung]:
    """Return how each backend stands for a request; asks nobody and changes nothing."""
    return [_stand(backend, request) for backend in backends]


def _stand(backend: Backend, request: Request) -> Rung:
    model: Model | None = None
    refusal: BackendError | None = None
    try:
        model = backend.model_for(request)
        wanted = getattr(request, "space", None)
        if wanted is not None and wanted != model.space:
            raise NotSupportedError(f"Its vectors live in the space {model.space!r}.")
        backend.check(request)
    except BackendError as error:
        refusal = error
    name = model.name if model else ""
    scope = Scope(backend=backend.name, credential=backend.credential, model=name, task=request.task)
    return Rung(backend=backend, scope=scope, model=model, refusal=refusal)


def _spread(ask: Callable[[Sequence[Item]], None], chunks: Sequence[Sequence[Item]], *, threads: int) -> None:
    if threads <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            ask(chunk)
        return
    with ThreadPoolExecutor(min(threads, len(chunks)), thread_name_prefix="vision-many") as pool:
        for _ in pool.map(ask, chunks):
            pass


def _verified(answers: Sequence[Answer], rung: Rung, request: Request, count: int) -> Sequence[Answer]:
    """Return the answers if they are what the contract promises; a backend is not trusted blindly."""
    kind = ANSWER_TYPES[request.task]
    if len(answers) != count or not all(isinstance(answer, kind) for answer in answers):
        raise InvalidReplyError(f"The backend returned something else than {count} {kind.__name__} records.")
    space = rung.model.space if rung.model else None
    for answer in answers:
        if isinstance(answer, Embedding) and answer.space != space:
            raise InvalidReplyError(f"It announced the space {space!r} and returned {answer.space!r}.")
    return answers


def _key(rung: Rung, model: Model, request: Request, item: Item) -> str:
    options = asdict(request)
    options.pop("space", None)  # the model's space is the one that counts
    return cache_key(
        task=request.task,
        content=item.digest,
        backend=rung.backend.name,
        model=asdict(model),
        options=options,
    )
