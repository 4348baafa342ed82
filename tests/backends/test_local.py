"""The local rung of this version: configured like any other, and honest about what it cannot do yet."""

import pytest

from vision_backends import (
    AllBackendsFailedError,
    ConfigError,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    NotReadyError,
)
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.registry import make_backend

EVERY_REQUEST = [
    DescribeRequest(),
    DescribeRequest(prompt="What is it?"),
    EmbedRequest(),
    EmbedTextRequest(),
    DetectRequest(),
    DetectRequest(labels=("a scooter",)),
]


@pytest.mark.parametrize("request_", EVERY_REQUEST)
def test_it_says_that_this_version_does_not_run_local_models(request_):
    """The reason is the true one, and names the model that was not asked."""
    backend = LocalBackend()
    with pytest.raises(NotReadyError, match="This version does not run local models yet") as caught:
        backend.check(request_)
    assert backend.model_for(request_).name in caught.value.message
    assert (caught.value.backend, caught.value.code) == ("local", "not_in_this_version")


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (DescribeRequest(), "caption_model"),
        (EmbedRequest(), "embedding_model"),
        (EmbedTextRequest(), "embedding_model"),
        (DetectRequest(), "detection_model"),
        (DetectRequest(labels=("a scooter",)), "open_vocabulary_model"),
    ],
)
def test_the_configured_model_is_the_one_that_would_answer(request_, key):
    """Each task has its key; labels of any kind need a model of their own."""
    assert make_backend("local", {key: "acme/tiny"}).model_for(request_).name == "acme/tiny"
    assert LocalBackend().model_for(request_).name != "acme/tiny"


def test_only_embeddings_name_a_space():
    """Images and texts share it."""
    backend = LocalBackend()
    assert backend.model_for(EmbedRequest()).space == backend.model_for(EmbedTextRequest()).space is not None
    assert backend.model_for(DescribeRequest()).space is None
    assert backend.model_for(DetectRequest()).space is None


def test_pixels_stay_on_this_machine():
    """`local_only=True` keeps it on the ladder."""
    assert LocalBackend().local


@pytest.mark.parametrize(("key", "value"), [("device", "abacus"), ("download", "often"), ("caption_model", 5)])
def test_a_bad_value_is_an_error_of_the_configuration(key, value):
    """Even though nothing runs yet: a file that is valid now stays valid."""
    with pytest.raises(ConfigError, match=rf"^\[local\] has a bad value for '{key}'"):
        make_backend("local", {key: value})


def test_a_ladder_of_this_rung_alone_tells_the_reason(photos):
    """The reader of the last error learns why nobody answered."""
    from vision_backends import Router

    with Router([LocalBackend()]) as router, pytest.raises(AllBackendsFailedError) as caught:
        router.describe(photos / "cat.jpg")
    assert [attempt.error for attempt in caught.value.attempts] == ["not_ready"]
    assert "This version does not run local models yet" in str(caught.value)
