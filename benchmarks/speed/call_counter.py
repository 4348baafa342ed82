"""Counts calls of the package's functions in all threads, which comes out the same on every machine.

This module decides what a call is: every time that a function of the package is entered or a coroutine of it resumed.
Comprehensions, which are functions in some versions of Python only, do not count, nor do fakes, which stand for a rung
that costs nothing. It must not know what is counted for what.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vision_backends

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["CallCounter"]

PACKAGE = str(Path(vision_backends.__file__).parent)

FAKES = str(Path(PACKAGE, "testing"))

COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")

OF_FILES = frozenset({"stat", "lstat", "scandir", "listdir", "access", "open"})
"""Functions of the operating system that look at a file."""


class CallCounter:
    """Counts from `begin` to `end`, in threads that start after it was made; make it before the first router.

    Attributes:
        functions: How often each function was called, by its file within the package and its name.
        file_looks: How often a file was looked at.
        statements: How many statements SQLite was given.
    """

    def __init__(self) -> None:
        self.functions: Counter[tuple[str, str]] = Counter()
        self.file_looks = 0
        self.statements = 0
        self._counts = False
        self._is_over = False
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def begin(self) -> None:
        """Count from zero."""
        self.functions.clear()
        self.file_looks = self.statements = 0
        self._counts = True

    def end(self) -> int:
        """Count no more, and return how many calls there were."""
        self._counts = False
        return self.functions.total()

    def leave(self) -> None:
        """Leave all threads, each at its next call, so that they run at their usual speed again."""
        self._is_over = True
        threading.setprofile(None)
        sys.setprofile(None)

    def rooms(self) -> Counter[str]:
        """Return the counts by the rooms of the package."""
        rooms: Counter[str] = Counter()
        for (file, _), count in self.functions.items():
            rooms[Path(file).parts[0].removesuffix(".py")] += count
        return rooms

    def _note(self, frame: FrameType, event: str, function: Any) -> None:  # noqa: ANN401 — whatever is called
        if self._is_over:
            sys.setprofile(None)
        elif not self._counts:
            return
        elif event == "call":
            code = frame.f_code
            file = code.co_filename
            if file.startswith(PACKAGE) and not file.startswith(FAKES) and code.co_name not in COMPREHENSIONS:
                self.functions[file[len(PACKAGE) + 1 :], code.co_qualname] += 1
        elif event == "c_call":
            self.file_looks += function.__module__ in {"posix", "nt", "_io"} and function.__name__ in OF_FILES
            self.statements += function.__qualname__ in {"Connection.execute", "Connection.executemany"}
