"""The images of a folder and of the folders below it.

This module decides which files are taken: by the ends of their names, none that is hidden, each once, whatever links
lead to it. It reads no file, and must not know what is done with them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IMAGE_SUFFIXES", "FoundFile", "Walk", "is_image_name"]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""What is taken from a folder; a file that is named itself may be called anything."""


def is_image_name(name: str) -> bool:
    """Return whether a file of a folder is taken for an image."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One image file, and what tells a later look whether it has changed.

    Attributes:
        path: Below the folder that was asked for.
        size_bytes: How long it is.
        mtime_ns: When its content was last written.
        ctime_ns: When anything about it was last changed; a program can set the other back, not this one.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(slots=True, kw_only=True)
class Walk:
    """One walk through folders: ``for file in walk.files(folder): ...``, in the order of their names.

    A link to a folder is followed, and each folder is visited once: links that go round in circles end there. So a file
    that several names lead to is found under the first of them.

    Attributes:
        unreadable: Folders that could not be listed, with the reason.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def files(self, folder: str) -> Iterator[FoundFile]:
        """Yield the images of a folder, then those of the folders below it."""
        if self._is_new(os.stat(folder)):  # noqa: PTH116 — paths are texts here: a million of them
            yield from self._files(folder)

    def _files(self, folder: str) -> Iterator[FoundFile]:
        pending = [folder]
        while pending:
            folder = pending.pop()
            below: list[str] = []
            for entry in self._entries(folder):
                if entry.name.startswith("."):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing, or gone since
                    continue
                if stat.S_ISDIR(status.st_mode):
                    below += [entry.path] if self._is_new(self._numbered(entry, status)) else []
                elif self._is_image(entry, status):
                    yield FoundFile(
                        path=entry.path,
                        size_bytes=status.st_size,
                        mtime_ns=status.st_mtime_ns,
                        ctime_ns=status.st_ctime_ns,
                    )
            pending += reversed(below)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return []

    def _is_image(self, entry: os.DirEntry[str], status: os.stat_result) -> bool:
        """Return whether an entry is an image that has not been found under another name."""
        is_taken = stat.S_ISREG(status.st_mode) and is_image_name(entry.name)
        return is_taken and self._is_new(self._numbered(entry, status))

    def _numbered(self, entry: os.DirEntry[str], status: os.stat_result) -> os.stat_result:
        """Return a status with the number of the file, which Windows does not give with the entries of a folder."""
        return status if status.st_ino else os.stat(entry.path)  # noqa: PTH116

    def _is_new(self, status: os.stat_result) -> bool:
        identity = status.st_dev, status.st_ino
        if not status.st_ino:  # a file system without numbers
            return True
        is_new = identity not in self._seen
        self._seen.add(identity)
        return is_new
