"""Photos of different content, routers that embed them, and an index of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from vision_backends import Router
from vision_backends.search import ImageIndex
from vision_backends.testing import FakeBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def photos(tmp_path) -> Path:
    """An empty folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def make_photo(photos) -> Callable[..., Path]:
    """A maker of image files; two of the same seed have the same content."""

    def make(name: str, seed: int = 0, *, folder: Path | None = None) -> Path:
        path = (folder or photos) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32 + seed % 7, 24), (seed % 256, seed // 256 % 256, 90)).save(path, format="PNG")
        return path

    return make


@pytest.fixture
def backend() -> FakeBackend:
    """A rung that embeds photos and words in one space, and counts what it is asked."""
    return FakeBackend(batch_size=64)


@pytest.fixture
def make_index(tmp_path) -> Iterator[Callable[..., ImageIndex]]:
    """A maker of indexes in one folder, each with a router of its own."""
    routers: list[Router] = []

    def make(*backends: FakeBackend, place: Path | None = None, backend: str | None = None) -> ImageIndex:
        router = Router(list(backends), caching=False)
        routers.append(router)
        return ImageIndex(place or tmp_path / "index", router=router, backend=backend)

    yield make
    for router in routers:
        router.close()


@pytest.fixture
def index(make_index, backend) -> ImageIndex:
    """An index whose vectors the counting rung makes."""
    return make_index(backend)
