"""``vision logs``: what was asked and said."""

from __future__ import annotations

import json

import pytest

FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture
def logged_ladder(use_ladder, monkeypatch):
    """A writer of configurations under which calls are logged."""
    monkeypatch.setenv("VISION_LOGS__ENABLED", "true")
    return use_ladder


def test_each_call_has_a_line_with_who_answered_and_what_was_said(vision, logged_ladder, make_photo):
    """A degraded answer says so, and an answer stays on its line."""
    logged_ladder("rungs:Broke", FAKE)
    photo = make_photo("a.png")
    vision("describe", photo)
    result = vision("logs")
    header, line = result.stdout.splitlines()
    assert (result.exit_code, header.split()) == (0, ["at", "(UTC)", "task", "input", "by", "answer"])
    assert line.split()[2:6] == ["describe", photo, "fake", "(degraded)"]
    assert " ".join(line.split()[6:]).startswith("fake says: ")


def test_json_has_whole_records_and_only_the_last_ones_where_that_is_asked_for(vision, logged_ladder, make_photo):
    """With the prompt and the trace; a line that was cut is passed over."""
    logged_ladder(FAKE)
    for prompt in ("first", "second"):
        vision("describe", make_photo("a.png"), "--prompt", prompt)
    (record,) = map(json.loads, vision("logs", "--json", "-n", "1").stdout.splitlines())
    assert (record["asked"]["prompt"], record["answer"]["trace"]["backend"]) == ("second", "fake")
    assert len(vision("logs", "--json").stdout.splitlines()) == 2
    assert vision("logs", "--since", "2999-01-01").stdout == "Nothing was asked in that time since the log is kept.\n"


def test_a_log_that_is_off_is_said_to_be_off(vision, use_ladder, make_photo):
    """With what switches it on."""
    use_ladder(FAKE)
    vision("describe", make_photo("a.png"))
    result = vision("logs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "set logs.enabled = true" in result.stderr
