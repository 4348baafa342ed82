"""Facts that were measured once on this machine, and what was converted, valid until something about it changes.

This module decides where they are kept and when they no longer hold. It must not know what was measured. If anything is
wrong with the files, or the user has no folder for them, that is as if nothing had been kept: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.config.user_folders import user_folder
from vision_backends.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["TuningCache", "processor_name"]


DRAFT = re.compile(r"\.(draft|convert)-.*|.*-[0-9a-f]{16}")
"""Names of facts and conversions in progress, and of folders beside facts."""

MOST_BYTES = 100_000
"""A fact has some hundred."""

WORK_S = 24 * 3600.0
"""Anything in progress for longer than this was abandoned."""


class TuningCache:
    """A folder of small facts, each valid for one state of the machine.

    Args:
        folder: Where; by default the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def configured(self) -> Path | None:
        """The folder that is configured; None for the user's own."""
        return self._folder

    @property
    def folder(self) -> Path:
        """Where facts are, and where larger things may be kept beside them.

        Raises:
            FileNotFoundError: None is configured, and the user has no cache folder.
        """
        folder = self._folder or user_folder("cache")
        if folder is None:
            raise FileNotFoundError("this user has no home to keep anything in: set HOME or XDG_CACHE_HOME")
        return folder if self._folder else folder / "local"

    def read(self, name: str, *, state: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a fact, if it was written in this state.

        Args:
            name: What it is about.
            state: Everything that it depends on, as JSON-able values.
        """
        try:
            kept = _kept_in(self._file(name, state))
        except FileNotFoundError:
            return None
        fact = kept.get("fact")
        return fact if kept.get("state") == _plain(state) and isinstance(fact, dict) else None

    def write(self, name: str, fact: Mapping[str, Any], *, state: Mapping[str, Any]) -> None:
        """Keep a fact, if the folder can be written to; readers never see half of it."""
        with suppress(OSError):
            file = self._file(name, state)
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".draft-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as writing:
                    json.dump({"fact": fact, "state": state}, writing, indent=1)
                Path(draft).replace(file)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise

    def forget(self, about: Callable[[dict[str, Any]], bool]) -> int:
        """Remove facts, the folders beside them, and whatever was abandoned in progress; return the bytes freed.

        Args:
            about: Tells from the state of a fact whether it is to be removed.
        """
        gone = self._concerned(about)
        freed = sum(_size(path) for path in gone)
        for path in gone:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return freed

    def kept_bytes(self, about: Callable[[dict[str, Any]], bool]) -> int:
        """Return how many bytes `forget` would free."""
        return sum(_size(path) for path in self._concerned(about))

    def _concerned(self, about: Callable[[dict[str, Any]], bool]) -> list[Path]:
        try:
            folder = self.folder
        except FileNotFoundError:
            return []
        facts = [*folder.glob("*.json")]
        gone = [file for file in facts if about(_state_in(file))]
        known = {file.with_suffix("") for file in facts}
        ours = (path for path in folder.glob("*") if DRAFT.fullmatch(path.name))
        killed = [path for path in ours if path not in known and _age_s(path) > WORK_S]
        return [*gone, *(file.with_suffix("") for file in gone), *killed]

    def place(self, name: str, *, state: Mapping[str, Any]) -> Path:
        """Return the folder for what is too large for a fact; it may not exist yet. Errors as `folder`."""
        return self._file(name, state).with_suffix("")

    def _file(self, name: str, state: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}-{digest}.json"


def processor_name() -> str:
    """Return the processor's name for itself; measurements on another one do not hold."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        keys = ("model name", "cpu family", "model\t", "CPU part")
        found = {line.split(":", 1)[1].strip(): None for line in lines if line.startswith(keys) and ":" in line}
        if found:
            return " ".join(found)
    return platform.processor() or platform.machine()


def _kept_in(file: Path) -> dict[str, Any]:
    """Return what is in a file; nothing where that is not what was written."""
    with suppress(OSError, ValueError, RecursionError):
        kept = json.loads(read_regular(file, max_bytes=MOST_BYTES))
        if isinstance(kept, dict):
            return kept
    return {}


def _state_in(file: Path) -> dict[str, Any]:
    state = _kept_in(file).get("state")
    return state if isinstance(state, dict) else {}


def _size(path: Path) -> int:
    with suppress(OSError):
        return sum(each.stat().st_size for each in (path, *path.rglob("*")) if each.is_file())
    return 0


def _age_s(path: Path) -> float:
    with suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _plain(value: object) -> object:
    return json.loads(json.dumps(value))
