"""Whose file lies where a store is to be kept: ours, nobody's yet, or somebody else's.

This module decides from names, owners, permissions and the first bytes of a file whether a store may be kept there. It
reads no table and never lets SQLite open a file that is not known to be ours: SQLite would lay companions beside it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

from vision_backends.errors import ConfigError
from vision_backends.storage.base import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["APPLICATION_ID", "COMPANIONS", "Found", "examine", "identity_of"]

APPLICATION_ID = 0x56425331
"""Stands in the header of each of our files (https://sqlite.org/pragma.html#pragma_application_id)."""

COMPANIONS = ("-wal", "-shm")
"""What SQLite lays beside a file, by the ends of their names."""

Found = Literal["nothing", "ours", "damaged"]
"""A place that is free, a file of ours, or one of ours that SQLite could not use."""

MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100
"""Length of a database header; its fields are those of https://sqlite.org/fileformat.html#the_database_header."""

HEAD_BYTES = 65_536
"""How much of a file and of its log is looked at; the tables are described in the first page of either."""

SHAPES = (b"\x10\x00\x02\x02\x00\x40\x20\x20", b"\x10\x00\x01\x01\x00\x40\x20\x20")
"""Bytes 16 to 23 of a header as SQLite writes it by default, with a write-ahead log or without."""

TABLES = (b"CREATE TABLE cache_total (entries", b"CREATE TRIGGER cache_added AFTER INSERT ON cache")
"""What describes our tables and nobody else's; one of them is enough where the other is damaged."""

PRIVATE = 0o077
"""The permissions that nobody but the owner shall have."""

REMEDY = "Set state to another path; this one was left as it is."


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that has taken its place, or None where there is none."""
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def examine(path: Path, *, is_known: bool, is_ours: bool) -> Found:
    """Say what lies at a path, and take the permissions away that others have to a file of ours.

    Args:
        path: Where a store is to be kept.
        is_known: Whether this process has the file open already: then its bytes are not looked at, since closing it
            again would end every lock that this process has on it (https://sqlite.org/howtocorrupt.html, section 2.2).
        is_ours: Whether nobody but this package keeps files there: what cannot be recognised is then damaged.

    Raises:
        ConfigError: It is somebody else's: no file, no store, or one of another user.
        StoreError: It cannot be read.
    """
    try:
        info = _own(path)
        if info is None:
            return "nothing"
        found: Found = "ours" if is_known or info.st_size == 0 else _recognised(path, is_ours=is_ours)
        for each in (path, *(path.with_name(path.name + end) for end in COMPANIONS)):
            _make_private(each)
    except OSError as error:
        raise StoreError(f"The store {str(path)!r} cannot be used: {error}.") from error
    return "nothing" if info.st_size == 0 and not is_known else found


def _own(path: Path) -> os.stat_result | None:
    """Return what is known of a file of this user's, or None where there is none."""
    try:
        link = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(link.st_mode) and not _is_trusted(link.st_uid):
        raise ConfigError(f"The state {str(path)!r} is a link that another user has made.", remedy=REMEDY)
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"The state {str(path)!r} is {_kind(info.st_mode)}, not a file.", remedy=REMEDY)
    if not _is_own(info.st_uid):
        raise ConfigError(
            f"The state {str(path)!r} belongs to another user (uid {info.st_uid}).",
            remedy="Set state to a path of your own.",
        )
    return info


def _recognised(path: Path, *, is_ours: bool) -> Found:
    """Return how well a file is ours.

    Raises:
        ConfigError: It is not.
    """
    head = _head(path)
    log = _head(path.with_name(path.name + "-wal"))
    is_marked = head[68:72] == APPLICATION_ID.to_bytes(4, "big")
    is_described = any(table in part for table in TABLES for part in (head, log))
    has_shape = head[16:24] in SHAPES
    has_magic = head.startswith(MAGIC)
    # One byte may be wrong anywhere: two signs that are independent of each other are enough.
    if (is_marked or is_described) and (has_magic or has_shape):
        return "ours" if has_magic and has_shape else "damaged"
    if has_magic and len(head) >= HEADER_BYTES and _is_empty(head):
        return "ours"  # begun by a process that died before it had made a table
    if is_ours:
        return "damaged"
    what = "a SQLite database of another program" if has_magic else "not a store of vision-backends"
    raise ConfigError(f"The state {str(path)!r} is {what}.", remedy=REMEDY)


def _is_empty(head: bytes) -> bool:
    """Return whether a database has no table, no mark and no version."""
    cells = int.from_bytes(head[103:105], "big")
    return cells == 0 and head[60:64] == head[68:72] == bytes(4)


def _head(path: Path) -> bytes:
    """Return the first bytes of a regular file; none where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, HEAD_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def _make_private(path: Path) -> None:
    """Take away what others may do with a file, if it exists.

    Raises:
        ConfigError: It is no file, or another user's.
    """
    try:
        info = path.lstat() if path.name.endswith(COMPANIONS) else path.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode) or not _is_own(info.st_uid):
        raise ConfigError(f"{str(path)!r} beside the state is not a file of yours.", remedy="Move it away.")
    if os.name == "posix" and info.st_mode & PRIVATE:
        path.chmod(stat.S_IMODE(info.st_mode) & ~PRIVATE)


def _is_own(uid: int) -> bool:
    return not hasattr(os, "geteuid") or uid == os.geteuid()


def _is_trusted(uid: int) -> bool:
    return _is_own(uid) or uid == 0


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
