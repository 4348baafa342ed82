"""What a backend of somebody else's lacks is said before it is asked, in words that mend it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from vision_backends import AsyncBackend, Backend, ConfigError, Description, InvalidRequestError, Model, Router, Trace
from vision_backends.backends.conformance import defect_of
from vision_backends.backends.registry import make_backend
from vision_backends.testing import FakeAsyncBackend, FakeBackend

PICTURE = np.zeros((8, 8, 3), np.uint8)

ANSWERS = [Description(text="a picture", trace=Trace(model="m"))]


class Base(Backend):
    """Has what is abstract."""

    name = "mine"

    def model_for(self, request):
        """Name the model."""
        return Model(name="m", revision="1")

    def check(self, request):
        """Accept everything."""

    def describe(self, images, request, *, timeout_s):
        """Answer."""
        return ANSWERS


class Nameless(Base):
    """Has none."""

    name = ""


class HalfNamed(Base):
    """Has half a character for one."""

    name = "a\ud83d"


class Taskless(Base):
    """Has only what is abstract."""

    describe = Backend.describe


class Coroutine(Base):
    """Is plain otherwise."""

    async def describe(self, images, request, *, timeout_s):
        """Answer."""
        return ANSWERS


class StreamsAsynchronously(Base):
    """Is plain otherwise."""

    async def describe_stream(self, image, request, *, timeout_s):
        """Answer."""
        yield ANSWERS[0]


class WithoutTime(Base):
    """Takes no timeout."""

    def describe(self, images, request):
        """Answer."""
        return ANSWERS


class EmbedsAlone(Base):
    """Takes texts only."""

    def embed_text(self, texts):
        """Answer."""
        return []


class Asynchronous(AsyncBackend):
    """Has only what is abstract."""

    name = "mine"
    model_for, check = Base.model_for, Base.check


class Plain(Asynchronous):
    """Has a method that is no coroutine."""

    def describe(self, images, request, *, timeout_s):
        """Answer."""
        return ANSWERS


def awaited(method):
    """Decorate a coroutine by a plain function, as tracing libraries do."""

    @functools.wraps(method)
    def call(*arguments, **options):
        return method(*arguments, **options)

    return call


class Decorated(Asynchronous):
    """Has a coroutine that looks plain."""

    @awaited
    async def describe(self, images, request, *, timeout_s):
        """Answer."""
        return ANSWERS


class Half(Backend):
    """Lacks a check."""

    name = "half"

    def model_for(self, request):
        """Name the model."""
        return Model(name="m", revision="1")


class Duck:
    """Is something else."""


an_instance = FakeBackend()


@pytest.mark.parametrize(
    ("kind", "words", "remedy"),
    [
        (Nameless, "has no name", "Set Nameless.name"),
        (HalfNamed, r"has the name 'a\ud83d', which is not valid Unicode", "Set HalfNamed.name"),
        (Taskless, "has no task", "describe, embed, embed_text, detect"),
        (Asynchronous, "has no task", "describe, embed, embed_text, detect"),
        (Coroutine, "has a coroutine describe, but is not an AsyncBackend", "subclass AsyncBackend"),
        (StreamsAsynchronously, "has a coroutine describe_stream", "or write a plain describe_stream"),
        (WithoutTime, "has a describe that cannot be called", "def describe(self, images, request, *, timeout_s)"),
        (EmbedsAlone, "has a embed_text that cannot be called", "def embed_text(self, texts, request, *, timeout_s)"),
    ],
)
def test_what_an_instance_lacks_is_said_by_the_router_and_by_the_configuration(kind, words, remedy):
    """The same words; the configuration names the rung as the ladder does."""
    with pytest.raises(InvalidRequestError) as caught:
        Router([kind()])
    assert words in caught.value.message
    assert remedy in caught.value.remedy
    with pytest.raises(ConfigError) as caught:
        make_backend(f"{__name__}:{kind.__name__}", {})
    assert words in caught.value.message
    assert f"{__name__}:{kind.__name__}" in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("backend", [Base(), Decorated(), FakeBackend(), FakeAsyncBackend()])
def test_what_works_is_not_refused(backend):
    """Also where a decorator hides that a method is a coroutine."""
    assert defect_of(backend) is None
    with Router([backend]) as router:
        assert router.describe(PICTURE).trace.backend == backend.name


def test_methods_that_are_missing_are_named_with_the_class():
    """And the command that writes one which has them."""
    with pytest.raises(ConfigError) as caught:
        make_backend(f"{__name__}:Half", {})
    assert "lacks check(request)." in caught.value.message
    assert "vision new-backend NAME" in caught.value.remedy


@pytest.mark.parametrize(
    ("attribute", "what"),
    [("Duck", "the class Duck"), ("an_instance", "an instance of FakeBackend"), ("awaited", "a function")],
)
def test_what_is_no_class_of_a_backend_is_named_as_what_it_is(attribute, what):
    """The ladder takes classes."""
    with pytest.raises(ConfigError) as caught:
        make_backend(f"{__name__}:{attribute}", {})
    assert f"It is {what}." in caught.value.remedy


def test_a_class_that_is_not_in_the_module_is_answered_with_those_that_are():
    """As the ladder writes them."""
    with pytest.raises(ConfigError) as caught:
        make_backend(f"{__name__}:Nope", {})
    assert f"the module {__name__} has no 'Nope'" in caught.value.message
    assert f"{__name__}:Base" in caught.value.remedy
    assert "Duck" not in caught.value.remedy


def test_a_module_that_is_not_found_is_told_of_pythonpath(tmp_path, monkeypatch):
    """And that it lies here, if it does: the ``vision`` program does not look into the working directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        make_backend("no_such_module_at_all:Mine", {})
    assert "there is no module 'no_such_module_at_all'" in caught.value.message
    assert "PYTHONPATH=FOLDER" in caught.value.remedy
    (tmp_path / "no_such_module_at_all.py").touch()
    with pytest.raises(ConfigError) as caught:
        make_backend("no_such_module_at_all:Mine", {})
    assert "PYTHONPATH=." in caught.value.remedy


def test_a_class_that_is_written_with_a_dot_is_told_of_the_colon():
    """Where it resembles no name."""
    with pytest.raises(ConfigError) as caught:
        make_backend("package.module.Mine", {})
    assert "'package.module:Mine'" in caught.value.remedy


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (ANSWERS[0], "but a Description."),
        ([], "but a list of 0."),
        (["a text"], "but a list of 1 with str in it."),
        ((answer for answer in ANSWERS), "but a generator."),
        (None, "but a NoneType."),
    ],
)
def test_what_is_not_a_list_of_records_goes_to_the_next_rung(given, words):
    """Whatever it is: a bug of a backend is no crash of its caller."""

    class Wrong(Base):
        def describe(self, images, request, *, timeout_s):
            return given

    with Router([Wrong(), FakeBackend("spare")]) as router:
        trace = router.describe(PICTURE).trace
    assert trace.backend == "spare"
    assert trace.attempts[0].error == "invalid_reply"
    assert trace.attempts[0].message == f"The backend did not return 1 Description records, {words}"
    assert "a list with one record per input" in trace.attempts[0].remedy


def test_a_plain_method_of_an_asynchronous_backend_is_named():
    """Its list cannot be awaited."""
    with Router([Plain(), FakeBackend("spare")]) as router:
        (attempt, _) = router.describe(PICTURE).trace.attempts
    assert attempt.message == "The backend is an AsyncBackend, but its describe is a plain method."
    assert "async def describe" in attempt.remedy
