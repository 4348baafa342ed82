"""What has changed from run to run, and whether it counts."""

from __future__ import annotations

import synthetic
from pages import read_table

from benchmarks.report.comparison import compare_runs


def test_a_change_counts_where_intervals_do_not_overlap():
    """Better and worse follow the figure's direction; without an interval nobody can say."""
    before = synthetic.make_part(
        synthetic.make_quality("local", "describe"), synthetic.make_latency("local", "describe")
    )
    after = synthetic.make_part(
        synthetic.make_quality("local", "describe", gain=0.2), synthetic.make_latency("local", "describe", slower=2.0)
    )
    [table] = compare_runs([before, after])
    rows = {row["figure"][0]: row for row in read_table(table)}
    assert rows["CIDEr-D on synthetic-24, 24 images"]["change"][0] == "+0.200 (+21 %)"
    assert rows["CIDEr-D on synthetic-24, 24 images"]["does it count?"][0] == "≈ no: the intervals overlap"
    assert rows["BLEU-4 on synthetic-24, 24 images"]["does it count?"][0] == "▲ yes: better"
    assert rows["warm, median"]["does it count?"][0] == "▼ yes: worse"
    assert rows["warm, median"]["change"][0] == "+403 ms (+100 %)"
    assert rows["images a second, 4 callers"]["does it count?"][0] == "? no interval"
    assert rows["peak memory"]["does it count?"][0] == "= equal"


def test_each_later_run_is_set_beside_the_first_and_another_model_is_named():
    """Three runs make two tables."""
    run = synthetic.make_part(synthetic.make_latency("local", "describe"))
    other = synthetic.make_latency("local", "describe")
    other = other.model_copy(
        update={"contestant": other.contestant.model_copy(update={"model": "b", "random_weights": True})}
    )
    tables = compare_runs([run, run, synthetic.make_part(other)])
    assert [table.caption for table in tables] == ["Run 2 beside run 1", "Run 3 beside run 1"]
    assert read_table(tables[1])[0]["rung"][1] == "Salesforce/blip-image-captioning-base → b with random weights"


def test_figures_on_other_images_are_not_set_beside_one_another():
    """A change of the data set is no change of the model."""
    quality = synthetic.make_quality("local", "describe")
    assert (
        compare_runs([synthetic.make_part(quality), synthetic.make_part(quality.model_copy(update={"images": 12}))])
        == []
    )
