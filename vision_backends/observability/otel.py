"""Calls and attempts as OpenTelemetry's spans and metrics.

A span per call of the router hangs below the one that is current in the caller's context, and below it one span per
request that really went to a backend. Names follow the semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/, version 1.37), and ``vision.*`` where those have none. No
prompt, text or image is reported, nor any sentence that might quote one.

This module decides what a call looks like there. It must not be imported unless the application uses OpenTelemetry,
which is not a dependency of this package.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from vision_backends.errors import SpaceUnavailableError
from vision_backends.observability.events import AttemptEvent, CallEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from vision_backends.backends.base import Backend
    from vision_backends.observability.events import Event
    from vision_backends.types import Attempt, Task, Usage

    Value = str | bool | int | float
    Attributes = dict[str, Value]

__all__ = ["Telemetry"]

SCOPE = "vision_backends"

REMOTE_OPERATIONS: dict[Task, str] = {
    "describe": "chat",
    "embed": "embeddings",
    "embed_text": "embeddings",
    "detect": "chat",
    "ask": "chat",
}
LOCAL_OPERATIONS: dict[Task, str] = REMOTE_OPERATIONS | {
    "describe": "generate_content",
    "detect": "detect",
    "ask": "generate_content",
}
"""``gen_ai.operation.name``; a local model does not chat, and there is no name for detection yet."""

DURATION_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = tuple(4**power for power in range(14))
"""Bucket boundaries that the conventions recommend."""

UNKNOWN_ERROR = "_OTHER"
"""The conventions' name for an error of unknown kind."""

DEFAULT_PORTS = {"http": 80, "https": 443}

US = 1_000_000
NS_PER_US = 1_000


class _Request(NamedTuple):
    """One request to a backend, its outcome, and how many inputs it had."""

    attempt: Attempt
    usage: Usage
    inputs: int


class Telemetry:
    """A listener for `Router.subscribe` that reports to OpenTelemetry.

    A router subscribes one of its own, with the global providers, if OpenTelemetry had been imported when the
    router was made.

    Args:
        backends: The router's backends, to tell local ones from remote ones; others count as remote.
        tracer_provider: Makes the spans; the global one by default.
        meter_provider: Makes the metrics; the global one by default.
    """

    def __init__(
        self,
        backends: Iterable[Backend] = (),
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._servers: dict[str, Attributes] = {}
        self._gathered = _Gathered()

    def __call__(self, event: Event) -> None:
        """Gather the attempts of a call, and report them all when it has ended."""
        if isinstance(event, AttemptEvent):
            self._gathered.add(event)
        elif isinstance(event, CallEvent):
            self._report(event, self._gathered.take(event.call_id))

    def _report(self, call: CallEvent, attempts: Sequence[Attempt]) -> None:
        span = self._tracer.start_span(
            f"vision {call.task}",
            kind=SpanKind.INTERNAL,
            attributes=_attributes_of_call(call, attempts),
            start_time=_ns(call.at - call.elapsed_s),
        )
        below = trace.set_span_in_context(span, context.get_current())
        for request in _requests(attempts):
            self._report_request(call.task, request, below)
        if call.count and not call.answered:
            error = attempts[-1].error if attempts else None
            _fail(span, error)
        span.end(end_time=_ns(call.at))

    def _report_request(self, task: Task, request: _Request, below: context.Context) -> None:
        attempt, usage = request.attempt, request.usage
        where = self._where(task, attempt)
        span = self._tracer.start_span(
            " ".join(filter(None, (str(where["gen_ai.operation.name"]), attempt.model))),
            context=below,
            kind=SpanKind.INTERNAL if self._is_local(attempt.backend) else SpanKind.CLIENT,
            attributes=where | _attributes_of_request(request),
            start_time=_ns(attempt.at - attempt.elapsed_s),
        )
        if attempt.outcome == "failed":
            where["error.type"] = attempt.error or UNKNOWN_ERROR
            _fail(span, attempt.error)
        span.end(end_time=_ns(attempt.at))
        self._duration.record(attempt.elapsed_s, where, below)
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens:
                self._tokens.record(tokens, where | {"gen_ai.token.type": kind}, below)

    def _is_local(self, name: str) -> bool:
        backend = self._backends.get(name)
        return backend is not None and backend.local

    def _where(self, task: Task, attempt: Attempt) -> Attributes:
        """Return the attributes that spans and metrics share: the operation and the backend."""
        local = self._is_local(attempt.backend)
        attributes: Attributes = {
            "gen_ai.operation.name": (LOCAL_OPERATIONS if local else REMOTE_OPERATIONS)[task],
            "gen_ai.provider.name": attempt.backend,
        }
        if attempt.model:
            attributes["gen_ai.request.model"] = attempt.model
            if attempt.outcome == "answered":
                attributes["gen_ai.response.model"] = attempt.model
        return attributes | self._server(attempt.backend)

    def _server(self, name: str) -> Attributes:
        """Return the server of a remote backend, if it names one."""
        if name not in self._servers:
            backend = self._backends.get(name)
            facts = {} if backend is None or backend.local else backend.status()
            parts = urlsplit(str(facts.get("base_url", "")))
            port = parts.port or DEFAULT_PORTS.get(parts.scheme)
            self._servers[name] = {}
            if parts.hostname and port:
                self._servers[name] = {"server.address": parts.hostname, "server.port": port}
        return self._servers[name]


MOST_CALLS = 10_000
"""Calls whose attempts are kept until they end; one that was interrupted may never say so."""


class _Gathered:
    """The attempts of the calls that have not ended yet; a router tells of all its calls in one thread."""

    def __init__(self) -> None:
        self._attempts: dict[str, list[Attempt]] = {}

    def add(self, event: AttemptEvent) -> None:
        self._attempts.setdefault(event.call_id, []).append(event.attempt)
        if len(self._attempts) > MOST_CALLS:
            del self._attempts[next(iter(self._attempts))]

    def take(self, call_id: str) -> list[Attempt]:
        return self._attempts.pop(call_id, [])


def _requests(attempts: Sequence[Attempt]) -> list[_Request]:
    """Return the requests behind the attempts of a call: one that was for many inputs is noted on each of them.

    A failure is one and the same record on all of them. Answers are one record each, with the same duration, and
    come one after the other; so do those that were taken back.
    """
    requests: list[list[Attempt]] = []
    latest: dict[object, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.outcome in {"cached", "skipped"}:
            continue
        shared = attempt.outcome == "failed" and attempt.error != SpaceUnavailableError.kind
        key = id(attempt) if shared else (attempt.backend, attempt.model)
        if key not in latest or latest[key][0].elapsed_s != attempt.elapsed_s:
            latest[key] = []
            requests.append(latest[key])
        latest[key].append(attempt)
    return [_Request(attempt=each[-1], usage=_usage(each), inputs=len(each)) for each in requests]


def _usage(attempts: Sequence[Attempt]) -> Usage:
    return reduce(add, (attempt.usage for attempt in {id(attempt): attempt for attempt in attempts}.values()))


def _attributes_of_call(call: CallEvent, attempts: Sequence[Attempt]) -> Attributes:
    answers = [attempt.backend for attempt in attempts if attempt.outcome in {"answered", "cached"}]
    gave = set(answers[-call.answered :] if call.answered else ())  # those before were taken back
    missed = dict.fromkeys(f"{attempt.backend}: {attempt.error}" for attempt in attempts if attempt.is_miss)
    attributes: Attributes = {
        "vision.call_id": call.call_id,
        "vision.task": call.task,
        "vision.count": call.count,
        "vision.answered": call.answered,
        "vision.degraded": call.degraded > 0,
        "vision.cached": bool(gave) and all(attempt.outcome != "answered" for attempt in attempts),
    }
    if len(gave) == 1:
        attributes["vision.backend"] = gave.pop()
    if missed:
        attributes["vision.reason"] = "; ".join(missed)
    return attributes


def _attributes_of_request(request: _Request) -> Attributes:
    attempt, usage = request.attempt, request.usage
    known: dict[str, Value | None] = {
        "vision.outcome": attempt.outcome,
        "vision.count": request.inputs,
        "vision.code": attempt.code,
        "vision.request_id": attempt.request_id,
        "http.response.status_code": attempt.status,
    }
    if attempt.outcome == "answered":
        known |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "vision.cost_usd": usage.cost_usd,
        }
    return {name: value for name, value in known.items() if value is not None}


def _fail(span: Span, error: str | None) -> None:
    span.set_attribute("error.type", error or UNKNOWN_ERROR)
    span.set_status(StatusCode.ERROR)


def _ns(at: float) -> int:
    """Return a time in nanoseconds, as exact as a float of seconds since 1970 can be."""
    return round(at * US) * NS_PER_US
