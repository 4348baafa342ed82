"""Whether the machine kept the plan of a played day: measured, said, and marked on all that depends on it."""

from __future__ import annotations

import threading
import time

import pytest
import synthetic
from pages import read_page, read_table, text_of

from benchmarks.day import caller
from benchmarks.lateness import could_not_keep, measure_lateness, tell_lateness
from benchmarks.records import Lateness
from benchmarks.report import write_report
from benchmarks.report.contents import gather_contents
from benchmarks.report.tables import summarize_days, tabulate_days

IN_TIME = Lateness(p50_s=0.0002, p99_s=0.001, max_s=0.004, turns_max_s=0.003)
TOO_LATE = Lateness(p50_s=0.01, p99_s=0.113, max_s=0.139, turns_max_s=0.08)


def make_day(lateness, library="vision-backends"):
    """A day that was played so late."""
    return synthetic.make_day(library).model_copy(update={"lateness": lateness})


class Meeting:
    """Answers nobody before all have asked."""

    def __init__(self, callers):
        self._all = threading.Barrier(callers, timeout=60)

    def ask(self, image):
        """Wait for the others."""
        return str(self._all.wait())


def test_no_call_waits_for_another():
    """A library that answers nothing for long delays no call: a hundred are under way at once."""
    calls = caller.call_all(Meeting(100), b"", calls_per_s=1000, seconds=0.1)
    assert len([each for each in calls if "text" in each]) == 100
    assert all(each["elapsed_s"] >= each["late_s"] for each in calls)


def test_a_call_says_how_late_it_was_issued():
    """That is part of its time, which is counted from when it was due."""
    made = caller.call(Meeting(1), b"", began=time.perf_counter() - 5.0, at_s=2.0)
    assert made["late_s"] >= 3.0
    assert made["elapsed_s"] >= made["late_s"]


def test_lateness_is_summed_up_and_never_below_zero():
    """A clock that rounds makes nobody early; without calls nothing is known."""
    assert measure_lateness([], turns_late_s=0.1) is None
    late = measure_lateness([0.001] * 50 + [-0.1] + [0.2] * 2, turns_late_s=-0.1)
    assert (late.p50_s, late.max_s, late.turns_max_s) == (0.001, 0.2, 0.0)
    assert measure_lateness([-0.1], turns_late_s=0.0) == Lateness(p50_s=0, p99_s=0, max_s=0, turns_max_s=0)


@pytest.mark.parametrize(
    ("changes", "late"),
    [({}, False), ({"p99_s": 0.031}, True), ({"max_s": 3.0}, False), ({"turns_max_s": 0.11}, True)],
)
def test_more_than_one_late_call_in_a_hundred_is_too_much_and_so_is_a_late_server(changes, late):
    """One that is late by chance is not; what nobody measured is not held against a day."""
    assert could_not_keep(make_day(IN_TIME.model_copy(update=changes))) is late
    assert could_not_keep(make_day(None)) is False


def test_a_day_that_was_not_kept_says_so_with_its_figures_and_what_is_allowed():
    """And what to do about it."""
    said = tell_lateness(make_day(TOO_LATE)).replace("\u00a0", " ")
    assert said == (
        "The machine could not keep the plan of the day of vision-backends 1.2.3: 99 of 100 calls were issued within "
        "113 ms of when they were due, the latest after 139 ms; the server changed within 80 ms; allowed are 30 ms and "
        "100 ms. The times of that day are not reliable: play it again on an idle machine."
    )
    assert tell_lateness(make_day(IN_TIME)).endswith("the server changed within 3\u00a0ms: the plan was kept.")
    assert tell_lateness(make_day(None)).endswith("was not measured.")


def test_the_report_warns_and_marks_every_time_of_that_day(tmp_path):
    """Counts stay as they are; a day beside it that was kept is not marked."""
    days = [make_day(TOO_LATE), make_day(IN_TIME, "a-peer")]
    late, kept = read_table(summarize_days(days))
    assert late["calls were late by (p99)"] == ("113 ms", "the machine could not keep the plan")
    assert kept["calls were late by (p99)"] == ("1.0 ms", None)
    assert "not reliable" in late["p99 in the worst phase"][1]
    assert "not reliable" not in kept["p99 in the worst phase"][1]
    for row in read_table(tabulate_days(days)):
        marks = {row[name][1] for name in ("median", "p90", "p99")}
        assert marks == ({"not reliable"} if row["library"][0].startswith("vision-backends") else {None})
        assert row["requests on the wire"][1] is None
    run = synthetic.make_part(failover=tuple(days))
    assert [each for each in gather_contents([run]).warnings if "could not keep" in each] == [tell_lateness(days[0])]
    page = read_page(write_report([run], tmp_path)[1])
    lanes = [text_of(each) for each in page.all("figure", "lane")]
    assert ["could not keep the plan" in lane for lane in lanes] == [True, False]


def test_the_times_of_such_a_day_are_not_compared():
    """What was counted is."""
    late, kept = (synthetic.make_part(failover=(make_day(each),)) for each in (TOO_LATE, IN_TIME))
    for runs, values in (((kept, late), "in time → too late"), ((late, late), "too late in both")):
        [comparison] = gather_contents(runs).comparisons
        assert comparison.obstacles == (f"Times of the played day: the plan of the day was not kept ({values}).",)
        assert all("median" not in row["figure"][0] for row in read_table(comparison.figures))
        assert any("requests" in row["figure"][0] for row in read_table(comparison.figures))
    unknown = synthetic.make_part(failover=(make_day(None),))
    assert {gather_contents([unknown, other]).comparisons[0].obstacles for other in (kept, unknown)} == {()}
    [comparison] = gather_contents([unknown, late]).comparisons
    assert "(not measured → too late)" in comparison.obstacles[0]
