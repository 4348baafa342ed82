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
import re
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.prices import read_tokens
from vision_backends.backends.requests import MOST_CHARS
from vision_backends.clock import SYSTEM_CLOCK
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import (
    TEXT_TOO_LONG,
    AuthenticationError,
    CallerError,
    InvalidReplyError,
    NotSupportedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
    VisionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PILImage

    from vision_backends.backends.openai.client import Client
    from vision_backends.backends.openai.prices import Tokens
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

MAX_CUTS = 4
"""How often a text is cut until the model reads it."""

MARGIN = 0.95
"""Tokens are not spread evenly over a text."""

SHORTEN = "Shorten it, or pass truncate=True to have the rest left out."

SHOWN = 40
"""Characters of what was left out that are shown."""

_TOO_LONG = re.compile(
    r"(?i)context[_ ](length|size|window)|exceeds the maximum number of tokens|too many (input )?tokens"
    r"|must have less than \d+ tokens|input is too (long|large)|maximum (input|sequence|token)? ?length"
)
"""How OpenAI, vLLM, TEI, llama.cpp, Ollama, Mistral and Gemini say that a text is too long."""

_OTHER_LIMITS = (RateLimitedError, QuotaExhaustedError, OverloadedError, AuthenticationError)

_NUMBER = re.compile(r"\d[\d,]*")


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
            NotSupportedError: A text is longer than the model reads, with the code `TEXT_TOO_LONG`.
            BackendError: The server could not answer.
        """
        longest = max(map(len, texts), default=0)
        if longest > MOST_CHARS:  # megabytes would be sent for a server to refuse
            message = f"The text is {longest:,} characters long; a server is sent at most {MOST_CHARS:,}."
            raise NotSupportedError(message, remedy=SHORTEN, code=TEXT_TOO_LONG)
        body = partial(text_body, self._model, texts, dimensions=self._cut)
        try:
            return await self._ask(body, len(texts), deadline)
        except VisionError as error:
            if isinstance(error, _OTHER_LIMITS) or not _TOO_LONG.search(error.message):
                if isinstance(error, RefusedError) and error.lasting:
                    self._refusal = (error, self._clock.monotonic() + REFUSED_S)
                raise
            raise NotSupportedError(
                error.message,
                remedy=SHORTEN,
                code=TEXT_TOO_LONG,
                status=getattr(error, "status", None),
                request_id=getattr(error, "request_id", None),
            ) from error

    async def embed_start(self, text: str, *, deadline: Deadline) -> tuple[Vectors, Tokens | None, str | None]:
        """Embed as much of a text as the model reads, and say what was left out, as a sentence.

        Raises:
            BackendError: The server could not answer.
        """
        kept = text[:MOST_CHARS]
        for _ in range(MAX_CUTS):
            try:
                vectors, tokens = await self.embed_texts([kept], deadline=deadline)
            except NotSupportedError as error:
                if error.code != TEXT_TOO_LONG:
                    raise
                kept = kept[: max(1, int(len(kept) * _share_read(error.message)))]
                continue
            rest = text[len(kept) : len(kept) + MOST_CHARS].strip()
            shown = f"{rest[:SHOWN]}…" if len(rest) > SHOWN else rest
            part = f"{self._model} has read {len(kept):,} of the text's {len(text):,} characters, without {shown!r}."
            return vectors, tokens, part if rest else None
        return *await self.embed_texts([kept], deadline=deadline), None

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


def _share_read(message: str) -> float:
    """Return how much of a text a model reads, by the two lengths that a server names; half of it where it does not."""
    said = message.partition(": ")[2] or message  # without the server's address and status
    lengths = sorted({int(each.replace(",", "")) for each in _NUMBER.findall(said)})
    longest, length = lengths[-2:] if len(lengths) > 1 else (1, 2)
    return max(0.05, longest / length * MARGIN)


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
