"""Which configuration files a user has read and trusts: a path and the hash of a content, each in a file of its own.

This module decides when a file counts as trusted: as long as it lies where it lay and says what it said. It must not
know what a file may set without that.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vision_backends.config.private_file import read_private_file
from vision_backends.config.user_folders import user_folder
from vision_backends.errors import ConfigError

__all__ = ["TrustedFile", "TrustedFiles", "Verdict"]

Verdict = Literal["trusted", "changed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedFile:
    """One file that is trusted.

    Attributes:
        path: Where it lies; its folder has no symbolic links.
        sha256: Hash of the content that was trusted.
    """

    path: Path
    sha256: str


class TrustedFiles:
    """The files that the user trusts.

    Args:
        folder: Where that is kept; by default the user's data folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        data = user_folder("data")
        self._folder = folder or (data and data / "trusted")

    def verdict(self, path: Path, sha256: str) -> Verdict:
        """Return whether a file whose content has this hash is trusted, or was before it changed."""
        known = self._read(self._note_of(path))
        if known is None:
            return "unknown"
        return "trusted" if known.sha256 == sha256 else "changed"

    def add(self, path: Path, sha256: str) -> TrustedFile:
        """Trust a file as long as its content has this hash.

        Raises:
            ConfigError: That cannot be kept.
        """
        trusted = TrustedFile(path=_place(path), sha256=sha256)
        note = self._note_of(path)
        if note is None:
            raise ConfigError("There is no home folder to keep trust in.", remedy="Set HOME to an absolute path.")
        try:
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, unfinished = tempfile.mkstemp(dir=note.parent, prefix=".")  # which nobody else may read
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump({"path": str(trusted.path), "sha256": trusted.sha256}, file)
            Path(unfinished).replace(note)
        except OSError as error:
            raise ConfigError(f"{str(note.parent)!r} cannot be written: {error.strerror}.") from error
        return trusted

    def remove(self, path: Path) -> bool:
        """Trust a file no longer; return whether it was known."""
        note = self._note_of(path)
        try:
            if note is None or not note.exists():
                return False
            note.unlink()
        except OSError as error:
            raise ConfigError(f"{str(note)!r} cannot be removed: {error.strerror}.") from error
        return True

    def all(self) -> list[TrustedFile]:
        """Return all files that were trusted, by path, whatever has become of them."""
        notes = [] if self._folder is None else list(self._folder.glob("*.json"))
        return sorted(filter(None, map(self._read, notes)), key=lambda each: each.path)

    def _note_of(self, path: Path) -> Path | None:
        """Return the file in which trust in a path is kept."""
        name = hashlib.sha256(os.fsencode(_place(path))).hexdigest()
        return self._folder and self._folder / f"{name}.json"

    def _read(self, note: Path | None) -> TrustedFile | None:
        """Return what a note says; one that is damaged says nothing."""
        if note is None:
            return None
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            table = json.loads(read_private_file(note))
            path, sha256 = Path(table["path"]), table["sha256"]
            if note == self._note_of(path) and isinstance(sha256, str):
                return TrustedFile(path=path, sha256=sha256)
        return None


def _place(path: Path) -> Path:
    """Return where a file lies: what it refers to is taken from there, so a link to it elsewhere is another file."""
    return Path(os.path.realpath(path.parent)) / path.name
