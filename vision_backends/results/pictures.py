"""The picture that belongs to an answer: its image, opened again or passed, with what was found drawn on it.

This module decides which image that is, and that it is the one that was looked at. It must not know how boxes are
drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from vision_backends.drawing import draw_boxes
from vision_backends.errors import CallerError, InvalidRequestError
from vision_backends.images import DEFAULT_LIMITS, open_image

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from vision_backends.images import ImageLimits, ImageSource
    from vision_backends.types import Description, Detections, Reply

__all__ = ["WithPicture", "picture"]

WithPicture: TypeAlias = "Description | Detections | Reply"

REMEDY = "Pass it: image=…, a path, bytes, a PIL image or an array."


def picture(answer: Any, image: ImageSource | None = None, *, min_side_px: int | None = None) -> PILImage.Image:  # noqa: ANN401 — any answer
    """Return the upright image of an answer, with its boxes where it has any.

    Args:
        answer: The answer.
        image: Its image; by default that is opened again from its path.
        min_side_px: Least length of the shorter side, so that a large image is opened faster; None for all pixels.

    Raises:
        InvalidRequestError: There is no image, it cannot be opened, or the file has another size now.
    """
    opened, size = _open(answer, image, min_side_px=min_side_px)
    if not hasattr(answer, "items"):
        return opened
    if image is None and size != (answer.width, answer.height):
        raise InvalidRequestError(
            f"{answer.source} has {size[0]}×{size[1]} pixels now, and the boxes are of {answer.width}×{answer.height}.",
            remedy=f"It is another image. {REMEDY}",
        )
    return _with_boxes(answer, opened)


def _open(answer: Any, image: ImageSource | None, *, min_side_px: int | None) -> tuple[PILImage.Image, tuple[int, int]]:  # noqa: ANN401 — any answer
    given = answer.source if image is None else image
    if given is None:
        raise InvalidRequestError("The answer does not know a file of its image.", remedy=REMEDY)
    try:
        opened = open_image(given, min_side_px=min_side_px, limits=_limits_for(given))
        return opened.rgb(min_side_px=min_side_px), (opened.width, opened.height)
    except CallerError as error:
        raise InvalidRequestError(f"The image cannot be opened: {error.message}", remedy=REMEDY) from error


def _limits_for(image: object) -> ImageLimits:
    """Return what an image may cost to open: one of Pillow's has passed its limits, and those of its caller."""
    width, height = getattr(image, "size", (0, 0)) if hasattr(image, "getbands") else (0, 0)
    most, side = max(DEFAULT_LIMITS.max_pixels, width * height), max(DEFAULT_LIMITS.max_side_px, width, height)
    return replace(DEFAULT_LIMITS, max_pixels=most, max_side_px=side)


def _with_boxes(found: Detections, image: PILImage.Image) -> PILImage.Image:
    sx, sy = image.width / found.width, image.height / found.height
    boxes = [
        (f"{item.label} {item.score:.2f}", (x1 * sx, y1 * sy, x2 * sx, y2 * sy))
        for item in found.items
        for x1, y1, x2, y2 in (item.xyxy,)
    ]
    return draw_boxes(image, boxes)
