"""The ``vision`` command.

This module decides how the program starts. It must not know any command; those are put together in `cli.app`.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code, as `cli.rendering.exits` lists them.

    Args:
        arguments: What stands after the program's name; by default what the shell gave.

    Raises:
        SystemExit: Always.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still gets every answer
    try:
        from vision_backends.cli.app import app

        app(arguments, prog_name="vision")
    except KeyboardInterrupt:  # while importing; Typer handles it from then on
        sys.exit(130)
