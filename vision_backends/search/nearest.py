"""The images whose vectors are nearest to another one, found by comparing it with all of them.

This module decides the order of hits, and that none is shown whose file is gone or whose vector is not the one that was
written. It must not know where the vector that is compared comes from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.search.errors import BrokenIndexError
from vision_backends.search.records import Hit, Hits
from vision_backends.search.vectors import REBUILD, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from vision_backends.search.database import Session, Space

    Vectors = npt.NDArray[np.float32]

__all__ = ["nearest"]

EXCLUDED = -2.0
"""Less than any cosine."""


def nearest(session: Session, space: Space, vectors: Vectors, query: Vectors, *, n: int, below: str | None) -> Hits:
    """Return the nearest images whose files are there.

    Args:
        session: The database.
        space: Where to look.
        vectors: Its rows.
        query: float32 [D], L2-normalised.
        n: How many at most.
        below: The folder that they have to be in; None for all.

    Raises:
        BrokenIndexError: A vector is not the one that was written.
    """
    import numpy as np

    scores = vectors @ query
    if below is not None:
        others = np.ones(len(scores), dtype=bool)
        others[[row for row, _ in session.rows_below(space, below)]] = False
        scores[others] = EXCLUDED
    hits: list[Hit] = []
    missing = 0
    for row in _best_first(scores, n):
        if len(hits) == n or scores[row] <= EXCLUDED:
            break
        content, written, backend, model, revision = session.row(space, row)
        paths = [path for path in session.paths_of(content) if below is None or _is_below(path, below)]
        there = [Path(path) for path in paths if os.path.lexists(path)]
        missing += bool(paths) and not there
        if not there:
            continue
        if checksum(vectors[row]) != written:
            raise BrokenIndexError(f"A vector in {str(space.file.path)!r} is not as it was written.", remedy=REBUILD)
        score = max(-1.0, min(1.0, float(scores[row])))
        hits.append(
            Hit(path=there[0], score=score, copies=tuple(there[1:]), backend=backend, model=model, revision=revision)
        )
    return Hits(items=tuple(hits), space=space.name, missing=missing)


def _best_first(scores: Vectors, n: int) -> Iterator[int]:
    """Yield rows by falling score; only as many are sorted as are taken."""
    import numpy as np

    given = 0
    while given < len(scores):
        count = min(len(scores), max(2 * n + 16, 8 * given))
        best = np.argpartition(-scores, count - 1)[:count]
        order = best[np.lexsort((best, -scores[best]))]
        yield from (int(row) for row in order[given:])
        given = count


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
