"""What is said of each fallback, of the played day, and before any figure."""

from __future__ import annotations

import pytest
import synthetic
from pages import read_table, say

from benchmarks.records import FailoverResult, Interval
from benchmarks.report.standings import gather_groups
from benchmarks.report.tables import tabulate_days, tabulate_quality
from benchmarks.report.verdicts import judge_day, judge_group, list_warnings

PAIR = ("openai", "local")


def judge(*results):
    """Return what is said of each rung but the first."""
    [group] = gather_groups([synthetic.make_part(*results)])
    return [say(each) for each in judge_group(group).sentences]


def with_metric(result, value, *, low, high, **changes):
    """Return a result with one figure of quality."""
    metric = synthetic.make_metric("CIDEr-D", value).model_copy(
        update={"interval": Interval(low=low, high=high), **changes}
    )
    return result.model_copy(update={"metrics": (metric,)})


@pytest.mark.parametrize(
    ("value", "low", "high", "higher_is_better", "said"),
    [
        (0.5, 0.4, 0.6, True, "50 % worse (CIDEr-D 0.500 instead of 1.000; the intervals do not overlap)"),
        (0.9, 0.7, 1.1, True, "perhaps 10 % worse (CIDEr-D 0.900 instead of 1.000; the intervals overlap)"),
        (1.5, 1.4, 1.6, True, "50 % better"),
        (1.5, 1.4, 1.6, False, "50 % worse"),
        (0.5, 0.4, 0.6, False, "50 % better"),
        (12.0, 11.0, 13.0, True, "11 times better"),
        (1.0, 0.9, 1.1, True, "as good (CIDEr-D 1.000 instead of 1.000)"),
    ],
)
def test_quality_differs_only_where_the_intervals_say_so(value, low, high, higher_is_better, said):
    """A difference within the intervals is a perhaps."""
    better = {"higher_is_better": higher_is_better}
    top = with_metric(synthetic.make_quality("openai", "describe"), 1.0, low=0.9, high=1.1, **better)
    fallback = with_metric(synthetic.make_quality("local", "describe"), value, low=low, high=high, **better)
    assert said in judge(top, fallback)[0]


def test_without_intervals_it_says_so():
    """Nobody can tell then whether a difference means anything."""
    top, fallback = (synthetic.make_quality(name, "describe") for name in PAIR)
    metric = fallback.metrics[0].model_copy(update={"interval": None})
    assert "; without intervals)" in judge(top, fallback.model_copy(update={"metrics": (metric,)}))[0]


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        (4.0, 2.0, "2.0 times as slow (4.0 s instead of 2.0 s)"),
        (1.0, 3.0, "3.0 times as fast"),
        (1.02, 1.0, "as fast (1.0 s"),
    ],
)
def test_time_is_compared_by_medians(mine, other, said):
    """Slower, faster, or the same within a few per cent."""
    slow, fast = (synthetic.make_latency(name, "describe") for name in PAIR)
    pair = slow.model_copy(update={"warm_s": (other,) * 9}), fast.model_copy(update={"warm_s": (mine,) * 9})
    assert said in judge(*pair)[0]


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        (0.0, 0.42, "free (instead of $0.42 per 1,000 images)"),
        (0.0, 0.0, "free, like openai"),
        (0.1, 0.4, "75 % cheaper ($0.10 per 1,000 images instead of $0.40 per 1,000 images)"),
        (0.8, 0.4, "2.0 times as expensive"),
        (0.4, 0.0, "not free ($0.40 per 1,000 images instead of no charge)"),
        (0.41, 0.4, "as expensive"),
        (None, 0.4, "not comparable in price (a price is not known)"),
    ],
)
def test_the_price_is_compared(mine, other, said):
    """What is not known is not free."""
    pair = [
        synthetic.make_latency(name, "describe").model_copy(update={"cost_per_1000_usd": cost})
        for name, cost in zip(PAIR, (other, mine), strict=True)
    ]
    assert said in judge(*pair)[0]


def test_random_weights_have_time_but_no_quality():
    """Even figures that somebody has written for them are not shown."""
    results = [
        synthetic.make_quality("openai", "describe"),
        synthetic.make_quality("local", "describe", random_weights=True).model_copy(
            update={"metrics": synthetic.make_quality("local", "describe").metrics}
        ),
        synthetic.make_latency("openai", "describe"),
        synthetic.make_latency("local", "describe", random_weights=True),
    ]
    run = synthetic.make_part(*results)
    [group] = gather_groups([run])
    assert "not comparable in quality (random weights in local), 3.5 times as fast" in say(
        judge_group(group).sentences[0]
    )
    row = read_table(tabulate_quality(group))[1]
    assert row["CIDEr-D"] == ("–", "random weights")
    assert "time is real, quality is not measured" in row["rung"][1]
    assert "Random weights: local; time is real, quality is not measured." in list_warnings([run], [group])


def test_a_rung_that_declined_everything_says_why():
    """It is not compared, its figures are dashes, and the next rung is what others are compared with."""
    top = synthetic.make_quality("openai", "describe").model_copy(
        update={"answered": 0, "declined": {"quota_exhausted": 24}, "metrics": (), "median_s": None, "cost_usd": None}
    )
    results = [top, *(synthetic.make_quality(name, "describe") for name in ("local", "embedded"))]
    [group] = gather_groups([synthetic.make_part(*results)])
    verdict = judge_group(group)
    assert say(verdict.reference).startswith("Beside local (Salesforce/blip-image-captioning-base): CIDEr-D 0.940")
    assert say(verdict.sentences[0]) == "openai answered 0 of 24 (quota_exhausted 24)."
    row = read_table(tabulate_quality(group))[0]
    assert row["CIDEr-D"] == ("–", "it answered none")
    assert row["answered"] == ("0 of 24", "quota_exhausted 24")
    assert row["cost of 1,000"] == ("–", "not known")


def test_a_rung_that_was_not_asked_for_quality_says_so():
    """With random weights nobody asks for it."""
    quality = synthetic.make_quality("local", "describe", random_weights=True)
    quality = quality.model_copy(update={"images": 0, "answered": 0, "median_s": None, "cost_usd": None})
    run = synthetic.make_part(synthetic.make_quality("embedded", "describe"), quality)
    [group] = gather_groups([run])
    said = say(judge_group(group).sentences[0])
    assert said == "local was not measured (random weights: time is real, quality is not measured)."
    assert read_table(tabulate_quality(group))[0]["answered"] == ("–", "not asked")
    assert "Quality comes from 24 images: small differences mean nothing, which the intervals show." in list_warnings(
        [run], [group]
    )


def test_answers_of_the_sandbox_are_called_made_up():
    """Whoever sees the page has to know it before any figure."""
    run = synthetic.make_part(settings={"options": {"sandbox": True}})
    said = "upper rung was the sandbox: its answers are made up, its times lack the network."
    assert list_warnings([run], ()) == [f"The {said}"]
    assert list_warnings([synthetic.make_part(), run], ()) == [f"In run 2, the {said}"]


def test_results_on_other_images_are_not_compared():
    """The same data set, cut elsewhere, is another one."""
    top, fallback = (synthetic.make_quality(name, "describe") for name in PAIR)
    assert (
        "not comparable in quality (asked about other images)"
        in judge(top, fallback.model_copy(update={"images": 12}))[0]
    )


def test_the_day_is_summed_up_for_each_library():
    """Who answered, what was lost, and what the upper server was asked."""
    said = say(judge_day(synthetic.make_day("a-peer", requests=120, loses=True)))
    assert said.startswith(
        "a-peer answered 323 of 360 calls of the played day (openai 59 % and embedded 30 %) with 360 requests"
    )
    assert say(judge_day(synthetic.make_day("vision-backends"))).startswith("vision-backends answered all 360 calls")
    rows = read_table(tabulate_days([synthetic.make_day("vision-backends")]))
    assert [(row["phase"][0], row["requests on the wire"][0]) for row in rows] == [
        ("healthy", "80"),
        ("rate limits", "60"),
        ("quota gone", "1"),
        ("recovery", "100"),
    ]
    assert rows[1]["cost"] == ("–", "not known")


def test_a_day_without_calls_or_phases_is_told_all_the_same():
    """An interrupted run may have either."""
    assert say(judge_day(FailoverResult(library="x", version="1", settings="", phases=()))).startswith(
        "x answered all 0 calls"
    )


def test_warnings_name_what_is_unfinished_or_unlike():
    """A reader meets them before any figure."""
    other = synthetic.MACHINE.model_copy(update={"processor": "another CPU"})
    runs = [synthetic.make_part(stopped="budget of $1 reached."), synthetic.make_part(finished_at=None, machine=other)]
    assert list_warnings(runs, ()) == [
        "Run 1 ended early: budget of $1 reached.",
        "Run 2 is not finished: its figures cover what was done so far.",
        "The runs come from different machines: times of one cannot be compared with those of another.",
    ]
