"""Records that were written down are read again as they were."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_backends import (
    Attempt,
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
)
from vision_backends.reports import Explanation, RungStatus, Verdict, WarmUp, WarmUpReport
from vision_backends.traces import ProbeReport

TEXTS = st.text(max_size=12)
MAYBE_TEXTS = st.none() | TEXTS
SECONDS = st.floats(0, 1e6)
COUNTS = st.integers(0, 10**6)
USAGES = st.builds(
    Usage, input_tokens=st.none() | COUNTS, output_tokens=st.none() | COUNTS, cost_usd=st.none() | st.floats(0, 9)
)
ATTEMPTS = st.builds(
    Attempt,
    backend=TEXTS,
    outcome=st.sampled_from(["answered", "cached", "failed", "skipped"]),
    model=MAYBE_TEXTS,
    error=MAYBE_TEXTS,
    status=st.none() | st.integers(100, 599),
    at=SECONDS,
    elapsed_s=SECONDS,
    usage=USAGES,
    retry_after_s=st.none() | SECONDS,
)
TIMINGS = st.builds(Timing, decode_s=st.none() | SECONDS, model_s=st.none() | SECONDS)
TRACES = st.builds(
    Trace,
    backend=TEXTS,
    model=MAYBE_TEXTS,
    degraded=st.booleans(),
    reason=MAYBE_TEXTS,
    cached=st.booleans(),
    attempts=st.lists(ATTEMPTS, max_size=2).map(tuple),
    usage=USAGES,
    elapsed_s=SECONDS,
    flawed_boxes=COUNTS,
    notes=st.lists(TEXTS, max_size=2).map(tuple),
    timing=st.none() | TIMINGS,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SCORES = st.floats(0, 1)
LABELS = st.builds(ImageLabel, label=TEXTS, score=SCORES)
BOXES = st.builds(
    Detection,
    label=TEXTS,
    score=SCORES,
    xyxy=st.tuples(st.floats(0, 40), st.floats(0, 40), st.floats(41, 90), st.floats(41, 90)),
    category_id=st.none() | st.integers(1, 90),
)
VECTORS = st.lists(st.floats(0.5, 1, width=32), min_size=1, max_size=8).map(
    lambda numbers: [number / sum(each * each for each in numbers) ** 0.5 for number in numbers]
)
VERDICTS = st.builds(
    Verdict,
    backend=TEXTS,
    ready=st.booleans(),
    spaces=st.lists(TEXTS, max_size=2).map(tuple),
    expected_s=st.none() | SECONDS,
)
WARM_UPS = st.builds(
    WarmUp, backend=TEXTS, task=st.just("detect"), state=st.sampled_from(["ready", "warming", "not_ready"])
)
RECORDS = st.one_of(
    USAGES,
    ATTEMPTS,
    TIMINGS,
    TRACES,
    LABELS,
    BOXES,
    st.builds(Description, text=TEXTS, evidence=st.none() | st.dictionaries(TEXTS, JSON, max_size=2),
              informative=st.booleans(), source=MAYBE_TEXTS, trace=TRACES),
    st.builds(Reply, text=TEXTS, data=JSON, sources=st.lists(MAYBE_TEXTS, max_size=2).map(tuple), trace=TRACES),
    st.builds(Embedding, vector=VECTORS, space=TEXTS, source=MAYBE_TEXTS, trace=TRACES),
    st.builds(Detections, items=st.lists(BOXES, max_size=3).map(tuple), width=st.just(100), height=st.just(100),
              image_labels=st.lists(LABELS, max_size=2).map(tuple), source=MAYBE_TEXTS, trace=TRACES),
    st.builds(ProbeReport, model=TEXTS, sees=st.none() | st.booleans(), at=SECONDS, refuses=st.just(("top_k",))),
    VERDICTS,
    st.builds(Explanation, task=st.just("detect"), verdicts=st.lists(VERDICTS, max_size=2).map(tuple)),
    st.builds(
        RungStatus,
        backend=TEXTS,
        local=st.booleans(),
        tasks=st.dictionaries(st.sampled_from(["describe", "embed"]), VERDICTS, max_size=2),
        facts=st.dictionaries(TEXTS, JSON, max_size=2),
    ),
    WARM_UPS,
    st.builds(WarmUpReport, warm_ups=st.lists(WARM_UPS, max_size=2).map(tuple)),
)  # fmt: skip


@given(RECORDS)
def test_a_record_that_was_stored_as_json_is_read_again_as_it_was(record):
    """Nothing is lost or changed on the way, in any record."""
    told = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    again = type(record).from_dict(told)
    assert again == record
    assert again.to_dict() == record.to_dict()


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
