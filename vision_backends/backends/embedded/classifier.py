"""EfficientNet-Lite0: an image → class probabilities or an embedding.

This module decides how pixels become the model's input and what its two outputs mean. It must not know what the
classes are used for. Images go through one by one: on a CPU a batch gains 5 % and takes 9 MB for each image. Source
of the arithmetic: https://github.com/tensorflow/tpu (efficientnet/lite), Apache-2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vision_backends.backends.timing import measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.embedded.session import OnnxModel

    Floats = npt.NDArray[np.float32]
    Box = tuple[float, float, float, float]

__all__ = ["INPUT_PX", "Classifier", "centre_box"]

INPUT_PX = 224
CENTRE_SHARE = 0.875
"""Of the shorter side: the crop that the published accuracy refers to."""

MEAN = 127.0
SCALE = 1 / 128.0


class Classifier:
    """Names what fills an image or a part of it, and turns images into vectors.

    Args:
        model: EfficientNet-Lite0 as ``models/convert`` makes it.
        names: The 1000 class names in the order of the model's outputs; equal names are one class.
    """

    def __init__(self, model: OnnxModel, *, names: Sequence[str]) -> None:
        self._model = model
        first = {name: index for index, name in reversed(list(enumerate(names)))}
        self._twins = [(first[name], index) for index, name in enumerate(names) if first[name] != index]

    def classify(self, image: PILImage.Image, *, box: Box) -> Floats:
        """Return the probability of every class for a part of an image, [1000].

        Of classes with equal names the first one has the probability of all of them, the others have 0.

        Args:
            image: RGB pixels.
            box: The part, in pixels of ``image``; it is stretched to the model's square.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        (logits,) = self._model.run(["logits"], _normalised(image, box))
        probabilities: Floats = np.exp(logits[0] - logits.max())
        probabilities /= probabilities.sum()
        for first, twin in self._twins:
            probabilities[first] += probabilities[twin]
            probabilities[twin] = 0
        return probabilities

    def embed(self, image: PILImage.Image) -> Floats:
        """Return the L2-normalised vector [1280] of an image, all of it stretched to a square.

        Raises:
            NotReadyError: The model file is missing or damaged.
        """
        (features,) = self._model.run(["features"], _normalised(image, (0, 0, *image.size)))
        vector: Floats = features[0] / np.linalg.norm(features[0])
        return vector


def centre_box(width: int, height: int) -> Box:
    """Return the centred square of an image that tells best what the whole of it shows."""
    side = CENTRE_SHARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


@measured("decode")
def _normalised(image: PILImage.Image, box: Box) -> Floats:
    """Return the model's input [1, 3, 224, 224]: red, green, blue."""
    from PIL import Image

    size = (INPUT_PX, INPUT_PX)
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(np.float32)
    planes -= np.float32(MEAN)
    planes *= np.float32(SCALE)
    return planes
