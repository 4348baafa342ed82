"""Names that are nearly right, wherever a caller writes one."""

from __future__ import annotations

import pytest

from vision_backends import InvalidRequestError, Router
from vision_backends.arguments import did_you_mean
from vision_backends.testing import FakeBackend


@pytest.mark.parametrize(
    ("name", "question"),
    [("opnai", "Did you mean 'OpenAI'? "), ("OPENAI", "Did you mean 'OpenAI'? "), ("zzz", ""), (7, "")],
)
def test_the_most_similar_name_is_asked_about(name, question):
    """In the case that is right; nothing is said where nothing is similar."""
    assert did_you_mean(name, ["OpenAI", "local"]) == question


def test_a_maker_that_is_like_no_rung_is_not_taken_for_one():
    """However much of the name is equal: what stands behind the slash is repeated in every proposal."""
    with Router([FakeBackend("first"), FakeBackend("second")]) as router:
        with pytest.raises(InvalidRequestError) as caught:
            router.describe(b"", model="foo/some-long-name")
        assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "meant"),
    [
        ({"backends": ["secnd"]}, "'second'"),
        ({"model": "second-modl"}, "'second-model'"),
        ({"model": "secnd/other"}, "'second/other'"),
    ],
)
def test_backends_and_models_of_a_call_are_asked_about(keywords, meant):
    """With the names that there are."""
    with Router([FakeBackend("first"), FakeBackend("second")]) as router:
        with pytest.raises(InvalidRequestError, match=f"Did you mean {meant}") as caught:
            router.describe(b"", **keywords)
        assert "first" in str(caught.value)
