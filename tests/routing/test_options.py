"""Who is asked in one call: some rungs, in an order, for a model."""

import asyncio

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AsyncRouter,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    Router,
    SpaceUnavailableError,
    UnavailableError,
)
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeAsyncBackend, FakeBackend

IMAGE = PILImage.new("RGB", (64, 48), "teal")


class Asked:
    """A ladder of three, of which two are servers and the last is on this machine."""

    def __init__(self, kind=FakeBackend, **options):
        self.azure = kind("azure", model="small", other_models=("large", "vendor/wide"), local=False)
        self.openrouter = kind("openrouter", model="vendor/wide", other_models=("large",), local=False)
        self.last = kind("last", model="tiny")
        self.router = Router([self.azure, self.openrouter, self.last], **options)

    @property
    def models(self):
        """Who was asked for which model, in whatever order."""
        return [(rung.name, call.model) for rung in (self.azure, self.openrouter, self.last) for call in rung.calls]


@pytest.fixture(params=[FakeBackend, FakeAsyncBackend])
def asked(request):
    """A ladder of plain backends, and one of asynchronous ones."""
    made = Asked(request.param)
    with made.router:
        yield made


class TestBackends:
    """``backends=`` is the ladder of one call."""

    def test_they_are_asked_in_the_order_of_the_call(self, asked):
        """Whatever the ladder's own is; no other is."""
        asked.last.play(UnavailableError("Down."))
        trace = asked.router.describe(IMAGE, backends=["last", "openrouter"]).trace
        assert [each.backend for each in trace.attempts] == ["last", "openrouter"]
        assert (trace.backend, trace.degraded) == ("openrouter", True)

    def test_nobody_else_answers(self, asked):
        """If none of them can, the call fails."""
        asked.last.play(UnavailableError("Down."))
        with pytest.raises(AllBackendsFailedError) as caught:
            asked.router.describe(IMAGE, backends=("last",))
        assert [each.backend for each in caught.value.attempts] == ["last"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"backends": "azure"}, "backends='azure' .* is one string"),
            ({"backends": []}, "is not a list of names"),
            ({"backends": ["azure", 3]}, "is not a list of names"),
            ({"backends": 3}, "is a single int, not a list"),
            ({"backends": ["azure", "azure"]}, "names a rung twice"),
            ({"backends": ["azure"], "backend": "azure"}, "both say who is asked"),
            ({"backends": ["azure", "nobody"]}, "no backend 'nobody' on the ladder for describe"),
            ({"backends": ["azure"], "local_only": True}, "local_only leaves no backend: azure would"),
        ],
    )
    def test_what_has_no_meaning_is_the_callers_error(self, asked, options, message):
        """And nobody is asked."""
        with pytest.raises(InvalidRequestError, match=message) as caught:
            asked.router.describe(IMAGE, **options)
        assert caught.value.remedy
        assert asked.models == []


class TestModel:
    """``model=`` names a model, with or without its rung."""

    @pytest.mark.parametrize(
        ("options", "wanted"),
        [
            ({"model": "azure/large"}, ("azure", "large")),
            ({"model": "azure/small"}, ("azure", "small")),
            ({"model": "azure/vendor/wide"}, ("azure", "vendor/wide")),
            ({"model": "vendor/wide"}, ("openrouter", "vendor/wide")),
            ({"model": "small"}, ("azure", "small")),
            ({"model": "tiny"}, ("last", "tiny")),
            ({"backend": "openrouter", "model": "large"}, ("openrouter", "large")),
            ({"backends": ["openrouter", "azure"], "model": "large"}, ("openrouter", "large")),
            ({"backends": ["openrouter", "azure"], "model": "azure/large"}, ("azure", "large")),
            ({"backends": ["last", "azure"], "model": "large"}, ("azure", "large")),
        ],
    )
    def test_it_is_the_one_that_answers(self, asked, options, wanted):
        """In the trace, in the ledger and at the backend."""
        trace = asked.router.describe(IMAGE, **options).trace
        (row,) = asked.router.ledger()
        assert [(trace.backend, trace.model), (row.backend, row.model), *asked.models] == [wanted] * 3
        assert not trace.degraded

    def test_every_rung_that_has_it_is_asked_in_order(self):
        """And no other, even if all of them are down."""
        rungs = [FakeBackend(name, model=model) for name, model in (("a", "x"), ("b", "y"), ("c", "x"))]
        with Router(rungs) as router:
            rungs[0].play(UnavailableError("Down."))
            trace = router.describe(IMAGE, model="x").trace
            assert [each.backend for each in trace.attempts] == ["a", "c"]
            for rung in rungs:
                rung.play(UnavailableError("Down."), times=4)
            with pytest.raises(AllBackendsFailedError):
                router.detect(IMAGE, model="x")
            assert rungs[1].calls == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model": "nope"}, "No rung on the ladder for describe is configured with the model 'nope'"),
            ({"model": "nobody/large"}, "is configured with the model 'nobody/large'"),
            ({"model": "last/large"}, "The last backend has no model 'large': 'tiny' is what"),
            ({"backends": ["last"], "model": "large"}, "The last backend has no model 'large'"),
            ({"model": "azure/"}, "model='' .* is not the name of a model"),
            ({"model": " "}, "is not the name of a model"),
            ({"model": "x" * 300}, "is not the name of a model"),
            ({"model": "a\nb"}, "is not the name of a model"),
            ({"model": 5}, "is not the name of a model"),
            ({"model": "azure/large", "local_only": True}, "local_only leaves no backend: azure would"),
        ],
    )
    def test_what_nobody_has_is_the_callers_error(self, asked, options, message):
        """And nobody is asked."""
        with pytest.raises(InvalidRequestError, match=message):
            asked.router.describe(IMAGE, **options)
        assert asked.models == []

    def test_the_message_says_what_there_is(self, asked):
        """Which rung has which model, and how to name another."""
        with pytest.raises(InvalidRequestError) as caught:
            asked.router.describe(IMAGE, model="nope")
        assert "small (azure), vendor/wide (openrouter), tiny (last)" in caught.value.remedy
        assert "model='azure/nope'" in caught.value.remedy

    def test_every_way_to_ask_takes_it(self, asked):
        """One input or many, whole or in pieces."""
        router, model = asked.router, {"model": "azure/large"}
        many = [IMAGE, IMAGE.resize((9, 9))]
        with router.describe_stream(IMAGE, **model) as stream:
            assert "".join(stream)
        answers = [
            stream.description,
            router.embed(IMAGE, **model),
            router.embed_text("a cat", **model),
            router.detect(IMAGE, **model),
            *router.describe_many(many, **model),
            *router.embed_many(many, **model),
            *router.embed_text_many(["a", "b"], **model),
            *router.detect_many(many, **model),
            *router.describe_each(many, **model),
            *router.embed_each(many, **model),
            *router.detect_each(many, **model),
        ]
        assert {answer.trace.model for answer in answers} == {"large"}
        assert {model for _, model in asked.models} == {"large"}

    def test_coroutines_take_it(self, asked):
        """With the same names."""

        async def main():
            async with AsyncRouter(asked.router) as router:
                said = await router.describe(IMAGE, model="azure/large")
                found = await router.detect(IMAGE, backends=["last", "azure"])
                return said.trace.model, found.trace.backend

        assert asyncio.run(main()) == ("large", "last")


class TestWhatBelongsToAModel:
    """Another model is another answer, another space and another health."""

    def test_answers_are_kept_for_each_model(self, asked):
        """The configured one is the same, however it is named."""
        router = asked.router
        first = [router.describe(IMAGE, model=model).trace for model in ("azure/small", "azure/large")]
        again = [router.describe(IMAGE, **options).trace for options in ({"model": "azure/large"}, {})]
        assert [(trace.model, trace.cached) for trace in (*first, *again)] == [
            ("small", False),
            ("large", False),
            ("large", True),
            ("small", True),
        ]

    def test_its_vectors_live_in_a_space_of_their_own(self, asked):
        """Which can be pinned, together with it."""
        router = asked.router
        own, other = router.embed(IMAGE), router.embed(IMAGE, model="azure/large")
        assert own.space != other.space
        assert router.embed_text("a cat", model="azure/large", space=other.space).space == other.space
        with pytest.raises(SpaceUnavailableError):
            router.embed_text("a cat", model="azure/large", space=own.space)

    def test_a_model_that_is_not_there_blocks_no_other(self, asked):
        """Neither for this call nor for the next."""
        asked.azure.play(ModelNotFoundError("No such model."))
        with pytest.raises(AllBackendsFailedError):
            asked.router.describe(IMAGE, model="azure/large")
        assert [gate.model for gate in asked.router.gates()] == ["large"]
        assert asked.router.describe(IMAGE).trace.backend == "azure"
        assert not asked.router.explain("describe", model="azure/large").verdicts[0].ready

    def test_a_cached_answer_is_found_only_for_rungs_of_the_call(self):
        """What another rung has answered before answers no call that does not name it."""
        store = MemoryStore()
        best, other = FakeBackend("best"), FakeBackend("other")
        with Router([best, other], store=store) as router:
            router.describe(IMAGE)
            assert router.describe(IMAGE, backends=["other"]).trace.backend == "other"
            trace = router.describe(IMAGE, backends=["other", "best"]).trace
        assert (trace.backend, trace.cached) == ("other", True)


class TestLooking:
    """`explain` and `warm_up` take the same names."""

    def test_explain_shows_the_rungs_of_the_call(self, asked):
        """In its order, with its model."""
        verdicts = asked.router.explain("describe", backends=["openrouter", "azure"], model="large").verdicts
        assert [(verdict.backend, verdict.model) for verdict in verdicts] == [
            ("openrouter", "large"),
            ("azure", "large"),
        ]

    def test_a_warm_up_is_for_what_is_named(self, asked):
        """For those tasks in which it is there."""
        report = asked.router.warm_up(backends=["last", "azure"], model="large", wait_s=10)
        assert [each.backend for each in report] == ["azure"] * 4
        assert [each.backend for each in asked.router.warm_up(["embed"], model="tiny", wait_s=10)] == ["last"]
        with pytest.raises(InvalidRequestError, match="'nope'"):
            asked.router.warm_up(model="nope")

    def test_a_warm_up_skips_tasks_whose_ladder_lacks_a_rung(self):
        """It has to be on one of them."""
        best, spare = FakeBackend("best"), FakeBackend("spare")
        with Router({"describe": [best, spare], "detect": [best]}) as router:
            report = router.warm_up(backends=["spare", "best"], wait_s=10)
        assert [(each.task, each.backend) for each in report] == [
            ("describe", "spare"),
            ("describe", "best"),
            ("detect", "best"),
        ]

    def test_a_rung_with_another_model_is_made_ready_by_itself(self):
        """Not the model that it is configured with."""
        rung = FakeBackend("slow", other_models=("large",), not_ready=NotReadyError("Loading."))
        with Router([rung]) as router:
            (report,) = router.warm_up(["describe"], model="slow/large", wait_s=10)
        assert report.state == "not_ready"
