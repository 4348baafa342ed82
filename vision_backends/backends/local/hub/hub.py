"""Models from the Hugging Face hub and its cache, the one that every Hugging Face library shares.

This module decides in which order files are fetched, when they are trusted, and where they are found again. It must not
know what they are for. huggingface_hub fetches them one by one in the calling thread: with the thread pool of its
`snapshot_download`, Ctrl-C and the interpreter's exit would wait until every file in flight has arrived.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from vision_backends.backends.local.hub.checkpoint import check_settings, layout_of
from vision_backends.backends.local.hub.client import strict_client
from vision_backends.backends.local.hub.listing import Offer, OfferedFile, ask_for_offer
from vision_backends.backends.local.hub.progress import Progress, meter
from vision_backends.backends.local.hub.source import COMMIT, Source
from vision_backends.backends.local.hub.verify import digest_of
from vision_backends.errors import ModelNotFoundError, NotReadyError
from vision_backends.regular_file import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Hub", "HuggingFaceHub", "check_disk", "free_disk_bytes"]

_log = logging.getLogger(__name__)

MOST_REF_BYTES = 1_000
"""More than the name of a commit takes."""


CONVERSION = ".safetensors-conversion"
"""The ref that records which conversion was chosen for a model without safetensors; no branch can have this name."""

LOCK_POLL_S = 0.2
"""How often a file is looked at that another process is fetching."""

LOCKED_RETRY_S = 30.0
"""When a fetch is tried again that another process was in the way of."""

ROOM = 1.05
"""Free disk space that a fetch needs, as a multiple of its size."""


class Hub(Protocol):
    """Where models are fetched from by name."""

    def cached(self, source: Source) -> tuple[Path, str] | None:
        """Return folder and commit of a model that was fetched before, perhaps in part; uses no network."""
        ...

    def fetch(self, source: Source, progress: Progress) -> tuple[Path, str]:
        """Fetch a model, or what is still missing of it, and return its folder and commit.

        Raises:
            ModelNotFoundError: There is no such model, or this account has no access to it.
            NotReadyError: It has no safetensors weights, the disk is full, or the server cannot be reached.
        """
        ...


class HuggingFaceHub:
    """A hub, and its cache on this machine.

    Args:
        cache: Folder of the cache; by default the one that all Hugging Face libraries share (``HF_HUB_CACHE``).
        endpoint: Address of the server; by default huggingface.co, or what ``HF_ENDPOINT`` names.
        stalled_s: Seconds after which another process that holds the lock of a file, and fetches none of it, is not
            waited for any longer.
    """

    def __init__(self, *, cache: Path | None = None, endpoint: str | None = None, stalled_s: float = 30.0) -> None:
        self._cache = cache
        self._endpoint = endpoint
        self._stalled_s = stalled_s

    @property
    def cache(self) -> Path:
        """Folder of the cache.

        Raises:
            NotReadyError: The user has no home, and none is configured.
        """
        if self._cache is not None:
            return self._cache
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE)
        if folder.parts[:1] == ("~",):  # it would lie in the working directory, where anybody may have put files
            message = "There is no folder for models by name: this user has no home directory."
            raise NotReadyError(message, remedy="Set HF_HOME to a folder, or HOME.", code="no_home")
        return folder

    @property
    def usable(self) -> bool:
        """Whether huggingface_hub is installed; without it there is neither a cache nor a way to fetch anything."""
        return find_spec("huggingface_hub") is not None

    def home(self, repository: str) -> Path:
        """Return the folder of a model in the cache."""
        return self.cache / f"models--{repository.replace('/', '--')}"

    def cached(self, source: Source) -> tuple[Path, str] | None:
        """Return folder and commit from the cache; reads one small file."""
        if source.repository is None or not self.usable:
            return None
        home = self.home(source.repository)
        refs = [source.revision] if source.revision else ["main", CONVERSION]
        commits = [source.commit] if source.commit else [_read_ref(home / "refs" / ref) for ref in refs]
        found = [(home / "snapshots" / commit, commit) for commit in commits if commit]
        there = [(folder, commit) for folder, commit in found if folder.is_dir()]
        return next((each for each in there if _has_weights(each[0])), there[0] if there else None)

    def offer(self, source: Source) -> Offer:
        """Ask the hub what it has under a name, before anything is fetched.

        Raises:
            ModelNotFoundError: There is no such model, or this account has no access to it.
            NotReadyError: It has no safetensors weights, or the server cannot be reached.
        """
        if source.repository is None:
            raise NotReadyError(f"{source.name} is a folder; it cannot be fetched.")
        with _translated(source.name, self.cache), strict_client():
            return ask_for_offer(source, source.repository, endpoint=self._endpoint)

    def missing(self, offer: Offer) -> list[OfferedFile]:
        """Return the files of a model that are not in the cache."""
        return [file for file in offer.files if self._place(offer, file) is None]

    def room_bytes(self, offer: Offer, damaged: Sequence[OfferedFile] = ()) -> int:
        """Return how much disk space fetching a model takes.

        A file that another revision has takes none, unless the disk has no symbolic links: then it is copied.

        Args:
            offer: The model.
            damaged: Those of its files that have to be fetched again.
        """
        lacking = [*self.missing(offer), *damaged]
        folder = self._snapshot(offer)
        elsewhere = [file for file in offer.files if file not in lacking and not (folder / file.name).exists()]
        copied = elsewhere if elsewhere and not _has_links(self.cache) else []
        return sum(file.size_bytes for file in (*lacking, *copied))

    def damaged(self, offer: Offer, progress: Progress) -> list[OfferedFile]:
        """Read the files of a model that are in the cache, and return those that differ from the hub's."""
        here = [(file, path) for file in offer.files if (path := self._place(offer, file)) is not None]
        progress.total_bytes = sum(path.stat().st_size for _, path in here)
        return [file for file, path in here if not _is_sound(path, file, progress)]

    def fetch(self, source: Source, progress: Progress) -> tuple[Path, str]:
        """Fetch weights, configuration and vocabulary; sound files that are here already are not fetched again."""
        return self.take(self.offer(source), progress)

    def take(self, offer: Offer, progress: Progress) -> tuple[Path, str]:
        """Fetch what was offered, as `Hub.fetch` does; weights last, and only if the small files pass their checks."""
        damaged = self.damaged(offer, Progress())
        check_disk(self.cache, self.room_bytes(offer, damaged))
        progress.done_bytes, progress.total_bytes = 0, offer.size_bytes
        folder = self._snapshot(offer)
        with _translated(offer.repository, self.cache), strict_client():
            _unlink_dangling(folder)
            for files in (offer.settings, offer.weights):
                for file in files:
                    arrived_bytes = progress.done_bytes + file.size_bytes
                    if file in damaged or not (folder / file.name).is_file():
                        self._receive(file, offer, progress, anew=file in damaged)
                    progress.done_bytes = arrived_bytes
                if files is offer.settings:
                    check_settings(folder, name=offer.repository, weights=[file.name for file in offer.weights])
            for ref in (offer.branch, CONVERSION) if offer.converted else (offer.branch,):
                if ref != offer.commit:
                    _write_ref(self.home(offer.repository) / "refs" / ref, offer.commit)
        return folder, offer.commit

    def _receive(self, file: OfferedFile, offer: Offer, progress: Progress, *, anew: bool) -> None:
        """Fetch one file, and delete it again unless it matches the hub's own listing.

        Raises:
            NotReadyError: It does not match.
        """
        from huggingface_hub import hf_hub_download

        path = self._snapshot(offer) / file.name
        self._wait_for_others(file, offer, progress)
        if anew:
            path.unlink(missing_ok=True)  # huggingface_hub replaces the target of a link, but never the link
        arrived = hf_hub_download(
            offer.repository,
            file.name,
            revision=offer.commit,
            cache_dir=self.cache,
            endpoint=self._endpoint,
            tqdm_class=meter(progress, file_bytes=file.size_bytes),
            force_download=anew,
        )
        if not (path.is_file() and _is_sound(Path(arrived), file)):  # it may have arrived under another commit
            Path(arrived).resolve().unlink(missing_ok=True)
            Path(arrived).unlink(missing_ok=True)
            message = f"{file.name} of {offer.repository} arrived damaged: it does not match the hub's listing."
            raise NotReadyError(message, remedy="Fetch it again.", code="damaged")
        for left in (self.home(offer.repository) / "blobs").glob(f"{file.digest}.*.incomplete"):
            left.unlink(missing_ok=True)  # left behind by a fetch that was killed; nothing resumes it

    def _wait_for_others(self, file: OfferedFile, offer: Offer, progress: Progress) -> None:
        """Wait, and say so, while another process is fetching a file; huggingface_hub would wait for ever in silence.

        Raises:
            NotReadyError: Nothing of it has arrived for a while.
        """
        from filelock import FileLock

        home = self.home(offer.repository)
        lock = self.cache / ".locks" / home.name / f"{file.digest}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        stage, arrived_bytes, since = progress.stage, -1, 0.0
        while True:
            with suppress(TimeoutError), FileLock(lock, timeout=LOCK_POLL_S, mode=0o664):  # as huggingface_hub does
                progress.stage = stage
                return
            now_bytes = sum(path.stat().st_size for path in (home / "blobs").glob(f"{file.digest}.*.incomplete"))
            if arrived_bytes < 0:
                _log.warning("%s: waiting for another process, which holds %s.", offer.repository, lock)
                progress.stage = f"waiting for another process, which holds {lock}"
            if now_bytes != arrived_bytes:
                arrived_bytes, since = now_bytes, time.monotonic()
            elif time.monotonic() - since >= self._stalled_s:
                message = f"Another process holds {lock}, and none of {file.name} arrives."
                remedy = "End that process; if there is none, delete that file."
                raise NotReadyError(message, remedy=remedy, code="locked", retry_after_s=LOCKED_RETRY_S)

    def _snapshot(self, offer: Offer) -> Path:
        return self.home(offer.repository) / "snapshots" / offer.commit

    def _place(self, offer: Offer, file: OfferedFile) -> Path | None:
        """Return where a file is, even if only as a blob: revisions share blobs."""
        places = (self._snapshot(offer) / file.name, self.home(offer.repository) / "blobs" / file.digest)
        return next((place for place in places if place.is_file()), None)


def _has_links(cache: Path) -> bool:
    """Return whether huggingface_hub uses symbolic links in a cache, which it finds out by trying."""
    from huggingface_hub.file_download import are_symlinks_supported

    try:
        return are_symlinks_supported(cache)
    except OSError:  # nothing at all can be written there
        return True


def check_disk(cache: Path, wanted_bytes: int) -> None:
    """Return if the disk has room for a fetch.

    Raises:
        NotReadyError: It has not; says how much is free.
    """
    free_bytes = free_disk_bytes(cache)
    if free_bytes < wanted_bytes * ROOM:
        needed_mb, free_mb = wanted_bytes / 1e6, free_bytes / 1e6
        message = f"{needed_mb:.0f} MB are to be fetched, but only {free_mb:.0f} MB are free on the disk of {cache}."
        raise NotReadyError(message, remedy="Free some space, or set HF_HOME to another disk.", code="disk_full")


def free_disk_bytes(cache: Path) -> int:
    """Return how much disk space is free where the cache is or will be."""
    nearest = next(place for place in (cache, *cache.parents) if place.exists())
    return shutil.disk_usage(nearest).free


@contextmanager
def _translated(name: str, cache: Path) -> Iterator[None]:
    """Translate errors of the hub, the network and the disk, and say what to do about them."""
    from huggingface_hub import errors

    try:
        yield
    except NotReadyError:
        raise
    except errors.GatedRepoError as error:
        message = f"{name} is gated, and this account has not been granted access to it."
        remedy = "Ask for access on the page of the model; without an account, run first: hf auth login"
        raise ModelNotFoundError(message, remedy=remedy, code="gated") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        message = f"The hub has no model {name!r}, or this account has no access to it."
        remedy = f"Correct its name under [local], or run: hf auth login{Source.parse(name).hint}"
        raise ModelNotFoundError(message, remedy=remedy) from error
    except errors.OfflineModeIsEnabled as error:
        message = f"{name} could not be fetched: HF_HUB_OFFLINE is set."
        remedy = f"Unset it, and run: vision models pull {name}{Source.parse(name).hint}"
        raise NotReadyError(message, remedy=remedy, code="offline") from error
    except Exception as error:  # the network and the disk fail in many ways
        if isinstance(error, UnicodeError) or getattr(getattr(error, "response", None), "status_code", None) == 401:
            message = f"{name} could not be fetched: the hub does not accept the access token of this machine."
            remedy = "Run: hf auth login, or correct or unset HF_TOKEN; a public model needs none."
            raise NotReadyError(message, remedy=remedy, code="bad_token") from error
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = f"The disk of {cache} is full; what has arrived of {name} is kept."
            raise NotReadyError(message, remedy="Free some space, and fetch it again.", code="disk_full") from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            message = f"The cache {cache} cannot be written: {error.strerror}: {error.filename}."
            remedy = "Make it writable, or set HF_HOME to another folder."
            raise NotReadyError(message, remedy=remedy, code="cache_not_writable") from error
        reason = error.__cause__ or error  # huggingface_hub wraps network errors in advice of its own
        why = str(reason).strip().partition("\n")[0].rstrip(".")
        message = f"{name} could not be fetched: {type(reason).__name__}: {why}."
        remedy = f"With a network connection, run: vision models pull {name}{Source.parse(name).hint}"
        raise NotReadyError(message, remedy=remedy) from error


def _read_ref(file: Path) -> str | None:
    """Return the commit that a branch pointed to when it was fetched."""
    try:
        commit = read_regular(file, max_bytes=MOST_REF_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _write_ref(file: Path, commit: str) -> None:
    """Record which commit a branch pointed to when it was fetched: it may have moved on since, to one not fetched.

    Written the way huggingface_hub does it, so that no reader sees half of it.
    """
    if _read_ref(file) != commit:
        file.parent.mkdir(parents=True, exist_ok=True)
        arriving = file.with_name(f"{file.name}.{uuid4().hex[:8]}.tmp")
        arriving.write_text(commit, encoding="ascii")
        arriving.replace(file)


def _has_weights(folder: Path) -> bool:
    return any(True for name in layout_of("weights") for _ in folder.rglob(name))


def _is_sound(path: Path, file: OfferedFile, progress: Progress | None = None) -> bool:
    try:
        return digest_of(path, file.digest, progress) == file.digest
    except OSError:  # the disk can no longer read it
        return False


def _unlink_dangling(folder: Path) -> None:
    """Remove links whose blob is gone: revisions share blobs, so removing one may leave another's links dangling."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)
