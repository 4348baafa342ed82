"""What a hub publishes under a model's name, and which of its files are fetched.

This module decides which files of a model are wanted, and in which order. It must not know how they are fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.checkpoint import PARTS_OF_REVISION, layout_of
from vision_backends.backends.local.hub.source import COMMIT
from vision_backends.backends.local.hub.verify import DIGEST
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub import HfApi

    from vision_backends.backends.local.hub.source import Source

__all__ = ["Offer", "OfferedFile", "ask_for_offer"]

SERVER_TIMEOUT_S = 20.0

SHARD = re.compile(r"model(\.safetensors)?-\d+-of-\d+\.safetensors")
"""Names of sharded weights, as transformers writes them, and as Qwen has published some."""

ROBOT = "SFconvertbot"
"""The hub's own bot, which opens pull requests with safetensors made from pickled weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedFile:
    """A file on the hub.

    Attributes:
        name: Its path within the model.
        size_bytes: Its size.
        digest: Its checksum: sha256 of a large file, git's sha1 of a small one; it also names the file in the cache.
    """

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A model as the hub has it now.

    Attributes:
        repository: Its name there.
        address: Its page.
        branch: The branch, tag or commit that was asked for, or the ref of the bot's conversion.
        commit: What that points to.
        licence: Its licence as the publisher states it; None if none is stated.
        settings: Configuration, processors and vocabulary; small.
        weights: The safetensors, which are fetched last: once they are there, everything else is as well.
        converted: Whether it is the bot's conversion, which is taken only where no revision was asked for.
    """

    repository: str
    address: str
    branch: str
    commit: str
    licence: str | None
    settings: tuple[OfferedFile, ...]
    weights: tuple[OfferedFile, ...]
    converted: bool = False

    @property
    def files(self) -> tuple[OfferedFile, ...]:
        """All that is fetched, in order."""
        return self.settings + self.weights

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(file.size_bytes for file in self.files)


def ask_for_offer(source: Source, repository: str, *, endpoint: str | None) -> Offer:
    """Ask the hub what it has; one request, or three where only its bot offers safetensors.

    Args:
        source: Which branch, tag or commit is wanted; without one, the bot's conversion will do as well.
        repository: The model's name on the hub.
        endpoint: Address of the hub; None for the usual one.

    Raises:
        NotReadyError: It has no safetensors weights.
        ValueError: Its answer cannot be trusted.
        HfHubHTTPError: As huggingface_hub raises it, untranslated.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    ask = partial(api.model_info, repository, files_metadata=True, timeout=SERVER_TIMEOUT_S)
    branch, conversion = source.revision or "main", None
    info = ask(revision=branch)
    if source.revision is None and not _weights(each.rfilename for each in info.siblings or []):
        conversion = _conversion(api, repository)
        branch = conversion or branch
        info = ask(revision=branch)
    if not COMMIT.fullmatch(str(info.sha)):
        raise NotReadyError(
            f"The hub at {api.endpoint} does not say which commit of {repository} it serves.",
            remedy="Use another mirror in HF_ENDPOINT, or name a folder in [local].",
            code="hub_not_trusted",
        )
    files = {each.rfilename: each for each in info.siblings or [] if _is_inside(each.rfilename)}
    settings, weights = _wanted(repository, files)
    return Offer(
        repository=repository,
        address=f"{api.endpoint}/{repository}",
        branch=branch,
        commit=str(info.sha),
        licence=_licence(info.tags or []),
        settings=tuple(_offered(files[name]) for name in settings),
        weights=tuple(_offered(files[name]) for name in weights),
        converted=conversion is not None,
    )


def _is_inside(name: str) -> bool:
    """Tell whether a file would lie within the folder of its model; the hub's names become paths on this machine."""
    return not name.startswith("/") and "\\" not in name and ":" not in name and ".." not in name.split("/")


def _offered(sibling: Any) -> OfferedFile:  # noqa: ANN401 — a record of huggingface_hub
    name, lfs = sibling.rfilename, sibling.lfs
    size_bytes, digest = (lfs.size, lfs.sha256) if lfs else (sibling.size, sibling.blob_id)
    if not isinstance(size_bytes, int) or size_bytes < 0 or not DIGEST.fullmatch(str(digest)):
        raise ValueError(f"the hub states no size or checksum for {name}, so it could not be verified")
    return OfferedFile(name=name, size_bytes=size_bytes, digest=digest)


def _wanted(repository: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the small files and the weights to fetch.

    Only the folder that holds the weights matters, and of its weights only one format.
    """
    known = set(names)
    found = _weights(known)
    if not found:
        message = f"{repository} publishes no safetensors weights; pickled ones are not loaded."
        raise NotReadyError(message, remedy="Choose another model under [local].", code="no_safetensors")
    folder = found[0].rpartition("/")[0]
    inside = {name for name in known if name.rpartition("/")[0] in {folder, ""}}
    beside = {name.rpartition("/")[2]: name for name in known if name.rpartition("/")[0] == folder}
    whole = [name for name in found if name in beside.values() and not name.endswith(".json")]
    weights = whole or [name for file, name in beside.items() if SHARD.fullmatch(file)]
    if not weights:
        message = f"{repository} publishes {found[0]}, but no shards such as model-00001-of-00002.safetensors."
        raise NotReadyError(message, remedy="Choose another model under [local].", code="no_safetensors")
    others = [name for name in inside if Path(name).suffix in PARTS_OF_REVISION and not _is_of_another_kind(name)]
    return sorted(others), sorted(weights)


def _weights(names: Iterable[str]) -> list[str]:
    """Return the files that list or are safetensors weights, those in the outermost folder first."""
    return sorted((name for name in names if name.rpartition("/")[2] in layout_of("weights")), key=_depth)


def _conversion(api: HfApi, repository: str) -> str | None:
    """Return the ref of the pull request in which the hub's own bot offers the weights as safetensors; None without.

    Many publishers never merge it. Only the bot's pull request counts: anybody may open one. transformers does the
    same: https://github.com/huggingface/transformers/blob/main/src/transformers/safetensors_conversion.py.
    """
    offers = api.get_repo_discussions(
        repository, author=ROBOT, discussion_type="pull_request", discussion_status="open"
    )
    numbers = [offer.num for offer in offers if offer.author == ROBOT and offer.is_pull_request]
    return f"refs/pr/{max(numbers)}" if numbers else None


def _licence(tags: Iterable[str]) -> str | None:
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)


def _depth(name: str) -> tuple[int, str]:
    return name.count("/"), name


def _is_of_another_kind(name: str) -> bool:
    """Tell whether a file belongs to weights in other formats."""
    return "index.json" in name and "safetensors" not in name
