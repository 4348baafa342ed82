"""Warm-ups in the background: one for all who ask, and a report of what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest

from vision_backends import (
    AsyncRouter,
    DescribeRequest,
    DetectRequest,
    EmbedTextRequest,
    InvalidRequestError,
    NotReadyError,
    NotSupportedError,
    Router,
    WarmUp,
    WarmUpReport,
)
from vision_backends.backends.embedded import EmbeddedBackend
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.routing.warm_up import RETRY_AFTER_S, WarmUps
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer


class Slow(FakeBackend):
    """One that takes until it is allowed to be ready."""

    def __init__(self, name="slow", **settings):
        super().__init__(name, **settings)
        self.allowed = threading.Event()

    def warm_up(self, request):
        """Wait."""
        super().warm_up(request)
        assert self.allowed.wait(10)


class Crashing(FakeBackend):
    """One with a bug."""

    def warm_up(self, request):
        """Fail after two seconds."""
        self._clock.advance(2.0)
        raise ZeroDivisionError(f"nothing for {request.task}")


@pytest.fixture
def clock():
    """Time that moves when it is told to."""
    return FakeClock()


def ended(job):
    """Return the report of a job that has ended."""
    WarmUps.wait([job], timeout_s=10)
    return job.report()


def test_it_runs_once_however_many_ask(clock):
    """Requests of one shape need the same models, whatever they say."""
    backend, warm_ups = Slow(), WarmUps(clock=clock)
    first = warm_ups.begin(backend, DescribeRequest(prompt="one"))
    assert warm_ups.begin(backend, DescribeRequest(prompt="two")) is first
    assert warm_ups.begin_unless_tried(backend, DescribeRequest(prompt="three")) is first
    other = warm_ups.begin(backend, DescribeRequest())
    assert first.report() == WarmUp(backend="slow", task="describe", state="warming")
    threads = [thread for thread in threading.enumerate() if thread.name == "warm up slow"]
    assert {thread.daemon for thread in threads} == {True}  # a program that ends does not wait for them
    backend.allowed.set()
    assert {ended(first).state, ended(other).state} == {"ready"}
    assert sorted(map(str, backend.warm_ups)) == sorted(map(str, [DescribeRequest(prompt="one"), DescribeRequest()]))


def test_who_passes_by_does_not_ask_again_at_once(clock):
    """Who asks on purpose does."""
    backend, warm_ups = FakeBackend("fake", not_ready=NotReadyError("Nothing here.")), WarmUps(clock=clock)
    for _ in range(3):
        assert ended(warm_ups.begin_unless_tried(backend, DescribeRequest())).reason == "Nothing here."
    assert len(backend.warm_ups) == 1
    assert ended(warm_ups.begin(backend, DescribeRequest())).state == "not_ready"
    assert len(backend.warm_ups) == 2
    clock.advance(RETRY_AFTER_S)
    ended(warm_ups.begin_unless_tried(backend, DescribeRequest()))
    assert len(backend.warm_ups) == 3


def test_a_crash_is_a_reason(clock, caplog):
    """Its traceback is in the log."""
    clock.advance(100.0)
    report = ended(WarmUps(clock=clock).begin(Crashing(clock=clock), DescribeRequest()))
    assert (report.state, report.error, report.elapsed_s) == ("not_ready", "not_ready", 2.0)
    assert report.reason == "The warm-up crashed with ZeroDivisionError: nothing for describe"
    assert "Traceback" in caplog.text


def test_the_log_has_the_outcome_but_not_what_was_asked(clock, caplog):
    """A label or a prompt is nobody's business."""
    caplog.set_level("INFO", logger="vision_backends")
    backend = FakeBackend("fake", labels=["cat"])
    ended(WarmUps(clock=clock).begin(backend, DetectRequest(labels=("a secret",))))
    ended(WarmUps(clock=clock).begin(backend, DetectRequest()))
    assert caplog.messages == ["fake is not ready (not_supported) for detect.", "fake is ready for detect."]


def test_a_closed_one_begins_nothing(clock):
    """What would be loaded would stay."""
    backend, warm_ups = FakeBackend(), WarmUps(clock=clock)
    warm_ups.close()
    assert ended(warm_ups.begin(backend, DescribeRequest())).reason == "The router is closed."
    assert backend.warm_ups == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_its_own(clock):
    """The thread of the parent's does not exist there."""
    backend, warm_ups = Slow(), WarmUps(clock=clock)
    job = warm_ups.begin(backend, DescribeRequest())
    child = os.fork()
    if child == 0:
        backend.allowed = threading.Event()
        backend.allowed.set()
        again = warm_ups.begin(backend, DescribeRequest())
        os._exit(0 if again is not job and ended(again).state == "ready" else 1)
    backend.allowed.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ended(job).state == "ready"


class TestRouter:
    """What a user asks for, and is told."""

    def test_it_returns_at_once_and_tells_later(self):
        """Asking again tells how far it is, and waits as long as it is told to."""
        slow = Slow()
        with Router([slow]) as router:
            assert {each.state for each in router.warm_up(["describe"])} == {"warming"}
            assert not router.warm_up(["describe"], wait_s=0.01).done
            slow.allowed.set()
            report = router.warm_up(["describe"], wait_s=10)
            assert report.done
            assert [each.state for each in report] == ["ready"]
            assert slow.warm_ups[:1] == [DescribeRequest()]

    def test_every_task_and_rung_by_default(self):
        """One that cannot do it, or is not ready, says so; nobody raises."""
        never = FakeBackend("never", tasks=["describe"])
        absent = FakeBackend("absent", not_ready=NotReadyError("Not fetched.", remedy="Fetch it."))
        with Router({"describe": [never, absent], "detect": [absent]}) as router:
            report = router.warm_up(wait_s=10)
            found = [(each.task, each.backend, each.state, each.error, each.remedy) for each in report]
        assert found == [
            ("describe", "never", "ready", None, None),
            ("describe", "absent", "not_ready", "not_ready", "Fetch it."),
            ("detect", "absent", "not_ready", "not_ready", "Fetch it."),
        ]

    def test_a_whole_request_says_which_model(self):
        """Labels of any kind may need another one than COCO's; each is a request of its own."""
        plain, labelled = DetectRequest(), DetectRequest(labels=("a scooter",))
        backend = FakeBackend()
        with Router([backend]) as router:
            assert len(tuple(router.warm_up([plain, labelled], wait_s=10))) == 2
        assert set(backend.warm_ups) == {plain, labelled}

    def test_one_rung_alone(self):
        """The others stay as they are."""
        best, spare = FakeBackend("best"), FakeBackend("spare")
        with Router({"describe": [best, spare], "detect": [best]}) as router:
            assert [each.backend for each in router.warm_up(backend="spare", wait_s=10)] == ["spare"]
        assert (best.warm_ups, spare.warm_ups) == ([], [DescribeRequest()])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"tasks": "describe"}, "tasks='describe' is one string"),
            ({"tasks": ["descibe"]}, "There is no task 'descibe'"),
            ({"backend": "nobody"}, "There is no backend 'nobody' for describe, embed, embed_text, detect"),
        ],
    )
    def test_what_does_not_exist_is_refused(self, arguments, message):
        """With what does."""
        with Router([FakeBackend("best")]) as router, pytest.raises(InvalidRequestError, match=message) as caught:
            router.warm_up(**arguments)
        assert caught.value.remedy

    def test_the_same_with_an_event_loop(self):
        """The loop waits in another thread."""

        async def main():
            async with AsyncRouter(Router([FakeBackend("best")])) as router:
                return await router.warm_up(["embed"], wait_s=10)

        assert [each.state for each in asyncio.run(main())] == ["ready"]

    def test_looking_warms_nothing_up(self):
        """Whoever only wants to know changes nothing."""
        backend = FakeBackend("best", not_ready=NotReadyError("Not fetched."))
        with Router([backend, FakeBackend("spare")]) as router:
            router.status()
            router.explain("describe")
            router.gates()
        assert backend.warm_ups == []

    @pytest.mark.parametrize(
        ("refusal", "warmed"), [(NotReadyError("Not fetched."), 1), (NotSupportedError("Never."), 0)]
    )
    def test_a_rung_that_is_passed_by_gets_ready_for_the_next_time(self, make_image, refusal, warmed):
        """Once, though a thousand pass by; what it can never do needs no preparation."""
        backend = FakeBackend("missing", not_ready=refusal)
        with Router([backend, FakeBackend("spare")]) as router:
            for side in range(20, 25):
                assert router.describe(make_image(side).rgb()).trace.backend == "spare"
            router.warm_up(["describe"], backend="spare", wait_s=10)
        assert len(backend.warm_ups) == warmed


class TestReport:
    """How it reads."""

    def test_it_is_a_table_for_people_and_json_for_programs(self):
        """One line each, and what can be done."""
        report = WarmUpReport(
            warm_ups=(
                WarmUp(backend="openai", task="describe", state="ready", elapsed_s=0.512),
                WarmUp(backend="local", task="describe", state="warming"),
                WarmUp(
                    backend="local",
                    task="embed_text",
                    state="not_ready",
                    error="not_ready",
                    reason="It is not here.",
                    remedy="Fetch it.",
                ),
            )
        )
        assert str(report).splitlines() == [
            "describe    openai  ready, after 0.51 s",
            "describe    local   warming",
            "embed_text  local   not_ready: It is not here.",
            "                    → Fetch it.",
        ]
        assert json.loads(json.dumps(report.to_dict()))["warm_ups"][0]["elapsed_s"] == 0.512
        assert not report.done

    def test_nothing_is_an_empty_table(self):
        """A ladder without the task has nobody to warm up."""
        assert (str(WarmUpReport(warm_ups=())), WarmUpReport(warm_ups=()).done) == ("", True)


def test_the_embedded_rung_loads_what_the_task_needs():
    """Its sessions are there before the first picture comes."""
    backend = EmbeddedBackend(threads=1)
    backend.warm_up(DetectRequest())
    assert sorted(backend.status()["models"].values()) == ["loaded", "on disk", "on disk", "on disk"]
    backend.warm_up(DescribeRequest())
    assert sorted(backend.status()["models"].values()) == ["loaded", "loaded", "loaded", "on disk"]
    backend.warm_up(EmbedTextRequest())
    assert set(backend.status()["models"].values()) == {"loaded"}
    backend.close()


def test_the_openai_rung_sends_nothing():
    """It imports the HTTP client; without a key it says so."""
    with SandboxServer() as server:
        backend = OpenAIBackend(api_key=server.api_key, base_url=server.url)
        with Router([backend]) as router:
            assert {each.state for each in router.warm_up(wait_s=30)} == {"ready"}
        assert not server.requests
    with pytest.raises(NotReadyError, match="no API key"):
        OpenAIBackend().warm_up(DescribeRequest())
