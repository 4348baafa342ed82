"""The Embeddings API: how vectors of texts and images are asked for, and which vectors are believed.

This module decides what a valid reply is, and when a compatible server is believed to look at images. It must not
know the names of vector spaces.

There are two shapes of requests with images, and a server that knows neither may embed the letters of the data URL
without an error. So vectors are trusted only once they have been seen to follow the pixels and nothing else: one
picture in two encodings must have one vector, and another picture another.
"""

from __future__ import annotations

import base64
import io
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.models import read_tokens
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import CallerError, InvalidReplyError, NotSupportedError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.openai.client import Client
    from vision_backends.backends.openai.models import Tokens
    from vision_backends.clock import Clock, Deadline

    Vectors = npt.NDArray[np.float32]
    Shape = Callable[[Sequence[str]], dict[str, Any]]

__all__ = ["Embedder", "read_vectors", "text_body"]

SAME_PICTURE = 0.999
"""Least cosine similarity of one picture in two lossless encodings; batches on a GPU differ by about 1e-4."""

OTHER_PICTURE = 0.01
"""How much less similar another picture must be."""

PROBE_SIZE = (64, 64)

REFUSED_S = 15 * 60.0
"""How long a server that embeds no texts is not asked to, whatever it is asked for."""


class Embedder:
    """Asks a server for vectors: float32 arrays of shape [n, D] with rows of length 1, and the tokens they took.

    Args:
        client: The server.
        model: Its embedding model.
        cut: Dimensions to ask for; None takes the model's own.
        dimensions: D, where it is known.
        clock: Where time comes from.
    """

    def __init__(
        self, client: Client, *, model: str, cut: int | None, dimensions: int | None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._client = client
        self._clock = clock
        self._model = model
        self._cut = cut
        self._dimensions = dimensions
        self._shape: Shape | None = None
        self._refused = False
        self._refusal: tuple[RefusedError, float] | None = None

    def check_texts(self) -> None:
        """Return if the server may be asked to embed texts.

        Raises:
            RefusedError: It has refused that before, whatever the text.
        """
        if self._refusal is not None and self._clock.monotonic() < self._refusal[1]:
            raise copy(self._refusal[0])

    def forget(self) -> None:
        """Ask the server again for what it has refused."""
        self._refused, self._refusal = False, None

    def check_images(self) -> None:
        """Return if the server may be asked to embed images.

        Raises:
            NotSupportedError: It was asked, and did not look at the pixels.
        """
        if self._refused:
            raise NotSupportedError(
                f"The server does not embed images with {self._model}: its vectors do not follow the pixels.",
                remedy='Set image_embeddings = "describe" in [openai], or name a model that sees images.',
            )

    async def embed_texts(self, texts: Sequence[str], *, deadline: Deadline) -> tuple[Vectors, Tokens | None]:
        """Embed n texts.

        Raises:
            BackendError: The server could not answer.
        """
        body = partial(text_body, self._model, texts, dimensions=self._cut)
        try:
            return await self._ask(body, len(texts), deadline)
        except RefusedError as refusal:
            if refusal.lasting:
                self._refusal = (refusal, self._clock.monotonic() + REFUSED_S)
            raise

    async def embed_images(
        self, urls: Sequence[Callable[[], str]], *, deadline: Deadline
    ) -> tuple[Vectors, Tokens | None]:
        """Embed n images.

        Args:
            urls: Makers of the images as data URLs; called in a thread.
            deadline: When the call has to be over.

        Raises:
            NotSupportedError: See `check_images`.
            BackendError: The server could not answer.
        """
        self.check_images()
        if self._shape is None:
            self._shape = await self._find_shape(deadline)
        return await self._ask_for_images(self._shape, urls, deadline)

    async def _find_shape(self, deadline: Deadline) -> Shape:
        for shape in (_modality, _messages):
            try:
                vectors, _ = await self._ask_for_images(shape, PROBES, deadline)
            except (CallerError, RefusedError, InvalidReplyError):
                continue
            same, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
            if same >= SAME_PICTURE and other <= same - OTHER_PICTURE:
                return shape
        self._refused = True
        self.check_images()
        raise AssertionError

    async def _ask_for_images(
        self, shape: Shape, urls: Sequence[Callable[[], str]], deadline: Deadline
    ) -> tuple[Vectors, Tokens | None]:
        batches = [urls] if shape is _modality else [[url] for url in urls]
        parts = [
            await self._ask(partial(_image_body, shape, self._model, each), len(each), deadline) for each in batches
        ]
        import numpy as np

        vectors = [vectors for vectors, _ in parts]
        if len({each.shape[1] for each in vectors}) > 1:
            raise InvalidReplyError("The vectors of one batch have different lengths.", code="wrong_dimension")
        tokens = [counted for _, counted in parts if counted is not None]
        return np.concatenate(vectors), sum(tokens[1:], tokens[0]) if len(tokens) == len(parts) else None

    async def _ask(
        self, body: Callable[[], dict[str, Any]], count: int, deadline: Deadline
    ) -> tuple[Vectors, Tokens | None]:
        request = await self._client.prepare("embeddings", body, deadline=deadline)
        reply = await self._client.post(request, deadline=deadline)
        read = partial(read_vectors, reply.payloads[0], count=count, dimensions=self._dimensions)
        return await engine_loop().compute.start(read)


def text_body(model: str, texts: Sequence[str], *, dimensions: int | None) -> dict[str, Any]:
    """Return the body that asks for the vectors of texts."""
    body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def _image_body(shape: Shape, model: str, urls: Sequence[Callable[[], str]]) -> dict[str, Any]:
    return {"model": model, "encoding_format": "float", **shape([url() for url in urls])}


def _modality(urls: Sequence[str]) -> dict[str, Any]:
    """The shape of infinity-emb: one request for all images."""
    return {"input": urls, "modality": "image"}


def _messages(urls: Sequence[str]) -> dict[str, Any]:
    """The shape of vLLM: a chat message in place of the input, one request for each image."""
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": content}]}


def read_vectors(payload: Mapping[str, Any], *, count: int, dimensions: int | None) -> tuple[Vectors, Tokens | None]:
    """Return vectors as a float32 array of shape [count, D], each of length 1, and what they took.

    Args:
        payload: The decoded reply; vectors as base64 of little-endian float32 or as lists of numbers.
        count: How many were asked for.
        dimensions: D where it is known.

    Raises:
        InvalidReplyError: There are too few or too many, of unequal or unexpected length, not finite, or zero.
    """
    import numpy as np

    rows = payload.get("data")
    if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, dict) for row in rows):
        got = len(rows) if isinstance(rows, list) else "no"
        raise InvalidReplyError(f"{count} vectors were asked for and {got} came.", code="wrong_count")
    indices = [row.get("index") for row in rows]
    if sorted(index for index in indices if isinstance(index, int)) == list(range(count)):
        rows = sorted(rows, key=lambda row: int(row["index"]))
    vectors = [_vector(row.get("embedding")) for row in rows]
    lengths = {vector.size for vector in vectors}
    if len(lengths) != 1 or lengths == {0} or (dimensions is not None and lengths != {dimensions}):
        wanted = "equal lengths" if dimensions is None else f"{dimensions} numbers each"
        raise InvalidReplyError(
            f"The vectors have {sorted(lengths)} numbers instead of {wanted}.", code="wrong_dimension"
        )
    matrix = np.stack(vectors)
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise InvalidReplyError("A vector is zero, infinite or not a number.", code="bad_vector")
    return (matrix / norms).astype(np.float32), read_tokens(payload.get("usage"))


def _vector(value: object) -> Vectors:
    import numpy as np

    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        return np.array(value if isinstance(value, list) else [], dtype=np.float32).reshape(-1)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidReplyError("A vector is neither base64 nor a list of numbers.", code="bad_vector") from error


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
