"""``vision sandbox``: how it is started, used and stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest


@pytest.fixture
def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def interrupted_after(free_port):
    """A starter of a thread that asks the sandbox some questions, then presses Ctrl-C; returns the statuses."""
    statuses: list[int] = []
    headers = {"Authorization": "Bearer sk-sandbox"}
    question = urllib.request.Request(f"http://127.0.0.1:{free_port}/v1/models", headers=headers)

    def ask() -> None:
        for _ in range(2000):
            try:
                with urllib.request.urlopen(question, timeout=10) as reply:  # noqa: S310 — on loopback
                    statuses.append(reply.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
                error.close()
            except OSError:
                time.sleep(0.005)  # it does not listen yet
            if len(statuses) == 2:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=ask)
    thread.start()
    yield statuses
    thread.join()


def test_it_answers_until_ctrl_c_which_ends_it_well(vision, free_port, interrupted_after):
    """Standard output holds the two lines that a shell can run, and nothing else."""
    result = vision("sandbox", "--port", str(free_port))
    assert result.exit_code == 0
    assert re.fullmatch(
        rf"export OPENAI_BASE_URL=http://127\.0\.0\.1:{free_port}/v1\nexport OPENAI_API_KEY=sk-sandbox\n", result.stdout
    )
    assert result.stderr == "vision: run these lines in another terminal; Ctrl-C stops the sandbox\n"
    assert interrupted_after == [200, 200]


def test_what_it_plays_is_written_down(vision, free_port, interrupted_after, fresh_user):
    """To be played again with --script; every option has arrived."""
    (fresh_user / "script.json").write_text('{"steps": ["server_error"]}', encoding="utf-8")
    options = ["--script", "script.json", "--seed", "7", "--rate", "0", "--record", "played.json"]
    limits = ["--rpm", "9", "--tpm", "999", "--quota-after", "9", "--quota-tokens", "999"]
    result = vision("sandbox", "--port", str(free_port), *options, *limits)
    assert (result.exit_code, interrupted_after) == (0, [500, 200])
    played = json.loads((fresh_user / "played.json").read_text(encoding="utf-8"))
    assert [step["play"] for step in played["steps"]] == ["server_error", "healthy"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--play", "nothing_like_it"], "There is no fault 'nothing_like_it'"),
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
