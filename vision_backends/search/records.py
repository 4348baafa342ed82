"""What an index answers.

This module decides the shape of results. It must not know how they are found.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 — `read_record` looks annotations up
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 — the same
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.errors import VisionError  # noqa: TC001 — the same
from vision_backends.serialization import Record, VersionedRecord, to_versioned

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DuplicateFile",
    "DuplicateGroup",
    "Hit",
    "Hits",
    "IndexInfo",
    "IndexReport",
    "Purpose",
    "UnreadableImage",
]

Purpose = Literal["words", "like"]
"""What a space of an index is for: words are compared with images in one, images with images in the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Record):
    """One image that was found.

    Attributes:
        path: Where it is.
        score: Cosine similarity to what was asked for, in [-1, 1]; to be compared only within one space.
        copies: Other files with the very same content.
        backend: Who made its vector.
        model: The model that did.
        revision: The exact version of that model, where it has one.
    """

    path: Path
    score: float
    copies: tuple[Path, ...] = ()
    backend: str = ""
    model: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits(VersionedRecord):
    """What a search found, best first; iterates over its ``Hit`` records.

    Attributes:
        items: The images.
        space: The vector space that they were compared in.
        missing: How many better ones were left out because their files are not there any more.

    Examples:
        >>> index = ImageIndex("index", router=router)
        >>> _ = index.update(".")
        >>> hits = index.search_like("cat.jpg", n=3)
        >>> len(hits), hits[0].path.name, hits.space == index.info().spaces["like"]
        (3, 'cat.jpg', True)
    """

    items: tuple[Hit, ...]
    space: str
    missing: int = 0

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Hit:
        return self.items[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableImage(Record):
    """A file that could not be made part of the index.

    Attributes:
        path: Where it is.
        error: Why, as the router said it.
        is_known: Whether that was found out earlier: it is not tried again until the file changes.
    """

    path: Path
    error: VisionError
    is_known: bool = False


@dataclass(slots=True, kw_only=True)
class IndexReport(VersionedRecord):
    """What has come of bringing an index up to date.

    Attributes:
        found: Image files in the folders.
        new: Files that were not in the index.
        changed: Files whose content is another than it was.
        moved: Files that were in the index under another path, which is gone; their vectors were kept.
        unchanged: Files that were known.
        embedded: Contents for which vectors were made.
        vectors: How many those are: one for each space.
        gone: Files of the index that are not in the folders any more.
        pruned: How many of these were taken out of the index.
        unreadable: Files that cannot be part of it, the old ones as well.
        unreadable_folders: Folders that cannot be listed, with the reason; what was in them is kept.
        cost_usd: What the vectors cost; None where that is unknown.
        spaces: The spaces that the index is in, by what they are for.
    """

    found: int = 0
    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    embedded: int = 0
    vectors: int = 0
    gone: int = 0
    pruned: int = 0
    unreadable: list[UnreadableImage] = field(default_factory=list)
    unreadable_folders: dict[str, str] = field(default_factory=dict)
    cost_usd: float | None = 0.0
    spaces: dict[Purpose, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo(VersionedRecord):
    """What is in an index.

    Attributes:
        place: Its folder.
        folders: The folders whose photos it has.
        backend: Who makes its vectors.
        files: How many image files it knows.
        contents: How many different ones they are.
        unreadable: How many files cannot be searched.
        spaces: The name of the space for each purpose.
        vectors: How many vectors there are in each space, by its name.
        size_bytes: What it takes on the disk.
    """

    place: Path
    folders: tuple[Path, ...]
    backend: str
    files: int
    contents: int
    unreadable: int
    spaces: Mapping[Purpose, str]
    vectors: Mapping[str, int]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFile(Record):
    """One file of a group of duplicates.

    Attributes:
        path: Where it is.
        size_bytes: How long it is.
        similarity: How alike its picture is to that of the first file of its group; 1 for the very same content.
    """

    path: Path
    size_bytes: int
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroup(VersionedRecord):
    """Files that show the same picture, the longest first.

    Attributes:
        files: At least two.
        is_exact: Whether all have the very same content.
    """

    files: tuple[DuplicateFile, ...]
    is_exact: bool

    @property
    def spare_bytes(self) -> int:
        """What all but the first take."""
        return sum(file.size_bytes for file in self.files[1:])

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values, with what could be spared."""
        return to_versioned(self) | {"spare_bytes": self.spare_bytes}
