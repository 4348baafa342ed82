"""``vision ask``: one question about one or several images."""

from __future__ import annotations

import json

import pytest

FAKE = "vision_backends.testing.fake:FakeBackend"
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def test_the_answer_goes_to_standard_output(vision, make_photo):
    """Once, for all images together."""
    result = vision("ask", "Which is larger?", make_photo("a.png"), make_photo("b.png", size=(8, 9)))
    assert (result.exit_code, result.stdout) == (0, "fake says to 'Which is larger?': 64×48 px, 8×9 px\n")
    assert result.stderr == ""


def test_an_answer_with_a_schema_is_json(vision, make_photo, fresh_user):
    """Which programs can read."""
    (fresh_user / "count.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    result = vision("ask", "How many?", make_photo(), "--schema", "count.json")
    assert list(json.loads(result.stdout)) == ["count"]
    result = vision("ask", "How many?", make_photo("a.png"), make_photo("b.png"), "--schema", "count.json", "--json")
    row = json.loads(result.stdout)
    assert (row["source"], list(row["data"]), row["trace"]["backend"]) == ("a.png, b.png", ["count"], "fake")


@pytest.mark.parametrize("content", ["{", "[]", '{"type": 5}', None])
def test_a_file_without_a_schema_is_a_usage_error(vision, make_photo, fresh_user, content):
    """It is named, and nobody is asked."""
    if content is not None:
        (fresh_user / "count.json").write_text(content, encoding="utf-8")
    result = vision("ask", "How many?", make_photo(), "--schema", "count.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "schema" in result.stderr


def test_why_an_answer_is_degraded_is_said_once(vision, make_photo, use_ladder):
    """On standard error."""
    use_ladder("rungs:Dead", FAKE)
    result = vision("ask", "Which?", make_photo("a.png"), make_photo("b.png"))
    assert result.stdout.startswith("fake says")
    assert result.stderr.count("The line is dead") == 1


def test_a_picture_that_cannot_be_read_ends_it(vision, make_photo):
    """With its name and the exit code for bad input."""
    result = vision("ask", "Which?", make_photo(), "nothing.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nothing.png" in result.stderr


def test_where_nobody_follows_instructions_the_exit_code_says_so(vision, make_photo, use_ladder):
    """With the table of rungs."""
    use_ladder("embedded")
    result = vision("ask", "Which?", make_photo())
    assert result.exit_code == 3
    assert "The embedded backend answers no questions." in result.stderr


def test_the_options_of_all_questions_hold(vision, make_photo, use_ladder):
    """Backends, model, deadline and the system's words."""
    use_ladder("rungs:Dead", FAKE)
    result = vision("ask", "Q", make_photo(), "--model", "fake/fake-model", "--system", "Brief.", "--deadline", "5")
    assert (result.stdout, result.stderr) == ("fake says to 'Q': 64×48 px\n", "")
    assert vision("status", "--task", "ask", "--prompt", "Q").stdout.startswith("ask: dead would answer")
