"""The main colours of an image in plain words, whether it has any, and how bright it is.

Pixels are named by the nearest entry of a small palette in OKLab, a space in which distance is close to what the
eye sees (https://bottosson.github.io/posts/oklab). This module must not know what the image shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image as PILImage

    Floats = npt.NDArray[np.float32]

__all__ = ["Brightness", "Palette", "Tones"]

Brightness = Literal["dark", "normal", "bright"]

PALETTE = {
    "red": ("c81e1e", "8c1414", "e0403c", "641414"),
    "orange": ("f07818", "d85c14", "f49a50"),
    "yellow": ("f5d800", "dcb41e", "f2e070"),
    "green": ("2e8b2e", "1e5424", "78b446", "6e8232", "a6c888", "4e6b4a", "28dc28", "283c28", "8a9a70"),
    "turquoise": ("20b0a8", "0f6e6e", "80d2cc", "0a4450", "508c8c"),
    "blue": ("1f5fc8", "4682c8", "5078a0", "0000ff"),
    "dark blue": ("14286e", "1e2a46", "2a3c64"),
    "light blue": ("82b8ea", "a8cce8", "c4dcf0", "78a8be"),
    "purple": ("7a3fa0", "462864", "a98cd2", "6e5a82"),
    "pink": ("f08cb4", "e0508c", "f4c4d0", "ff28ff"),
    "brown": ("78481e", "4a2c18", "9c6c40", "6e5440", "a8562a", "8c5a3c", "2e2018"),
    "beige": ("c8a078", "e2c8a0", "f0e4cc", "b8a488", "dcb496"),
}
"""Each name with typical shades of it, as sRGB in hexadecimal; black, grey and white go by lightness."""

NEUTRAL_CHROMA = 0.025
"""A pixel that is less colourful than this is called black, grey or white."""

BLACK_LIGHTNESS = 0.28
BLACK_CHROMA = 0.05
"""Dark pixels look black up to here."""

WHITE_LIGHTNESS = 0.90
NEUTRALS = ("black", "grey", "white")

SAMPLE_PX = 64
MAIN_SHARE = 0.12
MOST_COLOURS = 3
COLOURFUL_WEIGHT = 4.0
"""Per unit of chroma: a vivid orange pixel counts for nearly two grey ones, as it does to the eye."""

UNIFORM_DEVIATION = 0.02

GREYSCALE_CHROMA = 0.02
"""Below this in OKLab a pixel looks grey; JPEG makes up to 0.01 out of pure grey."""

GREYSCALE_SHARE = 0.99
DARK_LIGHTNESS = 0.30
BRIGHT_LIGHTNESS = 0.88


@dataclass(frozen=True, slots=True, kw_only=True)
class Tones:
    """What can be said of an image's colours.

    Attributes:
        main: Names of the main colours, the most frequent first.
        uniform: True when all of the image has nearly the same colour.
        greyscale: True when the image has no colour but black, grey and white.
        brightness: Dark or bright by its median lightness.
    """

    main: tuple[str, ...]
    uniform: bool
    greyscale: bool
    brightness: Brightness

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "main": list(self.main),
            "uniform": self.uniform,
            "greyscale": self.greyscale,
            "brightness": self.brightness,
        }


class Palette:
    """Names colours; made once, then read by any number of threads."""

    def __init__(self) -> None:
        shades = [(name, shade) for name, group in PALETTE.items() for shade in group]
        self._names = np.array([*(name for name, _ in shades), *NEUTRALS])
        self._shades = to_oklab(np.array([list(bytes.fromhex(shade)) for _, shade in shades], dtype=np.uint8))

    def tones(self, image: PILImage.Image) -> Tones:
        """Return the tones of an RGB image of any size."""
        from PIL import Image

        size = (min(SAMPLE_PX, image.width), min(SAMPLE_PX, image.height))
        sample = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        lab = to_oklab(np.asarray(sample).reshape(-1, 3))
        chroma = np.hypot(lab[:, 1], lab[:, 2])
        names, inverse = np.unique(self.name(lab), return_inverse=True)
        weights = np.bincount(inverse, weights=1 + COLOURFUL_WEIGHT * chroma)
        shares = dict(zip(names.tolist(), (weights / weights.sum()).tolist(), strict=True))
        ranked = sorted(shares, key=lambda name: (-shares[name], name))
        main = [name for name in ranked if shares[name] >= MAIN_SHARE] or ranked[:1]
        return Tones(
            main=tuple(main[:MOST_COLOURS]),
            uniform=bool(lab.std(axis=0).max() < UNIFORM_DEVIATION),
            greyscale=bool((chroma < GREYSCALE_CHROMA).mean() >= GREYSCALE_SHARE),
            brightness=_brightness(float(np.median(lab[:, 0]))),
        )

    def name(self, lab: Floats) -> npt.NDArray[np.str_]:
        """Return the name of the colour of each of P pixels [P, 3]."""
        # einsum, since a matrix product this large wakes BLAS threads that then spin for 30 ms beside the models.
        distances = (self._shades**2).sum(axis=1) - 2 * np.einsum("pc,sc->ps", lab, self._shades)
        nearest = np.argmin(distances, axis=1)
        lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
        neutral = np.searchsorted([BLACK_LIGHTNESS, WHITE_LIGHTNESS], lightness)
        grey = chroma < np.where(lightness < BLACK_LIGHTNESS, BLACK_CHROMA, NEUTRAL_CHROMA)
        names: npt.NDArray[np.str_] = self._names[np.where(grey, len(self._shades) + neutral, nearest)]
        return names


def to_oklab(rgb: npt.NDArray[np.uint8]) -> Floats:
    """Return lightness, green-red and blue-yellow for sRGB pixels [P, 3]; Björn Ottosson's matrices."""
    values = rgb.astype(np.float32) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ],
        dtype=np.float32,
    )
    from_cones = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ],
        dtype=np.float32,
    )
    lab: Floats = np.cbrt(linear.astype(np.float32) @ to_cones.T) @ from_cones.T
    return lab


def _brightness(lightness: float) -> Brightness:
    if lightness < DARK_LIGHTNESS:
        return "dark"
    return "bright" if lightness > BRIGHT_LIGHTNESS else "normal"
