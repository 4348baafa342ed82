"""How the rungs stand before anybody is asked, and how that is told.

This module decides what `Router.explain` and `Router.status` say. It asks no backend and changes nothing, and must
not know what comes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.backends.requests import EmbedRequest, EmbedTextRequest
from vision_backends.backends.rung_names import tell_rung
from vision_backends.errors import BackendError, NotSupportedError, without_frames
from vision_backends.health.policy import Scope
from vision_backends.reports import Explanation, Verdict
from vision_backends.routing.call import Rung

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Model, Request
    from vision_backends.health.admission import GateSnapshot
    from vision_backends.routing.attempts import Attempts

__all__ = ["explain", "survey"]


def survey(backends: Sequence[Backend], request: Request) -> list[Rung]:
    """Return how each backend stands for a request; asks no backend and changes nothing."""
    return [_stand(backend, request) for backend in backends]


def _stand(backend: Backend, request: Request) -> Rung:
    model: Model | None = None
    refusal: BackendError | None = None
    try:
        model = backend.model_for(request)
        wanted = getattr(request, "space", None)
        if wanted is not None and wanted != model.space:
            lives = f"Its vectors live in the space {' or '.join(map(repr, backend.spaces(request)))}."
            raise NotSupportedError(lives, remedy=_another_space(backend, request))
        backend.check(request)
    except BackendError as error:
        tell_rung(error, backend)
        refusal = without_frames(error)
    name = model.name if model else ""
    scope = Scope(backend=backend.name, account=backend.credential or backend.name, model=name, task=request.task)
    return Rung(backend=backend, scope=scope, model=model, refusal=refusal)


def _another_space(backend: Backend, request: Request) -> str | None:
    """Return how a backend could be asked that has no vectors in the space that is asked for; None if it could not."""
    plain = EmbedRequest() if isinstance(request, EmbedRequest) else EmbedTextRequest()
    other = EmbedTextRequest() if isinstance(request, EmbedRequest) else EmbedRequest()
    try:
        backend.check(plain)
        backend.check(other)
        shared = [space for space in backend.spaces(plain) if space in backend.spaces(other)]
    except BackendError:
        return None
    return f"Embed images and texts with space={shared[0]!r}." if shared else None


def explain(backends: Sequence[Backend], request: Request, attempts: Attempts) -> Explanation:
    """Return what would happen if this were asked now; may block."""
    for backend in backends:
        backend.recall()
    rungs = survey(backends, request)
    gates = attempts.look(rungs)
    verdicts = tuple(_verdict(rung, request, attempts, gates) for rung in rungs)
    return Explanation(task=request.task, verdicts=verdicts)


def _verdict(rung: Rung, request: Request, attempts: Attempts, gates: GateSnapshot) -> Verdict:
    blocked = attempts.blocked(rung, gates)
    return Verdict(
        backend=rung.backend.name,
        ready=blocked is None,
        model=rung.model.name if rung.model else None,
        space=rung.model.space if rung.model else None,
        spaces=rung.backend.spaces(request) if rung.model else (),
        error=blocked.kind if blocked else None,
        reason=blocked.message if blocked else None,
        remedy=blocked.remedy if blocked else None,
        code=blocked.code if blocked else None,
        retry_after_s=blocked.retry_after_s if blocked else None,
        expected_s=attempts.cold_starts.expected_s(rung, request) if rung.model else None,
        notes=tuple(rung.backend.learned(request)),
        unpriced=tuple(rung.backend.unpriced(request)),
    )
