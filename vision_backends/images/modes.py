"""Pixels of any mode → 8-bit RGB in the sRGB colour space, as a viewer on a white page would show them.

This module decides what becomes of transparency, depth and colour profiles. It must not know where pixels come
from, nor which way is up.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from vision_backends.errors import InvalidImageError

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["to_rgb"]

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILED_MODES = frozenset({"L", "RGB", "CMYK", "LAB"})

_RANGES = ((0, 1), (0, 255), (0, 65_535))
"""What 0 to 1, 8-bit and 16-bit values look like in a mode that does not say its range."""


def to_rgb(image: PILImage.Image, *, icc_profile: bytes | None = None) -> PILImage.Image:
    """Return the pixels of a loaded image in mode RGB; the image itself, where it is so already.

    Transparency is laid over white: what is hidden stays hidden. A profile that is broken, or not one for this
    kind of image, is ignored.

    Args:
        image: A loaded image of any mode.
        icc_profile: The profile of its colours; None takes them for sRGB.

    Raises:
        InvalidImageError: It holds values that are no numbers.
    """
    if image.mode in _DEEP_MODES:
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = _on_white(image)
    if icc_profile:
        image = _to_srgb(image, icc_profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: PILImage.Image) -> PILImage.Image:
    """Scale deep grey values to 8 bits, where Pillow would cut them off at 255.

    16-bit modes have the range that their name says. The 32-bit modes I and F have none: they are taken for the
    narrowest common range that holds their values, or stretched from the lowest to the highest.
    """
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image)
    is_16_bit = image.mode.startswith("I;16")
    with np.errstate(all="ignore"):
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise InvalidImageError("The image has values that are infinite or no numbers.")
        ranges = _RANGES[2:] if is_16_bit else _RANGES[image.mode == "I" :]
        start, end = next((r for r in ranges if r[0] <= low and high <= r[1]), (low, high))
        scale = 255 / ((end - start) or 1)
        scaled = np.multiply(values, scale, dtype=np.float32 if is_16_bit else np.float64)
        return PILImage.fromarray(np.rint(scaled - start * scale).astype(np.uint8))


def _on_white(image: PILImage.Image) -> PILImage.Image:
    from PIL import Image as PILImage

    if image.mode == "La":
        image = image.convert("LA")
    white = PILImage.new("RGBA", image.size, "white")
    return PILImage.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _to_srgb(image: PILImage.Image, icc_profile: bytes) -> PILImage.Image:
    from PIL import ImageCms

    if image.mode not in _PROFILED_MODES:
        image = image.convert("L" if image.mode == "1" else "RGB")
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except Exception:  # noqa: BLE001 — a broken profile may fail anywhere, and colours a little off are no failure
        return image
    return image if converted is None else converted
