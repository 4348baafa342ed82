"""The first sign of trouble with a rung makes the next one ready."""

from __future__ import annotations

import threading

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AuthenticationError,
    BackendError,
    CallCancelledError,
    ContentRejectedError,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    InvalidImageError,
    InvalidReplyError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RateLimits,
    Router,
    TimedOutError,
    UnavailableError,
    Usage,
)
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.config.loading import load_settings
from vision_backends.health.budgets import Limits
from vision_backends.routing.standby import SIGNS
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer
from vision_backends.testing.sandbox.limits import Limits as ServerLimits

PICTURE = PILImage.new("RGB", (64, 48), "teal")

TROUBLES = [
    AuthenticationError("Wrong key."),
    InvalidReplyError("HTML."),
    ModelNotFoundError("No such model."),
    OverloadedError("Busy."),
    QuotaExhaustedError("No money."),
    RateLimitedError("Too fast."),
    TimedOutError("Too slow."),
    UnavailableError("Out of order."),
]


@pytest.fixture
def best():
    """A remote rung to play trouble."""
    return FakeBackend("best", local=False, credential="account")


@pytest.fixture
def spare():
    """What takes over."""
    return FakeBackend("spare")


@pytest.fixture
def clock():
    """Time that moves when it is told to."""
    return FakeClock()


@pytest.fixture
def make_router(clock):
    """A maker of routers that keep no answers."""
    made = []

    def make(ladder, **settings):
        router = Router(ladder, caching=False, clock=clock, **settings)
        made.append(router)
        return router

    yield make
    for router in made:
        router.close()


def warmed(backend, *, times=1):
    """Return the requests that a backend was made ready for, when there are so many."""
    pause = threading.Event()
    for _ in range(1000):
        if len(backend.warm_ups) >= times:
            break
        pause.wait(0.01)
    pause.wait(0.05)  # one more than expected would come now
    return list(backend.warm_ups)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.kind)
def test_any_trouble_of_the_better_rung_is_a_sign(make_router, best, spare, trouble):
    """Of the task that was asked for, and no other."""
    best.play(trouble)
    make_router([best, spare]).describe(PICTURE)
    assert warmed(spare) == [DescribeRequest()]


@pytest.mark.parametrize("fault", [InvalidImageError("Not an image."), ContentRejectedError("No.")])
def test_a_fault_of_the_caller_is_none(make_router, best, spare, fault):
    """Nobody below would do better."""
    best.play(fault)
    with pytest.raises(type(fault)):
        make_router([best, spare]).describe(PICTURE)
    assert warmed(spare, times=0) == []


@pytest.mark.parametrize("refusal", [NotSupportedError("Never."), NotReadyError("No key.")])
def test_a_rung_that_is_no_help_anyway_is_no_trouble(make_router, spare, refusal):
    """The next one is the best there is, and is asked itself."""
    make_router([FakeBackend("best", local=False, not_ready=refusal), spare]).describe(PICTURE)
    assert warmed(spare, times=0) == []


def test_a_rung_that_had_no_time_has_done_nothing_wrong(make_router, best, spare, clock):
    """The caller was in a hurry, or the rung above took it all."""
    third = FakeBackend("third")
    best.play(UnavailableError("Down."))
    make_router([best, spare, third], deadline_s=1e-9).describe(PICTURE)
    assert warmed(third, times=0) == []


def test_every_kind_of_trouble_has_a_name():
    """A new kind of error has to be a sign, or one of those that say nothing about a rung's health."""
    kinds = {BackendError.kind, *(each.kind for each in BackendError.__subclasses__())}
    assert kinds - {NotReadyError.kind, NotSupportedError.kind, CallCancelledError.kind} == SIGNS


def test_trouble_that_a_retry_has_survived_is_a_sign_as_well(make_router, best, spare, clock, time_passes):
    """The answer is the better rung's; the next one is ready all the same."""
    best.play(RateLimitedError("Too fast.", retry_after_s=1.0))
    with time_passes(clock):
        answer = make_router([best, spare]).describe(PICTURE)
    assert (answer.trace.backend, answer.trace.degraded) == ("best", False)
    assert DescribeRequest() in warmed(spare)


def test_once_per_trouble(make_router, best, spare, clock):
    """A hundred calls before a blocked gate are one; after it has answered again, the next trouble is another."""
    router = make_router([best, spare])
    best.play(QuotaExhaustedError("No money."))
    for _ in range(100):
        assert router.describe(PICTURE).trace.backend == "spare"
    assert len(warmed(spare)) == 1
    clock.advance(16 * 60)
    assert router.describe(PICTURE).trace.backend == "best"
    best.play(UnavailableError("Down."))
    router.describe(PICTURE)
    assert len(warmed(spare, times=2)) == 2


def test_an_account_without_quota_concerns_every_task_that_was_asked_for(make_router, best, spare):
    """What nobody has asked for here is not loaded; what is asked for later, then."""
    router = make_router([best, spare])
    router.embed(PICTURE)
    router.describe(PICTURE)
    best.play(QuotaExhaustedError("No money."))
    router.describe(PICTURE)
    assert {each.task for each in warmed(spare, times=2)} == {"describe", "embed"}
    router.detect(PICTURE)
    assert {each.task for each in warmed(spare, times=3)} == {"describe", "embed", "detect"}
    assert len(spare.warm_ups) == 3


def test_a_rate_limit_concerns_its_task_only(make_router, best, spare):
    """The others go on at the better rung."""
    router = make_router([best, spare])
    router.embed(PICTURE)
    best.play(RateLimitedError("Too fast.", retry_after_s=60))
    router.describe(PICTURE)
    assert warmed(spare) == [DescribeRequest()]


class TwoModels(FakeBackend):
    """One whose descriptions and embeddings come from two models."""

    def model_for(self, request):
        """Return one for each task."""
        from dataclasses import replace

        return replace(super().model_for(request), name=f"{request.task}-model")


def test_an_overload_concerns_the_tasks_of_its_model(make_router, spare):
    """Its sibling goes on."""
    best = TwoModels("best", local=False)
    router = make_router([best, spare])
    router.embed(PICTURE)
    best.play(OverloadedError("Busy.", retry_after_s=60))
    router.describe(PICTURE)
    assert warmed(spare) == [DescribeRequest()]


def test_an_overload_concerns_every_task_of_a_model_that_has_several(make_router, best, spare):
    """They would all wait in one queue."""
    router = make_router([best, spare])
    router.embed(PICTURE)
    best.play(OverloadedError("Busy.", retry_after_s=60))
    router.describe(PICTURE)
    assert {each.task for each in warmed(spare, times=2)} == {"describe", "embed"}


def test_requests_of_every_shape_are_remembered(make_router, best, spare):
    """Labels of any kind may need another model than a closed vocabulary; prompts another than captions."""
    router = make_router([best, spare])
    router.detect(PICTURE, labels=["a scooter"])
    router.detect(PICTURE, labels=["a bicycle"])
    router.detect(PICTURE)
    best.play(UnavailableError("Down."))
    router.detect(PICTURE)
    found = warmed(spare, times=2)
    assert sorted(map(str, found)) == sorted(map(str, [DetectRequest(), DetectRequest(labels=("a bicycle",))]))


def test_a_stream_that_fails_is_a_sign(make_router, best, spare):
    """However the description is asked for."""
    best.play(UnavailableError("Down."))
    assert "".join(make_router([best, spare]).describe_stream(PICTURE))
    assert warmed(spare) == [DescribeRequest()]


class TestWho:
    """Down to the first rung that can answer."""

    def test_the_next_rung_and_no_further(self, make_router, best, spare):
        """What stands below it takes no memory."""
        third = FakeBackend("third")
        best.play(UnavailableError("Down."))
        make_router([best, spare, third]).describe(PICTURE)
        assert warmed(spare) == [DescribeRequest()]
        assert warmed(third, times=0) == []

    def test_past_one_that_is_not_ready(self, make_router, best):
        """It may fetch what it lacks; until then the one below takes over."""
        fetching = FakeBackend("fetching", not_ready=NotReadyError("Not fetched."))
        third = FakeBackend("third")
        best.play(UnavailableError("Down."))
        make_router([best, fetching, third]).describe(PICTURE)
        assert warmed(third) == [DescribeRequest()]
        assert warmed(fetching)

    def test_past_one_that_cannot_do_it(self, make_router, best):
        """It is left alone."""
        unable, third = FakeBackend("unable", tasks=["embed"]), FakeBackend("third")
        best.play(UnavailableError("Down."))
        with_check = FakeBackend("strict", not_ready=NotSupportedError("Never."))
        make_router([best, with_check, third]).describe(PICTURE)
        assert warmed(third) == [DescribeRequest()]
        assert (warmed(unable, times=0), warmed(with_check, times=0)) == ([], [])

    def test_trouble_in_the_middle_of_the_ladder(self, make_router, best, spare):
        """Each rung is stood in for by those below it."""
        third = FakeBackend("third")
        best.play(UnavailableError("Down."))
        spare.play(OverloadedError("Busy."))
        make_router([best, spare, third]).describe(PICTURE)
        assert warmed(third) == [DescribeRequest()]

    def test_the_last_rung_has_nobody_below(self, make_router, best, clock, time_passes):
        """Its trouble is told to the caller."""
        best.play(UnavailableError("Down."), times=2)
        with time_passes(clock), pytest.raises(AllBackendsFailedError):
            make_router([best]).describe(PICTURE)


class TestBeforeAnythingFails:
    """Signs that come with a good answer."""

    @pytest.mark.parametrize(
        ("limits", "sign"),
        [
            (RateLimits(remaining_requests=9, limit_requests=100, reset_requests_s=1), True),
            (RateLimits(remaining_requests=10, limit_requests=100, reset_requests_s=1), False),
            (RateLimits(remaining_requests=90, limit_requests=100, remaining_tokens=99, limit_tokens=1000), True),
            (RateLimits(remaining_requests=0), False),
            (RateLimits(), False),
            (None, False),
        ],
    )
    def test_little_is_left_of_the_minute(self, make_router, spare, limits, sign):
        """As the server's last reply says; without a limit it is not known what is little."""
        best = FakeBackend("best", local=False, limits=limits)
        assert make_router([best, spare]).describe(PICTURE).trace.backend == "best"
        assert warmed(spare, times=int(sign)) == [DescribeRequest()] * sign

    @pytest.mark.parametrize("whose", ["best", "accounts.work"])
    def test_four_fifths_of_a_budget_are_spent(self, make_router, spare, whose):
        """For every task that this process has asked for; the budget is the rung's, or its account's."""
        best = FakeBackend("best", local=False, usage=Usage(input_tokens=10, output_tokens=0, cost_usd=0.01))
        router = make_router(
            [best, spare],
            limits={"best": Limits(account="work"), "accounts.work": Limits()} | {whose: Limits(daily_budget_usd=0.05)},
        )
        router.embed(PICTURE)
        for _ in range(2):
            router.describe(PICTURE)
        assert warmed(spare, times=0) == []
        assert router.describe(PICTURE).trace.backend == "best"
        assert {type(each) for each in warmed(spare, times=2)} == {DescribeRequest, EmbedRequest}

    def test_an_answer_was_slow(self, spare):
        """So slow that the next rung was asked as well."""
        best, third = FakeBackend("best", local=False), FakeBackend("third")
        best.play(*[0.0] * 20, 0.5)
        with Router([best, spare, third], caching=False, hedge_after_s=0.05) as router:
            for _ in range(20):
                router.describe(PICTURE)
            answer = router.describe(PICTURE)
            assert answer.trace.backend == "spare"
            assert warmed(spare) == [DescribeRequest()]

    def test_the_real_headers_of_a_server(self, make_router, spare):
        """The last of ten requests per minute is answered, and the next rung is ready."""
        with SandboxServer(limits=ServerLimits(rpm=10)) as server:
            best = OpenAIBackend(api_key=server.api_key, base_url=server.url)
            router = make_router([best, spare])
            for _ in range(9):
                assert router.describe(PICTURE).trace.backend == "openai"
            assert warmed(spare, times=0) == []
            assert router.describe(PICTURE).trace.backend == "openai"
            assert warmed(spare) == [DescribeRequest()]


def test_a_gate_that_another_process_has_closed_is_a_sign(make_router, best, spare, tmp_path, clock):
    """Both share one file; the second hears of it when it is kept out itself."""
    stores = [open_store(tmp_path / "state.sqlite") for _ in range(2)]
    best.play(QuotaExhaustedError("No money."))
    make_router([best, FakeBackend("other")], store=stores[0]).describe(PICTURE)
    make_router([best, spare], store=stores[1]).describe(PICTURE)
    assert warmed(spare) == [DescribeRequest()]


def test_it_can_be_switched_off(make_router, best, spare, tmp_path):
    """Then models are loaded by those who need them; a configuration says so as well."""
    best.play(UnavailableError("Down."))
    make_router([best, spare], warm_standby=False).describe(PICTURE)
    assert warmed(spare, times=0) == []
    file = tmp_path / "vision.toml"
    file.write_text("warm_standby = false\n")
    assert (load_settings(file).warm_standby, load_settings().warm_standby) == (False, True)


def test_a_faulty_rung_below_hurts_no_call(make_router, best, caplog):
    """It is told in the log."""
    faulty = FakeBackend("faulty", not_ready=ZeroDivisionError("oops"))
    ladder = {"describe": [best, FakeBackend("spare")], "embed": [best, faulty]}
    router = make_router(ladder)
    with pytest.raises(ZeroDivisionError):
        router.embed(PICTURE)
    best.play(QuotaExhaustedError("No money."))
    assert router.describe(PICTURE).trace.backend == "spare"
    for _ in range(500):
        if "oops" in caplog.text:
            break
        threading.Event().wait(0.01)
    assert "oops" in caplog.text


def test_a_rung_that_was_skipped_for_want_of_time_has_done_nothing_wrong(make_router, clock):
    """What stands below it is not made ready for its sake."""

    class Overrunning(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            clock.advance(100.0)
            raise UnavailableError("Out of order.")

    first = Overrunning("first", local=False)
    second, third, fourth = FakeBackend("second", local=False), FakeBackend("third"), FakeBackend("fourth")
    with pytest.raises(AllBackendsFailedError) as failed:
        make_router([first, second, third, fourth]).describe(PICTURE, deadline_s=10)
    assert [attempt.outcome for attempt in failed.value.attempts] == ["failed", *["skipped"] * 3]
    assert len(warmed(second)) == 1
    assert warmed(third, times=0) == []
