"""Whether two files show the same picture: one may be scaled, encoded anew, brighter, grey, or cropped a little.

This module decides how alike two pictures are. It must not know why they are compared.

Vectors say what is in a photo, so two photos of one place have similar ones. Pixels say whether it is the same photo:
each is seen as a whole and through windows of 80 to 95 % of its sides, all scaled to the same few pixels, and the best
correlation of the one as a whole with a window of the other counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_backends.errors import VisionError
from vision_backends.images import open_image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from vision_backends.images import ImageLimits

    Views = npt.NDArray[np.float16]

__all__ = ["alikeness", "views_of"]

SIDE_PX = 96
VIEW_PX = 24

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""The sides of the windows, as parts of those of the picture."""

PLAIN = 2.0
"""A picture whose brightness (0 to 255) varies less than this looks like any other such."""


def views_of(path: Path, limits: ImageLimits) -> Views | None:
    """Return a picture as it is compared: float16 [37, 576], the whole first, each view without its mean, of length 1.

    None stands for one that cannot be opened, or that has nothing to be recognised by.
    """
    import numpy as np
    from PIL.Image import Resampling

    try:
        picture = open_image(path, min_side_px=SIDE_PX, limits=limits).rgb(min_side_px=SIDE_PX)
    except VisionError:
        return None
    small = picture.convert("L").resize((SIDE_PX, SIDE_PX), Resampling.BOX)
    seen = [
        np.asarray(small.resize((VIEW_PX, VIEW_PX), Resampling.BOX, box=box), dtype=np.float32) for box in _windows()
    ]
    views = np.stack(seen).reshape(len(seen), -1)
    views -= views.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(views, axis=1, keepdims=True)
    return None if lengths[0] < PLAIN * VIEW_PX else (views / np.maximum(lengths, 1e-6)).astype(np.float16)


def alikeness(one: Views, other: Views) -> float:
    """Return how alike two pictures are, up to 1: the best correlation of one as a whole with a view of the other."""
    import numpy as np

    one, other = one.astype(np.float32), other.astype(np.float32)
    return min(1.0, float(max((one @ other[0]).max(), (other @ one[0]).max())))


def _windows() -> list[tuple[float, float, float, float]]:
    """Return the windows: for each share the corners, the sides and the middle."""
    windows: list[tuple[float, float, float, float]] = []
    for share in SHARES:
        side = SIDE_PX * share
        starts = sorted({0.0, (SIDE_PX - side) / 2, SIDE_PX - side})
        windows += [(left, top, left + side, top + side) for top in starts for left in starts]
    return windows
