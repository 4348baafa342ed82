"""Bringing an index up to date with folders: what is new, changed, moved or gone, and which vectors are missing.

This module decides what is read and embedded, and in which steps that is written: a step is a few dozen images, and
what a process that dies loses is the one it was at. It must not know where vectors lie, nor who makes them.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.errors import CallerError, VisionError
from vision_backends.image_files import Walk
from vision_backends.images import KeptImage
from vision_backends.regular_file import FileTooLargeError, read_regular
from vision_backends.search.database import StoredError
from vision_backends.search.records import IndexReport, UnreadableImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vision_backends.image_files import FoundFile
    from vision_backends.images import ImageLimits
    from vision_backends.router import Router
    from vision_backends.search.database import KnownFile, Session
    from vision_backends.search.records import Purpose
    from vision_backends.types import Embedding

    Progress = Callable[[int, int], None]

__all__ = ["Update"]

STEP = 64
"""Images that are embedded and written together."""

PATIENCE_S = 60.0
"""How long a step waits for a server that wants to be asked later; nobody else could answer in its place."""

STEP_BYTES = 64_000_000
"""Files of more bytes than these are not held in memory together."""


@dataclass(slots=True, kw_only=True)
class _Content:
    """What was read of files of one content, opened once for all spaces, and what has come of it."""

    digest: bytes
    image: KeptImage
    files: list[FoundFile] = field(default_factory=list)
    vectors: list[Embedding] = field(default_factory=list)
    error: VisionError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One run: `look`, `embed` what that has found, `clear`.

    Attributes:
        session: The database, to be written.
        router: Makes the vectors.
        backend: The rung that does.
        spaces: The space for each purpose; None where its first vector will tell.
        limits: How long files may be.
        retries: Whether files are tried again that could not be used earlier.
        report: What has come of it so far.
    """

    session: Session
    router: Router
    backend: str
    spaces: dict[Purpose, str | None]
    limits: ImageLimits
    retries: bool
    report: IndexReport = field(default_factory=IndexReport)
    _walk: Walk = field(default_factory=Walk)
    _known: dict[str, KnownFile] = field(default_factory=dict)
    _present: set[str] = field(default_factory=set)

    def look(self, folders: Sequence[str]) -> list[FoundFile]:
        """Return the files that have to be read, and count the others."""
        for folder in folders:
            self._known.update(self.session.files(folder))
        complete = self._complete_contents()
        todo: list[FoundFile] = []
        for file in (file for folder in folders for file in self._walk.files(folder)):
            self._present.add(file.path)
            known = self._known.get(file.path)
            if known is None or not known.is_still(file):
                todo.append(file)
            elif known.error is not None and not self.retries:
                self._tell(file, known.error.restored(), is_known=True)
            elif known.error is None and known.content in complete:
                self.report.unchanged += 1
            else:
                todo.append(file)
        self.report.found = len(self._present)
        self.report.unreadable_folders = self._walk.unreadable
        return todo

    def embed(self, files: Sequence[FoundFile], progress: Progress | None) -> None:
        """Read files, make the vectors that are missing, and write both down step by step.

        Raises:
            VisionError: Nothing of a step could be embedded, for a reason that is not in the images.
        """
        done = 0
        if progress is not None and files:
            progress(0, len(files))
        for step in _steps(files):
            contents = self._read(step)
            self._ask(contents)
            with self.session.batch():
                self._write(contents)
            done += len(step)
            if progress is not None:
                progress(done, len(files))
            troubles = [each.error for each in contents if each.error and not isinstance(each.error, CallerError)]
            if troubles and len(troubles) == len(contents):
                raise troubles[0]

    def clear(self, folders: Sequence[str], *, prune: bool) -> None:
        """Count the files that are gone, and forget them where that is wanted.

        What was in a folder that cannot be listed is not gone, nor what was in an empty one: a drive may not be there.
        """
        away = [folder + os.sep for folder in (*self._walk.unreadable, *filter(_is_empty, folders))]
        gone = [
            path
            for path in self._known.keys() - self._present
            if not path.startswith(tuple(away)) and not os.path.lexists(path) and self.session.knows(path)
        ]
        self.report.gone = len(gone)
        if prune and gone:
            with self.session.batch():
                self.session.remove_files(gone)
            self.report.pruned = len(gone)

    def _complete_contents(self) -> set[bytes]:
        """Return the contents that have a vector in every space that is wanted."""
        found: list[set[bytes]] = []
        for name in set(self.spaces.values()):
            space = None if name is None else self.session.space(name)
            found.append(set() if space is None else self.session.contents_of(space))
        return set.intersection(*found)

    def _read(self, files: Sequence[FoundFile]) -> list[_Content]:
        """Read files, each content once; one that cannot be opened is told, and tried again the next time."""
        contents: dict[bytes, _Content] = {}
        for file in files:
            try:
                data = read_regular(file.path, max_bytes=self.limits.max_bytes)
            except FileTooLargeError:
                error = self.limits.too_many_bytes(file.path)
                with self.session.batch():
                    self.session.put_file(file, None, StoredError.of(error))
                self._tell(file, error)
                continue
            except OSError as reason:
                self._tell(file, CallerError(f"{file.path} cannot be read: {reason.strerror or reason}."))
                continue
            digest = hashlib.sha256(data).digest()
            if digest not in contents:
                read = io.BytesIO(data)
                read.name = file.path  # as files that are opened by their names have
                contents[digest] = _Content(digest=digest, image=KeptImage(read))
            contents[digest].files.append(file)
        return list(contents.values())

    def _ask(self, contents: Sequence[_Content]) -> None:
        """Have contents embedded in each space in which they have no vector."""
        had = {each.digest: self.session.spaces_of(each.digest) for each in contents}
        for purpose in self.spaces:
            name = self.spaces[purpose]
            lacking = [each for each in contents if each.error is None and name not in had[each.digest]]
            lacking = [each for each in lacking if name not in {vector.space for vector in each.vectors}]
            if not lacking:
                continue
            images = [each.image for each in lacking]
            outcomes = self.router.embed_many(
                images, space=name, backend=self.backend, priority="batch", max_wait_s=PATIENCE_S
            )
            for each, outcome in zip(lacking, outcomes, strict=True):
                if isinstance(outcome, VisionError):
                    each.error = outcome
                else:
                    each.vectors.append(outcome)
                    self.spaces[purpose] = outcome.space

    def _write(self, contents: Sequence[_Content]) -> None:
        """Note the files of a step, and what has come of their contents."""
        for name in dict.fromkeys(vector.space for each in contents for vector in each.vectors):
            rows = [(each.digest, vector) for each in contents for vector in each.vectors if vector.space == name]
            self.session.add_vectors([digest for digest, _ in rows], [vector for _, vector in rows])
        named: dict[Purpose, str] = {purpose: name for purpose, name in self.spaces.items() if name is not None}
        self.session.pin(self.backend, named)
        for each in contents:
            self.report.vectors += len(each.vectors)
            self.report.embedded += bool(each.vectors)
            for vector in each.vectors:
                self._count_cost(vector.trace.usage.cost_usd)
            for file in each.files:
                self._note(file, each)

    def _note(self, file: FoundFile, content: _Content) -> None:
        """Note one file, unless its trouble may be over the next time."""
        if content.error is not None:
            self._tell(file, content.error)
            if not isinstance(content.error, CallerError):
                return
            self.session.put_file(file, content.digest, StoredError.of(content.error))
            return
        known = self._known.get(file.path)
        if known is not None and known.content == content.digest:
            self.report.unchanged += 1
        elif known is not None:
            self.report.changed += 1
        else:
            left = [path for path in self.session.paths_of(content.digest) if not os.path.lexists(path)]
            self.session.remove_files(left[:1])
            self.report.moved += bool(left)
            self.report.new += not left
        self.session.put_file(file, content.digest)

    def _tell(self, file: FoundFile, error: VisionError, *, is_known: bool = False) -> None:
        self.report.unreadable.append(UnreadableImage(path=Path(file.path), error=error, is_known=is_known))

    def _count_cost(self, cost_usd: float | None) -> None:
        total = self.report.cost_usd
        self.report.cost_usd = None if total is None or cost_usd is None else total + cost_usd


def _steps(files: Sequence[FoundFile]) -> Iterator[Sequence[FoundFile]]:
    """Yield files a few dozen at a time, fewer where they are long."""
    step: list[FoundFile] = []
    size_bytes = 0
    for file in files:
        if step and (len(step) == STEP or size_bytes + file.size_bytes > STEP_BYTES):
            yield step
            step, size_bytes = [], 0
        step.append(file)
        size_bytes += file.size_bytes
    if step:
        yield step


def _is_empty(folder: str) -> bool:
    """Return whether there is nothing at all in a folder."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True
