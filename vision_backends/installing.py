"""The commands that install what is missing.

This module decides how a remedy says that: with the interpreter that runs, since ``pip`` alone may be another one's. It
must not know what is missing.
"""

from __future__ import annotations

import shlex
import sys

__all__ = ["pip_command"]


def pip_command(*arguments: str) -> str:
    """Return the command line by which pip of the running interpreter does something.

    Args:
        arguments: What stands after ``pip install``, unquoted.
    """
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *arguments])
