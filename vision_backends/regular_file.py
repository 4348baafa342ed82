"""Files of foreign origin: opened only if they are regular ones, and read within a limit.

This module decides that nothing is waited for and nothing endless is read: a pipe, a device or a socket may stand where
a file is expected, also behind a link. It must not know what is in a file.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FileTooLargeError", "NotRegularFileError", "chunks_of_regular", "open_regular", "read_regular"]

CHUNK_BYTES = 1 << 20


class NotRegularFileError(OSError):
    """What stands under a name is a directory, a pipe, a device or a socket."""


class FileTooLargeError(OSError):
    """A file has more bytes than are read."""


@contextmanager
def open_regular(path: str | bytes | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """Yield an open file and its size in bytes.

    Raises:
        NotRegularFileError: It is something else.
        OSError: It cannot be opened.
        ValueError: It is no path.
    """
    with _descriptor(path) as (descriptor, size_bytes), open(descriptor, "rb", closefd=False) as file:
        yield cast("BinaryIO", file), size_bytes


def read_regular(path: str | bytes | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Return what is in a file. Errors as `chunks_of_regular`."""
    return b"".join(chunks_of_regular(path, max_bytes=max_bytes))


def chunks_of_regular(path: str | bytes | os.PathLike[str], *, max_bytes: int) -> Iterator[bytes]:
    """Yield what is in a file, piece by piece.

    Raises:
        FileTooLargeError: It has more than ``max_bytes``. Others as `open_regular`.
    """
    with _descriptor(path) as (descriptor, size_bytes):  # each step of a file object lets other threads go first
        read_bytes = 0
        most_bytes = min(size_bytes + 1, CHUNK_BYTES) if size_bytes else CHUNK_BYTES  # room for more is cleared first
        while max(size_bytes, read_bytes) <= max_bytes:  # a file may grow, and those of /proc have no size
            chunk = os.read(descriptor, most_bytes)
            read_bytes += len(chunk)
            if chunk and read_bytes <= max_bytes:
                yield chunk
            is_end = not chunk or (0 < size_bytes == read_bytes and len(chunk) < most_bytes)
            if is_end and read_bytes <= max_bytes:
                return
    raise FileTooLargeError(f"it has more than {max_bytes / 1e6:g} MB")


@contextmanager
def _descriptor(path: str | bytes | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """Yield the descriptor of an open file and its size in bytes. Errors as `open_regular`."""
    _check(os.stat(path))  # noqa: PTH116 — of bytes, too; some devices do something when they are opened
    # Without O_NONBLOCK, opening a pipe would wait until something writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        _check(status)
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularFileError("it is not a regular file")
