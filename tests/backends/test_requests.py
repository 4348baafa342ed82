"""Which requests have a meaning."""

import dataclasses
import math

import numpy as np
import pytest

from vision_backends import (
    TASKS,
    DescribeRequest,
    DetectRequest,
    EmbedRequest,
    EmbedTextRequest,
    InvalidRequestError,
    Model,
    RateLimits,
)

EVERY_REQUEST = [DescribeRequest, EmbedRequest, EmbedTextRequest, DetectRequest]


@pytest.mark.parametrize("kind", EVERY_REQUEST)
def test_a_plain_request_asks_for_whatever_the_backend_does_best(kind):
    """Every option may be left out, and None leaves it to the backend; only texts are never cut unasked."""
    options = {field.name: getattr(kind(), field.name) for field in dataclasses.fields(kind)}
    assert options.pop("truncate", False) is False
    assert set(options.values()) == {None}


def test_each_request_names_its_task():
    """There is one kind of request for each task."""
    assert tuple(kind.task for kind in EVERY_REQUEST) == TASKS


@pytest.mark.parametrize(
    "record",
    [*(kind() for kind in EVERY_REQUEST), DetectRequest(labels=("a dog",)), Model(name="tiny"), RateLimits()],
)
def test_requests_are_frozen_and_hashable(record):
    """Cache keys and gates are made from them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)
    assert hash(record) == hash(dataclasses.replace(record))


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (DescribeRequest, {"prompt": ""}, "prompt is empty"),
        (DescribeRequest, {"prompt": " \n"}, "prompt is empty"),
        (DescribeRequest, {"prompt": 5}, r"prompt=5 \(int\) is not text"),
        (DescribeRequest, {"prompt": b"What?"}, r"prompt=b'What\?' \(bytes\) is not text"),
        (DescribeRequest, {"language": ["de"]}, r"language=\['de'\] \(list\) is not text"),
        (DescribeRequest, {"max_words": "5"}, r"max_words='5' \(str\) is not a whole number"),
        (DescribeRequest, {"max_words": 2.5}, r"max_words=2\.5 \(float\) is not a whole number"),
        (DescribeRequest, {"max_words": math.inf}, "is not a whole number"),
        (DescribeRequest, {"max_words": True}, "is not a whole number"),
        (EmbedRequest, {"space": 3}, r"space=3 \(int\) is not text"),
        (EmbedTextRequest, {"space": 3}, r"space=3 \(int\) is not text"),
        (EmbedTextRequest, {"truncate": "no"}, r"truncate='no' \(str\) is neither True nor False"),
        (DetectRequest, {"truncate": 1}, "neither True nor False"),
        (DetectRequest, {"min_score": "0.3"}, r"min_score='0\.3' \(str\) is not a number"),
        (DetectRequest, {"min_score": [0.3]}, "is not a number"),
        (DetectRequest, {"min_score": "x" * 500}, r"min_score='x{79}… \(str\) is not a number"),
        (DescribeRequest, {"language": " "}, "language is empty"),
        (DescribeRequest, {"max_words": 0}, "max_words=0"),
        (DescribeRequest, {"max_words": -3}, "max_words=-3"),
        (DetectRequest, {"labels": ()}, r"labels=\[\] \(list\) names nothing"),
        (DetectRequest, {"labels": ("a dog", " ")}, r"labels=\['a dog', ' '\] \(list\) names nothing"),
        (DetectRequest, {"labels": ("a dog", None)}, "names nothing"),
        (DetectRequest, {"labels": ("a", "d" * 1_000_000)}, "labels are 1,000,001 characters long, and may be at most"),
        (DescribeRequest, {"prompt": "a" * 20_000_000}, "prompt is 20,000,000 characters long, and may be at most"),
        (DetectRequest, {"labels": ("a dog", "a cat", "a dog")}, "names something twice"),
        (DescribeRequest, {"prompt": "what \ud83d?"}, r"prompt is not valid Unicode: character 5 is '\\ud83d'"),
        (DescribeRequest, {"language": "d\udc80"}, "language is not valid Unicode"),
        (EmbedRequest, {"space": "\ud83d"}, "space is not valid Unicode"),
        (EmbedTextRequest, {"space": "\ud83d"}, "space is not valid Unicode"),
        (DetectRequest, {"labels": ("a dog", "\ud83d\ude00")}, "label is not valid Unicode"),
        (DetectRequest, {"min_score": -0.1}, "min_score=-0.1"),
        (DetectRequest, {"min_score": 1.1}, "min_score=1.1"),
        (DetectRequest, {"min_score": math.nan}, "min_score=nan"),
    ],
)
def test_an_option_without_a_meaning_is_the_callers_error(kind, options, says):
    """It names the option and its value; no backend is asked."""
    with pytest.raises(InvalidRequestError, match=says):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DescribeRequest, {"prompt": "What does the sign say?", "language": "de", "max_words": 1}),
        (EmbedRequest, {"space": "clip@1"}),
        (EmbedTextRequest, {"space": "clip@1"}),
        (DetectRequest, {"labels": ("a dog", "a cat"), "min_score": 0.0}),
        (DetectRequest, {"min_score": 1.0}),
    ],
)
def test_an_option_with_a_meaning_is_kept(kind, options):
    """As it was given."""
    request = kind(**options)
    assert {name: getattr(request, name) for name in options} == options


def test_numbers_of_numpy_are_numbers():
    """They become Python's, of which cache keys are made."""
    request = DetectRequest(min_score=np.float32(0.5))
    assert (request.min_score, type(request.min_score)) == (0.5, float)
    assert DescribeRequest(max_words=np.int64(5)) == DescribeRequest(max_words=5)


@pytest.mark.parametrize(
    ("kind", "options", "remedy"),
    [
        (DescribeRequest, {"prompt": ""}, "Leave prompt= out"),
        (DescribeRequest, {"language": ""}, 'language="de"'),
        (DetectRequest, {"labels": ()}, 'labels=["a dog"]'),
        (DescribeRequest, {"prompt": 3}, 'prompt="What does the sign say?"'),
        (DetectRequest, {"min_score": "0.3"}, "min_score=0.3"),
        (EmbedTextRequest, {"truncate": "no"}, "Pass one of them"),
    ],
)
def test_the_error_says_what_to_write_instead(kind, options, remedy):
    """An example is worth more than a rule."""
    with pytest.raises(InvalidRequestError) as caught:
        kind(**options)
    assert remedy in caught.value.remedy


def test_labels_may_be_any_list_and_a_request_is_known_by_them():
    """Whatever they came in: what is kept for a request is found again."""
    asked = [DetectRequest(labels=labels) for labels in (("a dog", "a cat"), ["a dog", "a cat"])]
    assert asked[0] == asked[1]
    assert len(set(asked)) == 1
    with pytest.raises(InvalidRequestError, match="labels is a single str, not a list"):
        DetectRequest(labels="a dog")
