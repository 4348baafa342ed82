"""``vision sandbox``: how it is started, used and stopped."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from conftest import process_env


@pytest.fixture
def sandbox_until_ctrl_c(fresh_user):
    """A runner of the command, which asks what it has started two questions and then presses Ctrl-C."""

    def run(*options):
        command = [sys.executable, "-m", "vision_backends", "sandbox", *options]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=process_env(), cwd=fresh_user
        ) as process:
            lines = [process.stdout.readline() for _ in range(2)]
            url = lines[0].strip().partition("=")[2]
            statuses = [status_of(f"{url}/models") for _ in range(2)]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=100)
        return process.returncode, "".join(lines) + out, err, statuses

    return run


def status_of(url):
    """Return the status of a reply."""
    question = urllib.request.Request(url, headers={"Authorization": "Bearer sk-sandbox"})  # noqa: S310 — on loopback
    try:
        with urllib.request.urlopen(question, timeout=60) as reply:  # noqa: S310 — on loopback
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_it_answers_until_ctrl_c_which_ends_it_well(sandbox_until_ctrl_c):
    """Standard output holds the two lines that a shell can run, and nothing else."""
    code, out, err, statuses = sandbox_until_ctrl_c()
    assert code == 0, err
    assert re.fullmatch(r"export OPENAI_BASE_URL=http://127\.0\.0\.1:\d+/v1\nexport OPENAI_API_KEY=sk-sandbox\n", out)
    assert err == "vision: run these lines in another terminal; Ctrl-C stops the sandbox\n"
    assert statuses == [200, 200]


def test_what_it_plays_is_written_down(sandbox_until_ctrl_c, fresh_user):
    """To be played again with --script; every option has arrived."""
    (fresh_user / "script.json").write_text('{"steps": ["server_error"]}', encoding="utf-8")
    options = ["--script", "script.json", "--seed", "7", "--rate", "0", "--record", "played.json"]
    limits = ["--rpm", "9", "--tpm", "999", "--quota-after", "9", "--quota-tokens", "999"]
    code, _, err, statuses = sandbox_until_ctrl_c(*options, *limits)
    assert (code, statuses) == (0, [500, 200]), err
    played = json.loads((fresh_user / "played.json").read_text(encoding="utf-8"))
    assert [step["play"] for step in played["steps"]] == ["server_error", "healthy"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--play", "nothing_like_it"], "There is no fault 'nothing_like_it'"),
        (["--play", "qouta_gone"], "Did you mean 'quota_gone'?"),
        (["--script", "absent.json"], "absent.json"),
        (["--rate", "0.5"], "--rate needs --seed."),
        (["--rate", "2", "--seed", "1"], "--rate"),
        (["--port", "70000"], "--port"),
        (["--rpm", "-1"], "--rpm"),
    ],
)
def test_an_option_without_meaning_is_a_usage_error(vision, options, why):
    """Before anything listens."""
    result = vision("sandbox", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in re.sub(r"\x1b\[[\d;]*m", "", result.stderr)


def test_a_port_that_is_taken_is_an_error_with_a_reason(vision):
    """Not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = vision("sandbox", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 2
    assert "in use" in result.stderr
