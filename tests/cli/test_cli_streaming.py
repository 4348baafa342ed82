"""``vision describe --stream``: piece by piece, and what happens when it breaks off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import process_env

FAKE = "vision_backends.testing.fake:FakeBackend"
BREAKS_OFF = '[backends."rungs:Talkative"]\nbreaks_off = true\n'


def test_the_pieces_make_the_text(vision, make_photo, use_ladder):
    """Without what would drive the terminal; the line ends."""
    use_ladder("rungs:Talkative")
    result = vision("describe", make_photo(), "--stream")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one two\\x1b three\n", "")


def test_a_backend_that_speaks_all_at_once_is_one_piece(vision, make_photo):
    """With the options that describe has otherwise."""
    result = vision("describe", make_photo(), "--stream", "-p", "Why?", "--backend", "fake", "--deadline", "5")
    assert result.stdout == "fake says to 'Why?': 64×48 px\n"


def test_a_text_that_ends_its_line_gets_no_empty_one(vision, make_photo, use_ladder):
    """As without streaming, a cut text says that it is cut."""
    use_ladder("rungs:Lines")
    result = vision("describe", make_photo(), "--stream")
    assert result.stdout == "first\nsecond\n"
    assert result.stderr == "vision: the text was cut off at the model's length limit\n"


def test_a_degraded_stream_says_why(vision, make_photo, use_ladder):
    """As any other answer."""
    use_ladder("rungs:Absent", FAKE)
    result = vision("describe", make_photo(), "--stream")
    assert result.stdout == "fake says: 64×48 px\n"
    assert result.stderr.startswith("vision: fake answered, because absent: ")


def test_what_has_come_stays_when_the_stream_breaks_off(vision, make_photo, use_ladder):
    """The error stands below it, and nobody else begins anew."""
    use_ladder("rungs:Talkative", FAKE, more=BREAKS_OFF)
    result = vision("describe", make_photo(), "--stream")
    assert (result.exit_code, result.stdout) == (3, "one two\\x1b \n")
    assert result.stderr.startswith("vision: talkative broke off after 9 characters: The line is dead.")


def test_nobody_to_speak_is_told_with_the_table(vision, make_photo, use_ladder):
    """Nothing is printed before."""
    use_ladder("rungs:Absent")
    result = vision("describe", make_photo(), "--stream")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "  absent  not_ready: Its weights are not here." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["a.png", "b.png"], "--stream shows one text, not 2."),
        (["a.png", "--json"], "--json prints whole answers."),
        (["a.png", "--batch"], "--batch is for answers that can wait."),
        (["nothing*.png"], "matches no file"),
        (["bad.png"], "bad.png"),
    ],
)
def test_what_cannot_be_streamed_is_refused(vision, make_photo, fresh_user, arguments, why):
    """Before anybody is asked."""
    make_photo("a.png")
    make_photo("b.png")
    (fresh_user / "bad.png").write_bytes(b"no image")
    result = vision("describe", "--stream", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


def test_pieces_are_on_the_screen_before_the_last_has_come(make_photo, use_ladder):
    """Ctrl-C ends the text at once, and its line."""
    use_ladder("rungs:Hesitant")
    command = [sys.executable, "-m", "vision_backends", "describe", make_photo(), "--stream"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=process_env()) as process:
        assert process.stdout is not None
        seen = os.read(process.stdout.fileno(), 100)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (seen, out, err, process.returncode) == (b"Well, ", b"\n", b"", 130)
