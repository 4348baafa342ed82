"""Cached answers: under which key one is kept, and how it is written down and read back.

This module decides what makes two requests the same, and what of an answer is kept: of its trace only backend, model,
revision, flawed boxes and what the backend has noted, since everything else belongs to the call that got it. It must
not know where the bytes are kept, nor any request, model or backend: for the key they come as plain values.

The format: 4 bytes that name it and its version, the CRC-32 of all that follows, the length of the header, the
header in JSON, then for embeddings the vector as little-endian float32. No pickle: anyone who can write to the
cache file can at worst falsify an answer, never run code.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vision_backends.types import Description, Detection, Detections, Embedding, ImageLabel, Reply, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vision_backends.types import Task

__all__ = ["cache_keys", "decode", "encode"]

Answer = Description | Embedding | Detections | Reply

KEY_VERSION = 1
"""Raise it when answers that are already kept must no longer be found."""

MAGIC = b"vbr1"
"""Raise the digit when the format changes: what is kept in the old one is then a miss."""

PREAMBLE = struct.Struct("<4sII")
"""Magic, CRC-32, length of the header in bytes."""

LENGTH_AT = 8
"""Where the checksummed part begins: with the length of the header."""


_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Returns JSON, unescaped and with lone surrogates: two halves of a character and the character itself differ."""


def cache_keys(
    *,
    task: Task,
    backend: str,
    model: Mapping[str, Any],
    options: Mapping[str, Any],
    account: Sequence[str] = (),
) -> Callable[[str], str]:
    """Return what makes the key of an answer, for a content: equal for equal arguments, different for all others.

    The encoding is JSON with sorted keys, which is injective: strings are quoted and escaped, so no two
    neighbours can run into each other, and 1, 1.0, true and "1" stay apart. Lists and tuples are alike.

    Args:
        task: What is asked.
        backend: Name of the backend.
        model: Name, revision, fingerprint and space of the model that would answer.
        options: Everything else that determines the answer.
        account: With whom the answer may be shared; empty for everybody who can read the cache.

    Returns:
        A function that takes the digest of the image or text and returns 64 hexadecimal digits (SHA-256).

    Raises:
        TypeError: A value is none of str, int, float, bool, None, list, tuple or mapping with str keys.
        ValueError: A number is not finite.
    """
    parts: list[Any] = [backend, model, options]
    if account:
        parts.append(list(account))
    _refuse_other_keys(parts)
    before, after = _canonical([KEY_VERSION, task])[:-1], _canonical(parts)[1:]

    def key_of(content: str) -> str:
        encoded = f"{before},{_canonical(content)},{after}"
        return hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).hexdigest()

    return key_of


def encode(answer: Answer) -> bytes:
    """Return an answer as bytes.

    Raises:
        TypeError: A description's evidence holds a value of a type that JSON lacks.
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
        if not answer.informative:
            header["informative"] = False
    elif isinstance(answer, Reply):
        header = {"type": "reply", "text": answer.text, "data": answer.data, "complete": answer.complete}
    elif isinstance(answer, Embedding):
        header = {"type": "embedding", "space": answer.space}
        vector = answer.vector.astype("<f4", copy=False).tobytes()
    else:
        items = [[item.label, item.score, item.xyxy, item.category_id] for item in answer.items]
        header = {"type": "detections", "items": items, "width": answer.width, "height": answer.height}
        if answer.image_labels:
            header["image_labels"] = [[item.label, item.score] for item in answer.image_labels]
        if answer.trace.flawed_boxes:
            header["flawed_boxes"] = answer.trace.flawed_boxes
    trace = answer.trace
    header["trace"] = [trace.backend, trace.model, trace.revision]
    if trace.notes:
        header["notes"] = trace.notes
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
    except (ValueError, TypeError, KeyError, RecursionError):  # refused by the records or the unpacking
        return None


def _refuse_other_keys(value: object) -> None:
    """Refuse keys that JSON would silently turn into strings, such as 1 beside "1"."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"The key {key!r} is not a str.")
            _refuse_other_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_other_keys(item)


def _read(header: dict[str, Any], vector: bytes) -> Answer:
    backend, model, revision = header.pop("trace")
    trace = Trace(
        backend=_typed(backend, str),
        model=_typed(model, str, None),
        revision=_typed(revision, str, None),
        notes=tuple(_typed(note, str) for note in _typed(header.pop("notes", []), list)),
    )
    kind = header.pop("type")
    if kind == "embedding":
        return _embedding(vector, trace=trace, **header)
    if vector:
        raise ValueError("Only embeddings have data after the header.")
    if kind == "reply":
        return _reply(trace=trace, **header)
    if kind == "description":
        return _description(trace=trace, **header)
    if kind == "detections":
        return _detections(trace=trace, **header)
    raise ValueError(f"{kind!r} is not a type of answer.")


def _embedding(vector: bytes, *, space: object, trace: Trace) -> Embedding:
    import numpy as np

    return Embedding(vector=np.frombuffer(vector, dtype="<f4"), space=_typed(space, str), trace=trace)


def _description(
    *, text: object, language: object, complete: object, evidence: object, trace: Trace, informative: object = True
) -> Description:
    return Description(
        text=_typed(text, str),
        language=_typed(language, str, None),
        complete=_typed(complete, bool),
        evidence=_typed(evidence, dict, None),
        informative=_typed(informative, bool),
        trace=trace,
    )


def _reply(*, text: object, data: object, complete: object, trace: Trace) -> Reply:
    return Reply(text=_typed(text, str), data=data, complete=_typed(complete, bool), trace=trace)


def _detections(
    *,
    items: object,
    width: object,
    height: object,
    trace: Trace,
    image_labels: object = (),
    flawed_boxes: object = 0,
) -> Detections:
    return Detections(
        items=tuple(_detection(*item) for item in _typed(items, list)),
        image_labels=tuple(_image_label(*item) for item in _typed(image_labels, list, tuple)),
        width=_typed(width, int),
        height=_typed(height, int),
        trace=replace(trace, flawed_boxes=_typed(flawed_boxes, int)),
    )


def _detection(label: object, score: object, xyxy: object, category_id: object) -> Detection:
    x1, y1, x2, y2 = (_typed(side, float, int) for side in _typed(xyxy, list))
    return Detection(
        label=_typed(label, str),
        score=_typed(score, float, int),
        xyxy=(x1, y1, x2, y2),
        category_id=_typed(category_id, int, None),
    )


def _image_label(label: object, score: object) -> ImageLabel:
    return ImageLabel(label=_typed(label, str), score=_typed(score, float, int))


def _typed(value: Any, *types: type | None) -> Any:  # noqa: ANN401 — whatever JSON holds, of a type just checked
    """Return a value if its type is exactly one of these; None stands for itself."""
    if (None if value is None else type(value)) not in types:
        raise TypeError(f"{value!r} has the wrong type.")
    return value
