"""``POST /v1/embeddings``: deterministic unit vectors from what was sent.

This module decides how an input becomes a vector, and the shape of the reply. It must not know which limits hold.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_backends.testing.sandbox.answers import text_tokens
from vision_backends.testing.sandbox.context import Context, Draft
from vision_backends.testing.sandbox.corruptions import corrupt_reply, corrupt_vectors
from vision_backends.testing.sandbox.prompts import read_content
from vision_backends.testing.sandbox.wire import ApiError, HttpReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from vision_backends.testing.sandbox.pictures import Album, Picture

__all__ = ["DEFAULT_DIMENSION", "respond", "unit_vector"]

DEFAULT_DIMENSION = 1536
_DIMENSIONS = {"text-embedding-3-large": 3072}
_MAX_INPUTS = 2048


def respond(body: Mapping[str, Any], context: Context) -> Draft:
    """Return the draft of a reply.

    The API itself takes texts; ``"modality": "image"`` (infinity-emb) and ``"messages"`` (vLLM) bring images, which are
    embedded by their pixels: two encodings of one picture have the same vector.

    Raises:
        ApiError: The request is not well formed.
    """
    texts, pictures = _read(body, context.album)
    full = _DIMENSIONS.get(str(body["model"]), DEFAULT_DIMENSION)
    asked = body.get("dimensions") or full
    if not isinstance(asked, int) or not 1 <= asked <= full:
        raise ApiError(
            "invalid_request",
            message=f"Invalid value for 'dimensions': {asked}. The model has {full}.",
            param="dimensions",
        )
    keys = [picture.pixels_sha256 for picture in pictures] or texts
    vectors = np.stack([unit_vector(f"{body['model']}|{key}", dimension=full, keep=asked) for key in keys])
    as_base64 = body.get("encoding_format") == "base64" and context.fault.corruption != "floats_for_base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _written(vector, as_base64=as_base64)}
        for index, vector in enumerate(corrupt_vectors(vectors, context.fault))
    ]
    tokens = sum(map(text_tokens, texts)) + sum(picture.tokens for picture in pictures)
    document = {"object": "list", "data": rows, "model": body["model"]}
    if context.fault.corruption != "no_usage":
        document["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply = corrupt_reply(HttpReply(body=document), context.fault)
    return Draft(pictures=pictures, tokens=tokens, reply=reply)


def unit_vector(key: str, *, dimension: int, keep: int | None = None) -> npt.NDArray[np.float32]:
    """Return a float32 vector of length 1 that depends only on the arguments.

    Args:
        key: What is embedded.
        dimension: Components of the full vector.
        keep: Leading components to keep, normalised again, as ``dimensions`` does.
    """
    digest = hashlib.shake_256(key.encode()).digest(2 * dimension)
    vector = np.frombuffer(digest, dtype="<i2").astype(np.float32)[:keep]
    return vector / np.float32(np.linalg.norm(vector))


def _read(body: Mapping[str, Any], album: Album) -> tuple[list[str], tuple[Picture, ...]]:
    if "messages" in body:
        messages = body["messages"] if isinstance(body["messages"], list) else []
        text, pictures = read_content(messages, album)
        return [text], pictures[:1]
    given = body.get("input")
    items = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not items or len(items) > _MAX_INPUTS or not all(map(_is_input, items)):
        raise ApiError(
            "invalid_request",
            message="'$.input' is invalid: 1 to 2048 texts or lists of tokens, none of them empty.",
            param="input",
        )
    if body.get("modality") == "image":
        return [], tuple(album.picture(item) for item in items)
    return [item if isinstance(item, str) else str(item) for item in items], ()


def _is_tokens(value: Any) -> bool:  # noqa: ANN401 — any JSON
    return isinstance(value, list) and bool(value) and all(isinstance(item, int) for item in value)


def _is_input(value: Any) -> bool:  # noqa: ANN401 — any JSON
    return (isinstance(value, str) and bool(value)) or _is_tokens(value)


def _written(vector: npt.NDArray[np.float32], *, as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]
