"""The question before something that takes long or cannot be undone.

This module decides who is asked and what counts as yes. It must not know what is asked.
"""

from __future__ import annotations

import sys

import typer

from vision_backends.cli.rendering.exits import INTERRUPTED
from vision_backends.cli.rendering.text import printable

__all__ = ["agreed"]


def agreed(question: str, *, yes: bool) -> bool:
    """Ask on standard error whether to go on; a script, whose input is no terminal, is not asked.

    Args:
        question: What is asked, with its question mark.
        yes: Whether the answer was given in advance.

    Raises:
        typer.Exit: Ctrl-C was the answer.
    """
    if yes or not sys.stdin.isatty():
        return True
    typer.echo(f"{printable(question)} [y/N]: ", nl=False, err=True)
    try:
        return input().strip().lower() in {"y", "yes"}  # Typer's own question leaves a space on standard output
    except (EOFError, KeyboardInterrupt):
        typer.echo(err=True)
        raise typer.Exit(INTERRUPTED) from None
