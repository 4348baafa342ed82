"""The router's promises, with scripted backends on a real ladder."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from PIL import Image as PILImage

from vision_backends import (
    FREE,
    AllBackendsFailedError,
    AuthenticationError,
    ContentRejectedError,
    Description,
    InvalidImageError,
    InvalidRequestError,
    NotReadyError,
    NotSupportedError,
    QuotaExhaustedError,
    RateLimitedError,
    Router,
    SpaceMismatchError,
    SpaceUnavailableError,
    TimedOutError,
    Timing,
    Trace,
    UnavailableError,
    Usage,
)
from vision_backends.backends.requests import Model
from vision_backends.observability.events import AttemptEvent, CallEvent
from vision_backends.testing import FakeAsyncBackend, FakeBackend, FakeClock


@pytest.fixture
def image():
    """A picture that every rung can look at."""
    return PILImage.new("RGB", (64, 48), "teal")


@pytest.fixture
def clock():
    """A clock that only moves when told to."""
    return FakeClock()


@pytest.fixture
def make_router(clock):
    """A maker of routers over fakes that are closed when the test ends."""
    made = []

    def make(*backends, **options):
        router = Router(backends, **({"clock": clock} | options))
        made.append(router)
        return router

    yield make
    for router in made:
        router.close()


def outcomes(answer):
    """Return who was asked, and what came of it."""
    return [(attempt.backend, attempt.outcome, attempt.error) for attempt in answer.trace.attempts]


def test_the_best_rung_answers_and_says_so(make_router, image):
    """A healthy ladder is not degraded, and nobody below is asked."""
    best, spare = FakeBackend("best", usage=Usage(input_tokens=7, output_tokens=2, cost_usd=0.01)), FakeBackend("spare")
    answer = make_router(best, spare).describe(image)
    assert str(answer) == "best says: 64×48 px"
    assert (answer.trace.backend, answer.trace.model, answer.trace.revision) == ("best", "best-model", "1")
    assert not answer.trace.degraded
    assert answer.trace.reason is None
    assert answer.trace.usage == Usage(input_tokens=7, output_tokens=2, cost_usd=0.01)
    assert answer.trace.elapsed_s == 0.0  # the clock stood still
    assert outcomes(answer) == [("best", "answered", None)]
    assert spare.calls == []


@pytest.mark.parametrize("task", ["describe", "embed", "detect"])
def test_a_failing_rung_passes_the_request_on(make_router, image, task):
    """The next rung answers, and the trace tells why."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(QuotaExhaustedError("No money is left.", code="insufficient_quota", status=429, request_id="req-1"))
    answer = getattr(make_router(best, spare), task)(image)
    assert answer.trace.backend == "spare"
    assert answer.trace.degraded
    assert answer.trace.reason == "best: No money is left"
    failed = answer.trace.attempts[0]
    assert (failed.outcome, failed.error, failed.code) == ("failed", "quota_exhausted", "insufficient_quota")
    assert (failed.status, failed.request_id) == (429, "req-1")


def test_a_dead_quota_costs_one_request(make_router, image):
    """The gate stays blocked for the calls that follow, until a probe is due."""
    best, spare = FakeBackend("best", credential="account"), FakeBackend("spare")
    best.play(QuotaExhaustedError("No money is left."), times=100)
    router = make_router(best, spare, caching=False)
    for _ in range(20):
        trace = router.describe(image).trace
        assert trace.backend == "spare"
        router.detect(image)
    assert len(best.calls) == 1
    assert (trace.attempts[0].outcome, trace.attempts[0].elapsed_s) == ("skipped", 0.0)


def test_the_ladder_is_climbed_again_when_the_gate_opens(make_router, image, clock):
    """After the gate's time one probe goes up, and a good answer ends the degradation."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=20.0))
    router = make_router(best, spare, caching=False)
    assert router.describe(image).trace.backend == "spare"
    assert router.describe(image).trace.attempts[0].outcome == "skipped"
    clock.advance(21)
    assert router.describe(image).trace.backend == "best"
    assert not router.describe(image).trace.degraded


@pytest.mark.parametrize("error", [ContentRejectedError("No."), InvalidRequestError("Bad option.")])
def test_errors_of_the_caller_are_raised_at_once(make_router, image, error):
    """No other rung is asked to get round them, and no gate is blocked."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    best.play(error)
    router = make_router(best, spare)
    with pytest.raises(type(error)):
        router.describe(image)
    assert spare.calls == []
    assert router.describe(image).trace.backend == "best"


def test_a_broken_image_reaches_no_rung(make_router):
    """It is found out once, before anybody is asked."""
    best = FakeBackend("best")
    with pytest.raises(InvalidImageError):
        make_router(best).describe(b"not an image")
    assert best.calls == []


def test_nobody_left_raises_a_table_to_act_on(make_router, image):
    """The error names every rung, why it failed and what to do."""
    best = FakeBackend("best", not_ready=NotReadyError("There is no key.", remedy="Set OPENAI_API_KEY."))
    spare = FakeBackend("spare")
    spare.play(UnavailableError("It is down.", remedy="Wait a minute."))
    with pytest.raises(AllBackendsFailedError) as caught:
        make_router(best, spare).describe(image)
    said = str(caught.value)
    for part in ("best", "There is no key.", "Set OPENAI_API_KEY.", "spare", "It is down.", "Wait a minute."):
        assert part in said
    assert [attempt.outcome for attempt in caught.value.attempts] == ["skipped", "failed"]


def test_a_crash_of_a_backend_is_an_outage_and_not_a_crash(make_router, image, caplog):
    """A bug in one rung is logged, and the next one answers."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    best.play(ZeroDivisionError("oops"))
    answer = make_router(best, spare).describe(image)
    assert outcomes(answer) == [("best", "failed", "unavailable"), ("spare", "answered", None)]
    assert answer.trace.attempts[0].code == "ZeroDivisionError"
    assert "crashed" in caplog.text


def test_a_wrong_record_is_an_invalid_reply(make_router, image):
    """A backend that returns something else than promised is not believed."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    best.play(Description(text="not a box"))
    found = make_router(best, spare).detect(image)
    assert outcomes(found)[0] == ("best", "failed", "invalid_reply")
    assert found.trace.backend == "spare"


def test_a_rung_that_cannot_do_it_is_no_degradation(make_router, image):
    """A prompt goes to the first rung that follows instructions; that is the best answer there is."""
    plain, clever = FakeBackend("plain", prompts=False), FakeBackend("clever")
    answer = make_router(plain, clever).describe(image, prompt="What is it?")
    assert answer.trace.backend == "clever"
    assert not answer.trace.degraded
    assert outcomes(answer)[0] == ("plain", "skipped", "not_supported")


def test_labels_choose_the_rungs_that_know_them(make_router, image):
    """A closed vocabulary without the label is passed over."""
    closed, open_ = FakeBackend("closed", labels=["cat"]), FakeBackend("open")
    router = make_router(closed, open_)
    assert router.detect(image, labels=["cat"]).trace.backend == "closed"
    assert router.detect(image, labels=["a scooter"]).trace.backend == "open"


def test_backend_selects_one_rung(make_router, image):
    """The caller's choice is the only one asked."""
    router = make_router(FakeBackend("best"), FakeBackend("spare"))
    answer = router.describe(image, backend="spare")
    assert outcomes(answer) == [("spare", "answered", None)]
    assert not answer.trace.degraded


def test_local_only_keeps_the_pixels_here(make_router, image):
    """A remote rung is not even considered."""
    remote, local = FakeBackend("remote", local=False), FakeBackend("local")
    router = make_router(remote, local)
    assert outcomes(router.describe(image, local_only=True)) == [("local", "answered", None)]
    assert remote.calls == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "nobody"}, "nobody"),
        ({"backend": "remote", "local_only": True}, "local_only"),
        ({"deadline_s": 0}, "deadline_s=0"),
        ({"deadline_s": float("nan")}, "deadline_s=nan"),
        ({"prompt": " "}, "prompt"),
        ({"max_words": 0}, "max_words=0"),
        ({"language": ""}, "language"),
    ],
)
def test_options_without_a_meaning_are_refused(make_router, image, options, said):
    """The message names the option."""
    remote = FakeBackend("remote", local=False)
    with pytest.raises(InvalidRequestError, match=said):
        make_router(remote).describe(image, **options)
    assert remote.calls == []


def test_an_option_that_a_method_does_not_have_is_a_type_error(make_router, image):
    """As any unknown keyword; a stream does not wait, so it has no priority."""
    router = make_router(FakeBackend())
    with pytest.raises(TypeError, match=r"'bakend'.*backend"):
        router.describe(image, bakend="fake")
    with pytest.raises(TypeError, match="priority"):
        router.describe_stream(image, priority="batch")


def test_a_coroutine_method_that_is_none_is_no_answer_of_its_backend(make_router, image):
    """The next rung answers."""

    class Wrong(FakeAsyncBackend):
        def describe(self, images, request, *, timeout_s):
            return [Description(text="not awaited")]

    answer = make_router(Wrong("wrong"), FakeBackend("spare")).describe(image)
    assert outcomes(answer) == [("wrong", "failed", "invalid_reply"), ("spare", "answered", None)]


@pytest.mark.parametrize("labels", [[], [""], "cat", ["cat", "cat"]])
def test_labels_without_a_meaning_are_refused(make_router, image, labels):
    """An empty list, an empty word, one string and a word twice."""
    with pytest.raises(InvalidRequestError):
        make_router(FakeBackend()).detect(image, labels=labels)


@pytest.mark.parametrize("ladder", [[], [FakeBackend("twin"), FakeBackend("twin")], {}])
def test_a_ladder_needs_rungs_with_different_names(ladder):
    """Traces could not tell them apart."""
    with pytest.raises(InvalidRequestError):
        Router(ladder)


def test_each_task_may_have_its_own_ladder(image):
    """A mapping gives one ladder per task; a task that it leaves out has nobody to ask."""
    writer, finder = FakeBackend("writer"), FakeBackend("finder")
    with Router({"describe": [writer], "detect": [finder, writer]}) as router:
        assert router.describe(image).trace.backend == "writer"
        assert router.detect(image).trace.backend == "finder"
        with pytest.raises(AllBackendsFailedError):
            router.embed(image)
        assert [status.backend for status in router.status()] == ["writer", "finder"]


def test_a_pinned_space_is_never_replaced(make_router, image):
    """Only rungs of that space are asked, and without them there is an error, not another space."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    router = make_router(best, spare, caching=False)
    assert router.embed(image, space="b").trace.backend == "spare"
    best.play(UnavailableError("It is down."))
    with pytest.raises(SpaceUnavailableError) as caught:
        router.embed(image, space="a")
    assert "It is down." in str(caught.value)
    assert caught.value.remedy.startswith("Wait for its backend")
    with pytest.raises(SpaceUnavailableError):
        router.embed_text("a cat", space="nowhere")


def test_a_space_that_nobody_has_is_answered_with_one_that_can_be_had(make_router, image):
    """The remedy names the first space in which a rung embeds images and texts now, and is what explain says."""
    images_only = FakeBackend("best", space="a", tasks=["embed"])
    missing = FakeBackend("missing", space="b", not_ready=NotReadyError("It is not fetched."))
    router = make_router(images_only, missing, FakeBackend("spare", space="c"), caching=False)
    for task, ask in (("embed_text", partial(router.embed_text, "a cat")), ("embed", partial(router.embed, image))):
        with pytest.raises(SpaceUnavailableError) as caught:
            ask(space="nowhere")
        assert caught.value.remedy == "Embed images and texts with space='c'."
        assert caught.value.remedy in str(router.explain(task, space="nowhere"))
    with pytest.raises(SpaceUnavailableError) as caught:
        make_router(images_only, missing).embed(image, space="nowhere")
    assert caught.value.remedy.startswith("Wait for its backend")


def test_vectors_of_different_rungs_cannot_be_compared(make_router, image):
    """Falling back changes the space, and the records know it."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    router = make_router(best, spare, caching=False)
    before = router.embed(image)
    best.play(UnavailableError("It is down."))
    after = router.embed(image)
    assert (before.space, after.space) == ("a", "b")
    with pytest.raises(SpaceMismatchError):
        before.similarity(after)


def test_a_backend_that_changes_its_space_is_not_believed(make_router, image):
    """A vector must live in the space that was announced."""
    best, spare = FakeBackend("best", space="a"), FakeBackend("spare", space="b")
    other = make_router(FakeBackend(space="surprise")).embed(image)
    best.play(other)
    answer = make_router(best, spare).embed(image)
    assert outcomes(answer)[0] == ("best", "failed", "invalid_reply")


def test_a_cached_answer_costs_nothing_and_says_so(make_router, image):
    """The second call does not ask again."""
    best = FakeBackend("best", usage=Usage(input_tokens=7, output_tokens=2, cost_usd=0.01))
    router = make_router(best)
    first, second = router.describe(image), router.describe(image)
    assert (str(first), first.trace.cached) == (str(second), False)
    assert second.trace.cached
    assert second.trace.usage == FREE
    assert len(best.calls) == 1
    router.describe(image, prompt="What is it?")
    assert len(best.calls) == 2


class Modelled(FakeBackend):
    """Answers with the model that the test has chosen."""

    model = Model(name="old", revision="1", fingerprint="f32")

    def model_for(self, _request):
        """Return the one of now."""
        return self.model


@pytest.mark.parametrize("change", [{"name": "new"}, {"revision": "2"}, {"fingerprint": "f16"}])
def test_an_answer_of_another_model_is_no_cached_answer(make_router, image, change):
    """Whoever changes the model wants to see what the new one says; the old one's answers are there for its return."""
    best = Modelled("best")
    router = make_router(best)
    router.describe(image)
    best.model = replace(Modelled.model, **change)
    assert not router.describe(image).trace.cached
    best.model = Modelled.model
    assert router.describe(image).trace.cached


def test_an_answer_of_another_rung_is_no_cached_answer(make_router, image):
    """It would name the wrong one, although both have the same model."""
    router = make_router(Modelled("one"), Modelled("other"))
    assert [str(router.describe(image, backend=name)) for name in ("one", "other")] == [
        "one says: 64×48 px",
        "other says: 64×48 px",
    ]


def test_an_answer_of_another_revision_than_was_announced_is_not_cached(make_router, image):
    """The files of a model may change between the key and the answer."""
    backend = FakeBackend("one")
    router = make_router(backend)
    backend.play(Description(text="new words", trace=Trace(model="one-model", revision="2")))
    assert str(router.describe(image)) == "new words"
    assert not router.describe(image).trace.cached
    assert router.describe(image).trace.cached


def test_a_cached_answer_of_a_better_rung_beats_a_fresh_one_of_a_worse(make_router, image):
    """Even while the better rung is down."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    router = make_router(best, spare)
    router.describe(image)
    best.not_ready = NotReadyError("It went away.")
    answer = router.describe(image)
    assert answer.trace.backend == "best"
    assert answer.trace.cached
    assert not answer.trace.degraded


REQUESTS = {
    "describe": partial(Router.describe),
    "prompt": partial(Router.describe, prompt="What does the sign say?"),
    "language": partial(Router.describe, language="de"),
    "embed": partial(Router.embed),
    "space": partial(Router.embed, space="fake/vectors@1"),
    "detect": partial(Router.detect),
    "labels": partial(Router.detect, labels=["a scooter"]),
    "min_score": partial(Router.detect, min_score=0.3),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_the_cache_is_no_way_round_a_rung_that_may_not_answer(make_router, image, request_of):
    """A rung that cannot now is asked for what it has kept; one that may not answer this request is asked nothing."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    router = make_router(best, spare)
    assert request_of(router, image).trace.backend == "best"
    best.not_ready = NotReadyError("It is loading.")
    kept = request_of(router, image).trace
    assert (kept.backend, kept.cached) == ("best", True)
    best.not_ready = NotSupportedError("It cannot do this.")
    answer = request_of(router, image).trace
    assert (answer.backend, answer.cached) == ("spare", False)


def test_what_was_kept_of_a_rung_is_only_for_calls_that_may_ask_it(make_router, image):
    """A pinned space, ``local_only`` and ``backend=`` each leave rungs out, whatever is known of the image."""
    best, spare = FakeBackend("best", local=False, space="a"), FakeBackend("spare", space="b")
    router = make_router(best, spare)
    router.embed(image)
    router.describe(image)
    assert router.embed(image, local_only=True).space == "b"
    assert router.embed(image, backend="spare").space == "b"
    assert router.embed(image, space="b").trace.backend == "spare"
    assert router.describe(image, local_only=True).trace.backend == "spare"
    with pytest.raises(SpaceUnavailableError):
        router.embed(image, space="c")
    with pytest.raises(SpaceUnavailableError):
        router.embed(image, space="a", local_only=True)
    assert [embedding.space for embedding in router.embed_many([image], space="b")] == ["b"]
    assert [embedding.space for embedding in router.embed_each([image], local_only=True)] == ["b"]


def test_a_degraded_answer_does_not_outlive_the_trouble(make_router, image):
    """A worse rung's cached answer never masks a better rung that is up again."""
    best = FakeBackend("best", not_ready=NotReadyError("It is loading."))
    router = make_router(best, FakeBackend("spare"))
    assert router.describe(image).trace.backend == "spare"
    assert router.describe(image).trace.cached
    best.not_ready = None
    assert router.describe(image).trace.backend == "best"


def test_different_images_of_one_size_are_different(make_router):
    """The cache looks at content, not at a summary of it."""
    router = make_router(FakeBackend())
    red = router.embed(PILImage.new("RGB", (8, 8), "red"))
    blue = router.embed(PILImage.new("RGB", (8, 8), "blue"))
    assert not blue.trace.cached
    assert red.similarity(blue) < 0.999


def test_the_deadline_keeps_time_back_for_the_next_rung(make_router, image):
    """A rung is given less than what is left when another one stands below."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    make_router(best, spare, deadline_s=10.0).describe(image)
    assert 0 < best.calls[0].timeout_s < 10
    alone = FakeBackend("alone")
    make_router(alone).describe(image, deadline_s=4.0)
    assert alone.calls[0].timeout_s == pytest.approx(4.0, abs=0.5)


def test_a_rung_that_overstays_is_left_behind(image):
    """The deadline holds even when a backend ignores it; its late answer is kept for the next call."""
    came, spare = threading.Event(), FakeBackend("spare")
    slow = FakeBackend("slow", local=False, usage=Usage(cost_usd=0.25))

    class Stuck:
        def sleep(self, seconds):
            came.wait(seconds)

    slow._clock = Stuck()
    slow.play(30.0)
    with Router([slow, spare]) as router:
        answer = router.describe(image, deadline_s=0.2)
        assert outcomes(answer) == [("slow", "failed", "timed_out"), ("spare", "answered", None)]
        came.set()
        slow.not_ready = NotReadyError("It must not be asked again.")
        for _ in range(1000):
            if router.describe(image).trace.backend == "slow":
                break
            threading.Event().wait(0.002)
        assert router.describe(image).trace.cached
        assert len(slow.calls) == 1
        late = [row for row in router.ledger() if row.code == "came_late"]
        assert [row.at for row in late] == [answer.trace.attempts[0].at]  # in whose day it is billed
        assert [row.cost_usd for row in late] == [0.25]


def test_a_failed_attempt_that_may_have_been_billed_makes_the_cost_unknown(make_router, image):
    """None means unknown; a refusal is known to be free, a lost reply is not."""
    remote, spare = FakeBackend("remote", local=False), FakeBackend("spare")
    router = make_router(remote, spare, caching=False)
    remote.play(TimedOutError("Nothing came back."))
    assert router.describe(image).trace.usage.cost_usd is None
    other = FakeBackend("other", local=False)
    other.play(AuthenticationError("Wrong key."))
    assert make_router(other, spare).describe(image).trace.usage == FREE
    local = FakeBackend("local")
    local.play(TimedOutError("It was too slow."))
    assert make_router(local, spare, caching=False).describe(image).trace.usage == FREE  # nobody sends a bill


@pytest.mark.parametrize(
    ("said", "model", "revision"),
    [(Trace(), "best-model", "1"), (Trace(model="best-model-2026-11-01", revision="2"), "best-model-2026-11-01", "2")],
)
def test_the_model_is_the_one_that_the_answer_names_or_else_the_one_that_was_asked(
    make_router, image, said, model, revision
):
    """A server may answer with a snapshot of it; a backend of one's own may say nothing."""
    best = FakeBackend("best")
    best.play(Description(text="A square.", trace=said))
    trace = make_router(best).describe(image).trace
    assert (trace.model, trace.revision) == (model, revision)
    assert trace.attempts[0].model == model


def test_every_kind_of_input_reaches_the_same_answer(make_router, tmp_path, image):
    """Path, bytes, file, PIL image, array and data URL are one image to the rungs."""
    import base64

    import numpy as np

    path = tmp_path / "picture.png"
    image.save(path)
    raw = path.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(raw).decode()
    router = make_router(FakeBackend())
    for source in (path, str(path), raw, io.BytesIO(raw), image, np.asarray(image), url):
        assert str(router.describe(source)) == "fake says: 64×48 px"


def test_embed_text_embeds_texts_alone(make_router):
    """A text is not taken for a path, and an empty one is refused."""
    router = make_router(FakeBackend())
    assert router.embed_text("a red bicycle").dimension == 8
    for bad in ("", "  ", b"bytes", None):
        with pytest.raises(InvalidRequestError):
            router.embed_text(bad)


def test_explain_says_what_would_happen_and_asks_nobody(make_router, image):
    """The verdicts are those that the walk will meet."""
    best, plain, spare = FakeBackend("best"), FakeBackend("plain", prompts=False), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=20.0))
    router = make_router(best, plain, spare)
    with pytest.raises(AllBackendsFailedError):
        router.describe(image, backend="best")
    told = router.explain("describe", prompt="What is it?")
    assert told.chosen == "spare"
    assert [verdict.error for verdict in told.verdicts] == ["rate_limited", "not_supported", None]
    assert 0 < told.verdicts[0].retry_after_s <= 20
    assert len(best.calls) == 1
    assert plain.calls == spare.calls == []
    with pytest.raises(InvalidRequestError, match="juggle"):
        router.explain("juggle")


def test_status_tells_how_each_rung_stands_for_each_task(make_router):
    """One entry per backend with a verdict per task."""
    best = FakeBackend("best", tasks=["describe"], local=False)
    spare = FakeBackend("spare", not_ready=NotReadyError("It is loading."))
    status = {each.backend: each for each in make_router(best, spare).status()}
    assert status["best"].tasks["describe"].ready
    assert status["best"].tasks["embed"].error == "not_supported"
    assert not status["best"].local
    assert status["spare"].tasks["detect"].reason == "It is loading."


def test_a_closed_router_can_be_closed_again(image):
    """Leaving the with block twice is harmless."""
    router = Router([FakeBackend()])
    with router:
        router.describe(image)
    router.close()


def test_answers_are_records_that_can_be_replaced_but_not_changed(make_router, image):
    """A trace that could be edited would not be honest."""
    answer = make_router(FakeBackend()).describe(image)
    with pytest.raises(AttributeError):
        answer.text = "something else"
    assert replace(answer, text="something else").trace == answer.trace


def test_a_short_rate_limit_is_waited_for_once(make_router, image, clock, time_passes):
    """When the server asks for a second's patience, the better answer is worth it."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=1.0))
    with time_passes(clock):
        answer = make_router(best, spare, warm_standby=False).describe(image)
    assert outcomes(answer) == [("best", "failed", "rate_limited"), ("best", "answered", None)]
    assert not answer.trace.degraded
    assert clock.monotonic() == 1.0


def test_a_long_rate_limit_is_not_waited_for(make_router, image, clock):
    """The next rung answers at once, not after Retry-After."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=20.0))
    assert make_router(best, spare).describe(image).trace.backend == "spare"
    assert clock.monotonic() == 0.0


def test_a_rung_that_was_asked_and_declined_has_degraded_the_answer(make_router, image):
    """Whatever it raised; only one that is not even asked, as it can never do it, has not."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(NotSupportedError("Not this one."))
    answer = make_router(best, spare).describe(image)
    assert (answer.trace.backend, answer.trace.degraded) == ("spare", True)
    assert "Not this one" in answer.trace.reason
    unable = FakeBackend("unable", tasks=("embed",))
    answer = make_router(unable, spare, caching=False).describe(image)
    assert (answer.trace.backend, answer.trace.degraded) == ("spare", False)


@pytest.mark.parametrize(("retry_after_s", "deadline_s"), [(2.5, 60.0), (1.5, 4.0)])
def test_a_wait_of_more_than_two_seconds_or_a_quarter_of_the_deadline_is_not_worth_it(
    make_router, image, clock, retry_after_s, deadline_s
):
    """The next rung answers at once."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=retry_after_s))
    answer = make_router(best, spare, warm_standby=False).describe(image, deadline_s=deadline_s)
    assert answer.trace.backend == "spare"
    assert clock.monotonic() == 0.0


def test_an_outage_is_tried_again_only_where_nobody_stands_below(make_router, image, clock, time_passes):
    """A ready rung is better than hope; without one, a second attempt is."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(UnavailableError("It is down."))
    assert make_router(best, spare).describe(image).trace.backend == "spare"
    alone = FakeBackend("alone", local=False)
    alone.play(UnavailableError("It is down."))
    with time_passes(clock):
        answer = make_router(alone).describe(image)
    assert outcomes(answer) == [("alone", "failed", "unavailable"), ("alone", "answered", None)]
    assert clock.monotonic() == pytest.approx(0.2)


def test_an_outage_shortly_before_the_deadline_is_not_tried_again(make_router, image, clock):
    """There is no time for a second attempt, nor for waiting for it: the clock stands still after the first."""

    class Slow(FakeBackend):
        def describe(self, images, request, *, timeout_s):
            clock.advance(0.85)
            return super().describe(images, request, timeout_s=timeout_s)

    alone = Slow("alone", local=False)
    alone.play(UnavailableError("It is down."))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(make_router(alone).describe, image, deadline_s=1.0)
        try:
            error = call.exception(timeout=20)
        finally:
            clock.advance(1.0)
    assert [(each.outcome, each.error) for each in error.attempts] == [("failed", "unavailable")]


def test_retries_are_a_small_part_of_the_requests(make_router, image, clock, time_passes):
    """A dead server is not asked twice as often because it is dead."""
    alone = FakeBackend("alone", local=False)
    alone.play(UnavailableError("It is down."), times=1000)
    router = make_router(alone, caching=False)
    with time_passes(clock):
        for _ in range(100):
            with pytest.raises(AllBackendsFailedError):
                router.describe(image)
    assert len(alone.calls) <= 1.2 * 100


def test_identical_calls_at_the_same_time_are_one_request(image):
    """One of them asks; the others get its answer from the cache."""
    come, backend = threading.Event(), FakeBackend()

    class Slow:
        def sleep(self, _seconds):
            come.wait(10)

    backend._clock = Slow()
    backend.play(1.0)
    with Router([backend]) as router:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(router.describe(image))) for _ in range(8)]
        for thread in threads:
            thread.start()
        while not backend.calls:
            come.wait(0.001)
        come.set()
        for thread in threads:
            thread.join()
    assert len(backend.calls) == 1
    assert sorted(answer.trace.cached for answer in answers) == [False] + [True] * 7


def test_listeners_hear_of_every_attempt_and_call(make_router, image):
    """In the order in which they happened, until they unsubscribe; a failing listener hurts nobody."""
    best, spare = FakeBackend("best"), FakeBackend("spare")
    best.play(UnavailableError("It is down."))
    router, heard = make_router(best, spare), []
    router.subscribe(lambda _event: 1 / 0)
    unsubscribe = router.subscribe(heard.append)
    router.describe(image)
    told = [event for event in heard if isinstance(event, AttemptEvent | CallEvent)]
    assert [type(event) for event in told] == [AttemptEvent, AttemptEvent, CallEvent]
    assert [event.attempt.outcome for event in told[:2]] == ["failed", "answered"]
    assert (told[-1].task, told[-1].count, told[-1].answered, told[-1].degraded) == ("describe", 1, 1, 1)
    assert len({event.call_id for event in told}) == 1
    unsubscribe()
    heard.clear()
    router.describe(image)
    assert heard == []


def test_a_batch_call_waits_instead_of_degrading(make_router, image, clock, time_passes):
    """Until the rate limit has passed, however long that is within its patience."""
    best, spare = FakeBackend("best", local=False, clock=clock), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=90.0))
    router = make_router(best, spare, caching=False, warm_standby=False)
    with time_passes(clock):
        answer = router.describe(image, priority="batch")
    assert answer.trace.backend == "best"
    assert 89 < clock.monotonic() < 200


def test_patience_ends_and_then_the_next_rung_answers(make_router, image, clock, time_passes):
    """A batch call degrades as well when the trouble outlasts it."""
    best, spare = FakeBackend("best", local=False, credential="account"), FakeBackend("spare")
    best.play(QuotaExhaustedError("No money is left."), times=1000)
    router = make_router(best, spare, caching=False, warm_standby=False)
    with time_passes(clock):
        answer = router.describe(image, priority="batch", max_wait_s=30)
    assert outcomes(answer) == [
        ("best", "failed", "quota_exhausted"),
        ("best", "skipped", "quota_exhausted"),
        ("spare", "answered", None),
    ]
    assert 20 <= clock.monotonic() <= 65
    assert len(best.calls) == 1


def test_a_batch_call_that_may_not_wait_takes_the_next_rung(make_router, image, clock):
    """``max_wait_s=0`` is a time: none."""
    best, spare = FakeBackend("best", local=False), FakeBackend("spare")
    best.play(RateLimitedError("Slow down.", retry_after_s=90.0))
    assert make_router(best, spare).describe(image, priority="batch", max_wait_s=0).trace.backend == "spare"
    assert clock.monotonic() == 0.0


def test_a_waiting_batch_call_notices_a_reset(make_router, image, clock):
    """Topping up and resetting helps at once, not when the probe is due."""
    best, spare = FakeBackend("best", local=False, credential="account"), FakeBackend("spare")
    best.play(QuotaExhaustedError("No money is left."))

    with ThreadPoolExecutor(1) as pool:
        router = make_router(best, spare, caching=False)
        waiting = pool.submit(router.describe, image, priority="batch")
        for _ in range(2):
            clock.wait_for_timer(within_s=5)
            clock.advance(5)
        clock.wait_for_timer(within_s=5)
        router.reset("best")
        clock.advance(5)
        assert waiting.result(timeout=10).trace.backend == "best"
    assert clock.monotonic() < 20


@pytest.mark.parametrize(
    "options",
    [{"max_wait_s": 5}, {"priority": "batch", "max_wait_s": -1}, {"priority": "urgent"}],
)
def test_patience_without_a_meaning_is_refused(make_router, image, options):
    """Interactive calls do not wait, and nobody waits for less than no time."""
    with pytest.raises(InvalidRequestError):
        make_router(FakeBackend()).describe(image, **options)


def test_an_answer_that_cannot_be_cached_is_an_answer_all_the_same(make_router, image, caplog):
    """A backend's evidence may hold what JSON does not know."""
    best = FakeBackend("best")
    best.play(Description(text="A square.", evidence={"colours": {1, 2}}, trace=Trace(model="m")), times=2)
    router = make_router(best)
    assert [str(router.describe(image)) for _ in range(2)] == ["A square."] * 2
    assert "cannot be cached" in caplog.text


class SlowFile(io.BytesIO):
    """A file on a slow disk."""

    def __init__(self, content, *, clock, read_s):
        super().__init__(content)
        self._clock = clock
        self._read_s = read_s

    def read(self, *size):
        """Return the content after a while."""
        self._clock.advance(self._read_s if self.tell() == 0 else 0.0)
        return super().read(*size)


@pytest.fixture
def slow_file(image, clock):
    """A picture whose reading takes half a second."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return SlowFile(content.getvalue(), clock=clock, read_s=0.5)


def timed(**seconds):
    """Return a description by a backend that measures."""
    return Description(text="A square.", trace=Trace(model="m", timing=Timing(**seconds)))


def test_opening_the_image_counts_as_decoding(make_router, slow_file):
    """The backend measures what it does; the rest of a trace's timing stays as it says."""
    best = FakeBackend("best")
    best.play(timed(decode_s=0.25, model_s=2.0))
    trace = make_router(best).describe(slow_file).trace
    assert trace.timing == Timing(decode_s=0.75, model_s=2.0)


def test_opening_counts_in_a_stream_too(make_router, slow_file):
    """It happens before the first piece."""
    best = FakeBackend("best")
    best.play(timed(decode_s=0.25, wire_s=2.0))
    stream = make_router(best).describe_stream(slow_file)
    assert list(stream) == ["A square."]
    assert stream.description.trace.timing == Timing(decode_s=0.75, wire_s=2.0)


def test_what_a_backend_does_not_measure_is_unknown(make_router, slow_file):
    """Half of a part would be taken for the whole."""
    best = FakeBackend("best")
    best.play(timed(wire_s=2.0))
    assert make_router(best).describe(slow_file).trace.timing == Timing(wire_s=2.0)


def test_a_cached_answer_has_no_timing(make_router, image):
    """Nothing was measured: nobody was asked."""
    best = FakeBackend("best")
    best.play(timed(model_s=2.0))
    router = make_router(best)
    assert [router.describe(image).trace.timing for _ in range(2)] == [Timing(model_s=2.0), None]
