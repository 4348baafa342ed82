"""Identifiers of calls."""

from __future__ import annotations

import os
import random

import pytest

from vision_backends.engine.identifiers import Identifiers


def test_no_two_are_alike():
    """Neither of one maker nor of several."""
    makers = [Identifiers() for _ in range(10)]
    found = [maker.new() for maker in makers for _ in range(1_000)]
    assert len(set(found)) == len(found)
    assert {len(each) for each in found} == {16}


def test_the_programs_own_random_numbers_stay_as_they_are():
    """A program that has set a seed gets the numbers of that seed."""
    random.seed(7)
    expected = random.random()  # noqa: S311
    random.seed(7)
    Identifiers().new()
    assert random.random() == expected  # noqa: S311
    random.seed(7)
    first = Identifiers().new()
    random.seed(7)
    assert Identifiers().new() != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_makes_others_than_its_parent():
    """Both go on with a seed of their own."""
    identifiers = Identifiers()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, identifiers.new().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16).decode() != identifiers.new()
    os.close(reading)
    os.close(writing)
