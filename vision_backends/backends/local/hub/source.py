"""Where a model comes from: a folder, or a repository of the hub at a revision.

This module decides how such a name is read. It must not know how anything is fetched.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMMIT", "HUB_NAME", "Source"]


HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)
"""The names that huggingface_hub accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a configured model comes from.

    Attributes:
        name: The name as configured.
        folder: The user's own folder; None for a model on the hub.
        repository: The model on the hub; None for a folder.
        revision: The branch, tag or commit that the configuration pins with ``name@revision``.
    """

    name: str
    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, name: str) -> Source:
        """Parse a configured name; what looks like a path is one, anything else is on the hub.

        A folder of the same name in the working directory makes no difference: anybody may have put it there.
        """
        path = Path(name)
        with suppress(RuntimeError):  # there is no such user
            path = path.expanduser()
        if path.is_absolute() or name.startswith("."):
            return cls(name=name, folder=path.absolute())
        repository, _, revision = name.partition("@")
        if not HUB_NAME.fullmatch(repository) or ".." in name or revision.startswith("/"):  # these become paths
            return cls(name=name, folder=path.absolute())
        return cls(name=name, repository=repository, revision=revision or None)

    @property
    def short_name(self) -> str:
        """The name for vector spaces: the one on the hub, or the folder's own without its parents."""
        return self.repository or (self.folder.name if self.folder else self.name)

    @property
    def folder_exists(self) -> bool:
        """Whether it is a folder of the user's own, and exists."""
        return self.folder is not None and _is_dir(self.folder)

    @property
    def hint(self) -> str:
        """What to do for a folder of the same name in the working directory, which is not meant; usually empty."""
        is_there = self.folder is None and _is_dir(Path(self.name))
        return f"; for the folder here, write ./{self.name} in [local]" if is_there else ""

    @property
    def commit(self) -> str | None:
        """The pinned commit, where the configuration names one in full."""
        return self.revision if self.revision and COMMIT.fullmatch(self.revision) else None


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # for instance, its name is too long
        return False


COMMIT = re.compile(r"[0-9a-f]{40}")
