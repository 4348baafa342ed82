"""Whether every file of a model is here and as it was published.

This module decides what a sound file is. It must not know where models come from, and uses no network: the cache names
each file by the checksum that the hub has recorded, sha256 for large files and git's sha1 for small ones.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vision_backends.backends.local.hub.checkpoint import flaws_of_files
from vision_backends.backends.local.hub.progress import Progress
from vision_backends.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DIGEST", "FileCheck", "digest_of", "is_as_published", "verify_files"]

DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """What is known about one file.

    Attributes:
        file: Its path within the model.
        state: ``"sound"``: its checksum matches; ``"unrecorded"``: no checksum is recorded, and nothing else is wrong;
            ``"damaged"`` or ``"missing"``.
        detail: What is wrong, or what was compared.
        size_bytes: Its size; None where it is missing.
    """

    file: str
    state: Literal["sound", "unrecorded", "damaged", "missing"]
    detail: str
    size_bytes: int | None = None

    @property
    def good(self) -> bool:
        """Whether it can be used."""
        return self.state in {"sound", "unrecorded"}


def verify_files(folder: Path, *, progress: Progress) -> Iterator[FileCheck]:
    """Read every file of a model and compare it with its checksum, and safetensors with their own headers as well.

    Args:
        folder: A snapshot in the cache, or any other folder with a checkpoint.
        progress: Updated with how much has been read.
    """
    flaws = flaws_of_files(folder)
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    progress.total_bytes = sum(path.stat().st_size for path in paths.values() if path.exists())
    for name, path in paths.items():
        yield _verdict(name, path, flaws.pop(name, None), progress)
    for name, flaw in flaws.items():
        yield FileCheck(file=name, state="missing", detail=flaw)


def is_as_published(path: Path) -> bool:
    """Tell whether a file in the hub's cache has the checksum by which the cache names it."""
    return _verdict(path.name, path, None, Progress()).state == "sound"


def digest_of(path: Path, like: str, progress: Progress | None = None) -> str:
    """Return the checksum of a file: sha256, or git's sha1 if ``like`` is one.

    Args:
        path: The file.
        like: A checksum of the kind that is wanted.
        progress: Updated with how much has been read.
    """
    if len(like) == 64:
        digest = hashlib.sha256()
    else:  # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open_regular(path) as (file, _):
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress.done_bytes += len(chunk)
    return digest.hexdigest()


def _verdict(name: str, path: Path, flaw: str | None, progress: Progress) -> FileCheck:
    if not path.exists():
        return FileCheck(file=name, state="missing", detail="the cache links to a file that is gone")
    if not path.is_file():
        return FileCheck(file=name, state="damaged", detail="it is not a regular file")
    size_bytes = path.stat().st_size
    recorded = (
        path.readlink().name if path.is_symlink() else ""
    )  # one step: a blob may itself be a link to a shared one
    if flaw is None and DIGEST.fullmatch(recorded):
        try:
            found = digest_of(path, recorded, progress)
        except OSError as error:
            return FileCheck(file=name, state="damaged", detail=f"it cannot be read: {error.strerror or error}")
        kind = "sha256" if len(recorded) == 64 else "git's sha1"
        if found == recorded:
            return FileCheck(file=name, state="sound", detail=f"{kind} {found[:12]}", size_bytes=size_bytes)
        flaw = f"its {kind} is {found[:12]}…, not {recorded[:12]}…"
    else:
        progress.done_bytes += size_bytes
    if flaw is not None:
        return FileCheck(file=name, state="damaged", detail=flaw, size_bytes=size_bytes)
    return FileCheck(file=name, state="unrecorded", detail="no checksum is recorded", size_bytes=size_bytes)
