"""Tiny models, each built once and only when a test wants it, and hubs that need no network."""

from __future__ import annotations

import shutil
import threading
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest
import tiny
import tiny_captioners
import tiny_detectors
import tiny_towers

from vision_backends.backends.local import LocalBackend
from vision_backends.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAKERS = tiny.MAKERS | tiny_captioners.MAKERS | tiny_detectors.MAKERS | tiny_towers.MAKERS
PLAIN = {"engine": "torch", "dtype": "float32"}
"""How the libraries that a backend is compared with compute by default, whatever would be faster on this processor."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a tiny model by its kind, such as ``"clip"``."""
    root, made = tmp_path_factory.mktemp("tiny"), {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = MAKERS[kind](root / kind)
        return made[kind]

    return folder


@pytest.fixture
def model_copy(model, tmp_path) -> Callable[[str], Path]:
    """A copy of a tiny model that a test may damage."""

    def folder(kind: str) -> Path:
        shutil.copytree(model(kind), tmp_path / kind)
        return tmp_path / kind

    return folder


@pytest.fixture
def make_backend() -> Callable[..., LocalBackend]:
    """A maker of backends that are closed afterwards; models it does not name do not exist."""
    made = []

    def make(**settings) -> LocalBackend:
        none = dict.fromkeys(("caption_model", "embedding_model", "detection_model", "open_vocabulary_model"), "")
        backend = LocalBackend(**{**none, **PLAIN, "hub": FolderHub(), **{k: _plain(v) for k, v in settings.items()}})
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()


def _plain(value):
    return str(value) if isinstance(value, PurePath) else value


class FolderHub:
    """A hub whose models are folders; a fetch takes until it is allowed to end.

    Args:
        folders: Folder by name.
        arrived: Names that were fetched before.
    """

    def __init__(self, folders=None, *, arrived=()):
        self.folders = folders or {}
        self.arrived = set(arrived)
        self.allowed = threading.Event()
        self.fetches = []
        self.looks = 0

    def cached(self, source):
        """Return a folder that has arrived."""
        self.looks += 1
        return (self.folders[source.repository], COMMIT) if source.repository in self.arrived else None

    def fetch(self, source, progress):
        """Report half of the bytes, wait, and arrive."""
        self.fetches.append(source.repository)
        progress.total_bytes, progress.done_bytes = 2_000_000, 1_000_000
        self.allowed.wait(20)
        if source.repository not in self.folders:
            raise NotReadyError(f"{source.name} could not be fetched.")
        self.arrived.add(source.repository)
        return self.folders[source.repository], COMMIT


@pytest.fixture
def folder_hub() -> type[FolderHub]:
    """The class of hubs that need no network."""
    return FolderHub
