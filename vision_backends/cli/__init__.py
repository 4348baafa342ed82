"""The ``vision`` command.

This module decides how the program starts. It must not know any command; those are put together in `cli.app`.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

OBJECTS_PER_COLLECTION = 50_000
"""By default Python looks for cycles after every 700 objects; importing makes 200,000, which all stay."""

BLAS_PATIENCE = "OPENBLAS_THREAD_TIMEOUT"
SHORTEST_PATIENCE = "4"
"""The threads that importing numpy starts look for work without a pause, for 2 to the power of this many cycles before
they sleep. By default that is 50 to 100 ms of a processor, and hardly any command has work for them."""

COMMAND = "vision"
"""What is installed, and what a shell completes."""


def main(arguments: Sequence[str] | None = None, *, program: str = COMMAND) -> None:
    """Run the command line and leave with its exit code, as `cli.rendering.exits` lists them.

    Args:
        arguments: What stands after the program's name; by default what the shell gave.
        program: What the reader has typed to start it: help and usage errors call it so.

    Raises:
        SystemExit: Always.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the shell has closed it; the next file that is opened would take its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 — it stays open
    is_patience_set = BLAS_PATIENCE in os.environ
    os.environ.setdefault(BLAS_PATIENCE, SHORTEST_PATIENCE)
    collects_at = gc.get_threshold()
    gc.set_threshold(OBJECTS_PER_COLLECTION, *collects_at[1:])
    atexit.register(gc.freeze)  # nothing is looked for in memory that the process gives back as a whole
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still gets every answer
    try:
        from vision_backends.cli.app import app

        app(arguments, prog_name=COMMAND if _concerns_a_shell(arguments) else program)
    except KeyboardInterrupt:  # while importing; Typer handles it from then on
        sys.exit(130)
    except OSError as error:  # help, the version and usage errors are printed outside of any command
        from vision_backends.cli.rendering.exits import exit_code_of_output

        code = exit_code_of_output(error)
        if code is None:
            raise
        sys.exit(code)
    finally:
        gc.set_threshold(*collects_at)
        if not is_patience_set:
            del os.environ[BLAS_PATIENCE]


def _concerns_a_shell(arguments: Sequence[str] | None) -> bool:
    """Tell whether a shell asks, or is set up, to complete the installed command, whatever has started this process."""
    words = sys.argv[1:] if arguments is None else arguments
    return f"_{COMMAND.upper()}_COMPLETE" in os.environ or any(word.endswith("-completion") for word in words[:1])
