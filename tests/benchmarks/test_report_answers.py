"""What a report concludes: standings, sentences, missing figures, and what two runs have in common."""

from __future__ import annotations

import pytest
import synthetic

from benchmarks.records import FailoverResult, Interval, LatencyResult
from benchmarks.report.comparison import compare_runs
from benchmarks.report.contents import gather_contents
from benchmarks.report.standings import gather_groups, median_interval
from benchmarks.report.tables import tabulate_days, tabulate_quality, tabulate_times
from benchmarks.report.verdicts import judge_day, judge_group, list_warnings

PAIR = ("openai", "local")


def make_run(*results, **changes):
    """A run with these results and nothing else."""
    timed = tuple(each for each in results if isinstance(each, LatencyResult))
    rated = tuple(each for each in results if not isinstance(each, LatencyResult))
    return synthetic.make_run(**{"quality": rated, "latency": timed, "failover": (), "examples": ()} | changes)


def say(sentence):
    """Return a sentence as one text with plain spaces."""
    return "".join(piece.text for piece in sentence).replace("\u00a0", " ")


def judge(*results):
    """Return what is said of each rung but the first."""
    [group] = gather_groups([make_run(*results)])
    return [say(each) for each in judge_group(group).sentences]


def with_metric(result, value, *, low, high, **changes):
    """Return a result with one figure of quality."""
    metric = synthetic.make_metric("CIDEr-D", value).model_copy(
        update={"interval": Interval(low=low, high=high), **changes}
    )
    return result.model_copy(update={"metrics": (metric,)})


def read(table):
    """Return a table's rows as lists of texts and details with plain spaces, by heading."""
    names = [column.name for column in table.columns]
    return [
        {name: (cell.text.replace("\u00a0", " "), cell.detail) for name, cell in zip(names, row, strict=True)}
        for row in table.rows
    ]


@pytest.mark.parametrize(
    ("value", "low", "high", "higher_is_better", "said"),
    [
        (0.5, 0.4, 0.6, True, "50 % worse (CIDEr-D 0.500 instead of 1.000; the intervals do not overlap)"),
        (0.9, 0.7, 1.1, True, "perhaps 10 % worse (CIDEr-D 0.900 instead of 1.000; the intervals overlap)"),
        (1.5, 1.4, 1.6, True, "50 % better"),
        (1.5, 1.4, 1.6, False, "50 % worse"),
        (0.5, 0.4, 0.6, False, "50 % better"),
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
    run = make_run(*results)
    [group] = gather_groups([run])
    assert "not comparable in quality (random weights in local), 3.5 times as fast" in say(
        judge_group(group).sentences[0]
    )
    row = read(tabulate_quality(group))[1]
    assert row["CIDEr-D"] == ("–", "random weights")
    assert "time is real, quality is not measured" in row["rung"][1]
    assert "Random weights: local; time is real, quality is not measured." in list_warnings([run], [group])


def test_a_rung_that_declined_everything_says_why():
    """It is not compared, its figures are dashes, and the next rung is what others are compared with."""
    top = synthetic.make_quality("openai", "describe").model_copy(
        update={"answered": 0, "declined": {"quota_exhausted": 24}, "metrics": (), "median_s": None, "cost_usd": None}
    )
    results = [top, *(synthetic.make_quality(name, "describe") for name in ("local", "embedded"))]
    [group] = gather_groups([make_run(*results)])
    verdict = judge_group(group)
    assert say(verdict.reference).startswith("Beside local (Salesforce/blip-image-captioning-base): CIDEr-D 0.940")
    assert say(verdict.sentences[0]) == "openai answered 0 of 24 (quota_exhausted 24) images."
    row = read(tabulate_quality(group))[0]
    assert row["CIDEr-D"] == ("–", "it answered none")
    assert row["answered"] == ("0 of 24", "quota_exhausted 24")
    assert row["cost of 1,000"] == ("–", "not known")


def test_a_metric_that_could_not_be_measured_is_a_dash_with_its_reason():
    """It is compared by another one that both have."""
    results = [synthetic.make_quality(name, "embed") for name in ("local", "embedded")]
    [group] = gather_groups([make_run(*results)])
    assert read(tabulate_quality(group))[1]["R@1 text→image"] == ("–", "it has no text tower")
    assert "R@1 image↔image 0.540 instead of 0.800" in say(judge_group(group).sentences[0])


def test_missing_figures_of_time_are_dashes_with_a_reason():
    """Nothing that was not measured is 0."""
    bare = synthetic.make_latency("local", "describe").model_copy(
        update={"warm_s": (), "cold_s": (), "loads": (), "memory_bytes": None, "cost_per_1000_usd": None}
    )
    [group] = gather_groups([make_run(synthetic.make_latency("openai", "describe"), bare)])
    row = read(tabulate_times(group))[1]
    assert {name: cell for name, cell in row.items() if cell[0] != "–"}.keys() == {"rung"}
    assert all(reason for _, reason in row.values())


def test_results_on_other_images_are_not_compared():
    """The same data set, cut elsewhere, is another one."""
    top, fallback = (synthetic.make_quality(name, "describe") for name in PAIR)
    assert (
        "not comparable in quality (asked about other images)"
        in judge(top, fallback.model_copy(update={"images": 12}))[0]
    )


def test_data_sets_stand_apart():
    """Each has its own group, and times stand in all of them."""
    quality = synthetic.make_quality("local", "describe")
    other = quality.model_copy(update={"dataset": "another"})
    groups = gather_groups([make_run(quality, other, synthetic.make_latency("local", "describe"))])
    assert [group.dataset for group in groups] == [synthetic.DATASET, "another"]
    assert all(group.standings[0].latency for group in groups)


def test_a_rung_with_two_models_has_two_rows_and_times_find_their_model():
    """Models of one rung are told apart by name."""
    quality, latency = synthetic.make_quality("local", "describe"), synthetic.make_latency("local", "describe")
    large = latency.contestant.model_copy(update={"model": "somebody/large"})
    [group] = gather_groups([make_run(quality, latency, latency.model_copy(update={"contestant": large}))])
    assert [each.label for each in group.standings] == ["local, blip-image-captioning-base", "local, large"]
    assert [(each.quality is None, each.latency is None) for each in group.standings] == [(False, False), (True, False)]


def test_runs_that_measured_different_things_stand_together():
    """Quality of one file and times of another make one standing; the same thing comes from the later one."""
    first = make_run(synthetic.make_quality("local", "describe"))
    second = make_run(synthetic.make_latency("local", "describe"))
    third = make_run(synthetic.make_latency("local", "describe", slower=2.0))
    [group] = gather_groups([first, second, third])
    assert [(each.quality_run, each.latency_run) for each in group.standings] == [(1, 3)]
    assert compare_runs([first, second]) == []


def test_examples_of_several_runs_are_joined_by_image():
    """What a rung said in the later run takes the place of what it said before."""
    example = synthetic.make_example("cat")
    openai, local = (
        [answer.model_copy(update={"text": f"second {name}"}) for answer in example.answers if answer.backend == name][
            :1
        ]
        for name in PAIR
    )
    runs = [make_run(examples=(example,)), make_run(examples=(example.model_copy(update={"answers": tuple(openai)}),))]
    [joined] = gather_contents(runs).examples
    assert [answer.text for answer in joined.answers if answer.backend == "openai"] == ["second openai"]
    assert [answer.text for answer in joined.answers if answer.backend == "local"] != [answer.text for answer in local]


def test_a_change_counts_where_intervals_do_not_overlap():
    """Better and worse follow the figure's direction; without an interval nobody can say."""
    before = make_run(synthetic.make_quality("local", "describe"), synthetic.make_latency("local", "describe"))
    after = make_run(
        synthetic.make_quality("local", "describe", gain=0.2), synthetic.make_latency("local", "describe", slower=2.0)
    )
    [table] = compare_runs([before, after])
    rows = {row["figure"][0]: row for row in read(table)}
    assert rows["CIDEr-D on synthetic-24, 24 images"]["change"][0] == "+0.200 (+21 %)"
    assert rows["CIDEr-D on synthetic-24, 24 images"]["does it count?"][0] == "≈ no: the intervals overlap"
    assert rows["BLEU-4 on synthetic-24, 24 images"]["does it count?"][0] == "▲ yes: better"
    assert rows["warm, median"]["does it count?"][0] == "▼ yes: worse"
    assert rows["warm, median"]["change"][0] == "+403 ms (+100 %)"
    assert rows["images a second, 4 at once"]["does it count?"][0] == "? no interval"
    assert rows["peak memory"]["does it count?"][0] == "= equal"


def test_each_later_run_is_set_beside_the_first_and_another_model_is_named():
    """Three runs make two tables."""
    run = make_run(synthetic.make_latency("local", "describe"))
    other = synthetic.make_latency("local", "describe")
    other = other.model_copy(
        update={"contestant": other.contestant.model_copy(update={"model": "b", "random_weights": True})}
    )
    tables = compare_runs([run, run, make_run(other)])
    assert [table.caption for table in tables] == ["Run 2 beside run 1", "Run 3 beside run 1"]
    assert read(tables[1])[0]["rung"][1] == "Salesforce/blip-image-captioning-base → b with random weights"


def test_figures_on_other_images_are_not_set_beside_one_another():
    """A change of the data set is no change of the model."""
    quality = synthetic.make_quality("local", "describe")
    assert compare_runs([make_run(quality), make_run(quality.model_copy(update={"images": 12}))]) == []


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    """By order statistics, at least 95 % for any distribution; too few samples have none."""
    chance = synthetic.np.random.default_rng(0)
    found = [median_interval(tuple(chance.lognormal(0, 1, 21))) for _ in range(300)]
    assert sum(each.low <= 1.0 <= each.high for each in found) >= 0.93 * 300
    assert median_interval((1.0, 2.0, 3.0, 4.0, 5.0)) is None
    assert median_interval((1.0, 2.0, 3.0, 4.0, 5.0, 6.0)) == Interval(low=1.0, high=6.0)


def test_the_day_is_summed_up_for_each_library():
    """Who answered, what was lost, and what the upper server was asked."""
    said = say(judge_day(synthetic.make_day("a-peer", requests=120, loses=True)))
    assert said.startswith(
        "a-peer answered 323 of 360 calls of the played day (openai 59 % and embedded 30 %) with 360 requests"
    )
    assert say(judge_day(synthetic.make_day("vision-backends"))).startswith("vision-backends answered all 360 calls")
    rows = read(tabulate_days([synthetic.make_day("vision-backends")]))
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
    runs = [make_run(stopped="budget of $1 reached."), make_run(finished_at=None, machine=other)]
    assert list_warnings(runs, ()) == [
        "Run 1 ended early: budget of $1 reached.",
        "Run 2 is not finished: its figures cover what was done so far.",
        "The runs come from different machines: times of one cannot be compared with those of another.",
    ]
