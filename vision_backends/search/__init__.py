"""Search in photos: by words, by a photo that is like them, and for duplicates.

An `ImageIndex` is a folder with a small database and files of vectors, which a `Router` makes. This package stands on
the public API alone, as an application would; it must not know any backend, nor how a call finds one.
"""

from vision_backends.search.errors import BrokenIndexError, ImageIndexError, LockedIndexError, OutdatedIndexError
from vision_backends.search.index import ImageIndex
from vision_backends.search.records import (
    DuplicateFile,
    DuplicateGroup,
    Hit,
    Hits,
    IndexInfo,
    IndexReport,
    UnreadableImage,
)

__all__ = [
    "BrokenIndexError",
    "DuplicateFile",
    "DuplicateGroup",
    "Hit",
    "Hits",
    "ImageIndex",
    "ImageIndexError",
    "IndexInfo",
    "IndexReport",
    "LockedIndexError",
    "OutdatedIndexError",
    "UnreadableImage",
]
