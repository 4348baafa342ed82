"""Spans and metrics, with OpenTelemetry's own SDK; no global provider is set."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from PIL import Image as PILImage

from vision_backends import AllBackendsFailedError, QuotaExhaustedError, Router, UnavailableError
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.errors import ContentRejectedError, InvalidImageError
from vision_backends.observability.events import AttemptEvent, CallEvent
from vision_backends.observability.otel import Telemetry
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer
from vision_backends.types import Attempt, Usage

IMAGE = PILImage.new("RGB", (64, 48), "teal")
IMAGES = [PILImage.new("RGB", (64, 48), (0, 0, shade)) for shade in range(5)]
START_S = 1_800_000_000
NS = 1_000_000_000
CANARY = "a very private question"

QUOTA = QuotaExhaustedError("No money.", code="insufficient_quota", status=429, request_id="req-1")


class Watched:
    """A router over two backends, and what it reports."""

    def __init__(self, backends, **options):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.router = Router(backends, **options)
        self.telemetry = Telemetry(backends, tracer_provider=self.provider, meter_provider=self.meters)
        self.router.subscribe(self.telemetry)

    @property
    def call(self):
        """The span of the only call."""
        (span,) = [span for span in self.exporter.get_finished_spans() if span.name.startswith("vision ")]
        return span

    @property
    def requests(self):
        """The spans of its requests, in the order in which they began."""
        spans = [span for span in self.exporter.get_finished_spans() if not span.name.startswith("vision ")]
        return sorted(spans, key=lambda span: span.start_time)

    def points(self, name):
        """The points of a histogram."""
        data = self.reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return [point for metric in found if metric.name == name for point in metric.data.data_points]

    def close(self):
        """End everything."""
        self.router.close()
        self.provider.shutdown()
        self.meters.shutdown()


@pytest.fixture
def clock():
    """Time that moves when it is told to."""
    return FakeClock(start=START_S)


@pytest.fixture
def best(clock):
    """A remote backend to play trouble."""
    usage = Usage(input_tokens=70, output_tokens=30, cost_usd=0.5)
    return FakeBackend("best", local=False, usage=usage, batch_size=2, clock=clock)


@pytest.fixture
def spare(clock):
    """A local backend."""
    return FakeBackend("spare", clock=clock)


@pytest.fixture
def watch(best, spare, clock):
    """A maker of watched routers."""
    made = []

    def make(backends=(best, spare), **options):
        made.append(Watched(list(backends), clock=clock, **({"caching": False} | options)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_answer_is_a_call_with_a_request_below(watch, best):
    """Named and filled in by the conventions for generative AI."""
    watched = watch()
    best.play(0.5)
    watched.router.describe(IMAGE)
    (request,) = watched.requests
    assert watched.call.name == "vision describe"
    assert watched.call.kind is SpanKind.INTERNAL
    assert watched.call.parent is None
    assert watched.call.status.status_code is StatusCode.UNSET
    assert request.parent.span_id == watched.call.context.span_id
    assert request.name == "chat best-model"
    assert request.kind is SpanKind.CLIENT
    assert dict(request.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "best",
        "gen_ai.request.model": "best-model",
        "gen_ai.response.model": "best-model",
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 30,
        "vision.outcome": "answered",
        "vision.count": 1,
        "vision.cost_usd": 0.5,
    }
    attributes = dict(watched.call.attributes)
    assert attributes.pop("vision.call_id")
    assert attributes == {
        "vision.task": "describe",
        "vision.count": 1,
        "vision.answered": 1,
        "vision.degraded": False,
        "vision.cached": False,
        "vision.backend": "best",
    }


def test_spans_begin_and_end_when_the_work_did(watch, best, spare):
    """Though they are made when all is over."""
    watched = watch()
    best.play(0.25)
    spare.play(0.5)
    watched.router.describe(IMAGE)
    (request,) = watched.requests
    assert (request.start_time, request.end_time) == (START_S * NS, START_S * NS + NS // 4)
    assert (watched.call.start_time, watched.call.end_time) == (START_S * NS, START_S * NS + NS // 4)


def test_a_failed_request_and_its_stand_in_are_two_spans(watch, best):
    """The call says that it is degraded, and why; it is no failure."""
    watched = watch()
    best.play(QUOTA)
    watched.router.describe(IMAGE)
    failed, answered = watched.requests
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "quota_exhausted"
    assert failed.attributes["vision.code"] == "insufficient_quota"
    assert failed.attributes["vision.request_id"] == "req-1"
    assert failed.attributes["http.response.status_code"] == 429
    assert "gen_ai.response.model" not in failed.attributes
    assert answered.name == "generate_content spare-model"
    assert answered.kind is SpanKind.INTERNAL
    assert watched.call.status.status_code is StatusCode.UNSET
    assert watched.call.attributes["vision.degraded"] is True
    assert watched.call.attributes["vision.reason"] == "best: quota_exhausted"
    assert watched.call.attributes["vision.backend"] == "spare"


def test_a_rung_that_was_not_asked_is_no_span(watch, best):
    """A closed gate sends nothing; the call says so all the same."""
    watched = watch()
    best.play(QUOTA)
    watched.router.describe(IMAGE)
    watched.exporter.clear()
    watched.router.describe(IMAGE)
    assert [span.attributes["gen_ai.provider.name"] for span in watched.requests] == ["spare"]
    assert watched.call.attributes["vision.reason"] == "best: quota_exhausted"


def test_a_cached_answer_is_a_call_without_requests(watch):
    """It costs nothing, and the metrics do not count it."""
    watched = watch(caching=True)
    watched.router.describe(IMAGE)
    watched.exporter.clear()
    watched.router.describe(IMAGE)
    assert watched.requests == []
    assert watched.call.attributes["vision.cached"] is True
    assert watched.call.attributes["vision.backend"] == "best"
    assert sum(point.count for point in watched.points("gen_ai.client.operation.duration")) == 1


def test_a_call_that_nobody_answered_is_an_error(watch, best, spare):
    """Of the last kind that was met."""
    watched = watch()
    best.play(QUOTA)
    spare.play(UnavailableError("Down."), times=2)
    with pytest.raises(AllBackendsFailedError):
        watched.router.describe(IMAGE)
    assert watched.call.status.status_code is StatusCode.ERROR
    assert watched.call.attributes["error.type"] == "unavailable"
    assert watched.call.attributes["vision.answered"] == 0
    assert "vision.backend" not in watched.call.attributes


def test_a_refusal_by_policy_is_an_error_of_the_call(watch, best):
    """It fell back nowhere."""
    watched = watch()
    best.play(ContentRejectedError("No."))
    with pytest.raises(ContentRejectedError):
        watched.router.describe(IMAGE)
    (request,) = watched.requests
    assert request.attributes["error.type"] == watched.call.attributes["error.type"] == "content_rejected"


def test_an_image_that_nobody_was_shown_is_an_error_of_unknown_kind(watch):
    """The event of a call does not say more; the exception does."""
    watched = watch()
    with pytest.raises(InvalidImageError):
        watched.router.describe(b"no image")
    assert watched.call.attributes["error.type"] == "_OTHER"
    assert watched.requests == []


def test_a_request_for_many_inputs_is_one_span(watch, best):
    """With the tokens of all of them."""
    watched = watch()
    best.play(0.5, 0.25, 0.125)
    watched.router.describe_many(IMAGES)
    assert [span.attributes["vision.count"] for span in watched.requests] == [2, 2, 1]
    assert [span.attributes["gen_ai.usage.input_tokens"] for span in watched.requests] == [140, 140, 70]
    assert watched.call.attributes["vision.count"] == watched.call.attributes["vision.answered"] == 5


def test_a_failed_request_for_many_inputs_is_one_span_too(watch, best, spare):
    """It was one request, and nobody answers for the second half of it."""
    watched = watch()
    best.play(QUOTA)
    spare.play(0.5, 0.25)
    watched.router.describe_many(IMAGES[:2])
    failed = [span for span in watched.requests if span.attributes["vision.outcome"] == "failed"]
    assert [span.attributes["vision.count"] for span in failed] == [2]
    assert sum(point.count for point in watched.points("gen_ai.client.operation.duration")) == 3


def test_vectors_that_were_taken_back_are_still_one_request(watch, clock, time_passes):
    """Half a list in one space is of no use, and was paid for."""
    usage = Usage(input_tokens=5, output_tokens=0, cost_usd=0.0)
    first = FakeBackend("first", local=False, space="one@1", batch_size=2, usage=usage, clock=clock)
    second = FakeBackend("second", space="two@1", batch_size=5, clock=clock)
    first.play(0.5, UnavailableError("Down."), UnavailableError("Down."), UnavailableError("Down."))
    watched = watch([first, second])
    with time_passes(clock):
        watched.router.embed_many(IMAGES[:4])
    taken_back = [span for span in watched.requests if span.attributes["vision.outcome"] == "answered"]
    taken_back = [span for span in taken_back if span.name == "embeddings first-model"]
    assert [span.attributes["vision.count"] for span in taken_back] == [2]
    assert watched.call.attributes["vision.backend"] == "second"


def test_a_call_hangs_below_the_span_of_its_caller(watch):
    """As the context of the calling thread has it."""
    watched = watch()
    with watched.provider.get_tracer("application").start_as_current_span("vision page") as page:
        watched.router.detect(IMAGE)
    call = next(span for span in watched.exporter.get_finished_spans() if span.name == "vision detect")
    assert call.parent.span_id == page.get_span_context().span_id
    assert call.context.trace_id == page.get_span_context().trace_id


@pytest.mark.parametrize(("backend", "operation"), [("best", "chat"), ("spare", "detect")])
def test_only_remote_models_chat_about_objects(watch, backend, operation):
    """The conventions have no name for what a detector does."""
    watched = watch()
    watched.router.detect(IMAGE, backend=backend)
    (request,) = watched.requests
    assert request.attributes["gen_ai.operation.name"] == operation


def test_metrics_count_time_and_tokens(watch, best):
    """By operation, provider and model; a failure by its kind."""
    watched = watch()
    best.play(0.5, QUOTA)
    watched.router.describe(IMAGE)
    watched.router.describe(IMAGE)
    durations = {
        (point.attributes["gen_ai.provider.name"], point.attributes.get("error.type")): point.sum
        for point in watched.points("gen_ai.client.operation.duration")
    }
    assert durations == {("best", None): 0.5, ("best", "quota_exhausted"): 0.0, ("spare", None): 0.0}
    tokens = {
        point.attributes["gen_ai.token.type"]: (point.attributes["gen_ai.request.model"], point.sum)
        for point in watched.points("gen_ai.client.token.usage")
    }
    assert tokens == {"input": ("best-model", 70), "output": ("best-model", 30)}
    (bounds,) = {point.explicit_bounds for point in watched.points("gen_ai.client.token.usage")}
    assert bounds[:4] == (1, 4, 16, 64)


def test_the_address_of_a_real_server_is_told(watch):
    """Over a real socket; the key is not."""
    key = "sk-canary-0123456789abcdef"
    with SandboxServer(api_key=key) as server:
        best = OpenAIBackend(api_key=key, base_url=server.url)
        watched = watch([best])
        watched.router.describe(IMAGE, prompt=CANARY)
        (request,) = watched.requests
        host, port = server.url.removeprefix("http://").partition("/")[0].split(":")
    assert (request.attributes["server.address"], request.attributes["server.port"]) == (host, int(port))
    assert request.attributes["gen_ai.usage.input_tokens"] > 0
    told = "".join(span.to_json() for span in watched.exporter.get_finished_spans())
    assert key not in told
    assert CANARY not in told


def test_no_prompt_text_or_label_is_told(watch, best):
    """Though the sentences of errors may quote them."""
    watched = watch()
    best.play(QuotaExhaustedError(f"No money for {CANARY!r}.", remedy=f"Do not ask {CANARY!r}."))
    watched.router.describe(IMAGE, prompt=CANARY)
    watched.router.embed_text(CANARY)
    watched.router.detect(IMAGE, labels=[CANARY])
    told = "".join(span.to_json() for span in watched.exporter.get_finished_spans())
    assert "quota_exhausted" in told
    assert CANARY not in told


def test_a_call_that_was_interrupted_while_it_was_told_leaves_nothing_to_the_next(watch):
    """Its attempts are forgotten."""
    watched = watch()
    attempt = Attempt(backend="gone", outcome="answered", at=1.0)
    watched.telemetry(AttemptEvent(call_id="interrupted", task="describe", attempt=attempt))
    watched.router.describe(IMAGE)
    assert [span.attributes["gen_ai.provider.name"] for span in watched.requests] == ["best"]
    watched.telemetry(AttemptEvent(call_id="interrupted", task="describe", attempt=attempt))
    watched.exporter.clear()
    with pytest.raises(InvalidImageError):
        watched.router.describe(b"no image")
    assert watched.requests == []


def test_a_backend_that_says_nothing_of_itself_is_told_as_far_as_that_goes(watch, clock):
    """A listener may be made without the backends, and a model may have no name."""
    watched = watch()
    attempt = Attempt(backend="other", outcome="failed", error="unavailable", at=clock.time())
    watched.telemetry(AttemptEvent(call_id="1", task="describe", attempt=attempt))
    watched.telemetry(CallEvent(call_id="1", task="describe", count=1, answered=0, degraded=0, at=1.0, elapsed_s=0.0))
    (request,) = watched.requests
    assert request.name == "chat"
    assert request.kind is SpanKind.CLIENT
    assert not any(name.startswith(("gen_ai.request", "server")) for name in request.attributes)


FRESH_SCRIPT = """
import sys
{before}
from vision_backends import Router
from vision_backends.testing import FakeBackend
with Router([FakeBackend("best")]) as router:
    router.embed_text("hello")
print("vision_backends.observability.otel" in sys.modules, "opentelemetry.trace" in sys.modules)
{after}
"""

SET_UP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
"""


def run_fresh(*, before="", after=""):
    """Return what a fresh interpreter prints."""
    script = FRESH_SCRIPT.format(before=before, after=after)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.splitlines()


def test_an_application_that_uses_opentelemetry_has_to_do_nothing():
    """A router finds the global provider."""
    names = "print([span.name for span in exporter.get_finished_spans()])"
    told = run_fresh(before=SET_UP, after=names)
    assert told == ["True True", "['embeddings best-model', 'vision embed_text']"]


def test_one_that_does_not_pays_nothing():
    """Opentelemetry is not imported on its behalf, though it is installed."""
    assert run_fresh() == ["False False"]


def test_one_that_is_too_old_hurts_nobody(monkeypatch, caplog):
    """It is logged, and the router answers."""
    monkeypatch.setitem(sys.modules, "vision_backends.observability.otel", None)
    with Router([FakeBackend("best")]) as router:
        assert router.embed_text("hello").trace.backend == "best"
    assert "Nothing is reported to OpenTelemetry." in caplog.text
