"""The whole ladder over a real socket: the real SDK asks a server that plays trouble."""

import json
import logging
import pickle
import threading
import traceback
from contextlib import suppress

import pytest
from PIL import Image as PILImage

from vision_backends import AllBackendsFailedError, ContentRejectedError, Router, StreamInterruptedError, VisionError
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer
from vision_backends.testing.sandbox import Fault
from vision_backends.testing.sandbox.limits import Limits as ServerLimits

IMAGE = PILImage.new("RGB", (64, 48), "teal")
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def server():
    """An OpenAI server on loopback."""
    with SandboxServer(api_key=CANARY) as running:
        yield running


@pytest.fixture
def make_router(server):
    """A maker of routers: the server above, a fake below."""
    made = []

    def make(**options):
        table = options.pop("openai", {})
        best = OpenAIBackend(api_key=CANARY, base_url=server.url, timeout_s=5, **table)
        made.append(Router([best, FakeBackend("spare")], **options))
        return made[-1]

    yield make
    for router in made:
        router.close()


def test_a_healthy_server_describes_detects_and_embeds(make_router):
    """With tokens in every trace; the price of an unknown model stays unknown."""
    router = make_router(openai={"model": "my-model"})
    caption = router.describe(IMAGE)
    assert "64" in caption.text
    assert caption.trace.backend == "openai"
    assert caption.trace.usage.input_tokens > 0
    assert caption.trace.usage.cost_usd is None
    found = router.detect(IMAGE, labels=["a square"])
    assert all(box.label == "a square" for box in found)
    vector, query = router.embed(IMAGE), router.embed_text("a teal square", space=router.embed(IMAGE).space)
    assert vector.space == query.space
    assert "via=my-model" in vector.space


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource", "tool_calls"])
def test_half_an_answer_is_neither_given_nor_kept(make_router, server, word):
    """The next rung answers instead, and says why."""
    choice = {"message": {"content": "A teal squ"}, "finish_reason": word}
    server.play(Fault(status=200, body={"choices": [choice]}), times=1)
    router = make_router()
    answer = router.describe(IMAGE)
    assert (answer.trace.backend, answer.trace.degraded) == ("spare", True)
    assert word in answer.trace.reason
    again = router.describe(IMAGE)
    assert again.trace.backend == "openai"
    assert not again.trace.cached


def test_a_flawed_box_is_counted_also_when_its_answer_comes_from_the_cache(make_router, server):
    """Whoever gets the answer later should know as much."""
    box = {"label": "cat", "confidence": 90, "x1": 100, "y1": 100, "x2": 900, "y2": 900}
    rows = json.dumps({"objects": [box, {**box, "label": "unicorn"}]})
    server.play(Fault(status=200, body={"choices": [{"message": {"content": rows}, "finish_reason": "stop"}]}))
    router = make_router(store=open_store(None))
    traces = [router.detect(IMAGE).trace for _ in range(2)]
    assert [trace.cached for trace in traces] == [False, True]
    assert [trace.flawed_boxes for trace in traces] == [1, 1]


def test_a_dead_quota_costs_one_request_for_all_tasks(make_router, server):
    """Promise 1, on the wire."""
    server.play("quota_gone")
    router = make_router(caching=False)
    for _ in range(50):
        assert router.describe(IMAGE).trace.backend == "spare"
        assert router.detect(IMAGE).trace.degraded
    assert len(server.requests) == 1


def test_after_topping_up_a_reset_asks_again(make_router, server):
    """Without waiting for the probe."""
    server.play("quota_gone")
    router = make_router(caching=False)
    router.describe(IMAGE)
    server.heal()
    assert router.describe(IMAGE).trace.backend == "spare"
    assert router.reset("openai") == 1
    assert router.describe(IMAGE).trace.backend == "openai"


def test_fifty_callers_at_the_moment_the_gate_ends_are_one_probe(make_router, server):
    """Everybody else takes the next rung."""
    clock = FakeClock()
    router = make_router(clock=clock, caching=False)
    server.play("quota_gone")
    router.describe(IMAGE)
    clock.advance(15 * 60 + 1)
    meeting, answers = threading.Barrier(50), []

    def work():
        meeting.wait()
        answers.append(router.describe(IMAGE).trace.backend)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["spare"] * 50
    assert len(server.requests) == 2


def test_retry_after_twenty_seconds_is_not_waited_for(make_router, server):
    """The next rung answers at once, and the server is left alone for that long."""
    clock = FakeClock()
    router = make_router(clock=clock, caching=False)
    server.play("rate_limited", times=1)
    answer = router.describe(IMAGE)
    assert answer.trace.backend == "spare"
    assert answer.trace.attempts[0].error == "rate_limited"
    assert clock.monotonic() < 1
    router.describe(IMAGE)
    assert len(server.requests) == 1


def test_a_second_process_does_not_ask_a_dead_server_again(make_router, server, tmp_path):
    """The gates live in the file that both share."""
    server.play("quota_gone")
    for _ in range(2):
        router = make_router(store=open_store(tmp_path / "state.sqlite"), caching=False)
        assert router.describe(IMAGE).trace.backend == "spare"
        router.close()
    assert len(server.requests) == 1


def test_a_refusal_by_policy_is_raised_and_closes_nothing(make_router, server):
    """Promise 2, on the wire."""
    router = make_router()
    server.play("content_policy_violation", times=1)
    with pytest.raises(ContentRejectedError):
        router.describe(IMAGE)
    assert router.describe(IMAGE).trace.backend == "openai"


def test_a_stream_that_drops_keeps_its_text(make_router, server):
    """And one that fails before its first piece falls back."""
    router = make_router(caching=False)
    assert "".join(router.describe_stream(IMAGE)) == str(router.describe(IMAGE))
    server.play("reset_midway", times=1)
    stream, said = router.describe_stream(IMAGE), []
    with pytest.raises(StreamInterruptedError) as caught:
        said.extend(stream)
    assert caught.value.partial
    server.play("quota_gone")
    assert "".join(router.describe_stream(IMAGE)).startswith("spare says")


def test_only_pixels_leave_the_machine(make_router, server, tmp_path):
    """No EXIF, GPS or comment arrives at the server."""
    path = tmp_path / "private.jpg"
    exif = PILImage.Exif()
    exif[0x010E] = "taken at home"
    IMAGE.save(path, exif=exif, comment=b"my address")
    make_router().describe(path)
    (request,) = server.requests
    (picture,) = request.pictures
    assert picture.metadata == ()


def test_the_key_is_found_nowhere(make_router, server, caplog, tmp_path):
    """Not in logs, errors, tracebacks, events, records, pickles, nor in the state file."""
    caplog.set_level(logging.DEBUG)
    store = open_store(tmp_path / "state.sqlite")
    router, seen = make_router(store=store, caching=True), []
    router.subscribe(lambda event: seen.append(repr(event)))
    for fault in ("invalid_api_key", "server_error", "connection_reset", "html_200", "quota_gone"):
        server.play(fault, times=1)
        router.reset()
        try:
            seen.append(repr(router.describe(IMAGE, backend="openai", prompt=fault)))
        except VisionError as error:
            seen += ["".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())]
            seen += [repr(error), str(error), repr(pickle.dumps(error))]
    seen += [repr(router.status()), repr(router.gates()), repr(list(router.ledger())), caplog.text]
    router.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert CANARY not in "".join(seen)
    assert CANARY.encode() not in kept


def test_budgets_are_kept_and_told_once(make_router, server):
    """At 80 and 100 percent, and then nobody is asked."""
    from vision_backends.health.budgets import Alert, Limits

    router = make_router(caching=False, limits={"openai": Limits(daily_budget_tokens=12_000)})
    alerts = []
    router.subscribe(lambda event: alerts.append(event) if isinstance(event, Alert) else None)
    backends = [router.describe(IMAGE, prompt=f"{number}?").trace.backend for number in range(60)]
    assert backends[0] == "openai"
    assert backends[-1] == "spare"
    assert [alert.percent for alert in alerts] == [80, 100]
    (spending,) = router.spending()
    billed = sum(row.input_tokens + row.output_tokens for row in router.ledger() if row.backend == "openai")
    assert spending.spent == billed <= 12_000


@pytest.mark.parametrize("fault", ["refusal", "content_filter", "schema_broken", "boxes_out_of_range"])
def test_what_a_useless_answer_was_billed_is_booked(make_router, server, fault):
    """The server has done its work, and wants to be paid for it."""
    from vision_backends.health.budgets import Limits

    router = make_router(caching=False, limits={"openai": Limits(daily_budget_tokens=1_000_000)})
    server.play(fault, times=1)
    with suppress(ContentRejectedError):
        router.detect(IMAGE, labels=["a square"])
    billed = sum(request.tokens for request in server.requests)
    booked = [row.input_tokens + row.output_tokens for row in router.ledger() if row.backend == "openai"]
    (spending,) = router.spending()
    assert billed > 0
    assert sum(booked) == spending.spent == billed


def test_a_caption_whose_embedding_fails_is_booked(make_router, server):
    """Two requests, one of them paid for."""
    from dataclasses import replace

    from vision_backends.testing.sandbox import FAULTS

    router = make_router(caching=False)
    server.play(replace(FAULTS["quota_gone"], paths=("/v1/embeddings",)), times=1)
    assert router.embed(IMAGE).trace.backend == "spare"
    booked = [row.input_tokens + row.output_tokens for row in router.ledger() if row.backend == "openai"]
    assert booked == [sum(request.tokens for request in server.requests)]
    assert booked[0] > 0


def images(count):
    """Return pictures that no cache has seen."""
    return [PILImage.new("RGB", (64, 48), (number, 9, 9)) for number in range(count)]


@pytest.mark.parametrize("fault", ["plain_text_500", "empty_500"])
def test_one_hiccup_of_a_server_that_was_well_is_asked_again(make_router, server, fault):
    """With a ready rung below; a second failure in a row goes down, and the next call does not ask twice."""
    router = make_router()
    first, *others = images(4)
    router.describe(first)
    server.play(fault, times=1)
    answer = router.describe(others[0])
    assert (answer.trace.backend, answer.trace.degraded) == ("openai", False)
    assert [attempt.outcome for attempt in answer.trace.attempts] == ["failed", "answered"]
    server.play(fault, times=3)
    requests = sum(server.counts.values())
    answer = router.describe(others[1])
    assert (answer.trace.backend, answer.trace.degraded) == ("spare", True)
    assert answer.trace.reason.count("openai") == 1
    assert sum(server.counts.values()) == requests + 2
    answer = router.describe(others[2])
    assert (answer.trace.backend, len(answer.trace.attempts)) == ("spare", 2)
    assert sum(server.counts.values()) == requests + 3


def test_a_first_call_that_fails_goes_down(make_router, server):
    """Nothing says that the server was ever well."""
    server.play("plain_text_500")
    answer = make_router().describe(IMAGE)
    assert (answer.trace.backend, len(answer.trace.attempts)) == ("spare", 2)


def test_an_exhausted_ladder_names_each_rung_once_and_says_when_to_come_back(server):
    """The number of attempts stands beside it."""
    with Router([OpenAIBackend(api_key=CANARY, base_url=server.url)]) as router:
        router.describe(IMAGE)
        server.play("plain_text_500", times=2)
        with pytest.raises(AllBackendsFailedError) as failed:
            router.describe(images(1)[0])
        table = str(failed.value)
        assert (table.count("openai"), table.count("2 attempts")) == (1, 1)
        assert failed.value.retry_after_s is None
        server.play("rate_limited", times=1)
        with pytest.raises(AllBackendsFailedError) as failed:
            router.describe(images(1)[0])
        assert failed.value.retry_after_s == pytest.approx(20, abs=1)


def test_a_reply_that_announces_the_end_of_the_minute_spares_the_next_request():
    """Nothing remains and the reset is far away: the next rung answers, and the server is not asked."""
    with SandboxServer(api_key=CANARY, limits=ServerLimits(rpm=1)) as server:
        best = OpenAIBackend(api_key=CANARY, base_url=server.url)
        with Router([best, FakeBackend("spare")], caching=False) as router:
            first, second = (router.describe(image) for image in images(2))
    assert (first.trace.backend, second.trace.backend) == ("openai", "spare")
    assert (second.trace.degraded, second.trace.attempts[0].code) == (True, "limit_near")
    assert len(server.requests) == 1
