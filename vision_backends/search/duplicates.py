"""Images that show the same picture, by their contents, their vectors and their pixels.

This module decides which images belong together, and in which order they are told. Vectors propose pairs, pixels
decide. It must not know where vectors lie, nor how pixels are read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from vision_backends.search.pictures import alikeness
from vision_backends.search.records import DuplicateFile, DuplicateGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.search.pictures import Views

    Vectors = npt.NDArray[np.float32]
    See = Callable[[bytes], Views | None]

__all__ = ["group_duplicates"]

PROPOSED = 0.7
"""Pairs whose vectors are less similar are not looked at: of copies in a quarter of the size, or in grey, 97 % are."""

BLOCK = 1_024
"""Rows that are compared with as many others at once."""


def group_duplicates(
    files: Mapping[bytes, Sequence[DuplicateFile]],
    vectors: Mapping[bytes, Vectors],
    *,
    min_similarity: float,
    see: See,
) -> list[DuplicateGroup]:
    """Return the groups of at least two files, those first whose duplicates take most.

    Args:
        files: The files of each content.
        vectors: The vector of each content that has one; none where only contents are compared.
        min_similarity: How alike a picture is to another of its group, at least.
        see: Returns the views of the picture that a content is, or None where there are none.
    """
    contents = list(vectors)
    seen = lru_cache(maxsize=2 * BLOCK)(see)

    def is_same(one: int, other: int) -> bool:
        views, others = seen(contents[one]), seen(contents[other])
        return views is not None and others is not None and alikeness(views, others) >= min_similarity

    near = [[contents[place] for place in group] for group in _joined(list(vectors.values()), is_same)]
    grouped = {content for group in near for content in group}
    alone = [[content] for content in files if content not in grouped]
    groups = [_group(group, files, seen) for group in [*near, *alone]]
    return sorted((group for group in groups if len(group.files) > 1), key=lambda group: -group.spare_bytes)


def _group(contents: Sequence[bytes], files: Mapping[bytes, Sequence[DuplicateFile]], seen: See) -> DuplicateGroup:
    """Return one group, its longest file first."""
    first, *others = sorted(contents, key=lambda content: -files[content][0].size_bytes)
    members = list(files[first])
    for content in others:
        views, other = seen(first), seen(content)
        similarity = 0.0 if views is None or other is None else alikeness(views, other)
        members += [replace(file, similarity=similarity) for file in files[content]]
    return DuplicateGroup(files=tuple(members), is_exact=not others)


def _joined(vectors: Sequence[Vectors], is_same: Callable[[int, int], bool]) -> list[list[int]]:
    """Return the places of vectors that belong together, each because it does with any other of its group."""
    parents = list(range(len(vectors)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for one, other in _pairs(vectors):
        if root(one) != root(other) and is_same(one, other):
            parents[root(other)] = root(one)
    groups: dict[int, list[int]] = {}
    for place in range(len(vectors)):
        groups.setdefault(root(place), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _pairs(vectors: Sequence[Vectors]) -> Iterator[tuple[int, int]]:
    """Yield each pair of places whose vectors are similar enough to be looked at, once."""
    import numpy as np

    for start in range(0, len(vectors), BLOCK):
        block = np.stack(vectors[start : start + BLOCK])
        for other in range(start, len(vectors), BLOCK):
            similar = block @ np.stack(vectors[other : other + BLOCK]).T >= PROPOSED
            for left, right in zip(*np.nonzero(similar), strict=True):
                if start + left < other + right:
                    yield int(start + left), int(other + right)
