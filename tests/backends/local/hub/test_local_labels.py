"""A detector names every class that it finds, or it is not used."""

from __future__ import annotations

import pytest

from vision_backends.backends.local.hub.flaws import FlawError
from vision_backends.backends.local.hub.labels import class_names

NAMES = {0: "cat", 1: "dog", 2: "N/A"}
TABLE = {"0": "cat", "1": "dog", "2": "N/A"}
WAY_ROUND = {"cat": 0, "dog": 1, "N/A": 2}
PLACEHOLDERS = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": TABLE},
        {"id2label": dict(reversed(TABLE.items()))},
        {"id2label": ["cat", "dog", "N/A"]},
        {"id2label": WAY_ROUND},
        {"id2label": {name: str(number) for name, number in WAY_ROUND.items()}},
        {"id2label": TABLE, "label2id": {"dog": 7}},
        {"id2label": PLACEHOLDERS, "label2id": WAY_ROUND},
        {"id2label": {"0": "cat", "2": "dog"}, "label2id": WAY_ROUND},
        {"label2id": WAY_ROUND},
        {"label2id": TABLE},
    ],
)
def test_what_can_mean_one_thing_only_is_read(config):
    """A list, a table that is the wrong way round, or the other table where the first does not name every class."""
    assert class_names(config) == NAMES


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"0": "cat", "2": "dog", "5": "cow"}, "has 3 names, but none for class 1"),
        ({"1": "cat", "2": "dog"}, "has 2 names, but none for class 0"),
        ({"0": "cat", "999999999": "dog"}, "none for class 1"),
        (PLACEHOLDERS, "names class 0 'LABEL_0', which is not a name"),
        ({"0": "cat", "1": "LABEL_1"}, "names class 1 'LABEL_1', which is not a name"),
        ({"0": "cat", "1": 7}, "names class 1 7, which is not text"),
        ({"0": "cat", "1": None}, "names class 1 None, which is not text"),
        ({"0": "cat", "1": " "}, "names class 1 ' ', which is not text"),
        ({"0": "N/A"}, "names no class"),
        ({"0": "cat", "00": "dog"}, "several names for one class"),
        ({"cat": 0, "dog": 0}, "several names for one class"),
        ({"0": "cat", "one": "dog"}, "has 'one' for the number of a class"),
        ({"cat": True}, "has 'cat' for the number of a class"),
        ({"cat": -1}, "has 'cat' for the number of a class"),
        ({"9" * 5_000: "cat"}, f"has '{'9' * 40}' for the number of a class"),
        ({"²": "cat"}, "has '²' for the number of a class"),
        ({}, "has no names of classes"),
        ("coco", "has no names of classes"),
        (None, "has no names of classes"),
    ],
)
def test_a_class_without_a_name_is_a_flaw(table, why):
    """What it finds would never be reported, or by a word that means nothing."""
    with pytest.raises(FlawError) as caught:
        class_names({"id2label": table})
    assert why in caught.value.why
    assert "id2label" in caught.value.why
    assert "config.json" in caught.value.why
    assert caught.value.code == "no_labels"


def test_as_many_names_as_it_says_are_needed():
    """The weights have as many classes as that."""
    assert class_names({"id2label": TABLE, "num_labels": 3}) == NAMES
    with pytest.raises(FlawError, match=r"id2label of config\.json has 3 names, and num_labels is 5"):
        class_names({"id2label": TABLE, "num_labels": 5})


def test_names_that_are_numbers_are_names():
    """A detector of digits has them."""
    assert class_names({"id2label": {"0": "7", "1": "LABEL_7"}}) == {0: "7", 1: "LABEL_7"}
