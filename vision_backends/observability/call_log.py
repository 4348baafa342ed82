"""The log of what was asked and said, for users who have switched it on: a file of their own, and one before it.

This module decides where lines are kept, who may read them, and how many there are. It must not know what they say.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

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

    def lines(self) -> list[str]:
        """Return the lines of both files, oldest first.

        Raises:
            OSError: They cannot be read.
        """
        with closing(self.follow(wait=lambda: None)) as growing:
            return next(growing)

    def follow(self, *, wait: Callable[[], object]) -> Generator[list[str], None, None]:
        """Yield the lines of both files, oldest first, then again and again those that have been added, if any.

        A file is read to its end before the one that takes its place, and a line when it is whole.

        Args:
            wait: Returns when it is time to look again.

        Raises:
            OSError: They cannot be read.
        """
        files: list[BinaryIO] = []
        try:
            while True:
                lines = [line for file in files for line in _added(file)]
                files = self._reopened(files)
                yield [*lines, *(line for file in files for line in _added(file))]
                wait()
        finally:
            for file in files:
                file.close()

    def _reopened(self, files: Sequence[BinaryIO]) -> list[BinaryIO]:
        """Return the two files that are there now, of which those that are open go on where they are."""
        known = {_identity(os.fstat(file.fileno())): file for file in files}
        found = []
        for path in (self.before, self.path):
            with suppress(FileNotFoundError):
                there = _identity(path.stat())
                found.append(known.pop(there) if there in known else path.open("rb"))
        for file in known.values():
            file.close()
        return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _added(file: BinaryIO) -> list[str]:
    """Return the whole lines from where a file was read to; from its beginning if it was emptied meanwhile."""
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)
    data = file.read()
    end = data.rfind(b"\n") + 1
    file.seek(end - len(data), os.SEEK_CUR)
    return data[:end].decode("utf-8", "replace").split("\n")[:-1]
