"""What a person at a terminal is told or asked on standard error, and the exit codes.

This module decides how trouble is told, which exit code it has, and who is asked for confirmation. It must not know any
command.

    0    answered
    1    a bug in this program
    2    usage, configuration, an input or an output is at fault
    3    no backend could answer
    4    some inputs were answered, and others not
    130  interrupted with Ctrl-C
    141  the reader of the output has gone away
    143  ended by SIGTERM, after printing and booking what was done
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import typer

from vision_backends.errors import (
    AllBackendsFailedError,
    CallerError,
    ConfigError,
    SpaceUnavailableError,
    VisionError,
)
from vision_backends.foreign_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SOME_ANSWERED",
    "WITH_TABLE",
    "agreed",
    "answer",
    "at_terminal",
    "exit_code_of",
    "exit_code_of_output",
    "exit_codes",
    "tell",
    "tell_error",
]

BUG = 1
BAD_INPUT = 2
NOTHING_ANSWERED = 3
SOME_ANSWERED = 4
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What writing may fail with: a full disk, a quota, a limit of size, a disk or terminal that is gone."""

WITH_TABLE = (AllBackendsFailedError, SpaceUnavailableError)
"""The errors that say rung by rung what was tried."""


def exit_code_of(error: VisionError) -> int:
    """Return the exit code that an error stands for."""
    return BAD_INPUT if isinstance(error, CallerError | ConfigError) else NOTHING_ANSWERED


def tell(message: str) -> None:
    """Say in one line on standard error what is not the answer; it may hold file names of any kind."""
    _say(f"vision: {printable(message)}")


def tell_error(error: VisionError) -> None:
    """Tell an error and what can be done about it: in one line, or with the table of rungs that it has."""
    first, *rows = str(error).split("\n") if isinstance(error, WITH_TABLE) else [str(error)]
    tell(first)
    for row in rows:
        _say(printable(row))


def _say(line: str) -> None:
    """Print on standard error; that nobody can read it there is no reason to withhold an answer."""
    try:
        typer.echo(line, err=True)
    except OSError:
        with suppress(OSError, ValueError):
            _abandon(sys.stderr)


def at_terminal() -> bool:
    """Return whether somebody is there who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str, *, yes: bool, otherwise: bool = False) -> bool:
    """Ask on standard error whether to go on; a script, whose input is no terminal, is not asked.

    Args:
        question: What is asked, with its question mark.
        yes: Whether the answer was given in advance.
        otherwise: What Enter alone means.

    Raises:
        typer.Exit: Ctrl-C was the answer.
    """
    if yes or not sys.stdin.isatty():
        return True
    said = answer(f"{question} [{'Y/n' if otherwise else 'y/N'}]").lower()
    return said in {"y", "yes"} or (otherwise and not said)


def answer(question: str) -> str:
    """Ask a person at a terminal on standard error, and return what they typed; empty for Enter alone.

    Raises:
        typer.Exit: Ctrl-C was the answer.
    """
    typer.echo(f"{printable(question)}: ", nl=False, err=True)
    try:
        return input().strip()  # Typer's own question leaves a space on standard output
    except (EOFError, KeyboardInterrupt):
        typer.echo(err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def exit_codes(*, debug: bool) -> Iterator[None]:
    """Turn every exception of a command's body into a message and an exit code.

    Args:
        debug: Also show the traceback, and the log of the package.

    Raises:
        typer.Exit: Something went wrong; carries the exit code.
    """
    with _logging(debug=debug), _ended_by_sigterm():
        try:
            yield
        except (typer.Exit, typer.Abort):
            raise  # Typer knows what these mean, and Ctrl-C
        except VisionError as error:
            if debug:
                traceback.print_exc()
            tell_error(error)
            raise typer.Exit(exit_code_of(error)) from None
        except Exception as bug:  # noqa: BLE001 — the last place where it can be told
            code = exit_code_of_output(bug) if isinstance(bug, OSError) else None
            if code is not None:
                raise typer.Exit(code) from None
            if debug:
                traceback.print_exc()
            remedy = "The traceback is above." if debug else "Run it again with --debug to see where."
            tell(f"This is a bug in vision-backends: {type(bug).__name__}: {_one_line(bug)}. {remedy}")
            raise typer.Exit(BUG) from None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body like an exception, so that what it holds open is closed, and the ledger written."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def exit_code_of_output(error: OSError) -> int | None:
    """Return the exit code for an error that came from writing the output, after telling it; None for any other.

    Files that a command writes, and the state, have errors of their own. A reader who has gone away is told nothing.
    """
    if isinstance(error, BrokenPipeError):
        _abandon(sys.stdout, sys.stderr)
        return BROKEN_PIPE
    if error.errno not in UNWRITABLE:
        return None
    tell(f"Standard output cannot be written: {error.strerror}.")
    _abandon(sys.stdout, sys.stderr)
    return BAD_INPUT


def _abandon(*streams: TextIO) -> None:
    """Let nobody read what is still buffered: writing it when the interpreter ends would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def _logging(*, debug: bool) -> Iterator[None]:
    """Show the package's log when debugging; else only that the state cannot be kept, which no answer says."""
    package, storage = logging.getLogger("vision_backends"), logging.getLogger("vision_backends.storage")
    shown = logging.StreamHandler() if debug else logging.NullHandler()
    told = _Teller(level=logging.CRITICAL if debug else logging.WARNING)
    level = package.level
    package.addHandler(shown)
    storage.addHandler(told)
    package.setLevel(logging.DEBUG if debug else level)
    try:
        yield
    finally:
        package.removeHandler(shown)
        storage.removeHandler(told)
        package.setLevel(level)


class _Teller(logging.Handler):
    """Tells a warning like everything else that is not the answer."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
