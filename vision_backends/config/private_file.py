"""Files that only their user can have written: read at once, within a limit, and not believed otherwise.

This module decides whose file is believed. It looks at the file that it has opened, not at what its name may stand for
a moment later, and reads it once. It must not know what the text means. Windows has no such permissions; there the
folders of a user are closed to others by themselves.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BYTES", "read_private_file"]

MAX_BYTES = 65_536
"""A configuration with prices for two hundred models has a third of this."""

MAX_LINKS = 40
"""As many symbolic links as Linux follows."""

ROOT = 0

WITHOUT = f"To do without it, set VISION_CONFIG={os.devnull}"


def read_private_file(path: Path) -> bytes:
    """Return what is in a file, if nobody but the user and root can have written it.

    Args:
        path: The file; ``/dev/null`` is an empty one.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is no regular file, it is longer than `MAX_BYTES`, or others own it or may write it.
    """
    # Without waiting: opening a pipe that nobody writes to would never return.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if _is_null_device(status):
            return b""
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(
                f"The configuration {str(path)!r} cannot be read: it is not a regular file.", remedy=f"{WITHOUT}."
            )
        if hasattr(os, "geteuid"):
            _check_writers(path, path, status)
            for place in _places(path):
                _check_owner(path, place, place.lstat())
                _check_writers(path, place.parent, place.parent.stat())
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        del data  # which tracebacks would show
        raise ConfigError(f"The configuration {str(path)!r} is longer than {MAX_BYTES:,} bytes.", remedy=f"{WITHOUT}.")
    return data


def _is_null_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev


def _places(path: Path) -> Iterator[Path]:
    """Yield a path and where symbolic links lead it, each in the folder in which it really lies."""
    for _ in range(MAX_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def _check_writers(path: Path, place: Path, status: os.stat_result) -> None:
    """Return if nobody but the user and root may write to a place; in a sticky folder, only to what is their own."""
    _check_owner(path, place, status)
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if not shared or sticky or os.statvfs(place).f_flag & os.ST_RDONLY:
        return
    if shared & stat.S_IWOTH or not _is_private_group(status.st_gid) or _has_access_list(place):
        raise ConfigError(
            f"The configuration {str(path)!r} is refused: others can write to {str(place)!r}.",
            remedy=f"Run: chmod go-w {shlex.quote(str(place))}. {WITHOUT}.",
        )


def _check_owner(path: Path, place: Path, status: os.stat_result) -> None:
    if status.st_uid not in {ROOT, os.geteuid()}:
        raise ConfigError(
            f"The configuration {str(path)!r} is refused: {str(place)!r} belongs to another user.",
            remedy=f"Read it, and name a copy of your own with --config. {WITHOUT}.",
        )


def _is_private_group(group_id: int) -> bool:
    """Return whether a group has no member but the user and root, as Linux gives one to each user."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(group_id)
    except KeyError:
        return False
    is_own = group_id == user.pw_gid and group.gr_name == user.pw_name
    return (is_own or group_id == ROOT) and {*group.gr_mem} <= {user.pw_name, "root"}


def _has_access_list(place: Path) -> bool:
    """Return whether the bits of the group stand for others, whom an access control list names."""
    try:
        return bool(os.getxattr(place, "system.posix_acl_access"))
    except (AttributeError, OSError):  # not on Linux, or there is none
        return False
