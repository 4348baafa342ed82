"""``vision logs``: what was asked and said."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
from conftest import process_env

from vision_backends.config.loading import load_settings
from vision_backends.observability.call_log import CallLog

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


@pytest.mark.parametrize("form", ["line", "json"])
def test_a_log_is_followed_until_ctrl_c(logged_ladder, vision, make_photo, form):
    """From the last ones on, through a new file, each as soon as it is written."""
    logged_ladder(FAKE, more="[logs]\nmax_bytes = 10000\n")
    for prompt in ("not shown", "before"):
        vision("describe", make_photo("a.png"), "--prompt", prompt)
    command = [
        sys.executable,
        "-m",
        "vision_backends",
        "logs",
        "-f",
        "-n",
        "1",
        *(["--json"] if form == "json" else []),
    ]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=process_env()) as process:
        shown = [process.stdout.readline().decode()]
        log = CallLog(load_settings().log_file)
        log.append([json.dumps({"at": 0, "task": "describe", "filling": "x" * 10_000})])
        for prompt in ("in it", "in the next one"):
            vision("describe", make_photo("a.png"), "--prompt", prompt)
            shown.append(process.stdout.readline().decode())
        assert log.before.exists()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")
    for prompt, line in zip(("before", "in it", "in the next one"), shown, strict=True):
        if form == "json":
            assert json.loads(line)["asked"]["prompt"] == prompt
        else:
            assert re.sub(r"^\S+ \S+ ", "", line) == f" describe    a.png  fake  fake says to '{prompt}': 64×48 px\n"
