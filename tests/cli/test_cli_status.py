"""``vision status``: how things stand, and what would happen."""

from __future__ import annotations

import json

import pytest

FAKE = "vision_backends.testing.fake:FakeBackend"


def test_every_rung_has_a_row_and_every_reason_a_line(vision, use_ladder):
    """Best rung first; a remedy stands under its reason; asking costs nobody anything."""
    use_ladder("rungs:Absent", "rungs:Limited", FAKE)
    result = vision("status")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split() == ["backend", "describe", "embed", "embed_text", "detect"]
    assert lines[1].startswith("absent   not ready ")
    assert lines[2].startswith("limited  rate limited, retry in 12 s")
    assert lines[3].split() == ["fake", "ready", "ready", "ready", "ready"]
    assert lines[4:6] == [
        "absent (describe, embed, embed_text, detect): Its weights are not here.",
        "  → Run: fetch weights",
    ]


def test_a_backend_that_is_on_no_ladder_for_a_task_has_a_dash(vision, fresh_user):
    """Ladders may differ from task to task."""
    ladders = (
        f'[ladder]\ndescribe = ["{FAKE}"]\nembed = ["{FAKE}"]\nembed_text = ["{FAKE}"]\ndetect = ["rungs:Blind"]\n'
    )
    (fresh_user / "vision.toml").write_text(f'state = "memory"\n{ladders}', encoding="utf-8")
    rows = [line.split() for line in vision("status").stdout.splitlines()]
    assert ["fake", "ready", "ready", "ready", "-"] in rows
    assert ["blind", "-", "-", "-", "ready"] in rows


def test_json_has_every_verdict(vision, use_ladder):
    """As the router reports it."""
    use_ladder("rungs:Absent", FAKE)
    report = json.loads(vision("status", "--json").stdout)
    assert (report["gates"], report["budgets"]) == ([], [])
    rungs = report["rungs"]
    assert [rung["backend"] for rung in rungs] == ["absent", "fake"]
    assert rungs[0]["tasks"]["describe"]["remedy"] == "Run: fetch weights"
    assert rungs[1]["tasks"]["embed"]["space"] == "fake/vectors@1"


def test_a_task_is_explained_rung_by_rung(vision, use_ladder):
    """Who would answer, who stands by, and why others would not."""
    use_ladder("rungs:Absent", FAKE)
    result = vision("status", "--task", "describe", "--prompt", "Why?")
    assert result.stdout.splitlines()[0] == "describe: fake would answer"
    assert "not_ready: Its weights are not here." in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--task", "describe", "--prompt", "Why?", "--language", "de"],
        ["--task", "embed", "--space", "fake/vectors@1"],
        ["--task", "embed_text", "--space", "fake/vectors@1", "--backend", "fake"],
        ["--task", "detect", "--label", "cat", "--label", "dog", "--local-only"],
        ["--task", "detect", "--backends", "fake", "--model", "fake-model"],
    ],
)
def test_a_task_is_explained_with_the_options_that_it_knows(vision, options):
    """As JSON, with the one that would answer."""
    explained = json.loads(vision("status", *options, "--json").stdout)
    assert (explained["task"], explained["chosen"]) == (options[1], "fake")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--prompt", "Why?"], "--prompt needs a --task."),
        (["--local-only"], "--local-only needs a --task."),
        (["--backend", "fake"], "--backends needs a --task."),
        (["--model", "x"], "--model needs a --task."),
        (["--task", "detect", "--prompt", "Why?"], "--prompt has no effect on detect."),
        (["--task", "describe", "--label", "cat"], "--label has no effect on describe."),
    ],
)
def test_an_option_without_effect_is_refused(vision, options, why):
    """Rather than passed over in silence."""
    result = vision("status", *options)
    assert result.exit_code == 2
    assert why in result.stderr


def test_an_unknown_task_is_a_usage_error(vision):
    """Typer names the tasks."""
    result = vision("status", "--task", "paint")
    assert result.exit_code == 2
    assert "describe" in result.stderr


def test_at_a_terminal_the_rungs_are_a_table(vision_at_terminal, use_ladder):
    """With the same cells as without one."""
    use_ladder("rungs:Absent", FAKE)
    code, screen = vision_at_terminal("status")
    rows = [line.split() for line in screen.splitlines()]
    assert code == 0
    assert ["fake", "ready", "ready", "ready", "ready"] in rows
