"""Records that were written down are read again as they were."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vision_backends
import vision_backends.search
import vision_backends.testing
from vision_backends import (
    Attempt,
    CallerError,
    Description,
    Detection,
    Detections,
    Embedding,
    ImageLabel,
    InvalidRequestError,
    Reply,
    Timing,
    Trace,
    Usage,
    VisionError,
)
from vision_backends.reports import Verdict, WarmUp
from vision_backends.search import DuplicateFile, Hit, IndexReport, UnreadableImage
from vision_backends.serialization import Record, VersionedRecord
from vision_backends.traces import ProbeReport

PARTS = {Attempt, Detection, DuplicateFile, Hit, ImageLabel, Timing, UnreadableImage, Usage, Verdict, WarmUp}
"""The records that are stored with others only, and say no version of their own."""

TAKEN = {
    *("AskRequest", "DescribeRequest", "DetectRequest", "EmbedRequest", "EmbedTextRequest", "FakeCall"),
    *("Image", "ImageLimits", "Limits", "Model", "RateLimits", "Stores"),
}
"""The public dataclasses that hold what is asked, set or used, and not what was found out."""

TEXTS = st.text(max_size=12)
SECONDS = st.floats(0, 1e6)
COUNTS = st.integers(0, 10**6)
SCORES = st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
VECTORS = st.lists(st.floats(0.5, 1, width=32), min_size=1, max_size=8).map(
    lambda numbers: [number / sum(each * each for each in numbers) ** 0.5 for number in numbers]
)
CORNERS = st.floats(0, 40), st.floats(0, 40), st.floats(41, 90), st.floats(41, 90)
PLAIN = {
    Any: JSON,
    bool: st.booleans(),
    float: SECONDS,
    int: COUNTS,
    type(None): st.none(),
    str: TEXTS,
    Path: TEXTS.map(Path),
    VisionError: st.sampled_from(CallerError.__subclasses__()).flatmap(lambda kind: st.builds(kind, TEXTS)),
}
"""Values of the annotations that are no records."""

LIMITED = {
    Detection: {"score": SCORES, "xyxy": st.tuples(*CORNERS)},
    Detections: {"width": st.just(100), "height": st.just(100)},
    Embedding: {"vector": VECTORS},
    ImageLabel: {"score": SCORES},
}
"""Fields that may not hold everything that their annotation allows."""


def public_dataclasses():
    """Everything public that has fields: what the packages export, and what the reference lists beside that."""
    path = Path(__file__).parents[1] / "docs" / "site" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    packages = (vision_backends, vision_backends.search, vision_backends.testing)
    found = [getattr(package, name) for package in packages for name in package.__all__]
    for name in reference.RECORDS:
        module, _, own = name.rpartition(".")
        found.append(getattr(importlib.import_module(f"vision_backends.{module}"), own))
    return {kind for kind in found if isinstance(kind, type) and is_dataclass(kind)}


@cache
def values_of(hint: Any) -> st.SearchStrategy:
    """Return any values of a field with this annotation."""
    origin, of = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(of)
    if origin in {tuple, list}:
        return st.lists(values_of(of[0]), max_size=2).map(origin)
    if origin in {dict, Mapping}:
        return st.dictionaries(values_of(of[0]), values_of(of[1]), max_size=2)
    if of:
        return st.one_of(*map(values_of, of))
    if is_dataclass(hint):
        limited = LIMITED.get(hint, {})
        written = SimpleNamespace(
            __annotations__={spec.name: spec.type for spec in fields(hint) if spec.name not in limited}
        )
        hints = get_type_hints(written, vars(sys.modules[hint.__module__]))
        return st.builds(hint, **limited, **{name: values_of(of_field) for name, of_field in hints.items()})
    return PLAIN[hint]


def test_everything_public_that_was_found_out_can_be_stored():
    """With a version, unless it is a part of something else."""
    kinds = public_dataclasses()
    assert {kind.__name__ for kind in kinds if not issubclass(kind, Record)} == TAKEN
    assert {kind for kind in kinds if issubclass(kind, Record) and not issubclass(kind, VersionedRecord)} == PARTS


@pytest.mark.parametrize(
    "kind",
    sorted((kind for kind in public_dataclasses() if issubclass(kind, Record)), key=lambda kind: kind.__name__),
)
@given(data=st.data())
@settings(max_examples=15)
def test_a_record_that_was_stored_as_json_is_read_again_as_it_was(kind, data):
    """Nothing is lost or changed on the way, whatever its fields hold; two errors are never equal."""
    record = data.draw(values_of(kind))
    told = record.to_dict()
    again = kind.from_dict(json.loads(json.dumps(told, allow_nan=False)))
    assert again.to_dict() == told
    assert again == record or kind in {IndexReport, UnreadableImage}


@pytest.mark.parametrize("kind", [Trace, Detections, Embedding, Description, Reply, ProbeReport])
def test_what_is_stored_by_itself_says_in_which_version(kind):
    """Its parts do not, because they are stored with it."""
    required = {
        Detections: {"items": [], "width": 1, "height": 1},
        Embedding: {"vector": [1.0], "space": "toy"},
        ProbeReport: {"model": "m", "sees": None, "at": 0.0},
    }.get(kind, {"text": "A cat."} if kind is not Trace else {})
    told = kind.from_dict(required).to_dict()
    assert told["schema_version"] == 1
    assert "schema_version" not in told.get("trace", {})


@pytest.mark.parametrize("version", [2, "1", None, 1.5])
def test_what_another_version_wrote_is_refused(version):
    """Half understood would be worse."""
    with pytest.raises(InvalidRequestError, match="schema_version") as caught:
        Description.from_dict({"text": "A cat.", "schema_version": version})
    assert "release" in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Description, {"language": "en"}, "Description.text is to be there"),
        (Description, {"text": 5}, r"Description.text is to be of type str, not 5 \(int\)"),
        (Description, {"text": "A cat.", "complete": 1}, "Description.complete is to be of type bool"),
        (Description, {"text": "A cat.", "trace": {"attempts": [{"backend": "x", "outcome": "won"}]}},
         r"Description.trace.attempts\[0\].outcome is to be one of 'answered'"),
        (Description, {"text": "A cat.", "trace": []}, "Description.trace is to be a mapping"),
        (Detections, {"items": [{"label": "cat", "score": 2, "xyxy": [1, 2, 3, 4]}], "width": 9, "height": 9},
         r"Detections.items\[0\] is to be a valid Detection .*score 2.0 is not in"),
        (Detections, {"items": [{"label": "cat", "score": 1, "xyxy": [1, 2, 3]}], "width": 9, "height": 9},
         r"Detections.items\[0\].xyxy is to be a list of 4"),
        (Embedding, {"vector": ["a"], "space": "toy"}, r"Embedding.vector\[0\] is to be of type float"),
        (Embedding, {"vector": [3.0], "space": "toy"}, "length 1, not 3"),
        (Usage, {"input_tokens": True}, "Usage.input_tokens is to be of type int"),
        (Attempt, {"backend": "x", "outcome": "failed", "at": 10**400}, "Attempt.at is to be a number"),
        (Trace, '{"backend": "x"}', "takes a mapping"),
        (Trace, None, "takes a mapping"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_where_and_why(kind, values, says):
    """A file of a million lines is mended by that."""
    with pytest.raises(InvalidRequestError, match=says):
        kind.from_dict(values)


def test_keys_of_others_are_passed_over():
    """A line of the command line's, or a row with a column more, is read as well."""
    assert Description.from_dict({"text": "A cat.", "album": "holidays"}) == Description(text="A cat.")
