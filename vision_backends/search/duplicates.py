"""Images that look the same, by their contents and their vectors.

This module decides which images belong together, and in which order they are told. It must not know where vectors lie.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vision_backends.search.records import DuplicateFile, DuplicateGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

__all__ = ["group_duplicates"]

BLOCK = 2_048
"""Rows that are compared with as many others at once: 16 MB of similarities."""


def group_duplicates(
    files: Mapping[bytes, Sequence[DuplicateFile]], vectors: Mapping[bytes, Vectors], *, min_similarity: float
) -> list[DuplicateGroup]:
    """Return the groups of at least two files, those first whose duplicates take most.

    Args:
        files: The files of each content.
        vectors: The vector of each content that has one.
        min_similarity: The least cosine similarity to any other of a group.
    """
    contents = list(vectors)
    near = [[contents[place] for place in group] for group in _near(list(vectors.values()), min_similarity)]
    grouped = {content for group in near for content in group}
    alone = [[content] for content in files if content not in grouped]
    groups = [_group(group, files, vectors) for group in [*near, *alone]]
    return sorted((group for group in groups if len(group.files) > 1), key=lambda group: -group.spare_bytes)


def _group(
    contents: Sequence[bytes], files: Mapping[bytes, Sequence[DuplicateFile]], vectors: Mapping[bytes, Vectors]
) -> DuplicateGroup:
    """Return one group, its longest file first."""
    first, *others = sorted(contents, key=lambda content: -files[content][0].size_bytes)
    members = list(files[first])
    for content in others:
        similarity = max(-1.0, min(1.0, float(vectors[first] @ vectors[content])))
        members += [replace(file, similarity=similarity) for file in files[content]]
    return DuplicateGroup(files=tuple(members), is_exact=not others)


def _near(vectors: Sequence[Vectors], min_similarity: float) -> list[list[int]]:
    """Return the places of vectors that are as similar as that to another one of their group."""
    parents = list(range(len(vectors)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for one, other in _pairs(vectors, min_similarity):
        parents[root(other)] = root(one)
    groups: dict[int, list[int]] = {}
    for place in range(len(vectors)):
        groups.setdefault(root(place), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _pairs(vectors: Sequence[Vectors], min_similarity: float) -> Iterator[tuple[int, int]]:
    """Yield each pair of places whose vectors are as similar as that, once."""
    import numpy as np

    for start in range(0, len(vectors), BLOCK):
        block = np.stack(vectors[start : start + BLOCK])
        for other in range(start, len(vectors), BLOCK):
            similar = block @ np.stack(vectors[other : other + BLOCK]).T >= min_similarity
            for left, right in zip(*np.nonzero(similar), strict=True):
                if start + left < other + right:
                    yield int(start + left), int(other + right)
