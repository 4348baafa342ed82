"""Where checkpoints come from: a folder of the user's, the cache of the Hugging Face hub, or the hub itself.

This module decides which files are fetched and where they are found again. It must not know what they are for.
The cache is the one that every Hugging Face library shares, so what one of them has fetched need not come again.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vision_backends.backends.local.checkpoint import PARTS_OF_REVISION, layout_of
from vision_backends.errors import ModelNotFoundError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub import HfApi

    from vision_backends.backends.local.loading import Progress

__all__ = ["Hub", "HuggingFaceHub", "Source"]

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

ROOM = 1.05
"""A fetch wants this much of its size free on the disk."""

SERVER_TIMEOUT_S = 20.0

ROBOT = "SFconvertbot"
CONVERSIONS = "refs/pr"
"""The robot that offers safetensors of pickled weights, and where the cache notes the branches of offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a configured model is to be found.

    Attributes:
        name: What the configuration says.
        folder: The user's own folder; None for a model of the hub.
        repository: The model on the hub; None for a folder.
        revision: The branch, tag or commit that the configuration pins with ``name@revision``.
    """

    name: str
    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, name: str) -> Source:
        """Read a configured name; what looks like a path or is a folder is one, anything else is on the hub."""
        path = Path(name).expanduser()
        if path.is_absolute() or name.startswith(("./", "../", ".\\", "..\\")) or path.is_dir():
            return cls(name=name, folder=path.absolute())
        repository, _, revision = name.partition("@")
        if not HUB_NAME.fullmatch(repository) or ".." in repository:
            return cls(name=name, folder=path.absolute())
        return cls(name=name, repository=repository, revision=revision or None)

    @property
    def short_name(self) -> str:
        """The name for vector spaces: that on the hub, or the folder's own without what is above it."""
        return self.repository or (self.folder.name if self.folder else self.name)

    @property
    def commit(self) -> str | None:
        """The pinned commit, where the configuration names one in full."""
        return self.revision if self.revision and COMMIT.fullmatch(self.revision) else None


class Hub(Protocol):
    """Where models come from by name."""

    def cached(self, source: Source) -> tuple[Path, str] | None:
        """Return folder and commit of a model that was fetched before, perhaps in part; without network."""
        ...

    def fetch(self, source: Source, progress: Progress) -> tuple[Path, str]:
        """Fetch a model, or what is still missing of it, and return its folder and commit.

        Raises:
            ModelNotFoundError: There is no such model, or it is not open to this account.
            NotReadyError: It has no safetensors weights, the disk is full, or the server cannot be reached.
        """
        ...


class HuggingFaceHub:
    """A hub, and its cache on this machine.

    Args:
        cache: Folder of the cache; by default the one that all Hugging Face libraries share (``HF_HUB_CACHE``).
        endpoint: Address of the server; by default huggingface.co, or what ``HF_ENDPOINT`` names.
    """

    def __init__(self, *, cache: Path | None = None, endpoint: str | None = None) -> None:
        self._cache = cache
        self._endpoint = endpoint

    @property
    def cache(self) -> Path:
        """Folder of the cache."""
        if self._cache is not None:
            return self._cache
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    def cached(self, source: Source) -> tuple[Path, str] | None:
        """Return folder and commit from the cache; reads one small file."""
        if source.repository is None or find_spec("huggingface_hub") is None:
            return None
        home = self.cache / f"models--{source.repository.replace('/', '--')}"
        if source.commit is not None:
            found = [_snapshot(home, source.commit)]
        else:
            refs = [home / "refs" / (source.revision or "main")]
            if source.revision is None:
                refs += sorted((home / "refs" / CONVERSIONS).glob("*"))
            found = [_snapshot(home, _read_ref(ref)) for ref in refs]
        there = [each for each in found if each is not None]
        return next((each for each in there if _has_weights(each[0])), there[0] if there else None)

    def fetch(self, source: Source, progress: Progress) -> tuple[Path, str]:
        """Fetch weights, configuration and vocabulary; what was interrupted goes on where it stopped."""
        from huggingface_hub import errors

        if source.repository is None:
            raise NotReadyError(f"{source.name} is a folder; it cannot be fetched.")
        try:
            return self._fetch(source.repository, source, progress)
        except NotReadyError:
            raise
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            message = f"The hub has no model {source.name!r} that is open to this account."
            raise ModelNotFoundError(message, remedy="Correct its name under [local], or run: hf auth login") from error
        except Exception as error:  # the network and the disk fail in many ways
            message = f"{source.name} could not be fetched: {type(error).__name__}: {_first_line(error)}"
            raise NotReadyError(message, remedy=f"When there is a network: hf download {source.repository}") from error

    def _fetch(self, repository: str, source: Source, progress: Progress) -> tuple[Path, str]:
        from huggingface_hub import HfApi, hf_hub_download

        api = HfApi(endpoint=self._endpoint)
        ask = partial(api.model_info, repository, files_metadata=True, timeout=SERVER_TIMEOUT_S)
        revision = source.revision or "main"
        info = ask(revision=revision)
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
        if not _weights(sizes) and source.revision is None:
            revision = _conversion(api, repository) or revision
            info = ask(revision=revision)
            sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
        wanted = _wanted(repository, sizes)
        progress.total_bytes = sum(sizes[name] for name in wanted)
        _check_disk(self.cache, progress.total_bytes)
        commit = str(info.sha)
        download = partial(
            hf_hub_download, repository, cache_dir=self.cache, endpoint=self._endpoint, tqdm_class=_meter(progress)
        )
        for name in wanted:
            path = Path(download(name, revision=commit))
            folder = path.parents[name.count("/")]
        if source.commit is None:  # this notes in the cache which commit the branch stands for
            download(wanted[0], revision=revision)
        return folder, commit


def _wanted(repository: str, sizes: Iterable[str]) -> list[str]:
    """Return the files to fetch, the weights last: where they are, all else is there as well.

    Only the folder that holds the weights matters, and of its weights only one format.
    """
    names = set(sizes)
    found = _weights(names)
    if not found:
        message = f"{repository} publishes no safetensors weights; pickled ones are not loaded."
        raise NotReadyError(message, remedy="Choose another model under [local].", code="no_safetensors")
    folder = found[0].rpartition("/")[0]
    inside = {name for name in names if name.rpartition("/")[0] in {folder, ""}}
    whole = [name for name in found if name.rpartition("/")[0] == folder and not name.endswith(".json")]
    weights = whole or [name for name in inside if re.search(r"model-\d+-of-\d+\.safetensors$", name)]
    others = [name for name in inside if Path(name).suffix in PARTS_OF_REVISION and not _is_of_another_kind(name)]
    return sorted(others) + sorted(weights)


def _weights(names: Iterable[str]) -> list[str]:
    """Return the files that name or are safetensors weights, those of the outermost folder first."""
    return sorted((name for name in names if name.rpartition("/")[2] in layout_of("weights")), key=_depth)


def _conversion(api: HfApi, repository: str) -> str | None:
    """Return the branch on which the hub's own robot offers the same weights as safetensors; None without.

    Many publishers have never merged it. Only the robot's offer counts: anybody may open one. transformers does the
    same: https://github.com/huggingface/transformers/blob/main/src/transformers/safetensors_conversion.py.
    """
    offers = api.get_repo_discussions(
        repository, author=ROBOT, discussion_type="pull_request", discussion_status="open"
    )
    numbers = [offer.num for offer in offers if offer.author == ROBOT and offer.is_pull_request]
    return f"{CONVERSIONS}/{max(numbers)}" if numbers else None


def _snapshot(home: Path, commit: str | None) -> tuple[Path, str] | None:
    """Return the folder of a commit in the cache, where there is one."""
    if commit is None or not COMMIT.fullmatch(commit) or not (home / "snapshots" / commit).is_dir():
        return None
    return home / "snapshots" / commit, commit


def _read_ref(file: Path) -> str | None:
    """Return the commit that a branch stood for when it was fetched."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _has_weights(folder: Path) -> bool:
    return any(True for name in layout_of("weights") for _ in folder.rglob(name))


def _depth(name: str) -> tuple[int, str]:
    return name.count("/"), name


def _is_of_another_kind(name: str) -> bool:
    """Tell whether a file belongs to weights of other frameworks."""
    return "index.json" in name and "safetensors" not in name


def _check_disk(cache: Path, total_bytes: int) -> None:
    nearest = next(place for place in (cache, *cache.parents) if place.exists())
    free_bytes = shutil.disk_usage(nearest).free
    if free_bytes < total_bytes * ROOM:
        message = (
            f"{total_bytes / 1e6:.0f} MB are to be fetched, but {nearest} has only {free_bytes / 1e6:.0f} MB free."
        )
        raise NotReadyError(message, remedy="Make room there, or set HF_HOME to another disk.", code="disk_full")


def _meter(progress: Progress) -> type[Any]:
    """Return a progress bar for huggingface_hub that shows nothing and counts bytes."""
    from tqdm import tqdm

    class Meter(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 — tqdm's own
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})
            progress.done_bytes += int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            progress.done_bytes = min(progress.total_bytes, progress.done_bytes + int(n or 0))

    return Meter


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
