"""From what went wrong to a message and an exit code."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import typer

from vision_backends.cli import main
from vision_backends.cli.rendering.exits import exit_code_of, exit_codes, tell, tell_error
from vision_backends.errors import (
    AllBackendsFailedError,
    CallerError,
    ConfigError,
    InvalidImageError,
    SpaceUnavailableError,
    TimedOutError,
)
from vision_backends.types import Attempt


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CallerError("x"), 2),
        (InvalidImageError("x"), 2),
        (ConfigError("x"), 2),
        (AllBackendsFailedError("x"), 3),
        (SpaceUnavailableError("x"), 3),
        (TimedOutError("x"), 3),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    """2 where the caller can mend it, 3 where nothing could answer."""
    assert exit_code_of(error) == code


def test_a_bug_is_called_a_bug_in_one_line(capsys):
    """Exit code 1, the exception named, the way to more told."""
    with pytest.raises(typer.Exit) as caught, exit_codes(debug=False):
        raise ZeroDivisionError("two\nlines.")
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == (
        "vision: This is a bug in vision-backends: ZeroDivisionError: two lines. "
        "Run it again with --debug to see where.\n"
    )


def test_debug_shows_where_a_bug_is(capsys):
    """The traceback comes first."""
    with pytest.raises(typer.Exit), exit_codes(debug=True):
        raise ZeroDivisionError("x")
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last)")
    assert "vision: This is a bug" in told


def test_an_exit_that_a_command_has_chosen_stays(capsys):
    """Nothing is added to it."""
    with pytest.raises(typer.Exit) as caught, exit_codes(debug=False):
        raise typer.Exit(3)
    assert caught.value.exit_code == 3
    assert capsys.readouterr().err == ""


def test_a_message_cannot_drive_the_terminal(capsys):
    """File names are part of messages."""
    tell("\x1b[2J\udcff\n.png")
    assert capsys.readouterr().err == "vision: \\x1b[2J\\udcff\\n.png\n"


def test_only_the_table_of_rungs_has_lines_of_its_own(capsys):
    """A file name with a line break is told on one line."""
    tell_error(InvalidImageError("a\nb.png is broken.", remedy="Mend it."))
    assert capsys.readouterr().err == "vision: a\\nb.png is broken. Mend it.\n"
    rung = Attempt(backend="absent", outcome="skipped", error="not_ready", message="It is not here.")
    tell_error(AllBackendsFailedError("Nobody could answer.", attempts=[rung]))
    assert capsys.readouterr().err == "vision: Nobody could answer.\n  absent  not_ready: It is not here.\n"


def test_the_log_is_shown_only_when_debugging(vision, use_ladder, make_photo):
    """A crashing backend is in the log with its traceback; without --debug only the reason is told."""
    use_ladder("rungs:Crashing", "vision_backends.testing.fake:FakeBackend", more="cache.enabled = false\n")
    quiet, loud = vision("describe", make_photo()), vision("describe", "photo.png", "--debug")
    assert quiet.stderr.count("\n") == 1
    assert "crashing: " in quiet.stderr
    assert "Traceback" in loud.stderr
    assert loud.stdout == quiet.stdout == "fake says: 64×48 px\n"


def test_output_that_nobody_reads_ends_the_program_without_a_word():
    """As `vision models | head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        pytest.raises(SystemExit) as caught,
        os.fdopen(writer, "w", encoding="utf-8") as stream,
        contextlib.redirect_stdout(stream),
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        main(["models"])
    assert caught.value.code == 141
