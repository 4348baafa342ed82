"""What has no meaning is the caller's error, with a remedy, wherever it comes in."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from vision_backends import AsyncRouter, Router
from vision_backends.arguments import shown
from vision_backends.backends.base import Backend
from vision_backends.backends.registry import make_backend
from vision_backends.errors import ConfigError, InvalidRequestError, NotSupportedError
from vision_backends.health.budgets import Limits
from vision_backends.images import ImageLimits
from vision_backends.testing import FakeBackend

IMAGE = PILImage.new("RGB", (64, 48), "teal")


class Nameless(FakeBackend):
    """Has forgotten its name."""

    def __init__(self):
        super().__init__("x")
        self.name = None


class Half(Backend):
    """Lacks what a backend must have."""

    name = "half"


class Fragile(FakeBackend):
    """Cannot be made."""

    def __init__(self):
        raise KeyError("HOME")


ROUTERS = {
    "names": lambda: Router(["openai"]),
    "a name": lambda: Router("openai"),
    "no list": lambda: Router(FakeBackend()),
    "nothing": lambda: Router(None),
    "a class": lambda: Router([FakeBackend]),
    "no backend": lambda: Router([object()]),
    "no name": lambda: Router([Nameless()]),
    "an unknown task": lambda: Router({"paint": [FakeBackend()]}),
    "names by task": lambda: Router({"describe": ["openai"]}),
    "a deadline in words": lambda: Router([FakeBackend()], deadline_s="5"),
    "no deadline": lambda: Router([FakeBackend()], deadline_s=None),
    "a path as store": lambda: Router([FakeBackend()], store="state.sqlite"),
    "a path object as store": lambda: Router([FakeBackend()], store=Path("state.sqlite")),
    "a dictionary as limits": lambda: Router([FakeBackend()], limits={"fake": {"requests_per_minute": 6}}),
    "a number as limits of images": lambda: Router([FakeBackend()], image_limits=5),
    "an address as alerts": lambda: Router([FakeBackend()], alerts="https://example.com"),
    "a list as hedge": lambda: Router([FakeBackend()], hedge_after_s=[1]),
}

CALLS = {
    "min_score": lambda router: router.detect(IMAGE, min_score="0.3"),
    "prompt": lambda router: router.describe(IMAGE, prompt=3),
    "prompt of a stream": lambda router: router.describe_stream(IMAGE, prompt=3),
    "labels": lambda router: router.detect(IMAGE, labels=5),
    "labels that are one": lambda router: router.detect(IMAGE, labels="cat"),
    "space": lambda router: router.embed(IMAGE, space=3),
    "truncate": lambda router: router.embed_text("a cat", truncate="yes"),
    "text": lambda router: router.embed_text(3),
    "deadline": lambda router: router.describe(IMAGE, deadline_s="5"),
    "backend": lambda router: router.describe(IMAGE, backend=FakeBackend()),
    "local_only": lambda router: router.describe(IMAGE, local_only="no"),
    "priority": lambda router: router.describe(IMAGE, priority=["batch"]),
    "max_wait_s": lambda router: router.describe(IMAGE, priority="batch", max_wait_s="5"),
    "a number as list": lambda router: router.describe_many(5),
    "nothing as list": lambda router: router.describe_many(None),
    "an image as list": lambda router: router.describe_many(IMAGE),
    "a text as list": lambda router: router.embed_text_many("a cat"),
    "a file as list": lambda router: router.describe_many(io.BytesIO(b"lines")),
    "progress": lambda router: router.describe_many([IMAGE], progress=True),
    "task to explain": lambda router: router.explain("paint"),
    "list to explain": lambda router: router.explain(["describe"]),
    "task to warm up": lambda router: router.warm_up([3]),
    "tasks to warm up": lambda router: router.warm_up(3),
    "time to warm up": lambda router: router.warm_up(wait_s="5"),
    "listener": lambda router: router.subscribe("print"),
    "time of a diagnosis": lambda router: router.diagnose(timeout_s="5"),
    "picture to draw on": lambda router: router.detect(IMAGE).draw("x.jpg"),
    "no picture to draw on": lambda router: router.detect(IMAGE).draw(None),
    "categories": lambda router: router.detect(IMAGE).to_coco(image_id=1, categories=["cat"]),
    "limits of images": lambda _: ImageLimits(max_bytes="6"),
    "time of the ledger": lambda router: list(router.ledger(since="today")),
    "vector to compare": lambda router: router.embed(IMAGE).similarity([1.0]),
}


@pytest.mark.parametrize("make", ROUTERS.values(), ids=ROUTERS)
def test_a_router_of_nothing_sensible_is_refused(make):
    """Before it is asked anything."""
    with pytest.raises(InvalidRequestError) as caught:
        make()
    assert caught.value.remedy


@pytest.mark.parametrize("ask", CALLS.values(), ids=CALLS)
def test_a_question_without_a_meaning_is_refused(ask):
    """No backend is blamed or asked for it; it is told what to write instead."""
    with Router([FakeBackend()]) as router, pytest.raises(InvalidRequestError) as caught:
        ask(router)
    assert caught.value.remedy


def test_it_is_the_same_where_it_is_awaited():
    """The arguments are checked in one place."""

    async def work():
        async with AsyncRouter(Router([FakeBackend()])) as router:
            for ask in (
                lambda: router.detect(IMAGE, min_score="0.3"),
                lambda: router.describe(IMAGE, prompt=3),
                lambda: router.describe_many(5),
            ):
                with pytest.raises(InvalidRequestError):
                    await ask()
            with pytest.raises(InvalidRequestError):
                router.describe_stream(IMAGE, prompt=3)

    asyncio.run(work())


def test_lists_of_any_kind_are_lists():
    """A generator, a tuple, a set of labels."""
    with Router([FakeBackend()]) as router:
        assert len(router.describe_many(image for image in [IMAGE, IMAGE])) == 2
        assert len(router.detect(IMAGE, labels={"cat"})) >= 0
        assert router.warm_up(task for task in ["describe"]).done in {True, False}


def test_a_backend_class_that_lacks_a_method_is_named_with_it():
    """It is a matter of the configuration, not a crash."""
    with pytest.raises(ConfigError, match=r"lacks check\(request\) and model_for\(request\)\. Define"):
        make_backend(f"{__name__}:Half", {})


def test_a_backend_that_cannot_be_made_is_named_with_the_reason():
    """Its constructor may raise anything."""
    with pytest.raises(ConfigError, match=r"cannot be made: KeyError: 'HOME'\. Correct \[backends"):
        make_backend(f"{__name__}:Fragile", {})


@pytest.mark.parametrize("value", ["6", True, [6]])
def test_a_limit_that_is_no_number_is_refused(value):
    """As in the configuration."""
    with pytest.raises(ConfigError, match=r"requests_per_minute=.* is not a number"):
        Limits(requests_per_minute=value)


def test_a_value_is_shown_on_one_line_and_cut():
    """An array would fill a screen."""
    written = shown(np.zeros((50, 50)))
    assert "\n" not in written
    assert len(written) < 100


def test_a_configuration_that_is_no_path_is_refused():
    """A dictionary, for instance."""
    with pytest.raises(ConfigError, match=r"is not a path\. Pass the path of a vision\.toml"):
        Router.from_config({"ladder": ["embedded"]})


def test_a_task_that_a_backend_has_not_is_none_of_its_bugs():
    """The next rung is asked."""

    class Describer(Backend):
        name = "describer"

        def model_for(self, request):
            return FakeBackend().model_for(request)

        def check(self, request):
            """Promise everything."""

        def detect(self, images, request, *, timeout_s):
            """Have another task."""
            raise NotImplementedError

    with Router([Describer(), FakeBackend()]) as router:
        answer = router.describe(IMAGE)
    assert answer.trace.attempts[0].error == NotSupportedError.kind
    assert answer.trace.backend == "fake"
