"""One image of a data set, and what people have said about it.

This module decides what a measurement knows of an image. It must not know any format of a data set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Dataset", "Photo", "TrueBox"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueBox:
    """One object as people have marked it.

    Attributes:
        label: Its name, in the words of the data set.
        xyxy: Left, top, right, bottom in pixels of the upright image.
        is_crowd: True for a region with many objects that were not marked one by one.
    """

    label: str
    xyxy: tuple[float, float, float, float]
    is_crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One image.

    Attributes:
        name: Unique in its data set.
        source: Its file, or a function that reads it.
        captions: What people wrote; empty where nobody did.
        boxes: All objects of the data set's labels; None where they were not marked.
        credit: Author and licence, where they are known.
    """

    name: str
    source: Path | Callable[[], bytes]
    captions: tuple[str, ...] = ()
    boxes: tuple[TrueBox, ...] | None = None
    credit: str | None = None

    def read(self) -> Path | bytes:
        """Return what a router can open."""
        return self.source if isinstance(self.source, Path) else self.source()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images in the order in which they are asked about.

    Attributes:
        name: For the report, with the split where there are several.
        photos: The images.
        labels: All names that its boxes may have, also those of objects that are in none of these images.
    """

    name: str
    photos: tuple[Photo, ...]
    labels: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return what tells these images from all others, by their names and contents, in whatever order they stand."""
        whole = hashlib.sha256()
        for photo in sorted(self.photos, key=lambda each: each.name):
            try:
                source = photo.read()
                content = source.read_bytes() if isinstance(source, Path) else source
            except OSError:  # rungs will say that they cannot read it
                content = b""
            whole.update(hashlib.sha256(photo.name.encode()).digest() + hashlib.sha256(content).digest())
        return whole.hexdigest()
