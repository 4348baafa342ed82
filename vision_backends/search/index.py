"""`ImageIndex`: photos that can be searched by words and by photos, and looked through for duplicates.

This module decides what callers can ask of an index, and that vectors are only compared within the spaces that it is
pinned to. It must not know any backend.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vision_backends.arguments import check_number, check_text, shown
from vision_backends.errors import InvalidRequestError, SpaceMismatchError
from vision_backends.images import DEFAULT_LIMITS, ImageLimits
from vision_backends.search.database import Database
from vision_backends.search.duplicates import group_duplicates
from vision_backends.search.errors import ImageIndexError, OutdatedIndexError
from vision_backends.search.nearest import nearest
from vision_backends.search.pictures import views_of
from vision_backends.search.records import (
    DuplicateFile,
    DuplicateGroup,
    Hits,
    IndexInfo,
    IndexReport,
    Purpose,
    UnreadableImage,
)
from vision_backends.search.update import Update
from vision_backends.search.vectors import REBUILD

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends.images import ImageSource
    from vision_backends.router import Router
    from vision_backends.search.database import Session, Space
    from vision_backends.search.vectors import Codes, Vectors
    from vision_backends.types import Embedding, Task

    StrPath = str | os.PathLike[str]

__all__ = ["NEAR", "ImageIndex"]

NEAR = 0.9
"""Pictures that are as alike as this count as the same; docs/search.md says what that finds and misses."""

TASK_OF: dict[Purpose, Task] = {"like": "embed", "words": "embed_text"}
"""Whose space serves a purpose: that of the task when no space is asked for."""

UNUSED_SHARE = 0.25
"""A file of vectors is written anew when more than this part of it is no longer needed."""


class ImageIndex:
    """An index of photos in a folder of its own. Any number of threads and processes may search it, one may write it.

    Vectors are made by one backend, in the spaces that it had when the index was made: one for words, one for photos,
    or one for both. Vectors of any other are refused.

    Args:
        place: The folder of the index; made when it is first written. The photos stay where they are.
        router: Makes the vectors.
        backend: The rung that does; by default the one that the index was made with, and for a new index the lowest
            that keeps images on this machine.
        limits: How long image files may be.

    Examples:
        >>> from vision_backends.search import ImageIndex
        >>> index = ImageIndex("index", router=router)
        >>> report = index.update(".", purposes=("like",))
        >>> report.new, report.unreadable
        (8, [])
        >>> index.search_like("cat.jpg", n=1)[0].path.name
        'cat.jpg'
    """

    def __init__(
        self, place: StrPath, *, router: Router, backend: str | None = None, limits: ImageLimits = DEFAULT_LIMITS
    ) -> None:
        check_text("backend", backend, example='"embedded"')
        self.place = Path(place).expanduser()
        self._router = router
        self._backend = backend
        self._limits = limits
        self._database = Database(self.place)
        self._mapped: tuple[Space, Vectors, Codes | None] | None = None

    def update(
        self,
        *folders: StrPath,
        prune: bool = False,
        retry: bool = False,
        rebuild: bool = False,
        purposes: tuple[Purpose, ...] = ("like", "words"),
        progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Make the index know the images in folders and all folders below them.

        Only what is new or has changed is read and embedded, so a run that was interrupted, or killed, goes on where it
        was. What cannot be read is not tried again until its file changes.

        Args:
            *folders: What to look through.
            prune: Whether files that are gone are taken out of the index. What was in a folder that cannot be listed,
                or is empty now, is kept: a drive may not be there.
            retry: Whether files are tried again that could not be used earlier.
            rebuild: Whether all vectors are made anew, also where the backend is another than before.
            purposes: What the images will be searched by.
            progress: Called with how many images are done and how many there are, in this thread.

        Raises:
            InvalidRequestError: A folder is none.
            LockedIndexError: Another process is writing the index.
            OutdatedIndexError: Its backend makes other vectors now.
            SpaceUnavailableError: Nothing can be embedded now. What was embedded before is kept.

        Examples:
            >>> index = ImageIndex("index", router=router)
            >>> index.update(".").new, index.update(".").unchanged
            (8, 8)
        """
        roots = [_folder(folder) for folder in folders]
        if not roots:
            raise InvalidRequestError("There is no folder to index.", remedy="Name a folder of photos.")
        with self._database.writing() as session:
            if rebuild:
                with session.batch():
                    session.forget_vectors()
                session.remove_left_files()
            backend = self._backend_of(session)
            update = Update(
                session=session,
                router=self._router,
                backend=backend,
                spaces=self._spaces(session, backend, purposes),
                limits=self._limits,
                retries=retry or rebuild,
            )
            if set(purposes) == set(TASK_OF):
                with session.batch():
                    session.add_folders(roots)
            update.embed(update.look(roots), progress)
            update.clear(roots, prune=prune)
            session.compact(from_share=UNUSED_SHARE)
            update.report.spaces = session.purposes()
            return update.report

    def folders(self) -> list[Path]:
        """Return the folders that were indexed for every purpose and are there now; none where there is no index."""
        if not self._database.path.is_file():
            return []
        with self._database.reading() as session:
            return [Path(folder) for folder in session.folders() if os.path.isdir(folder)]  # noqa: PTH112

    def search(self, words: str, *, n: int = 10, folder: StrPath | None = None) -> Hits:
        """Return the photos that words describe best.

        Args:
            words: What is to be seen.
            n: How many photos at most.
            folder: Only photos in this folder and those below it.

        Raises:
            ImageIndexError: There is no index, or none that words can be compared with.
            SpaceUnavailableError: The words cannot be embedded now.

        Examples:
            >>> index = ImageIndex("index", router=router)
            >>> _ = index.update(".")
            >>> for hit in index.search("a cup of coffee", n=1):
            ...     print(hit.path.name)
            coffee.jpg
        """
        check_text("words", words, example='"two dogs on a beach"')
        space, backend = self._pinned("words")
        return self.nearest(self._router.embed_text(words, space=space, backend=backend), n=n, folder=folder)

    def search_like(self, image: ImageSource, *, n: int = 10, folder: StrPath | None = None) -> Hits:
        """Return the photos that are most like an image; one that is in the index itself comes first.

        Arguments and errors as for `search`; the image as for `Router.embed`.

        Examples:
            >>> index = ImageIndex("index", router=router)
            >>> _ = index.update(".")
            >>> [hit.path.name for hit in index.search_like("rocket.jpg", n=1)]
            ['rocket.jpg']
        """
        space, backend = self._pinned("like")
        return self.nearest(self._router.embed(image, space=space, backend=backend), n=n, folder=folder)

    def nearest(self, query: Embedding, *, n: int = 10, folder: StrPath | None = None) -> Hits:
        """Return the photos whose vectors are nearest to another one, by comparing it with each of them.

        Raises:
            SpaceMismatchError: The vector is of a space that the index is not in.
        """
        check_number("n", n, example=10, whole=True, optional=False)
        if n < 1:
            raise InvalidRequestError(f"n={n} asks for no photo.", remedy="Ask for one at least.")
        with self._database.reading() as session:
            names = session.purposes()
            if query.space not in names.values():
                raise SpaceMismatchError(
                    f"A vector of {query.space!r} cannot be compared with those of this index.",
                    remedy=f"It is in: {', '.join(sorted(set(names.values()))) or 'no space yet'}.",
                )
            space = session.space(query.space)
            if space is None:
                return Hits(items=(), space=query.space)
            below = None if folder is None else os.path.realpath(folder)
            vectors, codes = self._rows_of(space)
            return nearest(session, space, vectors, codes, query.vector, n=int(n), below=below)

    def duplicates(self, folder: StrPath | None = None, *, min_similarity: float | None = NEAR) -> list[DuplicateGroup]:
        """Return the files that show the same picture, those first whose duplicates take most; none is touched.

        Photos whose vectors are similar are opened and compared; one belongs to a group if it is the same picture as
        any other of it.

        Args:
            folder: Only files in this folder and those below it.
            min_similarity: How alike two pictures are that count as the same, by the correlation of their pixels; None
                for files of the very same content only.

        Examples:
            >>> import shutil
            >>> _ = shutil.copy("cat.jpg", "copy of cat.jpg")
            >>> index = ImageIndex("index", router=router)
            >>> _ = index.update(".")
            >>> for group in index.duplicates():
            ...     print(sorted(file.path.name for file in group.files), group.is_exact)
            ['cat.jpg', 'copy of cat.jpg'] True
        """
        check_number("min_similarity", min_similarity, example=NEAR)
        files: dict[bytes, list[DuplicateFile]] = {}
        with self._database.reading() as session:
            below = os.sep if folder is None else os.path.realpath(folder)
            for path, known in session.files(below):
                if known.content is not None and known.error is None and os.path.lexists(path):
                    file = DuplicateFile(path=Path(path), size_bytes=known.size_bytes, similarity=1.0)
                    files.setdefault(known.content, []).append(file)
            space = None if min_similarity is None else session.space(session.purposes().get("like", ""))
            rows = [] if space is None else session.rows_below(space, below)
            all_vectors = None if space is None else space.file.rows(space.rows)
        vectors = {} if all_vectors is None else {each: all_vectors[row] for row, each in rows if each in files}
        limits = self._limits
        return group_duplicates(
            files,
            vectors,
            min_similarity=1.0 if min_similarity is None else min_similarity,
            see=lambda content: views_of(files[content][0].path, limits),
        )

    def unreadable(self, folder: StrPath | None = None) -> list[UnreadableImage]:
        """Return the files that cannot be searched, and why."""
        with self._database.reading() as session:
            return [
                UnreadableImage(path=Path(path), error=known.error.restored(), is_known=True)
                for path, known in session.files(os.sep if folder is None else os.path.realpath(folder))
                if known.error is not None
            ]

    def info(self) -> IndexInfo:
        """Return what is in the index.

        Raises:
            ImageIndexError: There is none.

        Examples:
            >>> index = ImageIndex("index", router=router)
            >>> _ = index.update(".")
            >>> index.info().files, index.info().backend
            (8, 'embedded')
        """
        with self._database.reading() as session:
            files, contents, unreadable = session.counts()
            spaces = session.purposes()
            found = {name: session.space(name) for name in dict.fromkeys(spaces.values())}
            return IndexInfo(
                place=self.place,
                folders=tuple(map(Path, session.folders())),
                backend=session.backend or "",
                files=files,
                contents=contents,
                unreadable=unreadable,
                spaces=spaces,
                vectors={name: 0 if space is None else space.rows for name, space in found.items()},
                size_bytes=sum(path.stat().st_size for path in self.place.iterdir() if path.is_file()),
            )

    def _rows_of(self, space: Space) -> tuple[Vectors, Codes | None]:
        """Return the vectors of a space and their codes; mapping a file costs about as much as a search, so once."""
        mapped = self._mapped
        if mapped is not None and mapped[0] == space:
            space.file.check(space.rows)
            return mapped[1:]
        rows, codes = space.file.rows(space.rows), space.file.codes(space.rows)
        self._mapped = space, rows, codes
        return rows, codes

    def _backend_of(self, session: Session) -> str:
        """Return who makes the vectors.

        Raises:
            ImageIndexError: Another one is asked for than made those that are there, or photos would leave the machine
                though nobody said so.
        """
        made_by = session.backend
        if made_by is not None and self._backend not in {None, made_by}:
            raise ImageIndexError(
                f"The vectors of this index were made by {made_by!r}, not by {self._backend!r}.",
                remedy="Make all of them again with --rebuild, or name another folder with --index.",
            )
        if made_by or self._backend:
            return str(made_by or self._backend)
        try:
            return self._router.explain("embed", local_only=True).verdicts[-1].backend
        except InvalidRequestError:
            first = self._router.explain("embed").verdicts[0].backend
            raise ImageIndexError(
                "No backend on the ladder keeps photos on this machine.",
                remedy=f"Say which one they are sent to: --backend {first}",
            ) from None

    def _spaces(self, session: Session, backend: str, purposes: tuple[Purpose, ...]) -> dict[Purpose, str | None]:
        """Return the spaces in which vectors are to be made; None where the first vector will tell.

        Raises:
            OutdatedIndexError: The index is in others.
        """
        pinned = session.purposes()
        self._check_recipe(pinned, backend)
        found = {purpose: pinned.get(purpose) or self._space_now(purpose, backend) for purpose in purposes}
        return {purpose: name for purpose, name in found.items() if purpose == "like" or name is not None}

    def _check_recipe(self, pinned: dict[Purpose, str], backend: str) -> None:
        for purpose, name in pinned.items():
            now = self._space_now(purpose, backend)
            if now is not None and now != name:
                raise OutdatedIndexError(
                    f"The index is in the space {name!r}; {backend} makes vectors of {now!r} now.", remedy=REBUILD
                )

    def _space_now(self, purpose: Purpose, backend: str) -> str | None:
        """Return the space of a backend; None where it does not say, or has none that images can be compared in."""
        task = TASK_OF[purpose]
        try:
            (verdict,) = self._router.explain(task, backend=backend).verdicts
        except InvalidRequestError:
            if task == "embed":
                raise
            return None  # it is on the ladder for images only
        if task == "embed" or verdict.space is None:
            return verdict.space
        (images,) = self._router.explain("embed", backend=backend, space=verdict.space).verdicts
        return None if images.error == "not_supported" else verdict.space

    def _pinned(self, purpose: Purpose) -> tuple[str, str]:
        """Return the space of the index for a purpose, and its backend.

        Raises:
            ImageIndexError: It has none.
            OutdatedIndexError: The backend has another now.
        """
        with self._database.reading() as session:
            names, backend = session.purposes(), session.backend
        if purpose not in names or backend is None:
            what = "no photos yet" if not names else f"no vectors to compare {purpose} with: {backend} makes none"
            remedy = "Run: vision index FOLDER" if not names else "Use a backend that embeds texts, with --rebuild."
            raise ImageIndexError(f"The index {str(self.place)!r} has {what}.", remedy=remedy)
        self._check_recipe({purpose: names[purpose]}, backend)
        return names[purpose], backend


def _folder(folder: StrPath) -> str:
    """Return the real path of a folder.

    Raises:
        InvalidRequestError: It is none.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InvalidRequestError(f"{shown(folder)} is not a folder.", remedy="Pass the path of one.")
    path = os.path.realpath(folder)
    if not os.path.isdir(path):  # noqa: PTH112 — paths are texts here
        what = "is not a folder" if os.path.lexists(path) else "is not there"
        raise InvalidRequestError(f"{os.fspath(folder)} {what}.", remedy="Name a folder of photos.")
    return path
