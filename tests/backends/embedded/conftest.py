"""The embedded backend, loaded once for all tests, and the sample photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision_backends.backends.embedded import EmbeddedBackend

PHOTOS = Path(__file__).parents[3] / "benchmarks" / "photos"


@pytest.fixture(scope="session")
def backend():
    """A backend with the shipped models on one thread; its models stay loaded."""
    made = EmbeddedBackend(threads=1)
    yield made
    made.close()


@pytest.fixture(scope="session")
def photos():
    """The sample photos by name, such as ``"cat"``."""
    return {path.stem: path for path in sorted(PHOTOS.glob("*.jpg"))}
