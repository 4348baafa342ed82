"""Images on the embeddings endpoint of a compatible server, once it has proved that it looks at them.

This module decides how servers are asked and when they are believed. It must not know the names of vector spaces.

There are two shapes of such requests, and a server that knows neither may embed the letters of the data URL
without a word. So vectors are trusted only after they were seen to follow the pixels and nothing else: one picture
in two encodings must have one vector, and another picture another.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.embeddings import read_vectors
from vision_backends.errors import CallerError, InvalidReplyError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.openai.client import Connection
    from vision_backends.backends.openai.prices import Tokens

    Vectors = npt.NDArray[np.float32]
    Shape = Callable[[str, Sequence[str]], list[dict[str, Any]]]

__all__ = ["DirectImages"]

SAME_PICTURE = 0.999
"""Least cosine similarity of one picture in two lossless encodings; batches on a GPU differ by about 1e-4."""

OTHER_PICTURE = 0.01
"""How much less similar another picture must be."""

PROBE_PX = 64


class DirectImages:
    """Embeds images on a server that can. Safe for many threads.

    Args:
        connection: The server.
        model: Its embedding model.
        dimensions: Numbers per vector, where that is known.
    """

    def __init__(self, connection: Connection, *, model: str, dimensions: int | None) -> None:
        self._connection = connection
        self._model = model
        self._dimensions = dimensions
        self._shape: Shape | None = None
        self._refused = False

    def check(self) -> None:
        """Return if the server may be asked.

        Raises:
            NotSupportedError: It was asked, and did not look at the pixels.
        """
        if self._refused:
            raise NotSupportedError(
                f"The server does not embed images with {self._model}: its vectors do not follow the pixels.",
                remedy='Set image_embeddings = "describe" in [openai], or name a model that sees images.',
            )

    def embed(self, urls: Sequence[str], *, left_s: Callable[[], float]) -> tuple[Vectors, Tokens | None]:
        """Return a float32 array of shape [n, D] and what it took.

        Args:
            urls: n images as data URLs.
            left_s: Returns the seconds that are left, or raises.

        Raises:
            NotSupportedError: See `check`.
            BackendError: The server could not answer.
        """
        self.check()
        if self._shape is None:
            self._shape = self._find_shape(left_s)
        return self._ask(self._shape, urls, left_s)

    def _find_shape(self, left_s: Callable[[], float]) -> Shape:
        probes = _probe_urls()
        for shape in (_modality, _messages):
            try:
                vectors, _ = self._ask(shape, probes, left_s)
            except (CallerError, NotSupportedError, InvalidReplyError):
                continue
            same, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
            if same >= SAME_PICTURE and other <= same - OTHER_PICTURE:
                return shape
        self._refused = True
        self.check()
        raise AssertionError

    def _ask(self, shape: Shape, urls: Sequence[str], left_s: Callable[[], float]) -> tuple[Vectors, Tokens | None]:
        import numpy as np

        bodies = shape(self._model, urls)
        parts = []
        for body in bodies:
            reply = self._connection.post("embeddings", body, timeout_s=left_s())
            count = len(urls) // len(bodies)
            parts.append(read_vectors(reply.payloads[0], count=count, dimensions=self._dimensions))
        vectors = [vectors for vectors, _ in parts]
        if len({each.shape[1] for each in vectors}) > 1:
            raise InvalidReplyError("The vectors of one batch have different lengths.", code="wrong_dimension")
        tokens = [counted for _, counted in parts if counted is not None]
        whole = sum(tokens[1:], tokens[0]) if len(tokens) == len(parts) else None
        return np.concatenate(vectors), whole


def _modality(model: str, urls: Sequence[str]) -> list[dict[str, Any]]:
    """The shape of infinity-emb: one request for all images."""
    extra = {"modality": "image"}
    return [{"model": model, "input": list(urls), "encoding_format": "float", "extra_body": extra}]


def _messages(model: str, urls: Sequence[str]) -> list[dict[str, Any]]:
    """The shape of vLLM: a chat message in place of the input, one request for each image."""
    contents = ([{"type": "image_url", "image_url": {"url": url}}] for url in urls)
    return [
        {
            "model": model,
            "input": "",  # the SDK insists on one; the next line takes it away again
            "extra_body": {"input": None, "messages": [{"role": "user", "content": content}]},
            "encoding_format": "float",
        }
        for content in contents
    ]


def _probe_urls() -> list[str]:
    """Return data URLs of one picture in two encodings and of another picture."""
    from PIL import Image

    size = (PROBE_PX, PROBE_PX)
    ramp = Image.linear_gradient("L").resize(size)
    stripes = ramp.point([255 * (value // 16 % 2) for value in range(256)])
    disc = Image.radial_gradient("L").resize(size)
    colours = Image.merge("RGB", (disc, Image.new("L", size), ramp))
    return [_png_url(stripes.convert("RGB"), 0), _png_url(stripes.convert("RGB"), 9), _png_url(colours, 9)]


def _png_url(image: PILImage.Image, level: int) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=level)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
