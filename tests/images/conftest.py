"""Pictures that take a while to make."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import encode, make_scene
from PIL import Image as PILImage


@pytest.fixture(scope="session")
def photo_jpeg() -> bytes:
    """A JPEG of 1600×1200 with soft shapes and grain, as a camera would write."""
    grain = np.random.default_rng(7).normal(0, 6, (1200, 1600, 3))
    soft = make_scene(1600, 1200).resize((40, 30)).resize((1600, 1200), PILImage.Resampling.BICUBIC)
    pixels = (np.asarray(soft) + grain).clip(0, 255).astype("uint8")
    return encode(PILImage.fromarray(pixels), "JPEG", quality=85)
