"""The router for programs with an event loop.

This module decides only who waits: `AsyncRouter` awaits the coroutines that `Router` waits for.
"""

from __future__ import annotations

from functools import partial, update_wrapper
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, cast

from vision_backends.engine.pools import Pool
from vision_backends.errors import ClosedError
from vision_backends.router import Router
from vision_backends.routing.streaming import AsyncDescriptionStream

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

    from vision_backends.config.keywords import ConfigKeywords
    from vision_backends.config.settings import Settings
    from vision_backends.observability.events import Event
    from vision_backends.routing.streaming import DescriptionStream
    from vision_backends.storage.base import LedgerRow

__all__ = ["AsyncDescriptionStream", "AsyncRouter"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
PAGE_ROWS = 500
"""Rows of the ledger that are read in one go."""

THREADS = 4
"""Threads for what may block but asks no backend: status, gates, the cache."""


def _awaited(
    method: Callable[Concatenate[Router, P], R],
) -> Callable[Concatenate[AsyncRouter, P], Coroutine[Any, Any, R]]:
    """Return the coroutine of a method that asks backends."""

    async def call(self: AsyncRouter, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await cast("Awaitable[R]", method(self._awaiting, *args, **kwargs))

    update_wrapper(call, method)
    return call


def _in_thread(
    method: Callable[Concatenate[Router, P], R],
) -> Callable[Concatenate[AsyncRouter, P], Coroutine[Any, Any, R]]:
    """Return the coroutine of a method that may block."""

    async def call(self: AsyncRouter, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._check()
        return await self._pool.start(partial(method, self.router, *args, **kwargs))

    update_wrapper(call, method)
    return call


def _streaming(
    method: Callable[Concatenate[Router, P], DescriptionStream],
) -> Callable[Concatenate[AsyncRouter, P], AsyncDescriptionStream]:
    """Return the method that opens a stream; nothing has to be awaited before its pieces."""

    def call(self: AsyncRouter, /, *args: P.args, **kwargs: P.kwargs) -> AsyncDescriptionStream:
        self._check()
        return cast("AsyncDescriptionStream", method(self._awaiting, *args, **kwargs))

    update_wrapper(call, method)
    return call


def _iterating(
    method: Callable[Concatenate[Router, P], Iterator[T]],
) -> Callable[Concatenate[AsyncRouter, P], AsyncGenerator[T, None]]:
    """Return the method that answers one input after the other; nothing has to be awaited before the first."""

    def call(self: AsyncRouter, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        self._check()
        return cast("AsyncGenerator[T, None]", method(self._awaiting, *args, **kwargs))

    update_wrapper(call, method)
    return call


class AsyncRouter:
    """A `Router` whose methods are coroutines, with the same arguments, answers and errors.

    Its ledger is an async generator, its streams are opened and listeners subscribed without `await`.

    It can be used from any event loop, and from several of them. A cancelled coroutine cancels the call behind it:
    its request is given up and booked, unless another caller waits for the same answer.

    Args:
        router: Who does the work; closed together with this.

    Examples:
        >>> import asyncio
        >>> from vision_backends import AsyncRouter
        >>> async def main():
        ...     async with AsyncRouter.from_config(ladder=["embedded"]) as router:
        ...         cat, found = await asyncio.gather(router.describe("cat.jpg"), router.detect("astronaut.jpg"))
        ...         print(cat)
        ...         print(found[0].label)
        >>> asyncio.run(main())
        The ... cat ...
        person
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self._awaiting = router._awaiting()  # noqa: SLF001 — the other half of it
        self._pool = Pool("async", size=THREADS)
        self._is_closed = False

    @classmethod
    def from_config(
        cls, config: str | os.PathLike[str] | Settings | None = None, **overrides: Unpack[ConfigKeywords]
    ) -> Self:
        """Make the router as `Router.from_config` does."""
        return cls(Router.from_config(config, **overrides))

    describe = _awaited(Router.describe)
    describe_stream = _streaming(Router.describe_stream)
    describe_many = _awaited(Router.describe_many)
    describe_each = _iterating(Router.describe_each)
    embed = _awaited(Router.embed)
    embed_many = _awaited(Router.embed_many)
    embed_each = _iterating(Router.embed_each)
    embed_text = _awaited(Router.embed_text)
    embed_text_many = _awaited(Router.embed_text_many)
    ask = _awaited(Router.ask)
    detect = _awaited(Router.detect)
    detect_many = _awaited(Router.detect_many)
    detect_each = _iterating(Router.detect_each)
    warm_up = _in_thread(Router.warm_up)
    explain = _in_thread(Router.explain)
    status = _in_thread(Router.status)
    diagnose = _in_thread(Router.diagnose)
    probe = _awaited(Router.probe)
    reset = _in_thread(Router.reset)
    gates = _in_thread(Router.gates)
    spending = _in_thread(Router.spending)
    ledger_totals = _in_thread(Router.ledger_totals)
    cache_info = _in_thread(Router.cache_info)
    clear_cache = _in_thread(Router.clear_cache)

    async def ledger(self, *, since: float = 0.0, until: float = float("inf")) -> AsyncGenerator[LedgerRow, None]:
        """Yield the booked attempts as `Router.ledger` does, a page of them at a time."""
        self._check()
        rows = self.router.ledger(since=since, until=until)
        while page := await self._pool.start(lambda: list(islice(rows, PAGE_ROWS))):
            for row in page:
                yield row

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call a listener with every event from now on, as `Router.subscribe` does: in a thread, not on the loop."""
        self._check()
        return self.router.subscribe(listener)

    async def close(self) -> None:
        """Close the router without blocking the loop; harmless twice."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._pool.start(self.router.close)
        finally:
            self._pool.close()

    def _check(self) -> None:
        """Return if the router is open.

        Raises:
            ClosedError: It is not.
        """
        if self._is_closed:
            raise ClosedError("The router is closed.", remedy="Ask before it is closed, or make a new one.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
