"""Answers as bytes and back."""

from __future__ import annotations

import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends.storage.cache import MAGIC, decode, encode
from vision_backends.types import (
    FREE,
    Attempt,
    Description,
    Detection,
    Detections,
    Embedding,
    ImageLabel,
    Timing,
    Trace,
    Usage,
)

TEXTS = st.text(max_size=20)
MAYBE_TEXTS = st.none() | TEXTS
TRACES = st.builds(Trace, backend=TEXTS, model=MAYBE_TEXTS, revision=MAYBE_TEXTS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DESCRIPTIONS = st.builds(
    Description,
    text=TEXTS,
    language=MAYBE_TEXTS,
    complete=st.booleans(),
    evidence=st.none() | st.dictionaries(TEXTS, JSON, max_size=3),
    trace=TRACES,
)


@st.composite
def embeddings(draw):
    """Vectors of length 1 in any number of dimensions."""
    raw = draw(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50).filter(lambda each: any(map(abs, each))))
    vector = np.array(raw, dtype=np.float64)
    return Embedding(vector=vector / np.linalg.norm(vector), space=draw(TEXTS), trace=draw(TRACES))


@st.composite
def detections(draw):
    """Boxes anywhere in an image."""
    width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    items = []
    for _ in range(draw(st.integers(0, 4))):
        left, right = sorted(draw(st.lists(st.floats(0, width), min_size=2, max_size=2, unique=True)))
        top, bottom = sorted(draw(st.lists(st.floats(0, height), min_size=2, max_size=2, unique=True)))
        score, category = draw(st.floats(0, 1)), draw(st.none() | st.integers(1, 90))
        items.append(Detection(label=draw(TEXTS), score=score, xyxy=(left, top, right, bottom), category_id=category))
    labels = st.builds(ImageLabel, label=TEXTS, score=st.floats(0, 1))
    known = tuple(draw(st.lists(labels, max_size=3)))
    return Detections(items=tuple(items), width=width, height=height, image_labels=known, trace=draw(TRACES))


ANSWERS = DESCRIPTIONS | embeddings() | detections()


def packed(header, behind=b""):
    """Bytes with a valid checksum around any header."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    checked = struct.pack("<I", len(encoded)) + encoded + behind
    return MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked


@given(ANSWERS)
def test_an_answer_comes_back_as_it_was(answer):
    """Text, boxes and vectors are exact, to the last bit."""
    assert decode(encode(answer)) == answer


def test_of_the_trace_only_who_answered_is_kept():
    """Attempts, cost and times belong to the call that was made, not to those that find its answer."""
    trace = Trace(
        backend="openai",
        model="m",
        revision="r",
        degraded=True,
        reason="why",
        cached=True,
        attempts=(Attempt(backend="openai", outcome="answered"),),
        usage=FREE,
        elapsed_s=3.0,
        timing=Timing(model_s=2.0),
    )
    kept = decode(encode(Description(text="a", trace=trace)))
    boxes = decode(encode(Detections(items=(), width=1, height=1, trace=Trace(flawed_boxes=2))))
    assert boxes.trace.flawed_boxes == 2  # a fault of the answer, not of the call
    assert kept.trace == Trace(backend="openai", model="m", revision="r", usage=Usage())
    assert kept.trace.timing is None


def test_what_a_backend_has_noted_is_kept():
    """That a text was cut holds for the answer whenever it is found again."""
    trace = Trace(backend="local", notes=("The text was cut.",))
    assert decode(encode(Description(text="a", trace=trace))).trace == trace


def test_a_vector_takes_four_bytes_per_component():
    """Raw float32, not text."""
    vector = np.full(1536, 1 / math.sqrt(1536))
    assert len(encode(Embedding(vector=vector, space="s"))) < 1536 * 4 + 100


@given(ANSWERS, st.data())
def test_a_damaged_answer_is_a_miss(answer, data):
    """Whatever byte is changed, whatever is cut off or added: never an error, never a wrong answer."""
    good = encode(answer)
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(changed)) is None
    assert decode(good[:place]) is None
    assert decode(good + data.draw(st.binary(min_size=1, max_size=9))) is None


@given(st.binary(max_size=200))
def test_foreign_bytes_are_a_miss(data):
    """The cache file may hold anything."""
    assert decode(data) is None
    assert decode(packed(data)) is None


TRACE = {"trace": ["b", "m", None]}
DESCRIBED = {"type": "description", "text": "a", "language": None, "complete": True, "evidence": None} | TRACE
EMBEDDED = {"type": "embedding", "space": "s"} | TRACE
DETECTED = {"type": "detections", "items": [["cat", 0.5, [0, 0, 1, 1], None]], "width": 2, "height": 2} | TRACE
VECTOR = struct.pack("<ff", 0.6, 0.8)


def test_the_handmade_headers_are_otherwise_fine():
    """Guards the cases below, each of which changes one thing of these."""
    assert isinstance(decode(packed(DESCRIBED)), Description)
    assert isinstance(decode(packed(EMBEDDED, VECTOR)), Embedding)
    assert isinstance(decode(packed(DETECTED)), Detections)
    assert decode(packed(DETECTED | {"image_labels": [["cat", 0.5]]})).image_labels[0].label == "cat"


@pytest.mark.parametrize(
    ("header", "behind"),
    [
        (DESCRIBED | {"type": "opinion"}, b""),
        (DESCRIBED | {"text": 3}, b""),
        (DESCRIBED | {"complete": 1}, b""),
        (DESCRIBED | {"evidence": ["a"]}, b""),
        (DESCRIBED | {"mood": "good"}, b""),
        ({key: value for key, value in DESCRIBED.items() if key != "text"}, b""),
        ({key: value for key, value in DESCRIBED.items() if key != "trace"}, b""),
        (DESCRIBED | {"trace": [None, "m", None]}, b""),
        (DESCRIBED | {"trace": ["b", "m"]}, b""),
        (DESCRIBED | {"notes": "cut"}, b""),
        (DESCRIBED | {"notes": [1]}, b""),
        (DESCRIBED, b"more"),
        (EMBEDDED | {"space": None}, VECTOR),
        (EMBEDDED, b""),
        (EMBEDDED, VECTOR[:-1]),
        (EMBEDDED, VECTOR * 2),
        (EMBEDDED, struct.pack("<ff", math.nan, 1.0)),
        (DETECTED | {"items": "cat"}, b""),
        (DETECTED | {"items": [["cat", 0.5, [0, 0, 1, 1]]]}, b""),
        (DETECTED | {"items": [["cat", 0.5, [0, 0, 9, 1], None]]}, b""),
        (DETECTED | {"items": [["cat", 2.0, [0, 0, 1, 1], None]]}, b""),
        (DETECTED | {"items": [["cat", 0.5, [0, 0, "1", 1], None]]}, b""),
        (DETECTED | {"width": "2"}, b""),
        (DETECTED | {"image_labels": "cat"}, b""),
        (DETECTED | {"image_labels": [["cat"]]}, b""),
        (DETECTED | {"image_labels": [["cat", 2.0]]}, b""),
        (DETECTED | {"image_labels": [[1, 0.5]]}, b""),
        (["description"], b""),
        (None, b""),
        (b"[" * 100_000, b""),
    ],
)
def test_what_no_encoder_writes_is_a_miss(header, behind):
    """A valid checksum is no reason to believe the rest."""
    assert decode(packed(header, behind)) is None


def test_another_version_is_a_miss():
    """After an upgrade old entries are asked for again."""
    data = encode(Description(text="a"))
    assert decode(b"vbr0" + data[4:]) is None


@pytest.mark.parametrize("evidence", [{"score": np.float32(0.5)}, {"seen": {1, 2}}])
def test_evidence_that_is_no_json_is_refused(evidence):
    """A backend that breaks this contract is told so."""
    with pytest.raises(TypeError):
        encode(Description(text="a", evidence=evidence))
