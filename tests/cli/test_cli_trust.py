"""``vision trust``, and what commands do with a vision.toml that was only found."""

from __future__ import annotations

import json

import pytest

TEXT = 'state = "memory"\nopenai.base_url = "http://127.0.0.1:9/v1"\n'


@pytest.fixture
def found(fresh_user, monkeypatch):
    """A file in the working directory that nobody has named."""
    monkeypatch.delenv("VISION_CONFIG")
    path = fresh_user / "vision.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "command", ["describe x.jpg", "status", "usage", "reset", "config", "cache info", "models list"]
)
def test_a_command_refuses_what_a_found_file_may_not_set(command, vision, found):
    """With the keys and both ways to allow it; the exit code is that of a bad configuration."""
    result = vision(*command.split())
    assert (result.exit_code, result.stdout) == (2, "")
    for part in ("'state'", "'openai.base_url'", "vision trust vision.toml"):
        assert part in result.stderr


def test_doctor_calls_it_a_finding(vision, found):
    """And looks at everything else."""
    result = vision("doctor")
    assert result.exit_code == 3
    assert "broken   configuration " in result.stdout
    assert "vision trust vision.toml" in result.stdout


def test_trust_is_given_shown_and_taken_back(vision, found):
    """It says what it covers, and what it does not."""
    given = vision("trust")
    assert (given.exit_code, given.stdout) == (0, "")
    assert f"{found} is trusted until it changes" in given.stderr
    assert "what it refers to is not covered" in given.stderr
    assert "'state', 'openai.base_url'" in given.stderr
    assert vision("config").exit_code == 0
    assert vision("trust", "--list").stdout.splitlines()[1].split() == ["trusted", str(found)]
    found.write_text(TEXT + "deadline_s = 1\n", encoding="utf-8")
    assert "was trusted, but has changed since" in vision("config").stderr
    (report,) = map(json.loads, vision("trust", "--list", "--json").stdout.splitlines())
    assert (report["path"], report["state"], len(report["sha256"])) == (str(found), "changed", 64)
    assert vision("trust", "--revoke", str(found)).exit_code == 0
    assert "no file is trusted" in vision("trust", "--list").stderr
    assert vision("trust", "--revoke", str(found)).exit_code == 2


def test_a_file_that_is_gone_is_shown_as_such_and_can_be_revoked(vision, found):
    """Its name is enough."""
    vision("trust", "vision.toml")
    found.unlink()
    assert vision("trust", "--list").stdout.splitlines()[1].split() == ["missing", str(found)]
    assert vision("trust", "--revoke", "vision.toml").exit_code == 0


def test_what_could_not_be_used_is_not_trusted(vision, found):
    """A misspelt key, a file that others can write to, one that is not there."""
    found.write_text("deadlin_s = 5", encoding="utf-8")
    assert "Did you mean 'deadline_s'" in vision("trust").stderr
    found.write_text(TEXT, encoding="utf-8")
    found.chmod(0o666)
    assert "others can write to" in vision("trust").stderr
    assert vision("trust", "nowhere.toml").exit_code == 2
    assert vision("trust", "--list", "--revoke").exit_code == 2
    assert "no file is trusted" in vision("trust", "--list").stderr


def test_trusted_as_json(vision, found):
    """For programs that set machines up."""
    report = json.loads(vision("trust", "--json").stdout)
    assert (report["path"], report["state"]) == (str(found), "trusted")


def test_a_server_that_is_not_openais_is_named_once(vision, use_ladder, make_photo):
    """On standard error, also where standard output is for programs, and only where it may be asked."""
    use_ladder("openai", "embedded", more='openai.base_url = "http://127.0.0.1:9/v1"\n')
    photos = [make_photo("a.png"), make_photo("b.png")]
    words = "vision: openai is http://127.0.0.1:9, not a server of OpenAI\n"
    for options in ([], ["--json"]):
        result = vision("describe", *photos, *options)
        assert result.stderr.count(words) == 1
        assert "127.0.0.1:9, not" not in result.stdout
    for options in (["--local-only"], ["--backend", "embedded"]):
        assert words not in vision("describe", *photos, *options).stderr
    assert words not in vision("config").stderr


def test_doctor_names_a_server_that_is_not_openais_and_who_has_named_it(vision, use_ladder, monkeypatch):
    """A variable or a file."""
    path = use_ladder("openai", "embedded", more='openai.base_url = "http://127.0.0.1:9/v1"\n')
    assert f"http://127.0.0.1:9, which is not OpenAI's; set by {path}" in vision("doctor").stdout
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:7/v1")
    assert "http://127.0.0.1:7, which is not OpenAI's; set by OPENAI_BASE_URL" in vision("doctor").stdout


def test_doctor_says_that_a_key_is_not_sent(vision, use_ladder, monkeypatch):
    """And how it would be."""
    use_ladder("openai", "embedded", more='openai.base_url = "http://gpu.test/v1"\n')
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    lines = vision("doctor").stdout
    assert "OPENAI_API_KEY is not sent to http://gpu.test: it was given for https://api.openai.com" in lines
    assert "→ Set api_key and base_url in the same place" in lines
    assert "very-secret" not in lines


def test_local_only_in_a_found_file_leaves_openai_out(vision, found, make_photo, monkeypatch):
    """A key in the environment changes nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    found.write_text('ladder = ["openai", "embedded"]\nlocal_only = true\n', encoding="utf-8")
    result = vision("describe", make_photo(), "--json")
    assert json.loads(result.stdout)["trace"]["backend"] == "embedded"
    found.write_text('ladder = ["openai"]\nlocal_only = true\n', encoding="utf-8")
    assert "leaves no backend" in vision("describe", make_photo()).stderr


def test_each_named_server_is_named(vision, use_ladder, make_photo):
    """By the name of its rung."""
    more = "".join(
        f'backends.{name} = {{kind = "openai", base_url = "http://127.0.0.1:{port}/v1"}}\n'
        for name, port in (("one", 7), ("two", 9), ("unused", 11))
    )
    use_ladder("one", "two", "embedded", more=more)
    told = vision("describe", make_photo()).stderr
    assert "vision: one is http://127.0.0.1:7, not a server of OpenAI\n" in told
    assert "vision: two is http://127.0.0.1:9, not a server of OpenAI\n" in told
    assert "unused" not in told
