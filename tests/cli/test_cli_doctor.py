"""``vision doctor``: what is sound, what is missing, and what mends it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vision_backends.backends.model_cards import model_card
from vision_backends.cli.commands.doctor import _installed, _model_file

FAKE = "vision_backends.testing.fake:FakeBackend"


def test_a_sound_installation_ends_well(vision):
    """Python, packages, models, configuration and state are looked at; the fake answers everything."""
    result = vision("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    for name in ("Python", "packages", "nanodet-g-416", "configuration", "state"):
        assert any(line.startswith(f"ok       {name} ") for line in result.stdout.splitlines()), name
    assert "fake: ready for describe, embed, embed_text, detect" in result.stdout
    assert result.stdout.endswith("describe: fake answers\nembed: fake answers\ndetect: fake answers\n")


def test_json_has_checks_rungs_and_who_answers(vision):
    """For programs that watch over an installation."""
    report = json.loads(vision("doctor", "--json").stdout)
    assert report["ok"] is True
    assert report["answers"] == {"describe": "fake", "embed": "fake", "detect": "fake"}
    assert [rung["backend"] for rung in report["rungs"]] == ["fake"]
    checks = {check["name"]: check for check in report["checks"]}
    assert "sha256 is right" in checks["efficientnet-lite0-224"]["detail"]
    assert "onnxruntime " in checks["packages"]["detail"]


def test_a_rung_that_is_not_ready_says_what_mends_it(vision, use_ladder):
    """It is no fault as long as another one answers."""
    use_ladder("rungs:Absent", FAKE)
    result = vision("doctor")
    assert result.exit_code == 0
    assert "absent: not ready\n" in result.stdout
    assert "  → Run: fetch weights\n" in result.stdout


def test_when_nobody_can_answer_a_task_the_exit_code_says_so(vision, use_ladder):
    """3, as when it had been asked."""
    use_ladder("rungs:Absent")
    result = vision("doctor")
    assert result.exit_code == 3
    assert "describe: no backend can answer\n" in result.stdout


def test_a_bad_configuration_is_a_finding(vision, fresh_user):
    """What can be looked at without it is looked at all the same."""
    (fresh_user / "vision.toml").write_text("ladde = []\n", encoding="utf-8")
    result = vision("doctor")
    assert result.exit_code == 3
    assert "broken   configuration " in result.stdout
    assert "→ Did you mean 'ladder'?" in result.stdout
    assert "ok       Python " in result.stdout


def test_an_extra_is_reported_with_the_command_that_installs_it(vision):
    """Whether it is there or not; one that no rung would use yet is not recommended."""
    checks = json.loads(vision("doctor", "--json").stdout)["checks"]
    (check,) = (check for check in checks if check["name"] == "extra ocr")
    complete = "not installed" not in check["detail"]
    assert "rapidocr" in check["detail"]
    assert check["state"] == ("ok" if complete else "missing")
    assert check["remedy"] == (None if complete else "pip install 'vision-backends[ocr]'")


def test_the_api_key_is_seen_but_never_shown(vision, monkeypatch):
    """Only that there is one."""
    absent = vision("doctor")
    assert "missing  OpenAI key" in absent.stdout
    assert "export OPENAI_API_KEY=" in absent.stdout
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    present = vision("doctor")
    assert "ok       OpenAI key" in present.stdout
    assert "secret" not in present.stdout + present.stderr


def test_a_state_file_that_can_be_written_is_named(vision, fresh_user):
    """Its folders may still have to be made."""
    (fresh_user / "vision.toml").write_text(f'ladder = ["{FAKE}"]\nstate = "new/folder/s.sqlite"\n', encoding="utf-8")
    assert "new/folder/s.sqlite, writable" in vision("doctor").stdout


def test_a_state_file_that_cannot_be_written_is_broken(vision, fresh_user):
    """It lies below something that is no folder."""
    (fresh_user / "file").touch()
    (fresh_user / "vision.toml").write_text(f'ladder = ["{FAKE}"]\nstate = "file/s.sqlite"\n', encoding="utf-8")
    result = vision("doctor")
    assert result.exit_code == 3
    assert "broken   state " in result.stdout
    assert 'state = "memory"' in result.stdout


def test_a_package_that_is_missing_is_found_by_its_metadata():
    """Nothing is imported to find out."""
    check = _installed("packages", ("pillow", "no-such-thing"), absent="broken", remedy="pip install it")
    assert (check.state, check.remedy) == ("broken", "pip install it")
    assert check.detail.endswith("no-such-thing not installed")


@pytest.mark.parametrize(
    ("change", "why"), [({"file": "gone.onnx"}, "is missing"), ({"sha256": "0" * 64}, "has the wrong sha256")]
)
def test_a_model_file_that_is_gone_or_damaged_is_broken(change, why):
    """Reinstalling mends it."""
    check = _model_file(replace(model_card("nanodet-g-416"), **change))
    assert check.state == "broken"
    assert why in check.detail
    assert check.remedy is not None
    assert check.remedy.startswith("pip install")
