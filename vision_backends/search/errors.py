"""What may be wrong with an index, and what to do about it.

This module decides how such failures are named. It must not know how they are found.
"""

from __future__ import annotations

from vision_backends.errors import ConfigError

__all__ = ["BrokenIndexError", "ImageIndexError", "LockedIndexError", "OutdatedIndexError"]


class ImageIndexError(ConfigError):
    """An index cannot be used as it is: it is not there, cannot be read or written, or is another program's file."""

    kind = "index_error"


class LockedIndexError(ImageIndexError):
    """Another process is writing the index; it can be searched meanwhile."""

    kind = "index_locked"


class BrokenIndexError(ImageIndexError):
    """The vectors are not those that the index has written; they have to be made again."""

    kind = "index_broken"


class OutdatedIndexError(ImageIndexError):
    """The index holds vectors that its backend does not make any more, so nothing could be compared with them."""

    kind = "index_outdated"
