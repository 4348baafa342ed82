"""The router for programs with an event loop.

This module decides nothing but which thread waits: `AsyncRouter` is `Router` with each method as a coroutine.
"""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from vision_backends.router import Router

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from vision_backends.config.settings import Settings
    from vision_backends.routing.streaming import DescriptionStream
    from vision_backends.types import Description

__all__ = ["AsyncDescriptionStream", "AsyncRouter"]

P = ParamSpec("P")
R = TypeVar("R")


def _coroutine(
    method: Callable[Concatenate[Router, P], R],
) -> Callable[Concatenate[AsyncRouter, P], Coroutine[Any, Any, R]]:
    async def call(self: AsyncRouter, /, *args: P.args, **kwargs: P.kwargs) -> R:
        run = partial(contextvars.copy_context().run, method, self.router, *args, **kwargs)
        pool = self._patient if kwargs.get("priority") == "batch" else self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, run)

    update_wrapper(call, method)
    return call


def _streaming(
    method: Callable[Concatenate[Router, P], DescriptionStream],
) -> Callable[Concatenate[AsyncRouter, P], Coroutine[Any, Any, AsyncDescriptionStream]]:
    open_stream = _coroutine(method)

    async def call(self: AsyncRouter, /, *args: P.args, **kwargs: P.kwargs) -> AsyncDescriptionStream:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def run(step: Callable[[], Any]) -> Awaitable[Any]:
            return loop.run_in_executor(self._pool, context.run, step)

        return AsyncDescriptionStream(await open_stream(self, *args, **kwargs), run)

    update_wrapper(call, method)
    return call


class AsyncDescriptionStream:
    """The pieces of a description as they come, for ``async for``; see `DescriptionStream`."""

    def __init__(self, stream: DescriptionStream, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._stream = stream
        self._run = run

    @property
    def description(self) -> Description | None:
        """The whole record with its trace once the last piece has come; None until then."""
        return self._stream.description

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece: str | None = await self._run(partial(next, self._stream, None))
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        """Stop early; the backend is told, and what has come so far is booked."""
        await self._run(self._stream.close)


class AsyncRouter:
    """A `Router` whose methods are coroutines, with the same arguments, answers and errors.

    A cancelled coroutine stops waiting at once; the call behind it ends by its own deadline, and its answer
    goes to the cache.

    Args:
        router: Who does the work; closed together with this.
        max_workers: How many calls run at once; more wait their turn. Batch calls have as many places of their own,
            so that nobody stands behind those who have time.
    """

    def __init__(self, router: Router, *, max_workers: int = 32) -> None:
        self.router = router
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="vision-async")
        self._patient = ThreadPoolExecutor(max_workers, thread_name_prefix="vision-async-batch")

    @classmethod
    def from_config(cls, config: str | os.PathLike[str] | Settings | None = None, *, max_workers: int = 32) -> Self:
        """Make the router as `Router.from_config` does."""
        return cls(Router.from_config(config), max_workers=max_workers)

    describe = _coroutine(Router.describe)
    describe_stream = _streaming(Router.describe_stream)
    describe_many = _coroutine(Router.describe_many)
    embed = _coroutine(Router.embed)
    embed_many = _coroutine(Router.embed_many)
    embed_text = _coroutine(Router.embed_text)
    embed_text_many = _coroutine(Router.embed_text_many)
    detect = _coroutine(Router.detect)
    detect_many = _coroutine(Router.detect_many)
    warm_up = _coroutine(Router.warm_up)
    explain = _coroutine(Router.explain)
    status = _coroutine(Router.status)
    reset = _coroutine(Router.reset)
    gates = _coroutine(Router.gates)
    spending = _coroutine(Router.spending)
    cache_info = _coroutine(Router.cache_info)
    clear_cache = _coroutine(Router.clear_cache)

    async def close(self) -> None:
        """Close the router without blocking the loop; calls that run are abandoned."""
        for pool in (self._pool, self._patient):
            pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.router.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
