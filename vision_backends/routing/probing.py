"""Finding out what a rung can do before it is asked: what is known already, and else questions of our own.

This module decides when a probe may be sent, how long a call waits for it, and that it passes gates and budgets and
stands in the ledger like any other request. It must not know what is asked, nor what an answer shows.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.backends.base import AsyncBackend
from vision_backends.backends.requests import DescribeRequest
from vision_backends.backends.rung_names import tell_rung
from vision_backends.engine.event_loop import engine_loop
from vision_backends.engine.threads import after_fork_in_child
from vision_backends.errors import BackendError, NotSupportedError, TimedOutError
from vision_backends.health.policy import MAYBE_BILLED, Scope
from vision_backends.types import FREE, Attempt, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.clock import Clock
    from vision_backends.engine.pools import Pool
    from vision_backends.health.admission import AdmissionControl, Permit
    from vision_backends.images import Image
    from vision_backends.routing.attempts import Attempts
    from vision_backends.routing.call import Item, Turn
    from vision_backends.routing.recorder import CallRecorder
    from vision_backends.types import ProbeReport

__all__ = ["Probing"]

SHARE = 0.5
"""Of a rung's time in a call that its probe may take: the rest is for what was asked."""

PAUSE_S = 60.0
"""How long a rung whose probe took too long, or was not let in, is asked without one."""

MOST_QUESTIONS = 8
"""A backend that wants to ask more never ends."""

PICTURE_PX = 128

_log = logging.getLogger(__name__)


class Probing:
    """Probes rungs; all of it runs on the event loop.

    Args:
        health: Lets probes through like other calls.
        recorder: Where their costs are written down.
        store_pool: Threads for what may have to wait for a store.
        clock: Where time comes from.
    """

    def __init__(self, *, health: AdmissionControl, recorder: CallRecorder, store_pool: Pool, clock: Clock) -> None:
        self._health = health
        self._recorder = recorder
        self._store_pool = store_pool
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}
        self._paused_until: dict[tuple[str, str], float] = {}
        after_fork_in_child(self, lambda own: own._locks.clear())  # noqa: SLF001 — its own

    async def lets_ask(self, turn: Turn, items: Sequence[Item], attempts: Attempts) -> bool:
        """Return whether a rung of which little is known may be asked, once more is known of it.

        Otherwise the items say why not: it cannot do it, or did not even answer the probe.
        """
        backend, started = turn.rung.backend, self._clock.monotonic()
        asked = (backend.name, turn.rung.scope.model)
        if started < self._paused_until.get(asked, started):
            return True
        until = started + turn.timeout_s(items) * SHARE
        try:
            await self._find_out(backend, turn, until=until)
        except TimedOutError:
            self._paused_until[asked] = self._clock.monotonic() + PAUSE_S
        except NotSupportedError as refusal:
            attempts.pass_by(items, turn, refusal)
            return False
        except BackendError as error:
            elapsed_s = self._clock.monotonic() - started
            attempts.note(items, turn, "failed", error, elapsed_s=elapsed_s, usage=FREE)  # which the ledger has
            return False
        return True

    async def probe(self, backend: AsyncBackend, *, timeout_s: float) -> ProbeReport:
        """Probe a rung of which anything may be known, and return what was found out.

        Raises:
            BackendError: It did not answer, or cannot be asked now.
        """
        until = self._clock.monotonic() + timeout_s
        request, usage, questions = DescribeRequest(), FREE, 0
        async with self._lock(backend, until=until):
            backend.probe_again()
            backend.check(request)
            while backend.found() is None and questions < MOST_QUESTIONS:
                usage += await self._ask_once(backend, request, until=until)
                questions += 1
        found = backend.found()
        if found is None:
            raise NotSupportedError(f"The {backend.name} backend could not be probed.", backend=backend.name)
        return replace(found, questions=questions, usage=usage)

    async def _find_out(self, backend: Backend, turn: Turn, *, until: float) -> None:
        """Take up what is known of a rung; where nothing is, and it may be probed by itself, find out.

        Raises:
            NotSupportedError: It cannot do what is asked.
            TimedOutError: There was no time.
            BackendError: It did not answer.
        """
        request = turn.call.request
        async with self._lock(backend, until=until):
            await self._store_pool.start(backend.recall)
            backend.check(request)
            for _ in range(MOST_QUESTIONS):
                if not (
                    isinstance(backend, AsyncBackend)
                    and backend.probing == "by itself"
                    and backend.model_for(request).probe_first
                ):
                    return
                await self._ask_once(backend, DescribeRequest(), until=until)
                try:
                    backend.check(request)
                except NotSupportedError as refusal:
                    _log.warning("%s", refusal)
                    raise

    async def _ask_once(self, backend: AsyncBackend, request: DescribeRequest, *, until: float) -> Usage:
        """Let a probe through, send it, and write down what it has taken.

        Raises:
            BackendError: It may not be sent now, or was not answered.
        """
        model = backend.model_for(request).name
        scope = Scope(backend=backend.name, account=backend.credential or backend.name, model=model, task="describe")
        timeout_s = until - self._clock.monotonic()
        if timeout_s <= 0:
            raise TimedOutError("There is no time for a probe.")
        estimate = backend.estimate(request, [await engine_loop().compute.start(_picture)])
        admit = partial(
            self._health.admit, scope, timeout_s=timeout_s, expected_s=backend.expected_s(request), estimate=estimate
        )
        permit = await self._store_pool.start(admit, on_late=lambda late: late.released())
        started = self._clock.monotonic()
        try:
            usage = await backend.probe(timeout_s=timeout_s)
        except asyncio.CancelledError:
            self._store_pool.submit(partial(permit.released, usage=estimate))
            raise
        except BackendError as error:
            tell_rung(error, backend)
            elapsed_s = self._clock.monotonic() - started
            spent = error.usage or (Usage() if error.kind in MAYBE_BILLED else FREE)
            self._book(permit, model, spent, elapsed_s=elapsed_s, error=error)
            is_slow = isinstance(error, TimedOutError)  # says nothing of the server: the time was short
            end = permit.released if is_slow else partial(permit.failed, error, elapsed_s=elapsed_s)
            await self._store_pool.start(partial(end, usage=error.usage))
            raise
        if usage is not None:
            self._book(permit, model, usage, elapsed_s=self._clock.monotonic() - started)
        await self._store_pool.start(partial(permit.released, usage=usage or FREE))
        return usage or FREE

    def _book(
        self, permit: Permit, model: str, usage: Usage, *, elapsed_s: float, error: BackendError | None = None
    ) -> None:
        attempt = Attempt(
            backend=permit.scope.backend,
            outcome="failed" if error else "answered",
            model=model,
            error=error.kind if error else None,
            message=error.message if error else None,
            code=error.code if error else None,
            at=self._clock.time(),
            elapsed_s=elapsed_s,
            usage=usage,
        )
        self._recorder.book([attempt], task="probe")

    def _lock(self, backend: Backend, *, until: float) -> _Lock:
        return _Lock(self._locks.setdefault(backend.name, asyncio.Lock()), clock=self._clock, until=until)


class _Lock:
    """A lock that is waited for until a point in time."""

    def __init__(self, lock: asyncio.Lock, *, clock: Clock, until: float) -> None:
        self._lock, self._clock, self._until = lock, clock, until

    async def __aenter__(self) -> None:
        try:
            async with self._clock.timeout_at(self._until):
                await self._lock.acquire()
        except TimeoutError:
            late = TimedOutError("Another call has been probing the server for all the time.")
        else:
            return
        raise late

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


def _picture() -> Image:
    """Return a picture of the size of a probe's."""
    from PIL import Image as PILImage

    from vision_backends.images import open_image

    return open_image(PILImage.new("RGB", (PICTURE_PX, PICTURE_PX)))
