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
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from vision_backends.config import Settings

__all__ = ["AsyncRouter"]

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
    describe_many = _coroutine(Router.describe_many)
    embed = _coroutine(Router.embed)
    embed_many = _coroutine(Router.embed_many)
    embed_text = _coroutine(Router.embed_text)
    embed_text_many = _coroutine(Router.embed_text_many)
    detect = _coroutine(Router.detect)
    detect_many = _coroutine(Router.detect_many)
    explain = _coroutine(Router.explain)
    status = _coroutine(Router.status)

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
