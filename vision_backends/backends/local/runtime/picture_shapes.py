"""Images of extreme shapes, reshaped so that every image processor of transformers can take them.

This module decides what becomes of a picture that is very large, very long, very thin or a few pixels small before a
processor scales it: no step after this makes many times the pixels that the model sees. Boxes are shares of a picture's
sides, so none of this moves them. It must not know any model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["fitted"]

LEAST_ASPECT = 4
MOST_ASPECT = 100
"""Longer side by shorter. Qwen's processors refuse 200, and YOLOS's leaves nothing of a side shorter than a patch."""

PATCH_PX = 16

CROPPED_ASPECT = 4
"""What is further from the middle is cut off after scaling anyway; so much of it is more than any filter reaches."""

LEAST_SIDE_PX = 4
"""A side of 1 or 3 pixels is taken for the colours; such pictures are enlarged to the size of a patch."""

USUAL_PIXELS = 8_000_000
MOST_PIXELS = 16_000_000
"""Larger pictures are averaged over squares first, as a processor takes 14 bytes per pixel of what it is given: those
beyond the first of these while no side gets shorter than the model's input, those beyond the second in any case."""

LONGEST_INPUT_PX = 10_000
"""No model has a longer side: where its processor says more, as Qwen's do, it is the number of pixels in all."""

LEAST_LONGEST_PX = 2048
MOST_LONGEST_PX = 8192
"""How long a side may be where the other one is made longer; squares of the smaller one are no burden to memory."""


def fitted(
    picture: PILImage.Image, *, input_px: int | None = None, crops: bool = False, pads: bool = False
) -> PILImage.Image:
    """Return a picture that every processor can take; one of an ordinary shape is returned as it is.

    Args:
        picture: Any picture, RGB.
        input_px: Length of the model's input, where that is known.
        crops: Whether the processor keeps only a square from the middle.
        pads: Whether it pads the picture to a square before it scales it.
    """
    from PIL.Image import Resampling

    if crops:
        picture = _middle(picture)
    picture = _reduced(picture, input_px)
    width, height = picture.size
    aspect = MOST_ASPECT if input_px is None else max(LEAST_ASPECT, min(MOST_ASPECT, input_px // PATCH_PX))
    longest = min(MOST_LONGEST_PX, max(LEAST_LONGEST_PX, 2 * (input_px or 0)))
    is_thin = max(width, height) > aspect * min(width, height)
    if (is_thin or pads) and max(width, height) > longest:
        scale = longest / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    least = -(-max(width, height) // aspect)
    width, height = max(width, least), max(height, least)
    enlarged = 1 if min(width, height) >= LEAST_SIDE_PX else PATCH_PX // min(width, height)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), reducing_gap=3.0)
    if enlarged > 1:  # each pixel as a square, so that nothing new is between them
        picture = picture.resize((width * enlarged, height * enlarged), Resampling.NEAREST)
    return picture


def _reduced(picture: PILImage.Image, input_px: int | None) -> PILImage.Image:
    """Return a very large picture on a smaller scale."""
    width, height = picture.size
    needed_px = input_px or 1
    if needed_px > LONGEST_INPUT_PX:
        needed_px = math.isqrt(needed_px)
    wished, least = (math.ceil(math.sqrt(width * height / pixels)) for pixels in (USUAL_PIXELS, MOST_PIXELS))
    factor = max(least, min(wished, min(width, height) // needed_px))
    return picture.reduce(factor) if factor > 1 else picture


def _middle(picture: PILImage.Image) -> PILImage.Image:
    """Return the middle of a very long picture, which is all that a square from its middle shows."""
    width, height = picture.size
    longest = CROPPED_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return picture
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return picture.crop((left, top, left + min(width, longest), top + min(height, longest)))
