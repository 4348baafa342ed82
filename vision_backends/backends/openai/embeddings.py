"""The Embeddings API: how the vectors of texts are asked for, and which vectors are believed.

This module decides what a valid reply is. It must not know the names of vector spaces, nor how images are embedded.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from vision_backends.backends.openai.prices import read_tokens
from vision_backends.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from vision_backends.backends.openai.prices import Tokens

    Vectors = npt.NDArray[np.float32]

__all__ = ["read_vectors", "text_body"]


def text_body(model: str, texts: Sequence[str], *, dimensions: int | None) -> dict[str, Any]:
    """Return the body that asks for the vectors of texts."""
    body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return body if dimensions is None else {**body, "dimensions": dimensions}


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
