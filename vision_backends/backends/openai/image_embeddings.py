"""Images on the embeddings endpoint of a compatible server, once it has proved that it looks at them.

This module decides how servers are asked and when they are believed. It must not know the names of vector spaces.

There are two shapes of such requests, and a server that knows neither may embed the letters of the data URL
without a word. So vectors are trusted only after they were seen to follow the pixels and nothing else: one picture
in two encodings must have one vector, and another picture another.
"""

from __future__ import annotations

import base64
import io
from functools import partial
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.embeddings import read_vectors
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import CallerError, InvalidReplyError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.openai.client import Client
    from vision_backends.backends.openai.prices import Tokens
    from vision_backends.clock import Deadline

    Vectors = npt.NDArray[np.float32]
    Shape = Callable[[Sequence[str]], dict[str, Any]]

__all__ = ["DirectImages"]

SAME_PICTURE = 0.999
"""Least cosine similarity of one picture in two lossless encodings; batches on a GPU differ by about 1e-4."""

OTHER_PICTURE = 0.01
"""How much less similar another picture must be."""

PROBE_SIZE = (64, 64)


class DirectImages:
    """Embeds images on a server that can.

    Args:
        client: The server.
        model: Its embedding model.
        dimensions: Numbers per vector, where that is known.
    """

    def __init__(self, client: Client, *, model: str, dimensions: int | None) -> None:
        self._client = client
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

    async def embed(self, urls: Sequence[Callable[[], str]], *, deadline: Deadline) -> tuple[Vectors, Tokens | None]:
        """Return a float32 array of shape [n, D] and what it took.

        Args:
            urls: Makers of n images as data URLs; called in a thread.
            deadline: When the call has to be over.

        Raises:
            NotSupportedError: See `check`.
            BackendError: The server could not answer.
        """
        self.check()
        if self._shape is None:
            self._shape = await self._find_shape(deadline)
        return await self._ask(self._shape, urls, deadline)

    async def _find_shape(self, deadline: Deadline) -> Shape:
        for shape in (_modality, _messages):
            try:
                vectors, _ = await self._ask(shape, PROBES, deadline)
            except (CallerError, NotSupportedError, InvalidReplyError):
                continue
            same, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
            if same >= SAME_PICTURE and other <= same - OTHER_PICTURE:
                return shape
        self._refused = True
        self.check()
        raise AssertionError

    async def _ask(
        self, shape: Shape, urls: Sequence[Callable[[], str]], deadline: Deadline
    ) -> tuple[Vectors, Tokens | None]:
        batches = [urls] if shape is _modality else [[url] for url in urls]
        parts = []
        for batch in batches:
            body = partial(_body, shape, self._model, batch)
            request = await self._client.prepare("embeddings", body, deadline=deadline)
            reply = await self._client.post(request, deadline=deadline)
            read = partial(read_vectors, reply.payloads[0], count=len(batch), dimensions=self._dimensions)
            parts.append(await engine_loop().compute.start(read))
        import numpy as np

        vectors = [vectors for vectors, _ in parts]
        if len({each.shape[1] for each in vectors}) > 1:
            raise InvalidReplyError("The vectors of one batch have different lengths.", code="wrong_dimension")
        tokens = [counted for _, counted in parts if counted is not None]
        whole = sum(tokens[1:], tokens[0]) if len(tokens) == len(parts) else None
        return np.concatenate(vectors), whole


def _body(shape: Shape, model: str, urls: Sequence[Callable[[], str]]) -> dict[str, Any]:
    return {"model": model, "encoding_format": "float", **shape([url() for url in urls])}


def _modality(urls: Sequence[str]) -> dict[str, Any]:
    """The shape of infinity-emb: one request for all images."""
    return {"input": urls, "modality": "image"}


def _messages(urls: Sequence[str]) -> dict[str, Any]:
    """The shape of vLLM: a chat message in place of the input, one request for each image."""
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": content}]}


def _stripes(level: int) -> str:
    from PIL import Image

    ramp = Image.linear_gradient("L").resize(PROBE_SIZE)
    return _png_url(ramp.point([255 * (value // 16 % 2) for value in range(256)]).convert("RGB"), level)


def _colours() -> str:
    from PIL import Image

    ramp, disc = Image.linear_gradient("L").resize(PROBE_SIZE), Image.radial_gradient("L").resize(PROBE_SIZE)
    return _png_url(Image.merge("RGB", (disc, Image.new("L", PROBE_SIZE), ramp)), 9)


def _png_url(image: PILImage.Image, level: int) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=level)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


PROBES = (partial(_stripes, 0), partial(_stripes, 9), _colours)
"""One picture in two encodings, and another picture."""
