"""Whatever bytes come, only an image or an error of the caller comes out, soon and without a warning."""

from __future__ import annotations

import random
import time
import tracemalloc
import warnings

import pytest

from benchmarks.checks.image_mutations import mutate, seeds
from vision_backends.errors import CallerError
from vision_backends.images import ImageLimits, open_image

LIMITS = ImageLimits(max_pixels=250_000, max_bytes=200_000)
CASES = 60


@pytest.mark.parametrize("name", seeds())
def test_only_errors_of_the_caller_come_out(name: str):
    """Neither another error nor a warning; and no case takes long or much memory."""
    data = seeds()[name]
    chance = random.Random(name)  # noqa: S311
    outcomes = {"image": 0, "error": 0}
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # as errors they would be taken for damage
        for _ in range(CASES):
            started = time.process_time()
            outcomes[attempt(mutate(data, chance), min_side_px=chance.choice((None, 10)))] += 1
            assert time.process_time() - started < 20  # tracing makes Python many times slower
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not caught
    assert peak_bytes < 20_000_000
    assert min(outcomes.values()) > 0  # the changes are neither harmless nor all fatal


def attempt(data: bytes, *, min_side_px: int | None) -> str:
    """Open a file and say what came of it."""
    try:
        image = open_image(data, min_side_px=min_side_px, limits=LIMITS)
    except CallerError:
        return "error"
    assert image.rgb().size == (image.width, image.height)
    assert image.width * image.height <= LIMITS.max_pixels
    return "image"
