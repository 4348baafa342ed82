"""The bar: for many inputs, at a terminal, out of the way of answers."""

from __future__ import annotations

import pytest


@pytest.fixture
def many(make_photo) -> list[str]:
    """Names of ten images."""
    return [make_photo(f"{number}.png", size=(8, 8 + number)) for number in range(10)]


def test_many_images_at_a_terminal_have_a_bar(vision_at_terminal, many, use_ladder):
    """It counts to the end, and every answer has a line of its own."""
    use_ladder("rungs:Slow", more='[backends."rungs:Slow"]\neach_s = 0.05\n')
    code, screen = vision_at_terminal("describe", *many)
    assert code == 0
    assert "0/10" in screen
    assert "10/10" in screen
    lines = screen.replace("\r", "\n").splitlines()
    assert [line for line in lines if "slow says" in line] == [
        f"{number}.png: slow says: 8×{8 + number} px" for number in range(10)
    ]


def test_few_images_have_no_bar(vision_at_terminal, many):
    """It would only flicker."""
    _, screen = vision_at_terminal("describe", *many[:3])
    assert "/3" not in screen


def test_without_a_terminal_there_is_no_bar(vision, many):
    """Standard error holds messages alone."""
    assert vision("describe", *many).stderr == ""


def test_comparing_files_with_the_rows_that_are_there_has_a_bar(vision_at_terminal, many, make_photo):
    """A run that goes on reads what has a row first, and does not look as if it hung meanwhile."""
    comparing = "comparing with the rows"
    assert comparing not in vision_at_terminal("describe", *many, "--out", "rows.jsonl")[1]
    _, screen = vision_at_terminal("describe", *many, make_photo("more.png"), "--out", "rows.jsonl")
    bars = [line for line in screen.replace("\r", "\n").splitlines() if comparing in line]
    assert "0/10" in bars[0]
    assert "10/10" in bars[-1]
    assert comparing not in vision_at_terminal("describe", *many, "--quiet", "--out", "rows.jsonl")[1]
    assert comparing not in vision_at_terminal("describe", *many[:3], "--out", "rows.jsonl")[1]
