"""What the sandbox answers to a call: the fault being played, or the healthy reply within the limits.

This module decides the order of things: fault, key, request, limits, answer, log. It must not know sockets.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox import chat, embeddings, responses
from vision_backends.testing.sandbox.context import Context, Draft
from vision_backends.testing.sandbox.fault_table import FAULTS
from vision_backends.testing.sandbox.limits import Limiter, Limits
from vision_backends.testing.sandbox.pictures import Album
from vision_backends.testing.sandbox.player import Player
from vision_backends.testing.sandbox.request_log import Journal, ReceivedRequest, summary
from vision_backends.testing.sandbox.wire import ApiError, HttpReply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vision_backends.clock import Clock
    from vision_backends.testing.sandbox.faults import Fault
    from vision_backends.testing.sandbox.wire import HttpRequest

__all__ = ["DEFAULT_MODELS", "INVALID_KEY", "Service"]

DEFAULT_MODELS = ("gpt-5.4-mini", "gpt-5.4", "text-embedding-3-small", "text-embedding-3-large")
"""What ``GET /v1/models`` lists unless told otherwise."""

INVALID_KEY = "sk-invalid"
"""A key that is always refused."""

_ENDPOINTS: Mapping[str, Callable[[Mapping[str, Any], Context], Draft]] = {
    "/v1/chat/completions": chat.respond,
    "/v1/responses": responses.respond,
    "/v1/embeddings": embeddings.respond,
}
_MODELS = "/v1/models"
_TAGS = "/api/tags"
"""Where Ollama lists its models besides."""

_OLLAMA = "library"
"""Who owns the models of Ollama."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    reply: HttpReply
    draft: Draft | None = None
    charged: bool = False


class Service:
    """Answers calls; safe to use from many threads.

    Args:
        api_key: The only key that is accepted; None accepts any but `INVALID_KEY`.
        keyless: Whether a call without a key is accepted.
        models: The models that exist; None accepts any name.
        owner: Who owns the models.
        limits: What is admitted.
        clock: Where time comes from.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        keyless: bool,
        models: tuple[str, ...] | None,
        owner: str,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.player = Player()
        self.journal = Journal()
        self._api_key = api_key
        self._keyless = keyless
        self._models = models
        self._owner = owner
        self._clock = clock
        self._album = Album()
        self._limiter = Limiter(limits, clock=clock)
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def limit(self, limits: Limits) -> None:
        """Admit this much from now on; what was spent before is forgotten."""
        self._limiter = Limiter(limits, clock=self._clock)

    def reset(self) -> None:
        """Forget what was played and received."""
        with self._lock:
            self._numbers = itertools.count()
            self.player.reset()
            self.journal.clear()

    def answer(self, call: HttpRequest) -> tuple[HttpReply, Fault]:
        """Return the reply to a call, and the fault that says how to deliver it."""
        model = call.body.get("model") if isinstance(call.body, dict) else None
        model = model if isinstance(model, str) else None
        with self._lock:  # so that the log and the plans count alike
            index = next(self._numbers)
            fault = self.player.next(call.path, model)
        context = Context(album=self._album, ident=f"sandbox{index:08x}", created=int(self._clock.time()), fault=fault)
        outcome = self._outcome(call, model, context)
        reply = _with_headers(outcome.reply, fault, request_id=f"req_{context.ident}")
        self.journal.add(
            ReceivedRequest(
                index=index,
                method=call.method,
                path=call.path,
                headers=call.headers,
                model=model,
                body=summary(call.body),
                size_bytes=call.size_bytes,
                pictures=outcome.draft.pictures if outcome.draft else (),
                fault=fault.name,
                status=reply.status,
                tokens=outcome.draft.tokens if outcome.draft and outcome.charged else 0,
                at_s=self._clock.monotonic(),
            )
        )
        return reply, fault

    def _outcome(self, call: HttpRequest, model: str | None, context: Context) -> _Outcome:
        fault = context.fault
        draft: Draft | None = None
        flaw: ApiError | None = None
        try:
            draft = self._draft(call, model, context)
        except ApiError as exc:
            flaw = exc
        if fault.status is not None:
            return _Outcome(reply=HttpReply(status=fault.status, body=fault.body), draft=draft)
        if not self._is_accepted(call.key):
            return _Outcome(reply=_error("invalid_api_key" if call.key else "missing_api_key"), draft=draft)
        if draft is None:
            return _Outcome(reply=_refuse(flaw or ApiError("invalid_request")))
        if call.method != "POST":
            return _Outcome(reply=draft.reply, draft=draft)
        verdict = self._limiter.admit(model or "", tokens=draft.tokens)
        if verdict.refusal is not None:
            refusal = _canned(verdict.refusal)
            return _Outcome(reply=replace(refusal, headers={**verdict.headers, **refusal.headers}), draft=draft)
        return _Outcome(
            reply=replace(draft.reply, headers={**draft.reply.headers, **verdict.headers}), draft=draft, charged=True
        )

    def _draft(self, call: HttpRequest, model: str | None, context: Context) -> Draft:
        if call.path == _MODELS or call.path.startswith(f"{_MODELS}/"):
            if call.method != "GET":
                raise ApiError("method_not_allowed")
            return Draft(reply=HttpReply(body=self._listing(call.path.removeprefix(_MODELS).strip("/"))))
        if call.path == _TAGS and self._owner == _OLLAMA:
            return Draft(reply=HttpReply(body={"models": [{"name": name} for name in self._models or DEFAULT_MODELS]}))
        endpoint = _ENDPOINTS.get(call.path)
        if endpoint is None:
            raise ApiError("unknown_url", message=f"Invalid URL ({call.method} {call.path})")
        if call.method != "POST":
            raise ApiError("method_not_allowed")
        if not isinstance(call.body, dict):
            raise ApiError("invalid_request", message="We could not parse the JSON body of your request.")
        if not model:
            raise ApiError("invalid_request", message="you must provide a model parameter", param="model")
        self._check_model(model)
        return endpoint(call.body, context)

    def _listing(self, name: str) -> dict[str, Any]:
        rows = {
            model: {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": self._owner}
            for model in (self._models or DEFAULT_MODELS)
        }
        if not name:
            return {"object": "list", "data": list(rows.values())}
        self._check_model(name)
        return rows.get(name) or {**next(iter(rows.values())), "id": name}

    def _check_model(self, name: str) -> None:
        if self._models is not None and name not in self._models:
            message = f"The model `{name}` does not exist or you do not have access to it."
            raise ApiError("model_not_found", message=message)

    def _is_accepted(self, key: str | None) -> bool:
        if not key:
            return self._keyless
        if key == INVALID_KEY:
            return False
        return self._api_key is None or secrets.compare_digest(key.encode(), self._api_key.encode())


def _canned(fault: Fault) -> HttpReply:
    kept = {name: value for name, value in fault.headers.items() if value is not None}
    return HttpReply(status=fault.status or 500, body=fault.body, headers=kept)


def _error(name: str) -> HttpReply:
    return _canned(FAULTS[name])


def _refuse(flaw: ApiError) -> HttpReply:
    row = FAULTS[flaw.fault]
    error = {**row.body["error"], "param": flaw.param}
    if flaw.message:
        error["message"] = flaw.message
    return replace(_canned(row), body={"error": error})


def _with_headers(reply: HttpReply, fault: Fault, *, request_id: str) -> HttpReply:
    """Add what every reply carries, then apply what the fault adds and removes."""
    headers = {
        "x-request-id": request_id,
        "openai-version": "2020-10-01",
        "openai-processing-ms": "1",
        **reply.headers,
    }
    for name, value in fault.headers.items():
        if value is not None:
            headers[name] = value
        elif name.endswith("*"):
            headers = {key: kept for key, kept in headers.items() if not key.startswith(name[:-1])}
        else:
            headers.pop(name, None)
    return replace(reply, headers=headers)
