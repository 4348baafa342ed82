"""Lines of calls that wait: first come, first served.

This module decides whose turn it is, and when a call looks again whether a budget has room for it. It must not know
what the calls do with their turn, nor how a budget is counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from vision_backends.engine.threads import after_fork_in_child
from vision_backends.health.budget_state import BudgetReservedError
from vision_backends.storage.bounded import store_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

    from vision_backends.clock import Clock
    from vision_backends.errors import BackendError

__all__ = ["Lines", "Settlements"]

LOOK_AGAIN_S = 0.25
"""How often the first in line looks whether calls of other processes have been settled."""


class Lines:
    """Lines by what is waited for. For one event loop.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lines: defaultdict[Hashable, deque[asyncio.Future[None]]] = defaultdict(deque)
        after_fork_in_child(self, lambda own: own._lines.clear())  # noqa: SLF001 — its own

    @asynccontextmanager
    async def in_line(self, key: Hashable, *, until: float) -> AsyncIterator[Callable[[], None]]:
        """Stand in line until everybody who came before has left it, or until a time; yield what leaves the line."""
        line, turn = self._lines[key], asyncio.get_running_loop().create_future()
        line.append(turn)

        def leave() -> None:
            if turn in line:
                line.remove(turn)
                if line:
                    _wake(line[0])
                else:
                    self._lines.pop(key, None)

        _wake(line[0])
        try:
            try:
                async with self._clock.timeout_at(until):
                    await turn
            except TimeoutError:
                leave()
            yield leave
        finally:
            leave()


class Settlements:
    """Calls that wait until enough of what others have reserved of a budget is settled. For one event loop.

    Only the first in line of a backend asks, when a call of this process was settled and every now and then: somebody
    else is always under way, or the budget would have room.

    Args:
        clock: Where time comes from.

    Attributes:
        awaited: Set when a call is settled, for those who are first in their lines; mostly empty.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lines = Lines(clock=clock)
        self.awaited: set[asyncio.Event] = set()
        after_fork_in_child(self, lambda own: own.awaited.clear())

    def tell(self) -> None:
        """Note that a call of this process was settled."""
        for settled in self.awaited:
            settled.set()

    async def until_it_fits(
        self,
        backend: str,
        ask: Callable[[Callable[[], None]], Awaitable[BackendError | None]],
        refused: BudgetReservedError,
        *,
        until: float,
    ) -> BackendError | None:
        """Ask in turn, again and again, until the answer is another than that a budget is reserved, or until a time.

        Args:
            backend: Whose budget it is.
            ask: Asks once; to be called with what leaves the line, so that the next one can ask as well.
            refused: What it has returned the last time.
            until: When to stop asking, by the clock's `monotonic`.

        Returns:
            What the last call of ``ask`` has returned, or ``refused``.
        """
        async with self._lines.in_line(backend, until=until) as leave:
            settled = asyncio.Event()
            self.awaited.add(settled)

            def admitted() -> None:
                self.awaited.discard(settled)
                leave()

            try:
                while self._clock.monotonic() < until:
                    settled.clear()
                    with store_time(at_most_s=until - self._clock.monotonic(), anew=True):
                        error = await ask(admitted)
                    if not isinstance(error, BudgetReservedError):
                        return error
                    refused = error
                    with suppress(TimeoutError):
                        async with self._clock.timeout_at(min(until, self._clock.monotonic() + LOOK_AGAIN_S)):
                            await settled.wait()
            finally:
                self.awaited.discard(settled)
        return refused


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
