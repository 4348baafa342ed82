"""A file of vectors: rows of float32, only ever added to at its end, and beside it their codes, a quarter as long.

This module decides how rows lie in a file, and that a row which is not the one that was written is not taken for it.
It must not know which image a row belongs to: the database counts the rows that are valid, so whatever a process that
died has left behind them is no row.

A code is a vector in 8 bits, with how far it is from the vector. All that is in the file of codes can be made of the
vectors again: an index without one, as earlier releases made it, gets one the next time it is written.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.search.errors import BrokenIndexError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.void]

__all__ = ["REBUILD", "VectorFile", "checksum", "coded"]

HEADER = struct.Struct("<8sI16s36x")
MAGIC = b"VBVECT01"
MAGIC_OF_CODES = b"VBCODE01"

LARGEST_CODE = 127

ROWS_AT_ONCE = 4_096
"""Of which codes are made together."""

REBUILD = "Make the vectors again: vision index --rebuild"


def checksum(vector: Vectors) -> int:
    """Return what tells a row from another one."""
    return zlib.crc32(vector.tobytes())


def coded(vectors: Vectors) -> Codes:
    """Return vectors in 8 bits: for each its ``codes``, their ``scale``, and its distance from the two, or a bit more.

    So the inner product of another vector with the codes times the scale is as far from that with the vector, at most,
    as the distance times the length of the other one.
    """
    import numpy as np

    made = np.empty(len(vectors), dtype=_type_of_codes(vectors.shape[1]))
    made["scale"] = np.abs(vectors).max(axis=1) / LARGEST_CODE
    steps = vectors.astype(np.float64) / made["scale"][:, None]
    made["codes"] = np.clip(np.rint(steps), -LARGEST_CODE, LARGEST_CODE)
    distances = np.linalg.norm(steps - made["codes"], axis=1) * made["scale"]
    made["distance"] = np.nextafter(distances.astype(np.float32), np.float32(np.inf))
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFile:
    """One file of vectors.

    Attributes:
        path: Where it is.
        dimension: Components of a vector.
        generation: Stands in the file and in the database: a file that was put in its place is found out.
    """

    path: Path
    dimension: int
    generation: bytes

    @classmethod
    def create(cls, folder: Path, *, dimension: int) -> VectorFile:
        """Make a file without rows, for its owner alone."""
        generation = uuid.uuid4().bytes
        made = cls(path=folder / f"vectors-{generation.hex()[:8]}.f32", dimension=dimension, generation=generation)
        _create(made.path, made._header)
        return made

    @property
    def path_of_codes(self) -> Path:
        """Where the codes are."""
        return self.path.with_suffix(".i8")

    def append(self, vectors: Sequence[Vectors], *, rows: int) -> None:
        """Write vectors behind the first ``rows``, over whatever a process that died has left there.

        They are on the disk when this returns, so the database may count them.

        Raises:
            BrokenIndexError: There are not so many rows.
        """
        import numpy as np

        self.check(rows)
        with self.path.open("r+b") as file:
            file.truncate(self._size_bytes(rows))
            file.seek(0, os.SEEK_END)
            file.write((added := np.stack(vectors).astype("<f4")).tobytes())
            file.flush()
            _sync(file.fileno())
        self.complete_codes(rows)
        self._append_codes(added, rows=rows)

    def complete_codes(self, rows: int) -> None:
        """Make the codes of the first ``rows`` vectors, as far as they are missing."""
        if not self._has_codes(0):
            self.path_of_codes.unlink(missing_ok=True)
            _create(self.path_of_codes, self._header_of_codes)
        if self._has_codes(rows):
            return
        vectors = self.rows(rows)
        for start in range(0, rows, ROWS_AT_ONCE):
            self._append_codes(vectors[start : start + ROWS_AT_ONCE], rows=start)

    def codes(self, count: int) -> Codes | None:
        """Return the codes of the first rows, [count], read as `rows` are; None where they are not there."""
        import numpy as np

        if not count or not self._has_codes(count):
            return None
        kind = _type_of_codes(self.dimension)
        mapped = np.memmap(self.path_of_codes, dtype=kind, mode="r", offset=HEADER.size, shape=(count,))
        return mapped.view(np.ndarray)

    def rows(self, count: int) -> Vectors:
        """Return the first rows as an array [count, dimension] that is read from the disk as it is needed.

        Raises:
            BrokenIndexError: There are not so many, or it is another file.
        """
        import numpy as np

        self.check(count)
        if not count:
            return np.empty((0, self.dimension), dtype=np.float32)
        shape = (count, self.dimension)
        mapped = np.memmap(self.path, dtype="<f4", mode="r", offset=HEADER.size, shape=shape)
        return mapped.view(np.ndarray)

    def check(self, rows: int) -> None:
        """Return if this is the file that was made, with so many rows at least.

        Raises:
            BrokenIndexError: It is not.
        """
        try:
            with self.path.open("rb") as file:
                head = file.read(HEADER.size)
                size_bytes = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            raise BrokenIndexError(f"The vectors {str(self.path)!r} are gone.", remedy=REBUILD) from None
        if head != self._header or size_bytes < self._size_bytes(rows):
            what = "are shorter than they were" if head == self._header else "are not those of this index"
            raise BrokenIndexError(f"The vectors {str(self.path)!r} {what}.", remedy=REBUILD)

    def _append_codes(self, vectors: Vectors, *, rows: int) -> None:
        made = coded(vectors)
        with self.path_of_codes.open("r+b") as file:
            file.truncate(HEADER.size + rows * made.dtype.itemsize)
            file.seek(0, os.SEEK_END)
            file.write(made.tobytes())
            file.flush()
            _sync(file.fileno())

    def _has_codes(self, rows: int) -> bool:
        """Return whether the file of codes belongs to this one, and has so many."""
        try:
            with self.path_of_codes.open("rb") as file:
                is_own = file.read(HEADER.size) == self._header_of_codes
                needed = HEADER.size + rows * _type_of_codes(self.dimension).itemsize
                return is_own and os.fstat(file.fileno()).st_size >= needed
        except OSError:
            return False

    @property
    def _header(self) -> bytes:
        return HEADER.pack(MAGIC, self.dimension, self.generation)

    @property
    def _header_of_codes(self) -> bytes:
        return HEADER.pack(MAGIC_OF_CODES, self.dimension, self.generation)

    def _size_bytes(self, rows: int) -> int:
        return HEADER.size + rows * self.dimension * 4


def _type_of_codes(dimension: int) -> np.dtype[np.void]:
    import numpy as np

    return np.dtype([("scale", "<f4"), ("distance", "<f4"), ("codes", "i1", (dimension,))])


def _create(path: Path, header: bytes) -> None:
    """Make a file for its owner alone."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(header)
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    """Have the system write to the disk what it holds of a file."""
    getattr(os, "fdatasync", os.fsync)(descriptor)
