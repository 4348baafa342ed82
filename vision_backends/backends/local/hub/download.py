"""One large file from the hub into the cache, going on where an earlier try was interrupted or killed.

This module decides how what has arrived is kept and when it is believed. It must not know which files are wanted.
huggingface_hub forgets what it has of a file when it is interrupted; here it stays, under the name that its own tools
list and prune, and comes under its final name only once its checksum is right. The lock is huggingface_hub's as well,
so that neither another process of ours nor ``hf download`` fetches the same file at the same time.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from os import SEEK_END
from typing import TYPE_CHECKING, Any, BinaryIO

from vision_backends.backends.local.hub.verify import digest_of
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from pathlib import Path

    from vision_backends.backends.local.hub.listing import OfferedFile
    from vision_backends.backends.local.hub.progress import Progress

__all__ = ["Warehouse", "meter", "size_of"]

RANGE_NOT_SATISFIABLE = 416

WAITING_S = 0.5
"""How often it is looked how far another process is."""


class Warehouse:
    """Where the cache keeps the files of one model by their checksums.

    Args:
        cache: Folder of the cache.
        repository: The model's name on the hub.
    """

    def __init__(self, cache: Path, repository: str) -> None:
        self._name = f"models--{repository.replace('/', '--')}"
        self._cache = cache
        self._repository = repository

    @property
    def home(self) -> Path:
        """The model's folder in the cache."""
        return self._cache / self._name

    def snapshot(self, commit: str) -> Path:
        """Return the folder in which a commit's files have their own names."""
        return self.home / "snapshots" / commit

    def stored_bytes(self, file: OfferedFile, *, commit: str) -> int:
        """Return how much of a file is here already, whole or in part."""
        if (self.snapshot(commit) / file.name).is_file():
            return file.size_bytes
        if file.sha256 is None:
            return 0
        sizes = (size_of(self._blob(file.sha256)), size_of(self._partial(file.sha256)))
        return min(file.size_bytes, max(sizes))

    def receive(self, file: OfferedFile, *, commit: str, endpoint: str | None, progress: Progress) -> None:
        """Fetch what is missing of a file, once however many processes want it.

        Args:
            file: What is wanted; one with a checksum.
            commit: The version that it belongs to.
            endpoint: Address of the hub; None for the usual one.
            progress: Is told how far it is; what is here already counts as done.

        Raises:
            NotReadyError: What arrived is not what the hub had announced; it is thrown away.
        """
        from filelock import Timeout
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # lazy exports

        sha256 = str(file.sha256)
        blob, incomplete = self._blob(sha256), self._partial(sha256)
        before = progress.done_bytes - self.stored_bytes(file, commit=commit)
        lock = self._cache / ".locks" / self._name / f"{sha256}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(WeakFileLock(lock, timeout=WAITING_S))
                    break
                except Timeout:
                    progress.done_bytes = before + self.stored_bytes(file, commit=commit)
            if blob.is_file():
                progress.done_bytes = before + file.size_bytes
                return
            progress.done_bytes = before
            with incomplete.open("r+b" if incomplete.is_file() else "w+b") as arriving:
                url = hf_hub_url(self._repository, file.name, revision=commit, endpoint=endpoint)
                _go_on(url, arriving, size_bytes=file.size_bytes, progress=progress)
            progress.done_bytes = before + (file.size_bytes or size_of(incomplete))
            if digest_of(incomplete, sha256) != sha256:
                incomplete.unlink()
                message = f"{file.name} of {self._repository} arrived damaged: its sha256 is not the announced one."
                raise NotReadyError(message, remedy="Fetch it again.", code="damaged")
            incomplete.replace(blob)

    def _blob(self, sha256: str) -> Path:
        return self.home / "blobs" / sha256

    def _partial(self, sha256: str) -> Path:
        return self.home / "blobs" / f"{sha256}.incomplete"


def _go_on(url: str, arriving: BinaryIO, *, size_bytes: int, progress: Progress) -> None:
    """Fetch what is missing at the end of a file, or all of it where what is there is not the beginning.

    Args:
        url: Where it comes from.
        arriving: The file.
        size_bytes: How long it will be; 0 where that is not known.
        progress: Is told how far it is.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazy exports

    here = arriving.seek(0, SEEK_END)
    if size_bytes:
        here = arriving.truncate(min(here, size_bytes))
    fetch = partial(
        http_get,
        url,
        arriving,
        headers=build_hf_headers(),
        expected_size=size_bytes or None,
        tqdm_class=meter(progress, learn=not size_bytes),
    )
    try:
        fetch(resume_size=arriving.seek(here))
    except HfHubHTTPError as error:
        if not here or error.response.status_code != RANGE_NOT_SATISFIABLE:
            raise
        fetch(resume_size=arriving.seek(arriving.truncate(0)))


def meter(progress: Progress, *, learn: bool = False) -> type[Any]:
    """Return a progress bar for huggingface_hub that shows nothing and counts bytes.

    Args:
        progress: Where they are counted.
        learn: Whether only the reply tells how many there will be.
    """
    from tqdm import tqdm

    class Meter(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 — tqdm's own
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})
            progress.total_bytes += int(options.get("total") or 0) if learn else 0
            progress.done_bytes += int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            progress.done_bytes = min(progress.total_bytes, progress.done_bytes + int(n or 0))

    return Meter


def size_of(file: Path) -> int:
    """Return the size of a file; 0 of one that is not there, or a link into nothing."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
