"""What the ledger adds up to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from vision_backends.cli.usage_totals import KEYS, Figure, Sums, sum_up
from vision_backends.storage.base import LedgerRow, add_up

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()

ANSWER = LedgerRow(
    at=NOON,
    call_id="1",
    task="describe",
    backend="best",
    model="big",
    outcome="answered",
    elapsed_s=2.0,
    input_tokens=100,
    output_tokens=10,
    cost_usd=0.5,
    degraded=False,
)
MISS = replace(
    ANSWER, degraded=None, outcome="failed", error="unavailable", input_tokens=None, output_tokens=None, cost_usd=None
)

ROWS = st.builds(
    replace,
    st.sampled_from([ANSWER, MISS, replace(ANSWER, outcome="cached"), replace(MISS, outcome="skipped")]),
    at=st.floats(0, 4e9),
    degraded=st.none() | st.booleans(),
    model=st.none() | st.sampled_from(["big", "small"]),
    cost_usd=st.none() | st.integers(0, 9),
)


def test_attempts_are_counted_by_their_outcome():
    """A skipped rung was not called; the mean is that of the answers."""
    cached = replace(ANSWER, outcome="cached", elapsed_s=0.0, input_tokens=0, output_tokens=0, cost_usd=0.0)
    skipped = replace(cached, outcome="skipped", error="quota_exhausted", degraded=None)
    slower = replace(ANSWER, elapsed_s=4.0)
    (sums,) = sum_up(add_up([ANSWER, replace(slower, degraded=True), cached, skipped]), by=["backend"]).values()
    assert sums.to_dict() == {
        "calls": 2,
        "answered": 2,
        "cached": 1,
        "fallbacks": 1,
        "fallbacks_known": 1,
        "errors": {"quota_exhausted": 1},
        "input_tokens": 200,
        "input_tokens_known": 200,
        "output_tokens": 20,
        "output_tokens_known": 20,
        "cost_usd": 1.0,
        "cost_usd_known": 1.0,
        "mean_s": 3.0,
    }


def test_what_is_unknown_in_part_is_null_beside_what_is_known():
    """A failed call may have been billed."""
    (sums,) = sum_up(add_up([ANSWER, MISS]), by=["model"]).values()
    said = sums.to_dict()
    assert (said["cost_usd"], said["cost_usd_known"]) == (None, 0.5)
    assert (said["input_tokens"], said["input_tokens_known"]) == (None, 100)


def test_errors_of_the_caller_are_no_fallbacks():
    """Nobody else is asked after them; they are counted all the same."""
    rows = [
        replace(MISS, error=kind) for kind in ("content_rejected", "invalid_image", "stream_interrupted", "timed_out")
    ]
    (sums,) = sum_up(add_up(rows), by=["task"]).values()
    assert sums.missed == {"timed_out": 1}
    assert sums.fallbacks == Figure(0)
    assert sums.errors.total() == 4


def test_answers_booked_by_an_earlier_version_may_have_been_fallbacks():
    """It did not say; a row without an answer was none."""
    (sums,) = sum_up(
        add_up([replace(ANSWER, degraded=None), MISS, replace(ANSWER, degraded=True)]), by=["day"]
    ).values()
    assert sums.fallbacks == Figure(1, unknown=1)
    assert (sums.to_dict()["fallbacks"], sums.to_dict()["fallbacks_known"]) == (None, 1)


def test_a_day_ends_at_midnight_of_utc():
    """Wherever the reader lives."""
    midnight = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    rows = [replace(ANSWER, at=midnight - 0.001), replace(ANSWER, at=midnight)]
    assert list(sum_up(add_up(rows), by=["day"])) == [("2026-11-23",), ("2026-11-24",)]


def test_groups_are_sorted_and_a_missing_value_comes_first():
    """As a rung that has no model."""
    rows = [ANSWER, replace(ANSWER, model="a"), replace(ANSWER, model=None)]
    assert list(sum_up(add_up(rows), by=["task", "model"])) == [
        ("describe", None),
        ("describe", "a"),
        ("describe", "big"),
    ]


@given(st.lists(ROWS, max_size=12), st.lists(st.sampled_from(KEYS), unique=True, max_size=3))
def test_nothing_is_lost_or_counted_twice_however_it_is_grouped(rows, keys):
    """The sums of all groups together are those of the whole ledger."""
    together, whole = Sums(), Sums()
    for sums in sum_up(add_up(rows), by=keys).values():
        together.include(sums)
    for row in rows:
        whole.add(*add_up([row]))
    assert together == whole


def test_a_figure_tells_the_known_part_apart():
    """Nothing known at all is not 0."""
    figure = Figure()
    assert figure.show(str) == "0"
    figure.include(Figure(unknown=1))
    assert (figure.show(str), figure.total) == ("unknown", None)
    figure.include(Figure(3))
    assert (figure.show(str), figure.total) == ("≥ 3", None)
