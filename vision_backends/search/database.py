"""The database of an index: which files it knows, and which row of which file of vectors belongs to which content.

This module decides how that is kept, who may write it, and which databases are refused. Vectors belong to contents (by
SHA-256), and contents to paths, so a file that was moved or copied keeps its vectors. It must not know how vectors are
made or compared.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vision_backends.errors import caller_error
from vision_backends.search.errors import ImageIndexError, LockedIndexError
from vision_backends.search.vectors import VectorFile, checksum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vision_backends.errors import VisionError
    from vision_backends.image_files import FoundFile
    from vision_backends.search.records import Purpose
    from vision_backends.types import Embedding

__all__ = ["Database", "KnownFile", "Session", "Space", "StoredError"]

APPLICATION_ID = 0x56425349
"""Stands in the header of each of our files (https://sqlite.org/pragma.html#pragma_application_id)."""

VERSION = 1
"""Of the tables; a program refuses those of a newer one."""

BUSY_S = 10.0
"""How long a reader waits while a batch is written; that takes some milliseconds."""

ELSEWHERE = "Name another folder: --index FOLDER"

TABLES = """
CREATE TABLE about (backend TEXT NOT NULL);
CREATE TABLE folder (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE purpose (name TEXT PRIMARY KEY, space TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE space (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimension INTEGER NOT NULL, file TEXT NOT NULL,
  generation BLOB NOT NULL, rows INTEGER NOT NULL
);
CREATE TABLE trace (
  id INTEGER PRIMARY KEY, backend TEXT NOT NULL, model TEXT, revision TEXT, UNIQUE (backend, model, revision)
);
CREATE TABLE file (
  path BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
  content BLOB, error TEXT, message TEXT, remedy TEXT
) WITHOUT ROWID;
CREATE INDEX file_content ON file (content);
CREATE TABLE vector (
  space INTEGER NOT NULL, row INTEGER NOT NULL, content BLOB NOT NULL, checksum INTEGER NOT NULL,
  trace INTEGER NOT NULL, PRIMARY KEY (space, row)
) WITHOUT ROWID;
CREATE UNIQUE INDEX vector_content ON vector (content, space);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredError:
    """Why a file cannot be searched, as it was said when it was tried."""

    kind: str
    message: str
    remedy: str | None

    @classmethod
    def of(cls, error: VisionError) -> StoredError:
        """Return what is kept of an error."""
        return cls(kind=error.kind, message=error.message, remedy=error.remedy)

    def restored(self) -> VisionError:
        """Return the error, of its own class."""
        return caller_error(self.kind, self.message, remedy=self.remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """What the index knows of a file: what told it from others, its content, and why it has no vectors."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    content: bytes | None
    error: StoredError | None

    def is_still(self, found: FoundFile) -> bool:
        """Return whether a file that was found is the one that was known."""
        return (self.size_bytes, self.mtime_ns, self.ctime_ns) == (found.size_bytes, found.mtime_ns, found.ctime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A vector space, its file and how many rows of that are valid."""

    id: int
    name: str
    file: VectorFile
    rows: int


class Database:
    """The database in the folder of an index; each use opens it anew, so threads and forks share nothing.

    Args:
        folder: Where the index is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "index.db"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Lend the database as it is now, whatever is written meanwhile.

        Raises:
            ImageIndexError: There is none, or it cannot be read.
        """
        if not self.path.is_file():
            raise ImageIndexError(
                f"There is no index in {str(self.folder)!r}.", remedy="Make one: vision index FOLDER_OF_PHOTOS"
            )
        with self._translated(), closing(self._connect()) as db:
            _check(db, self.path)
            db.execute("BEGIN")
            yield Session(db, self.folder)
            db.rollback()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Lend the database to its only writer, and make it where it is missing.

        Raises:
            LockedIndexError: Another process, or thread, is writing it.
            ImageIndexError: It cannot be written.
        """
        with self._translated():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock():
                _create(self.path)
                with closing(self._connect()) as db:
                    _prepare(db, self.path)
                    session = Session(db, self.folder)
                    session.remove_left_files()
                    yield session

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold a lock that ends with the process: that of SQLite on an empty database, which every system has."""
        _create(self.folder / "writer.lock")
        with closing(sqlite3.connect(self.folder / "writer.lock", timeout=0, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                raise LockedIndexError(
                    f"Another process is writing the index {str(self.folder)!r}.",
                    remedy="Wait until it has ended; the index can be searched meanwhile.",
                ) from None
            yield

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=rw"  # which SQLite makes "ro" where the file may not be written
        return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error)
            raise ImageIndexError(f"The index {str(self.folder)!r} cannot be used: {why}.", remedy=ELSEWHERE) from error
        except sqlite3.Error as error:
            is_broken = getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
            raise ImageIndexError(
                f"The index {str(self.folder)!r} cannot be used: {error}.",
                remedy="Remove it, and index the photos again." if is_broken else ELSEWHERE,
            ) from error


class Session:
    """An open database; the methods that change it belong to its writer.

    Args:
        db: A connection in autocommit mode.
        folder: Where the files of vectors are.
    """

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self._db = db
        self._folder = folder

    @property
    def backend(self) -> str | None:
        """Who makes the vectors; None for an index without any."""
        row = self._db.execute("SELECT backend FROM about").fetchone()
        return row and str(row[0])

    def purposes(self) -> dict[Purpose, str]:
        """Return the name of the space for each purpose that the index serves."""
        return dict(self._db.execute("SELECT name, space FROM purpose"))

    def space(self, name: str) -> Space | None:
        """Return a space; None where the index has no vector of it."""
        query = "SELECT id, name, dimension, file, generation, rows FROM space WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        if row is None:
            return None
        number, name, dimension, file, generation, rows = row
        file = VectorFile(path=self._folder / file, dimension=dimension, generation=generation)
        return Space(id=number, name=name, file=file, rows=rows)

    def files(self, folder: str) -> Iterator[tuple[str, KnownFile]]:
        """Yield what is known of the files of a folder and those below it."""
        query = "SELECT path, size_bytes, mtime_ns, ctime_ns, content, error, message, remedy FROM file"
        for path, size, mtime, ctime, content, error, message, remedy in self._db.execute(
            f"{query} WHERE path >= ? AND path < ? ORDER BY path",
            _range_of(folder),
        ):
            stored = None if error is None else StoredError(kind=error, message=message, remedy=remedy)
            yield (
                os.fsdecode(path),
                KnownFile(size_bytes=size, mtime_ns=mtime, ctime_ns=ctime, content=content, error=stored),
            )

    def knows(self, path: str) -> bool:
        """Return whether a file is known under this path."""
        return self._db.execute("SELECT 1 FROM file WHERE path = ?", (os.fsencode(path),)).fetchone() is not None

    def paths_of(self, content: bytes) -> list[str]:
        """Return where a content is."""
        found = self._db.execute("SELECT path FROM file WHERE content = ? ORDER BY path", (content,))
        return [os.fsdecode(path) for (path,) in found]

    def spaces_of(self, content: bytes) -> set[str]:
        """Return the names of the spaces in which a content has a vector."""
        query = "SELECT space.name FROM vector JOIN space ON space.id = vector.space WHERE content = ?"
        return {name for (name,) in self._db.execute(query, (content,))}

    def contents_of(self, space: Space) -> set[bytes]:
        """Return the contents that have a vector in a space."""
        return {content for (content,) in self._db.execute("SELECT content FROM vector WHERE space = ?", (space.id,))}

    def rows_below(self, space: Space, folder: str) -> list[tuple[int, bytes]]:
        """Return the rows, and the contents, of the files of a folder and those below it."""
        query = """
            SELECT DISTINCT vector.row, vector.content FROM file JOIN vector ON vector.content = file.content
            WHERE vector.space = ? AND path >= ? AND path < ? ORDER BY vector.row
        """
        return list(self._db.execute(query, (space.id, *_range_of(folder))))

    def row(self, space: Space, row: int) -> tuple[bytes, int, str, str | None, str | None]:
        """Return the content, the checksum, the backend, the model and the revision of a row."""
        query = """
            SELECT content, checksum, backend, model, revision FROM vector JOIN trace ON trace.id = trace
            WHERE space = ? AND row = ?
        """
        found: tuple[bytes, int, str, str | None, str | None] = self._db.execute(query, (space.id, row)).fetchone()
        return found

    def counts(self) -> tuple[int, int, int]:
        """Return how many files there are, how many different contents, and how many files have an error."""
        query = "SELECT count(*), count(DISTINCT content), count(error) FROM file"
        files, contents, errors = self._db.execute(query).fetchone()
        return files, contents, errors

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write all that is done inside, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def folders(self) -> list[str]:
        """Return the folders that the index was made of."""
        return [os.fsdecode(path) for (path,) in self._db.execute("SELECT path FROM folder ORDER BY path")]

    def add_folders(self, folders: Iterable[str]) -> None:
        """Note folders that the index is made of."""
        self._db.executemany("INSERT OR IGNORE INTO folder VALUES (?)", ((os.fsencode(each),) for each in folders))

    def pin(self, backend: str, purposes: Mapping[Purpose, str]) -> None:
        """Say who makes the vectors, and in which spaces."""
        self._db.execute("DELETE FROM about")
        self._db.execute("INSERT INTO about VALUES (?)", (backend,))
        self._db.executemany("INSERT OR REPLACE INTO purpose VALUES (?, ?)", purposes.items())

    def forget_vectors(self) -> None:
        """Forget all vectors and their spaces, but no file."""
        for table in ("about", "purpose", "space", "vector", "trace"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 — our own names

    def put_file(self, found: FoundFile, content: bytes | None, error: StoredError | None = None) -> None:
        """Note what a file is, in place of what it was."""
        why = (None, None, None) if error is None else (error.kind, error.message, error.remedy)
        values = (os.fsencode(found.path), found.size_bytes, found.mtime_ns, found.ctime_ns, content, *why)
        self._db.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def remove_files(self, paths: Iterable[str]) -> None:
        """Forget files; their vectors stay until `compact`."""
        self._db.executemany("DELETE FROM file WHERE path = ?", ((os.fsencode(path),) for path in paths))

    def add_vectors(self, contents: Sequence[bytes], embeddings: Sequence[Embedding]) -> None:
        """Add vectors of one space, one for each content."""
        first = embeddings[0]
        space = self.space(first.space) or self._add_space(first.space, dimension=first.dimension)
        vectors = [each.vector for each in embeddings]
        space.file.append(vectors, rows=space.rows)
        traces = [self._trace_of(each) for each in embeddings]
        rows = zip(range(space.rows, space.rows + len(contents)), contents, vectors, traces, strict=True)
        values = [(space.id, row, content, checksum(vector), trace) for row, content, vector, trace in rows]
        self._db.executemany("INSERT INTO vector VALUES (?, ?, ?, ?, ?)", values)
        self._db.execute("UPDATE space SET rows = rows + ? WHERE id = ?", (len(contents), space.id))

    def compact(self, *, from_share: float) -> None:
        """Leave out the vectors that no file needs, if they are more than a share of a space.

        A reader keeps the file that it has opened. The old one is removed by the next writer, if it cannot be now.
        """
        for (name,) in self._db.execute("SELECT name FROM space").fetchall():
            space = self.space(name)
            if space is None:
                continue
            query = """
                SELECT row, content, checksum, trace FROM vector
                WHERE space = ? AND EXISTS (SELECT 1 FROM file WHERE file.content = vector.content) ORDER BY row
            """
            kept = self._db.execute(query, (space.id,)).fetchall()
            if space.rows - len(kept) > from_share * space.rows:
                self._rewrite(space, kept)
            else:
                space.file.complete_codes(space.rows)
        self.remove_left_files()

    def remove_left_files(self) -> None:
        """Remove files of vectors that the database does not name: a process died while it made one."""
        named = {file.removesuffix(".f32") for (file,) in self._db.execute("SELECT file FROM space")}
        for path in self._folder.glob("vectors-*"):
            if path.stem not in named:
                with suppress(OSError):  # Windows keeps what another process has open
                    path.unlink()

    def _rewrite(self, space: Space, kept: Sequence[tuple[int, bytes, int, int]]) -> None:
        """Write a file of the rows that are kept, then have the database name that in place of the old one."""
        file = VectorFile.create(self._folder, dimension=space.file.dimension)
        old = space.file.rows(space.rows)
        for start in range(0, len(kept), ROWS_AT_ONCE):
            part = [old[row] for row, *_ in kept[start : start + ROWS_AT_ONCE]]
            file.append(part, rows=start)
        with self.batch():
            self._db.execute("DELETE FROM vector WHERE space = ?", (space.id,))
            values = ((space.id, row, *rest) for row, (_, *rest) in enumerate(kept))
            self._db.executemany("INSERT INTO vector VALUES (?, ?, ?, ?, ?)", values)
            place = (file.path.name, file.generation, len(kept), space.id)
            self._db.execute("UPDATE space SET file = ?, generation = ?, rows = ? WHERE id = ?", place)

    def _add_space(self, name: str, *, dimension: int) -> Space:
        file = VectorFile.create(self._folder, dimension=dimension)
        values = (name, dimension, file.path.name, file.generation)
        query = "INSERT INTO space (name, dimension, file, generation, rows) VALUES (?, ?, ?, ?, 0)"
        number = self._db.execute(query, values).lastrowid
        return Space(id=number or 0, name=name, file=file, rows=0)

    def _trace_of(self, embedding: Embedding) -> int:
        trace = embedding.trace
        values = (trace.backend, trace.model, trace.revision)
        self._db.execute(
            "INSERT INTO trace (backend, model, revision) SELECT ?1, ?2, ?3 WHERE NOT EXISTS "
            "(SELECT 1 FROM trace WHERE backend IS ?1 AND model IS ?2 AND revision IS ?3)",
            values,
        )
        query = "SELECT id FROM trace WHERE backend IS ? AND model IS ? AND revision IS ?"
        return int(self._db.execute(query, values).fetchone()[0])


ROWS_AT_ONCE = 4_096
"""Of a file that is written anew."""


def _range_of(folder: str) -> tuple[bytes, bytes]:
    """Return the paths between which all those below a folder are, by their bytes."""
    start = os.fsencode(folder.rstrip(os.sep) + os.sep)
    return start, start[:-1] + bytes([start[-1] + 1])


def _create(path: Path) -> None:
    """Make a file for its owner alone, if it is missing."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of an empty database, or return if it has them."""
    is_empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if is_empty and db.execute("PRAGMA application_id").fetchone()[0] in {0, APPLICATION_ID}:
        marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
        db.executescript(f"BEGIN; {TABLES} {marks} COMMIT;")
    _check(db, path)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Return if a database is an index that this program can read.

    Raises:
        ImageIndexError: It is not.
    """
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        message = f"{str(path)!r} is not an index of photos."
        raise ImageIndexError(message, remedy=ELSEWHERE)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise ImageIndexError(
            f"The index {str(path)!r} is of version {version}; this program reads version {VERSION}.",
            remedy="Upgrade vision-backends, or name another folder: --index FOLDER",
        )
