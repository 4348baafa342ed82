"""The folders of a user, which no working directory may stand in for.

This module decides that a folder of the user is an absolute one. Without a home, or with a relative one, it would lie
in the working directory, where anybody may have put files. It must not know what is kept where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["user_folder"]

PROGRAM = "vision-backends"


def user_folder(kind: Literal["cache", "config", "data"]) -> Path | None:
    """Return the user's own folder for one kind of files, or None where the user has no home."""
    import platformdirs

    find = {
        "cache": platformdirs.user_cache_path,
        "config": platformdirs.user_config_path,
        "data": platformdirs.user_data_path,
    }[kind]
    try:
        folder = find(PROGRAM)
    except RuntimeError:  # newer versions of platformdirs find out themselves
        return None
    return folder if folder.is_absolute() else None
