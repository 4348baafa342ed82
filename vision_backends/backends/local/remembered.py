"""What was measured or made once on this machine and holds until something about it changes.

This module decides where that is kept and when it no longer holds. It must not know what was measured. Whatever goes
wrong with the files is as if nothing had been kept: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Remembered", "processor_name"]


class Remembered:
    """A folder of small facts, each valid for one state of the machine.

    Args:
        folder: Where; by default the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where facts are, and where larger things may be kept beside them."""
        if self._folder is not None:
            return self._folder
        from platformdirs import user_cache_path

        return user_cache_path("vision-backends") / "local"

    def read(self, name: str, *, state: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a fact, if it was written in this state.

        Args:
            name: What it is about.
            state: Everything that it depends on, as JSON-able values.
        """
        with suppress(OSError, ValueError):
            kept = json.loads(self._file(name, state).read_text(encoding="utf-8"))
            if isinstance(kept, dict) and kept.get("state") == _plain(state) and isinstance(kept.get("fact"), dict):
                return dict(kept["fact"])
        return None

    def write(self, name: str, fact: Mapping[str, Any], *, state: Mapping[str, Any]) -> None:
        """Keep a fact, or not where nothing can be written; readers never see half of it."""
        file = self._file(name, state)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".json")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as writing:
                    json.dump({"fact": fact, "state": state}, writing, indent=1)
                Path(draft).replace(file)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise

    def place(self, name: str, *, state: Mapping[str, Any]) -> Path:
        """Return the folder for what is too large for a fact; it need not exist."""
        return self._file(name, state).with_suffix("")

    def _file(self, name: str, state: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}-{digest}.json"


def processor_name() -> str:
    """Return what the processor calls itself; measurements on another say nothing."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        keys = ("model name", "cpu family", "model\t", "CPU part")
        found = {line.split(":", 1)[1].strip(): None for line in lines if line.startswith(keys) and ":" in line}
        if found:
            return " ".join(found)
    return platform.processor() or platform.machine()


def _plain(value: object) -> object:
    return json.loads(json.dumps(value))
