"""What a backend gets for nothing: a small one says only who it is and what would answer."""

import pytest

from vision_backends import (
    FREE,
    AsyncBackend,
    Backend,
    DescribeRequest,
    Description,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    Model,
    NotSupportedError,
    UnavailableError,
)
from vision_backends.backends.base import rehearse
from vision_backends.engine.event_loop import engine_loop
from vision_backends.testing import FakeBackend

EVERY_REQUEST = [DescribeRequest(), EmbedRequest(), EmbedTextRequest(), DetectRequest()]


class Small(Backend):
    """The least that a backend has to say."""

    name = "small"

    def __init__(self, *, size: int = 1) -> None:
        self.size = size

    def model_for(self, request):
        """Name the same model for everything."""
        return Model(name="tiny")

    def check(self, request):
        """Refuse nothing."""


def test_a_backend_has_to_name_its_model_and_to_check():
    """Both are asked before anything else, hence nobody can leave them out."""

    class Mute(Backend):
        name = "mute"

    with pytest.raises(TypeError, match=r"check.*model_for"):
        Mute()


@pytest.mark.parametrize("request_", EVERY_REQUEST)
def test_a_task_that_is_left_out_is_not_supported(request_):
    """It says so itself, whoever asks."""
    with pytest.raises(NotSupportedError, match=f"The small backend has no {request_.task}.") as caught:
        getattr(Small(), request_.task)(["input"], request_, timeout_s=1.0)
    assert caught.value.backend == "small"


@pytest.mark.parametrize("request_", EVERY_REQUEST)
def test_the_defaults_are_those_of_a_small_local_model(request_):
    """One input per call, one call at a time, all pixels, no account, nothing to pay, no limits of a server."""
    backend = Small()
    assert backend.local
    assert backend.credential is None
    assert (backend.batch_size(request_), backend.concurrency(request_)) == (1, 1)
    assert backend.image_px(request_) is None
    assert backend.expected_s(request_) == 1.0
    assert backend.estimate(request_, ["input"]) == FREE
    assert backend.rate_limits(request_) is None
    assert backend.status() == {}


def test_a_stream_is_the_whole_description_at_once(make_image):
    """Nothing is asked before the first piece is wanted; the record comes at the end."""
    backend = FakeBackend("bob")
    stream = backend.describe_stream(make_image(30, 20), DescribeRequest(), timeout_s=2.0)
    assert backend.calls == []
    assert next(stream) == "bob says: 30×20 px"
    assert [call.timeout_s for call in backend.calls] == [2.0]
    with pytest.raises(StopIteration) as ended:
        next(stream)
    assert ended.value.value == Description(text="bob says: 30×20 px", trace=ended.value.value.trace)
    assert ended.value.value.trace.model == "bob-model"


def test_a_backend_without_descriptions_streams_none(make_image):
    """It says so when the first piece is wanted."""
    with pytest.raises(NotSupportedError, match="The small backend has no describe"):
        next(Small().describe_stream(make_image(), DescribeRequest(), timeout_s=1.0))


def test_settings_are_keywords_of_the_constructor():
    """Unless a backend has its own way to read them."""
    assert Small.from_settings({"size": 3}).size == 3


def test_closing_is_harmless():
    """There is nothing to release by default, however often it is asked for."""
    backend = Small()
    backend.close()
    backend.close()
    assert backend.model_for(DescribeRequest()).name == "tiny"


def test_there_is_nothing_to_warm_up_by_default():
    """A backend that loads nothing is ready as it is."""
    backend = Small()
    assert backend.warm_up(DescribeRequest()) is None
    assert backend.model_for(DescribeRequest()).name == "tiny"


@pytest.mark.parametrize(
    "request_", [EmbedRequest(), EmbedTextRequest(), DetectRequest(), DetectRequest(labels=("a scooter",))]
)
def test_a_rehearsal_runs_each_task_once(request_):
    """As it was asked for, with one input."""
    backend = FakeBackend()
    rehearse(backend, request_)
    assert [(call.request, call.count) for call in backend.calls] == [(request_, 1)]


class Awaited(AsyncBackend):
    """A rung of coroutines, which notes where they run."""

    name = "awaited"

    def __init__(self):
        self.ran_on_the_loop = []

    def model_for(self, request):
        """Return the model of every task."""
        return Model(name="awaited")

    def check(self, request):
        """Return: it is ready."""

    async def embed_text(self, texts, request, *, timeout_s):
        """Return nothing."""
        self.ran_on_the_loop.append(engine_loop().runs_here())
        return []


def test_the_coroutine_of_a_rehearsal_runs_on_the_event_loop():
    """As that of a call does; the thread waits for it."""
    backend = Awaited()
    rehearse(backend, EmbedTextRequest())
    assert backend.ran_on_the_loop == [True]


def test_a_rehearsed_description_is_one_word_long():
    """One word shows that it works; the prompt stays."""
    backend = FakeBackend()
    rehearse(backend, DescribeRequest(prompt="What?", max_words=200))
    assert [call.request for call in backend.calls] == [DescribeRequest(prompt="What?", max_words=1)]


def test_a_rehearsal_that_fails_says_so():
    """A model that computes nonsense is not ready."""
    backend = FakeBackend()
    backend.play(UnavailableError("Broken."))
    with pytest.raises(UnavailableError, match="Broken"):
        rehearse(backend, EmbedRequest())
