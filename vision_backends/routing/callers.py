"""How backends are called from the event loop: plain ones in their pool of threads, asynchronous ones as tasks.

This module decides what a deadline means for a running call: a thread is left behind, a task is cancelled. It must not
know what an answer means.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from vision_backends.backends.base import AsyncBackend
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.pools import Pool
from vision_backends.errors import InvalidReplyError
from vision_backends.types import Description

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import DescribeRequest, Request
    from vision_backends.images import Image
    from vision_backends.routing.call import Answer

    Pieces = AsyncGenerator[str | Description, None]

__all__ = ["Caller", "caller_of"]

THREADS = 64
"""Calls of one plain backend that may run concurrently, those included that were left behind."""

CLOSE_S = 0.2
"""How long a plain backend's stream is given to close before it is left behind."""


class Caller(Protocol):
    """Calls one rung, with whichever of its models.

    Attributes:
        gives_up: Whether a call that is cancelled ends, so that nothing of it can come late.
    """

    gives_up: bool

    def start(
        self,
        backend: Backend,
        inputs: Sequence[Any],
        request: Request,
        *,
        timeout_s: float,
        on_late: Callable[[Sequence[Answer]], object],
    ) -> asyncio.Future[Sequence[Answer]]:
        """Begin a call, and return its future; cancelling that ends the call or leaves it behind."""
        ...

    def stream(self, backend: Backend, image: Image, request: DescribeRequest, *, timeout_s: float) -> Pieces:
        """Yield a description piece by piece, and at last the record."""
        ...

    def close(self) -> None:
        """Let idle threads end."""
        ...


def caller_of(backend: Backend) -> Caller:
    """Return what calls a backend, by its kind."""
    return _AsyncCaller() if isinstance(backend, AsyncBackend) else _PlainCaller(backend.name)


class _PlainCaller:
    gives_up = False

    def __init__(self, name: str) -> None:
        self._pool = Pool(name, size=THREADS)

    def start(
        self,
        backend: Backend,
        inputs: Sequence[Any],
        request: Request,
        *,
        timeout_s: float,
        on_late: Callable[[Sequence[Answer]], object],
    ) -> asyncio.Future[Sequence[Answer]]:
        method = getattr(backend, request.task)
        return self._pool.start(partial(method, inputs, request, timeout_s=timeout_s), on_late=on_late)

    async def stream(self, backend: Backend, image: Image, request: DescribeRequest, *, timeout_s: float) -> Pieces:
        ask = partial(backend.describe_stream, image, request, timeout_s=timeout_s)
        pieces = await self._pool.start(ask)  # which a backend may do its work in, rather than be a generator function

        def step() -> str | Description:
            try:
                return next(pieces)
            except StopIteration as end:
                return _record(end.value)

        def close() -> None:
            with suppress(ValueError):  # it still runs in a thread that was left behind
                pieces.close()

        try:
            while True:
                piece = await self._pool.start(step)
                yield piece
                if isinstance(piece, Description):
                    return
        finally:
            with suppress(TimeoutError):
                async with SYSTEM_CLOCK.timeout_at(SYSTEM_CLOCK.monotonic() + CLOSE_S):
                    await asyncio.wait([self._pool.start(close)])

    def close(self) -> None:
        self._pool.close()


class _AsyncCaller:
    gives_up = True

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()  # the loop itself would forget them

    def start(
        self,
        backend: Backend,
        inputs: Sequence[Any],
        request: Request,
        *,
        timeout_s: float,
        on_late: Callable[[Sequence[Answer]], object],  # noqa: ARG002 — nothing comes late
    ) -> asyncio.Future[Sequence[Answer]]:
        async def answers() -> Sequence[Answer]:  # so that whatever the method does wrong fails the task
            reply = getattr(backend, request.task)(inputs, request, timeout_s=timeout_s)
            if isinstance(reply, list):
                message = f"The backend is an AsyncBackend, but its {request.task} is a plain method."
                raise InvalidReplyError(message, remedy=f"Write async def {request.task}, or subclass Backend.")
            return cast("Sequence[Answer]", await reply)

        task = asyncio.get_running_loop().create_task(answers())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def stream(self, backend: Backend, image: Image, request: DescribeRequest, *, timeout_s: float) -> Pieces:
        pieces = cast("AsyncBackend", backend).describe_stream(image, request, timeout_s=timeout_s)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
                if isinstance(piece, Description):
                    return
        _record(None)

    def close(self) -> None:
        """Nothing is held here."""

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not warn of an exception that was never retrieved


def _record(value: object) -> Description:
    if not isinstance(value, Description):
        raise InvalidReplyError("The stream ended without a record.")
    return value
