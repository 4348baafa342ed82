"""The examples in docstrings run, and say what they print."""

from __future__ import annotations

import doctest
import inspect
import shutil
from pathlib import Path

import pytest

import vision_backends
import vision_backends.results
import vision_backends.search
import vision_backends.testing
from vision_backends import Router
from vision_backends.health.policy import Transition
from vision_backends.observability.events import CallEvent
from vision_backends.search import ImageIndex

PHOTOS = Path(__file__).parents[1] / "benchmarks" / "photos"

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

WITHOUT = {"close", "probe", "reset", "spending"}
"""Methods of the router that have no example of their own: with a plain configuration there is nothing to see."""

UNSEEN = {
    *("AskRequest", "DescribeRequest", "DetectRequest", "EmbedRequest", "EmbedTextRequest", "Model", "RateLimits"),
    *("DuplicateFile", "DuplicateGroup", "Hit", "ImageLabel", "IndexInfo", "IndexReport", "UnreadableImage"),
    *("FakeCall", "Timing", "Verdict", "WarmUp"),
    *("AsyncBackend", "AzureBackend", "BackendContract", "LocalBackend", "to_pandas", "to_polars"),
}
"""Public names without: requests, parts of others, and what needs something that is not installed or not here."""


def public_names() -> set[type]:
    """The classes and functions that the packages export."""
    packages = (vision_backends, vision_backends.results, vision_backends.search, vision_backends.testing)
    found = {getattr(package, name) for package in packages for name in package.__all__}
    return {each for each in found if inspect.isclass(each) or inspect.isfunction(each)}


def examples() -> list[doctest.DocTest]:
    """Every docstring of a public name that has an example, those of methods among them."""
    found = {}
    for each in sorted({*public_names(), CallEvent, Transition}, key=lambda each: each.__name__):
        for test in doctest.DocTestFinder(exclude_empty=True).find(each, each.__name__):
            if test.examples:
                found[test.name] = test
    return list(found.values())


@pytest.fixture(scope="module")
def router():
    """What the examples call `router`: offline, as after a plain installation."""
    with Router.from_config(ladder=["embedded"], state="memory") as made:
        yield made


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_example_prints_what_it_says(example, router, fresh_user):
    """In a folder with the test photos."""
    for photo in PHOTOS.glob("*.jpg"):
        shutil.copy(photo, fresh_user)
    example.globs = {"ImageIndex": ImageIndex, "Router": Router, "router": router}
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append, clear_globs=True)
    assert result.attempted
    assert not result.failed, "".join(said)


def test_every_public_name_has_an_example():
    """Of its own, or of a method; but for errors, requests, parts of others, and what has to be installed first."""
    shown = {example.name.partition(".")[0] for example in examples()}
    public = {each for each in public_names() if not (inspect.isclass(each) and issubclass(each, BaseException))}
    assert {each.__name__ for each in public} - shown == UNSEEN


def test_every_method_of_the_router_has_an_example():
    """But for those with which nothing is to be seen."""
    methods = {name for name, _ in inspect.getmembers(Router, callable) if not name.startswith("_")}
    shown = {example.name.partition(".")[2] for example in examples() if example.name.startswith("Router.")}
    assert methods - shown == WITHOUT
