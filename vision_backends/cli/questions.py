"""The question before something that takes long or cannot be undone.

This module decides who is asked and what counts as yes. It must not know what is asked.
"""

from __future__ import annotations

import sys

import typer

from vision_backends.cli.exits import INTERRUPTED

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
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        raise typer.Exit(INTERRUPTED) from None
