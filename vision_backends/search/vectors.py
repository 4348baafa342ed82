"""A file of vectors: rows of float32, only ever added to at its end.

This module decides how rows lie in a file, and that a row which is not the one that was written is not taken for it.
It must not know which image a row belongs to: the database counts the rows that are valid, so whatever a process that
died has left behind them is no row.
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

__all__ = ["REBUILD", "VectorFile", "checksum"]

HEADER = struct.Struct("<8sI16s36x")
MAGIC = b"VBVECT01"

REBUILD = "Make the vectors again: vision index --rebuild"


def checksum(vector: Vectors) -> int:
    """Return what tells a row from another one."""
    return zlib.crc32(vector.tobytes())


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
        descriptor = os.open(made.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(made._header)
            _sync(file.fileno())
        return made

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
            file.write(np.stack(vectors).astype("<f4").tobytes())
            file.flush()
            _sync(file.fileno())

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

    @property
    def _header(self) -> bytes:
        return HEADER.pack(MAGIC, self.dimension, self.generation)

    def _size_bytes(self, rows: int) -> int:
        return HEADER.size + rows * self.dimension * 4


def _sync(descriptor: int) -> None:
    """Have the system write to the disk what it holds of a file."""
    getattr(os, "fdatasync", os.fsync)(descriptor)
