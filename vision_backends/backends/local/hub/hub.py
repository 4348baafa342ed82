"""Where checkpoints come from: a folder of the user's, the cache of the Hugging Face hub, or the hub itself.

This module decides which files are fetched and where they are found again. It must not know what they are for.
The cache is the one that every Hugging Face library shares, so what one of them has fetched need not come again.
"""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from vision_backends.backends.local.hub.checkpoint import check_settings, layout_of
from vision_backends.backends.local.hub.download import Warehouse, meter
from vision_backends.backends.local.hub.listing import Offer, ask_for_offer
from vision_backends.backends.local.hub.source import COMMIT, Source
from vision_backends.backends.local.hub.verify import digest_of
from vision_backends.errors import ModelNotFoundError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vision_backends.backends.local.hub.progress import Progress

__all__ = ["Hub", "HuggingFaceHub", "check_disk", "free_disk_bytes"]


CONVERSION = ".safetensors-conversion"
"""Here the cache notes which conversion was chosen for a model without safetensors; no branch may be called so."""

ROOM = 1.05
"""A fetch wants this much of its size free on the disk."""


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

    @property
    def usable(self) -> bool:
        """Whether huggingface_hub is installed; without it there is neither a cache nor a way to fetch anything."""
        return find_spec("huggingface_hub") is not None

    def cached(self, source: Source) -> tuple[Path, str] | None:
        """Return folder and commit from the cache; reads one small file."""
        if source.repository is None or not self.usable:
            return None
        home = Warehouse(self.cache, source.repository).home
        if source.commit is not None:
            found = [_snapshot(home, source.commit)]
        else:
            refs = [source.revision] if source.revision else ["main", CONVERSION]
            found = [_snapshot(home, _read_ref(home / "refs" / ref)) for ref in refs]
        there = [each for each in found if each is not None]
        return next((each for each in there if _has_weights(each[0])), there[0] if there else None)

    def offer(self, source: Source) -> Offer:
        """Ask the hub what it has under a name, before anything is fetched.

        Raises:
            ModelNotFoundError: There is no such model, or it is not open to this account.
            NotReadyError: It has no safetensors weights, or the server cannot be reached.
        """
        if source.repository is None:
            raise NotReadyError(f"{source.name} is a folder; it cannot be fetched.")
        with _translated(source.name, self.cache):
            return ask_for_offer(source, source.repository, endpoint=self._endpoint)

    def missing_bytes(self, offer: Offer) -> int:
        """Return how much of a model is not in the cache yet; what an interrupted fetch has left there counts."""
        stock = Warehouse(self.cache, offer.repository)
        return sum(file.size_bytes - stock.stored_bytes(file, commit=offer.commit) for file in offer.files)

    def discard_damaged(self, offer: Offer, progress: Progress) -> list[str]:
        """Throw away what is in the cache but not as the hub has it, so that it is missing; return the files' names."""
        stock = Warehouse(self.cache, offer.repository)
        folder = stock.snapshot(offer.commit)
        here = [(file, folder / file.name) for file in offer.files if (folder / file.name).is_file()]
        progress.total_bytes = sum(path.stat().st_size for _, path in here)
        bad = [(file, path) for file, path in here if file.digest and _is_damaged(path, file.digest, progress)]
        for _, path in bad:
            if path.is_symlink():
                blob = path.parent / path.readlink()  # one step: it may itself be a link to a shared one
                if blob.parent.resolve() == (stock.home / "blobs").resolve():
                    blob.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return [file.name for file, _ in bad]

    def fetch(self, source: Source, progress: Progress) -> tuple[Path, str]:
        """Fetch weights, configuration and vocabulary; what was interrupted goes on where it stopped."""
        return self.take(self.offer(source), progress)

    def take(self, offer: Offer, progress: Progress) -> tuple[Path, str]:
        """Fetch what was offered, as `Hub.fetch` does; the weights last, and only if the small files allow it."""
        from huggingface_hub import hf_hub_download

        check_disk(self.cache, self.missing_bytes(offer))
        stock = Warehouse(self.cache, offer.repository)
        download = partial(
            hf_hub_download, offer.repository, cache_dir=self.cache, endpoint=self._endpoint, tqdm_class=meter(progress)
        )
        progress.total_bytes = offer.size_bytes
        progress.done_bytes = offer.size_bytes - self.missing_bytes(offer)
        folder = stock.snapshot(offer.commit)
        with _translated(offer.repository, self.cache):
            _unlink_dangling(folder)
            for files in (offer.settings, offer.weights):
                for file in files:
                    if file.sha256 is not None and not (folder / file.name).is_file():
                        stock.receive(file, commit=offer.commit, endpoint=self._endpoint, progress=progress)
                    download(file.name, revision=offer.commit)
                if files is offer.settings:
                    check_settings(folder, name=offer.repository, weights=[file.name for file in offer.weights])
            for ref in (offer.branch, CONVERSION) if offer.converted else (offer.branch,):
                if ref != offer.commit:
                    _write_ref(stock.home / "refs" / ref, offer.commit)
        return folder, offer.commit


def check_disk(cache: Path, wanted_bytes: int) -> None:
    """Return if there is room for a fetch.

    Raises:
        NotReadyError: There is not; says how much is free.
    """
    free_bytes = free_disk_bytes(cache)
    if free_bytes < wanted_bytes * ROOM:
        message = f"{wanted_bytes / 1e6:.0f} MB are to be fetched, but {cache} has room for {free_bytes / 1e6:.0f} MB."
        raise NotReadyError(message, remedy="Make room there, or set HF_HOME to another disk.", code="disk_full")


def free_disk_bytes(cache: Path) -> int:
    """Return how much room there is where the cache is or will be."""
    nearest = next(place for place in (cache, *cache.parents) if place.exists())
    return shutil.disk_usage(nearest).free


@contextmanager
def _translated(name: str, cache: Path) -> Iterator[None]:
    """Name what the hub, the network or the disk refuses, and what to do about it."""
    from huggingface_hub import errors

    try:
        yield
    except NotReadyError:
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        message = f"The hub has no model {name!r} that is open to this account."
        raise ModelNotFoundError(message, remedy="Correct its name under [local], or run: hf auth login") from error
    except Exception as error:  # the network and the disk fail in many ways
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = f"The disk of {cache} is full; what has arrived of {name} is kept."
            raise NotReadyError(message, remedy="Make room there, and fetch it again.", code="disk_full") from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            message = f"The cache {cache} cannot be written: {error.strerror}: {error.filename}."
            remedy = "Make it writable, or set HF_HOME to another folder."
            raise NotReadyError(message, remedy=remedy, code="cache_not_writable") from error
        message = f"{name} could not be fetched: {type(error).__name__}: {_first_line(error).rstrip('.')}."
        raise NotReadyError(message, remedy=f"When there is a network: vision models pull {name}") from error


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


def _write_ref(file: Path, commit: str) -> None:
    """Note which commit a branch stood for when it was fetched: it may have moved on since, and that is not here.

    As huggingface_hub does it, so that nobody reads half of it.
    """
    if _read_ref(file) != commit:
        file.parent.mkdir(parents=True, exist_ok=True)
        arriving = file.with_name(f"{file.name}.{uuid4().hex[:8]}.tmp")
        arriving.write_text(commit, encoding="ascii")
        arriving.replace(file)


def _has_weights(folder: Path) -> bool:
    return any(True for name in layout_of("weights") for _ in folder.rglob(name))


def _is_damaged(path: Path, digest: str, progress: Progress) -> bool:
    try:
        return digest_of(path, digest, progress) != digest
    except OSError:  # the disk cannot read it any more
        return True


def _unlink_dangling(folder: Path) -> None:
    """Remove links whose blob is gone; revisions share blobs, and whoever removes one may leave another's link."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
