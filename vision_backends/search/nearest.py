"""The images whose vectors are nearest to another one, found by comparing it with all of them.

This module decides the order of hits, and that none is shown whose file is gone or whose vector is not the one that was
written. It must not know where the vector that is compared comes from.

A search is as long as what it reads, so it reads the codes, a quarter of the vectors. A code tells a score to within
its distance from the vector; the vectors themselves are read where that is not enough. So the hits are those of a
search in all vectors, in their order, whatever they are.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    from vision_backends.search.vectors import Codes

    Vectors = npt.NDArray[np.float32]
    Rows = npt.NDArray[np.intp]

__all__ = ["best_first", "nearest"]

EXCLUDED = -3.0
"""Less than any cosine, also when it is not exact."""

ROUNDING = 2.0**-22
"""Of an inner product in float32, for each component: four times as much as is possible (Higham 2002, section 3.1)."""

BLOCK = 256
"""Rows that are made float32 together: they stay in a processor's own cache."""

MOST_THREADS = 4
"""More wait for the memory."""

EXACT_ROWS = 4_096
"""Vectors that are read together where codes are not enough; where more are needed, all are read at once."""


def nearest(
    session: Session,
    space: Space,
    vectors: Vectors,
    codes: Codes | None,
    query: Vectors,
    *,
    n: int,
    below: str | None,
) -> Hits:
    """Return the nearest images whose files are there.

    Args:
        session: The database.
        space: Where to look.
        vectors: Its rows.
        codes: Their codes; None where there are none.
        query: float32 [D], L2-normalised.
        n: How many at most.
        below: The folder that they have to be in; None for all.

    Raises:
        BrokenIndexError: A vector is not the one that was written.
    """
    rows = None if below is None else [row for row, _ in session.rows_below(space, below)]
    hits: list[Hit] = []
    missing = 0
    for row, cosine in best_first(vectors, codes, query, n=n, among=rows):
        if len(hits) == n:
            break
        content, written, backend, model, revision = session.row(space, row)
        paths = [path for path in session.paths_of(content) if below is None or _is_below(path, below)]
        there = [Path(path) for path in paths if os.path.lexists(path)]
        missing += bool(paths) and not there
        if not there:
            continue
        if checksum(vectors[row]) != written:
            raise BrokenIndexError(f"A vector in {str(space.file.path)!r} is not as it was written.", remedy=REBUILD)
        score = max(-1.0, min(1.0, cosine))
        hits.append(
            Hit(path=there[0], score=score, copies=tuple(there[1:]), backend=backend, model=model, revision=revision)
        )
    return Hits(items=tuple(hits), space=space.name, missing=missing)


def best_first(
    vectors: Vectors, codes: Codes | None, query: Vectors, *, n: int, among: list[int] | None = None
) -> Iterator[tuple[int, float]]:
    """Yield rows with their scores, by falling score and rising row; only as many are sorted as are taken.

    Args:
        vectors: float32 [N, D], L2-normalised.
        codes: Their codes, [N]; without, all vectors are read.
        query: float32 [D], L2-normalised.
        n: How many are probably taken.
        among: The rows that count; None for all.
    """
    import numpy as np

    low, high = _bounds(vectors, codes, query, among=among)
    total = len(vectors) if among is None else len(among)
    given = 0
    while given < total:
        count = min(total, max(2 * n + 16, 8 * given))
        least = np.partition(low, len(low) - count)[len(low) - count]  # so many are as near as this for sure
        rows = np.flatnonzero(high >= least)
        if codes is not None and len(rows) > EXACT_ROWS:  # vectors that are more alike than codes can tell
            codes = None
            low, high = _bounds(vectors, codes, query, among=among)
            continue
        exact = _exact(vectors, rows, query)
        order = np.lexsort((rows, -exact))[given:count]
        yield from zip(rows[order].tolist(), exact[order].tolist(), strict=True)
        given = count


def _bounds(
    vectors: Vectors, codes: Codes | None, query: Vectors, *, among: list[int] | None
) -> tuple[Vectors, Vectors]:
    """Return the lowest and the highest score that each row may have; less than any for those that do not count."""
    import numpy as np

    scores, slack = _estimated(vectors, codes, query)
    low, high = scores - slack, scores + slack
    if among is not None:
        others = np.ones(len(scores), dtype=bool)
        others[among] = False
        low[others] = high[others] = EXCLUDED
    return low, high


def _estimated(vectors: Vectors, codes: Codes | None, query: Vectors) -> tuple[Vectors, Vectors | float]:
    """Return scores, and how far each may be from the exact one."""
    import numpy as np

    length = float(np.linalg.norm(query))
    rounding = ROUNDING * len(query) * length
    if codes is None:
        return vectors @ query, rounding
    scores = np.empty(len(codes), dtype=np.float32)
    compare = partial(_compare, codes["codes"], query, scores)
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    if len(codes) < threads * EXACT_ROWS:
        compare(0, len(codes))
    else:
        bounds = [len(codes) * number // threads for number in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(compare, bounds, bounds[1:]))
    scores *= codes["scale"]
    return scores, codes["distance"] * np.float32(length) + np.float32(rounding)


def _compare(codes: npt.NDArray[np.int8], query: Vectors, scores: Vectors, begin: int, end: int) -> None:
    """Write the inner products of some rows of codes with a vector."""
    import numpy as np

    block = np.empty((BLOCK, len(query)), dtype=np.float32)
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        floats = block[: stop - start]
        np.copyto(floats, codes[start:stop])
        np.dot(floats, query, out=scores[start:stop])


def _exact(vectors: Vectors, rows: Rows, query: Vectors) -> npt.NDArray[np.float64]:
    """Return the scores of some rows; equal vectors have equal ones, wherever they are."""
    import numpy as np

    exact = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), EXACT_ROWS):
        part = rows[start : start + EXACT_ROWS]
        np.einsum(
            "nd,d->n", vectors[part].astype(np.float64), query.astype(np.float64), out=exact[start : start + len(part)]
        )
    return exact


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
