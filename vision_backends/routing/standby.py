"""Warm standby: at the first sign of trouble with a rung, the rung that would take over is made ready.

This module decides what is a sign, and who is made ready for what. It hears of attempts and gates, and must not
know how a backend becomes ready, nor what answers are made of.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from vision_backends.backends.requests import shape_of
from vision_backends.errors import BackendError, NotReadyError
from vision_backends.health.budgets import Alert

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.health.policy import Transition
    from vision_backends.types import Attempt, Task

__all__ = ["Standby"]

SIGNS = frozenset(
    {
        "authentication",
        "backend_error",
        "hedged",
        "invalid_reply",
        "model_not_found",
        "overloaded",
        "quota_exhausted",
        "rate_limited",
        "refused",
        "timed_out",
        "unavailable",
    }
)
"""What an attempt fails with, or is kept out for, that says something about the rung's health; see `VisionError.kind`.
A caller's own fault does not, nor does a rung that can never do it or is not ready yet."""

LEFT_SHARE = 0.1
"""A server that has less than this part of a minute's requests or tokens left may soon refuse."""

_log = logging.getLogger(__name__)


class Standby:
    """Hears of attempts and gates, and asks for a warm-up once per trouble. Safe for many threads.

    Only what this process has been asked for is made ready, so that a program that embeds loads no captioner. A
    trouble ends when the rung has answered again with enough left.

    Args:
        ladders: The backends of each task, best first.
        warm_up: Makes a backend ready for a request in the background.
        later: Does in another thread what may block.
    """

    def __init__(
        self,
        ladders: Mapping[Task, Sequence[Backend]],
        warm_up: Callable[[Backend, Request], object],
        *,
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self._later = later
        self._ladders = ladders
        self._backends = {task: {backend.name: backend for backend in ladder} for task, ladder in ladders.items()}
        self._warm_up = warm_up
        self._asked: dict[tuple[str, ...], Request] = {}
        self._troubled: set[tuple[str, tuple[str, ...]]] = set()

    def remember(self, request: Request) -> None:
        """Note what is asked for in this process: the latest request of each shape."""
        self._asked[shape_of(request)] = request

    def __call__(self, event: Transition | Alert) -> None:
        """Make the next rung ready if a gate or a budget is a sign of trouble."""
        for shape, request in tuple(self._asked.items()):
            if isinstance(event, Alert) or self._is_blocked_for(event, request):
                reason = event.budget if isinstance(event, Alert) else event.reason
                names = (isinstance(event, Alert) and event.backends) or (event.backend,)
                for name in names:
                    self._stand_by(name, request, shape, reason)

    def judge(self, attempt: Attempt, task: Task) -> None:
        """Make the next rung ready if an attempt is a sign of trouble."""
        name, answered = attempt.backend, attempt.outcome == "answered"
        # A rung that was skipped for want of time has done nothing wrong.
        failed = attempt.error in SIGNS and (attempt.outcome, attempt.error) != ("skipped", "timed_out")
        if not (answered or failed):
            return
        for shape, request in tuple(self._asked.items()):
            if request.task != task:
                continue
            if failed:
                self._stand_by(name, request, shape, attempt.code or attempt.error or "")
            elif self._is_nearly_spent(name, request):
                self._stand_by(name, request, shape, "limit_near")
            else:
                self._troubled.discard((name, shape))

    def _stand_by(self, name: str, request: Request, shape: tuple[str, ...], reason: str) -> None:
        """Make ready what is below a rung, down to the first that can answer."""
        if (name, shape) in self._troubled:
            return
        self._troubled.add((name, shape))  # two threads may both get here: their warm-ups are one
        self._later(partial(self._make_ready, name, request, reason))

    def _make_ready(self, name: str, request: Request, reason: str) -> None:
        ladder = self._ladders[request.task]
        place = next((place for place, backend in enumerate(ladder) if backend.name == name), len(ladder))
        for backend in ladder[place + 1 :]:
            try:
                backend.check(request)
            except NotReadyError:
                self._warm_up(backend, request)  # it may fetch what it lacks; until then it is passed by
            except BackendError:
                continue
            else:
                _log.info("%s: %s. %s gets ready to %s.", name, reason, backend.name, request.task)
                self._warm_up(backend, request)
                return

    def _is_blocked_for(self, event: Transition, request: Request) -> bool:
        if event.after != "blocked" or event.task not in {"", request.task}:
            return False
        backend = self._backends[request.task].get(event.backend)
        if backend is None or not event.model:
            return backend is not None
        try:
            return backend.model_for(request).name == event.model
        except BackendError:
            return False

    def _is_nearly_spent(self, name: str, request: Request) -> bool:
        """Tell whether a server's last reply has left little of the minute, where it says so at all."""
        backend = self._backends[request.task].get(name)
        limits = None if backend is None else backend.rate_limits(request)
        if limits is None:
            return False
        pairs = (
            (limits.remaining_requests, limits.limit_requests),
            (limits.remaining_tokens, limits.limit_tokens),
        )
        return any(left is not None and limit is not None and left < limit * LEFT_SHARE for left, limit in pairs)
