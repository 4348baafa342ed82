"""What stands where a figure is missing."""

from __future__ import annotations

import synthetic
from pages import read_table

from benchmarks.report.standings import gather_groups
from benchmarks.report.tables import summarize_group, tabulate_quality, tabulate_times


def test_a_metric_that_could_not_be_measured_is_a_dash_with_its_reason():
    """It is compared by another one that both have."""
    results = [synthetic.make_quality(name, "embed") for name in ("local", "embedded")]
    [group] = gather_groups([synthetic.make_part(*results)])
    assert read_table(tabulate_quality(group))[1]["R@1 text→image"] == ("–", "it has no text tower")
    assert "R@1 image↔image 0.540 instead of 0.800" in summarize_group(group).notes[1]


def test_missing_figures_of_time_are_dashes_with_a_reason():
    """Nothing that was not measured is 0."""
    bare = synthetic.make_latency("local", "describe").model_copy(
        update={"warm_s": (), "cold_s": (), "loads": (), "memory_bytes": None, "cost_per_1000_usd": None}
    )
    [group] = gather_groups([synthetic.make_part(synthetic.make_latency("openai", "describe"), bare)])
    row = read_table(tabulate_times(group))[1]
    assert {name: cell for name, cell in row.items() if cell[0] != "–"}.keys() == {"rung"}
    assert all(reason for _, reason in row.values())


def test_a_long_reason_stands_beneath_the_table_once():
    """The cells that it is about say where it is; a figure that nobody has is no column."""
    reason = "it embeds no texts, because nobody has given it a tower for them"
    names = ("R@1 text→image", "R@5 text→image")
    metrics = [synthetic.make_metric(name, None).model_copy(update={"note": reason}) for name in names]
    results = [synthetic.make_quality(name, "embed") for name in ("local", "embedded")]
    results[1] = results[1].model_copy(update={"metrics": (*metrics, results[1].metrics[1])})
    [group] = gather_groups([synthetic.make_part(*results)])
    table = tabulate_quality(group)
    assert read_table(table)[1]["R@1 text→image"] == ("–", "see below")
    assert "R@5 text→image" not in [column.name for column in table.columns]
    assert [note for note in table.notes if reason in note] == [f"– {names[0]} and {names[1]} (embedded): {reason}."]
