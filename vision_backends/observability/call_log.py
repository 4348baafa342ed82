"""The log of what was asked and said, for users who have switched it on: a file of their own, and one before it.

This module decides where lines are kept, who may read them, and how many there are. It must not know what they say.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["CallLog"]


class CallLog:
    """A file with mode 0600 in a directory with mode 0700; lines are only ever appended, by any number of processes.

    When it is full it takes the place of the one before it, ``calls.jsonl.1``, so that both together take at most twice
    what is allowed.

    Args:
        path: The file.
        max_bytes: Size from which a new file is begun.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 10_000_000) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes

    @property
    def before(self) -> Path:
        """The file before this one."""
        return self.path.with_name(f"{self.path.name}.1")

    def append(self, lines: Sequence[str]) -> None:
        """Write some lines down.

        Raises:
            OSError: They cannot be written.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if self.path.stat().st_size >= self._max_bytes:
                self.path.replace(self.before)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        finally:
            os.close(descriptor)

    def lines(self) -> Iterator[str]:
        """Yield the lines of both files, oldest first.

        Raises:
            OSError: They cannot be read.
        """
        for path in (self.before, self.path):
            with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    yield line.rstrip("\n")
