"""How an answer is written down for the cache, and read back.

The format: 4 bytes that name it and its version, the CRC-32 of all that follows, the length of the header, the
header in JSON, then for embeddings the vector as little-endian float32. No pickle: whoever can write to the
cache file can at worst falsify an answer, never run code.

This module decides what of an answer is kept: of its trace only backend, model and revision, since everything
else belongs to the call that got it. It must not know where the bytes are kept.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from vision_backends.types import Description, Detection, Detections, Embedding, Trace

__all__ = ["decode", "encode"]

Answer = Description | Embedding | Detections

MAGIC = b"vbr1"
"""Raise the digit when the format changes: what is kept in the old one is then a miss."""

PREAMBLE = struct.Struct("<4sII")
"""Magic, CRC-32, length of the header in bytes."""

LENGTH_AT = 8
"""Where the checksummed part begins: with the length of the header."""


def encode(answer: Answer) -> bytes:
    """Return an answer as bytes.

    Raises:
        TypeError: A description's evidence holds something else than JSON's own types.
        ValueError: A number in it is not finite.
    """
    vector = b""
    header: dict[str, Any]
    if isinstance(answer, Description):
        header = {
            "type": "description",
            "text": answer.text,
            "language": answer.language,
            "complete": answer.complete,
            "evidence": None if answer.evidence is None else dict(answer.evidence),
        }
    elif isinstance(answer, Embedding):
        header = {"type": "embedding", "space": answer.space}
        vector = answer.vector.astype("<f4", copy=False).tobytes()
    else:
        items = [[item.label, item.score, item.xyxy, item.category_id] for item in answer.items]
        header = {"type": "detections", "items": items, "width": answer.width, "height": answer.height}
    trace = answer.trace
    header["trace"] = [trace.backend, trace.model, trace.revision]
    encoded = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    checked = struct.pack("<I", len(encoded)) + encoded + vector
    return MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked


def decode(data: bytes) -> Answer | None:
    """Return the answer that was encoded, or None when the bytes are damaged or of another version."""
    if len(data) < PREAMBLE.size:
        return None
    magic, checksum, length = PREAMBLE.unpack_from(data)
    if magic != MAGIC or checksum != zlib.crc32(memoryview(data)[LENGTH_AT:]):
        return None
    end = PREAMBLE.size + length
    try:
        return _read(_typed(json.loads(data[PREAMBLE.size : end]), dict), data[end:])
    except (ValueError, TypeError, KeyError, RecursionError):  # what the records and the unpacking refuse
        return None


def _read(header: dict[str, Any], vector: bytes) -> Answer:
    backend, model, revision = header.pop("trace")
    trace = Trace(backend=_typed(backend, str), model=_typed(model, str, None), revision=_typed(revision, str, None))
    kind = header.pop("type")
    if kind == "embedding":
        return _embedding(vector, trace=trace, **header)
    if vector:
        raise ValueError("Only embeddings have something behind the header.")
    if kind == "description":
        return _description(trace=trace, **header)
    if kind == "detections":
        return _detections(trace=trace, **header)
    raise ValueError(f"There is no answer of type {kind!r}.")


def _embedding(vector: bytes, *, space: object, trace: Trace) -> Embedding:
    import numpy as np

    return Embedding(vector=np.frombuffer(vector, dtype="<f4"), space=_typed(space, str), trace=trace)


def _description(*, text: object, language: object, complete: object, evidence: object, trace: Trace) -> Description:
    return Description(
        text=_typed(text, str),
        language=_typed(language, str, None),
        complete=_typed(complete, bool),
        evidence=_typed(evidence, dict, None),
        trace=trace,
    )


def _detections(*, items: object, width: object, height: object, trace: Trace) -> Detections:
    return Detections(
        items=tuple(_detection(*item) for item in _typed(items, list)),
        width=_typed(width, int),
        height=_typed(height, int),
        trace=trace,
    )


def _detection(label: object, score: object, xyxy: object, category_id: object) -> Detection:
    x1, y1, x2, y2 = (_typed(side, float, int) for side in _typed(xyxy, list))
    return Detection(
        label=_typed(label, str),
        score=_typed(score, float, int),
        xyxy=(x1, y1, x2, y2),
        category_id=_typed(category_id, int, None),
    )


def _typed(value: Any, *types: type | None) -> Any:  # noqa: ANN401 — whatever JSON holds, of a type just checked
    """Return a value that is of exactly one of these types; None stands for itself."""
    if (None if value is None else type(value)) not in types:
        raise TypeError(f"{value!r} is of another type.")
    return value
