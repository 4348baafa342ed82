"""Which files of a model are on this machine, and how they are removed again.

This module decides what counts as installed and what may be removed: only what is in the hub's cache, never a folder of
the user's own. It must not know how models are fetched.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vision_backends.backends.local.hub.checkpoint import read_checkpoint
from vision_backends.backends.local.hub.flaws import FETCHED_AGAIN
from vision_backends.backends.local.runtime.tuning_cache import TuningCache
from vision_backends.errors import InvalidRequestError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from huggingface_hub import CachedRevisionInfo, DeleteCacheStrategy

    from vision_backends.backends.local.hub.hub import HuggingFaceHub
    from vision_backends.backends.local.hub.source import Source

__all__ = ["Holding", "Removal", "find_holding", "plan_removal"]

LEAST_OF_COMMIT = 7
"""The fewest digits that identify a commit: as many as git shortens one to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is on this machine of one model.

    Attributes:
        state: ``"installed"``; ``"partly"``: files are missing or truncated; ``"refused"``: it may not be used;
            ``"absent"``.
        folder: Where it is.
        revision: Its commit, or an id derived from its content.
        size_bytes: Disk space that its files take.
        flaw: Why it cannot be used as it is, with the remedy.
    """

    state: Literal["installed", "partly", "refused", "absent"]
    folder: Path | None = None
    revision: str | None = None
    size_bytes: int = 0
    flaw: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What would be removed from the cache.

    Attributes:
        name: The model on the hub.
        revisions: Commits, each with the branches and tags that point to it.
        freed_bytes: Disk space that this frees.
        strategy: huggingface_hub's own plan.
        remembered: Where its converted parts are kept, which are removed as well.
    """

    name: str
    revisions: dict[str, tuple[str, ...]]
    freed_bytes: int
    strategy: DeleteCacheStrategy
    remembered: TuningCache

    def concerns(self, state: Mapping[str, Any]) -> bool:
        """Tell whether something was converted from what is removed; without revisions, that is the whole model."""
        model, _, _ = str(state.get("model")).partition("@")
        repository, _, _ = self.name.partition("@")
        return model == repository and (not self.revisions or str(state.get("revision")) in self.revisions)

    def execute(self) -> None:
        """Delete it.

        Raises:
            NotReadyError: Something could not be deleted.
        """
        with suppress(OSError):
            self.strategy.execute()
        left = [str(folder) for folder in (*self.strategy.repos, *self.strategy.snapshots) if folder.exists()]
        if left:
            message = f"{self.name} could not be removed: {', '.join(left)}."
            raise NotReadyError(message, remedy="Check the permissions of that folder.", code="cache_not_writable")
        self.remembered.forget(self.concerns)


def find_holding(source: Source, hub: HuggingFaceHub) -> Holding:
    """Look for a model, without using the network; only small files and the headers of weights are read."""
    if source.folder is not None:
        found: tuple[Path, str | None] | None = (source.folder, None) if source.folder_exists else None
    else:
        try:
            found = hub.cached(source)
        except NotReadyError as flaw:  # there is no cache
            return Holding(state="absent", flaw=str(flaw))
    if found is None:
        arrived_bytes = _arrived_bytes(source, hub)
        return Holding(state="partly" if arrived_bytes else "absent", size_bytes=arrived_bytes)
    folder, commit = found
    held = Holding(state="installed", folder=folder, revision=commit, size_bytes=_size(folder))
    try:
        return replace(held, revision=read_checkpoint(folder, name=source.name, revision=commit).revision)
    except NotReadyError as flaw:
        if flaw.code not in FETCHED_AGAIN:
            return replace(held, state="refused", flaw=str(flaw))
        return replace(held, state="partly", flaw=str(flaw))


def plan_removal(source: Source, hub: HuggingFaceHub, remembered: TuningCache | None = None) -> Removal:
    """Plan the removal of all revisions of a model, or of the one after an ``@``, and of what was converted from them.

    Args:
        source: The model.
        hub: Whose cache it is removed from.
        remembered: Where converted parts are kept; by default in the user's cache folder.

    Raises:
        InvalidRequestError: It is a folder of the user's own, or not in the cache.
    """
    if source.repository is None:
        message = f"{source.name} is a folder of your own; only models fetched from the hub can be removed."
        raise InvalidRequestError(message, remedy=f"Delete {source.folder} yourself.")
    strategy, revisions = _plan(source, hub)
    removal = Removal(
        name=source.name,
        revisions=revisions,
        freed_bytes=strategy.expected_freed_size,
        strategy=strategy,
        remembered=remembered or TuningCache(),
    )
    return replace(removal, freed_bytes=removal.freed_bytes + removal.remembered.kept_bytes(removal.concerns))


def _plan(source: Source, hub: HuggingFaceHub) -> tuple[DeleteCacheStrategy, dict[str, tuple[str, ...]]]:
    """Return the plan for the cache, and the commits that it deletes with their branches and tags."""
    from huggingface_hub import DeleteCacheStrategy, scan_cache_dir

    home = hub.home(str(source.repository))
    if not home.is_dir():
        raise InvalidRequestError(f"{source.name} is not in the cache {hub.cache}.", remedy="See: vision models list")
    cache = scan_cache_dir(hub.cache)
    repository = next((each for each in cache.repos if each.repo_path.resolve() == home.resolve()), None)
    if repository is None and source.revision is not None:
        message = f"The folder {home} is damaged, so its revisions cannot be told apart."
        raise InvalidRequestError(message, remedy=f"Remove all of them: vision models remove {source.repository}")
    if repository is None or (source.revision is None and not repository.revisions):  # its fetch never got far
        none: frozenset[Path] = frozenset()
        whole = {"repos": frozenset({home}), "blobs": none, "refs": none, "snapshots": none}
        return DeleteCacheStrategy(expected_freed_size=_size(home / "blobs"), cache_dir=hub.cache, **whole), {}
    chosen = [each for each in repository.revisions if _is_meant(source.revision, each)]
    if not chosen:
        message = f"{source.repository} has no revision {source.revision!r} in the cache {hub.cache}."
        raise InvalidRequestError(message, remedy=f"See: vision models show {source.repository}")
    # Clones of one repository share commits: only this one's may go.
    strategy = replace(cache, repos=frozenset({repository})).delete_revisions(*(each.commit_hash for each in chosen))
    return strategy, {each.commit_hash: tuple(sorted(each.refs)) for each in chosen}


def _is_meant(wanted: str | None, revision: CachedRevisionInfo) -> bool:
    if wanted is None or wanted in revision.refs:
        return True
    return len(wanted) >= LEAST_OF_COMMIT and revision.commit_hash.startswith(wanted)


def _arrived_bytes(source: Source, hub: HuggingFaceHub) -> int:
    """Return the size of what an interrupted fetch left behind; nothing records which revision it belongs to."""
    if source.repository is None or source.revision is not None or not hub.usable:
        return 0
    return _size(hub.home(source.repository) / "blobs")


def _size(folder: Path) -> int:
    """Return the size of all files below a folder; dangling links, and files that vanish meanwhile, count as 0."""
    size_bytes = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size_bytes += 0 if path.is_dir() else path.stat().st_size
    return size_bytes
