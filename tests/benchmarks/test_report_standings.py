"""Which results of which run make a standing, and what the interval of a median is."""

from __future__ import annotations

import numpy as np
import synthetic

from benchmarks.records import Interval
from benchmarks.report.comparison import compare_runs
from benchmarks.report.contents import gather_contents
from benchmarks.report.standings import gather_groups, median_interval

PAIR = ("openai", "local")


def test_rungs_stand_in_the_order_of_the_ladder():
    """The first one is what the others are a fallback for, in whatever order they were measured."""
    results = [synthetic.make_quality(name, "describe") for name in ("embedded", "openai", "local")]
    [group] = gather_groups([synthetic.make_part(*results)])
    assert [each.backend for each in group.standings] == ["openai", "local", "embedded"]
    [group] = gather_groups([synthetic.make_part(*results, settings={})])
    assert [each.backend for each in group.standings] == ["embedded", "openai", "local"]


def test_data_sets_stand_apart():
    """Each has its own group, and times stand in all of them."""
    quality = synthetic.make_quality("local", "describe")
    other = quality.model_copy(update={"dataset": "another"})
    groups = gather_groups([synthetic.make_part(quality, other, synthetic.make_latency("local", "describe"))])
    assert [group.dataset for group in groups] == [synthetic.DATASET, "another"]
    assert all(group.standings[0].latency for group in groups)


def test_a_rung_with_two_models_has_two_rows_and_times_find_their_model():
    """Models of one rung are told apart by name."""
    quality, latency = synthetic.make_quality("local", "describe"), synthetic.make_latency("local", "describe")
    large = latency.contestant.model_copy(update={"model": "somebody/large"})
    [group] = gather_groups([synthetic.make_part(quality, latency, latency.model_copy(update={"contestant": large}))])
    assert [each.label for each in group.standings] == ["local blip-image-captioning-base", "local large"]
    assert [(each.quality is None, each.latency is None) for each in group.standings] == [(False, False), (True, False)]


def test_runs_that_measured_different_things_stand_together():
    """Quality of one file and times of another make one standing; the same thing comes from the later one."""
    first = synthetic.make_part(synthetic.make_quality("local", "describe"))
    second = synthetic.make_part(synthetic.make_latency("local", "describe"))
    third = synthetic.make_part(synthetic.make_latency("local", "describe", slower=2.0))
    [group] = gather_groups([first, second, third])
    assert [(each.quality_run, each.latency_run) for each in group.standings] == [(1, 3)]
    assert compare_runs([first, second])[0].figures is None


def test_examples_of_several_runs_are_joined_by_image():
    """What a rung said in the later run takes the place of what it said before."""
    example = synthetic.make_example("cat")
    openai, local = (
        [answer.model_copy(update={"text": f"second {name}"}) for answer in example.answers if answer.backend == name][
            :1
        ]
        for name in PAIR
    )
    runs = [
        synthetic.make_part(examples=(example,)),
        synthetic.make_part(examples=(example.model_copy(update={"answers": tuple(openai)}),)),
    ]
    [joined] = gather_contents(runs).examples
    assert [answer.text for answer in joined.answers if answer.backend == "openai"] == ["second openai"]
    assert [answer.text for answer in joined.answers if answer.backend == "local"] != [answer.text for answer in local]


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    """By order statistics, at least 95 % for any distribution; too few samples have none."""
    chance = np.random.default_rng(0)
    found = [median_interval(tuple(chance.lognormal(0, 1, 21))) for _ in range(300)]
    assert sum(each.low <= 1.0 <= each.high for each in found) >= 0.93 * 300
    assert median_interval((1.0, 2.0, 3.0, 4.0, 5.0)) is None
    assert median_interval((1.0, 2.0, 3.0, 4.0, 5.0, 6.0)) == Interval(low=1.0, high=6.0)
