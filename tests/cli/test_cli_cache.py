"""``vision cache``: how full it is, and how it is emptied."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from conftest import process_env

FAKE = "vision_backends.testing.fake:FakeBackend"


@pytest.fixture
def kept(fresh_user, monkeypatch, vision, make_photo):
    """A cache with two answers; returns the path of its file."""
    path = fresh_user / "state.sqlite"
    monkeypatch.setenv("VISION_STATE", str(path))
    vision("describe", make_photo("a.png"), make_photo("b.png"))
    return path


def test_info_says_how_full_it_is_and_where(vision, kept):
    """On two lines."""
    result = vision("cache", "info")
    first, second = result.stdout.splitlines()
    assert result.exit_code == 0
    assert first.startswith("2 answers, ")
    assert first.endswith(" of 500 MB")
    assert second == str(kept)


def test_json_has_the_exact_numbers(vision, kept):
    """For programs."""
    info = json.loads(vision("cache", "info", "--json").stdout)
    assert (info["enabled"], info["entries"], info["max_bytes"]) == (True, 2, 500_000_000)
    assert info["size_bytes"] > 0
    assert info["location"] == str(kept)


def test_info_says_that_nothing_is_kept(vision, use_ladder):
    """In memory, and switched off."""
    use_ladder(FAKE, more="cache.enabled = false\n")
    first, second, third = vision("cache", "info").stdout.splitlines()
    assert first.startswith("0 answers, 0 bytes of ")
    assert second == "memory, gone when the process ends"
    assert third == "The cache is switched off: cache.enabled = false."


def test_clear_says_how_many_were_removed_from_where(vision, kept):
    """In a script nobody is asked; the ledger stays."""
    result = vision("cache", "clear")
    assert (result.exit_code, result.stdout) == (0, f"2 answers removed from {kept}\n")
    assert vision("cache", "clear", "--yes").stdout == f"0 answers removed from {kept}\n"
    assert "fake-model" in vision("usage").stdout


@pytest.mark.parametrize(
    ("typed", "code", "left"),
    [(b"y\n", 0, 0), (b"n\n", 0, 2), (b"\n", 0, 2), (b"\x04", 130, 2), (b"\x03", 130, 2)],
    ids=["yes", "no", "enter", "ctrl-d", "ctrl-c"],
)
def test_at_a_terminal_clear_asks_first(vision, kept, typed, code, left):
    """Only a yes removes anything."""
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "vision_backends", "cache", "clear"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=-1, stderr=-1, env=process_env(), start_new_session=True
    ) as process:
        assert process.stderr is not None
        asked = os.read(process.stderr.fileno(), 1000)
        if typed == b"\x03":
            process.send_signal(signal.SIGINT)
        else:
            os.write(keyboard, typed)
        out, err = process.communicate(timeout=30)
    os.close(keyboard)
    os.close(terminal)
    assert asked.startswith(f"Remove 2 answers from {kept}?".encode())
    assert process.returncode == code
    assert json.loads(vision("cache", "info", "--json").stdout)["entries"] == left
    assert (b"removed" in out) == (left == 0)
    assert (b"nothing was removed" in err) == (code == 0 and left == 2)


def test_without_a_command_the_help_is_shown(vision):
    """As for the whole program."""
    result = vision("cache")
    assert result.exit_code == 2
    assert "clear" in result.stdout + result.stderr
