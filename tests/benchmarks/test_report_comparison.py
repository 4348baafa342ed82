"""What has changed from run to run, whether it means something, and what cannot be compared and why."""

from __future__ import annotations

import pytest
import synthetic
from pages import read_page, read_table, text_of

from benchmarks.datasets import open_dataset
from benchmarks.report import write_report
from benchmarks.report.comparison import compare_runs
from benchmarks.report.contents import gather_contents
from benchmarks.report.markdown import write_markdown


def compare(before, after):
    """Return what is said of two runs."""
    [comparison] = gather_contents([before, after]).comparisons
    return comparison


def rows_of(table):
    """Return a table's rows by their figure."""
    return {row["figure"][0]: row for row in read_table(table)}


def make_pair(**changes):
    """A run of one rung, and the same with changes."""
    results = [make("local", "describe") for make in (synthetic.make_quality, synthetic.make_latency)]
    return synthetic.make_part(*results), synthetic.make_part(*results, **changes)


def test_better_or_worse_is_what_lies_outside_of_both_intervals():
    """The direction is the figure's own, and stands in words; without an interval it may be chance."""
    before = synthetic.make_part(
        synthetic.make_quality("local", "describe"), synthetic.make_latency("local", "describe")
    )
    after = synthetic.make_part(
        synthetic.make_quality("local", "describe", gain=0.2), synthetic.make_latency("local", "describe", slower=2.0)
    )
    rows = rows_of(compare(before, after).figures)
    assert rows["CIDEr-D"]["change"][0] == "+0.200 (+21 %)"
    assert rows["CIDEr-D"]["better or worse?"][0] == "≈ better, may be chance"
    assert rows["BLEU-4"]["better or worse?"][0] == "▲ better"
    assert rows["warm call, median"]["better or worse?"][0] == "▼ worse"
    assert rows["warm call, median"]["change"][0] == "+403 ms (+100 %)"
    assert rows["images a second, 4 callers"]["better or worse?"][0] == "? worse, no interval"
    assert rows["peak memory"]["better or worse?"][0] == "= equal"


def test_the_top_of_the_page_is_what_has_changed_beside_what_cannot_be_compared(tmp_path):
    """A row for each rung and task with the figures that matter most, old and new, and what that means in words."""
    before, after = make_pair(
        latency=(synthetic.make_latency("local", "describe", slower=2.0),),
        machine=synthetic.MACHINE.model_copy(update={"packages": {"vision-backends": "0.2.0"}}),
        quality=(synthetic.make_quality("local", "describe"), synthetic.make_quality("embedded", "describe")),
    )
    comparison = compare(before, after)
    [table] = comparison.changes
    [row] = read_table(table)
    assert row == {
        "rung": ("local: describe", None),
        "quality": ("0.940", "CIDEr-D: =\u00a0equal"),
        "warm call, median": ("403 ms → 806 ms", "+403\u00a0ms (+100\u00a0%), ▼\u00a0worse"),
        "first answer, median": ("2.6 s → 3.4 s", "+820\u00a0ms (+32\u00a0%), ?\u00a0worse, no interval"),
        "images a second, 16 callers": ("3.902 → 1.951", "−1.951 (−50\u00a0%), ?\u00a0worse, no interval"),
    }
    assert comparison.obstacles == ("embedded at describe: not in run 1 (it was not measured).",)
    assert comparison.differences[0].startswith("Versions: vision-backends 0.1.0 → 0.2.0")
    markdown, html = write_report([before, after], tmp_path)
    page = read_page(html)
    first = page.all("section")[0]
    assert text_of(first.find("h2")) == "What has changed"
    shown, written = text_of(first), markdown.read_text(encoding="utf-8")
    for sentence in (*comparison.obstacles, *comparison.differences):
        assert sentence in shown
        assert sentence.split("; ")[0] in written
    assert written.index("Run 2 beside run 1") < written.index("describe on synthetic-24")


def test_prices_are_compared_where_anything_has_one():
    """A column of zeros says nothing; beside a price, free is a figure."""
    results = [synthetic.make_latency(name, "describe") for name in ("openai", "local")]
    dear, free = synthetic.make_part(*results), synthetic.make_part(results[1])
    [table] = compare(dear, dear).changes
    assert [row["cost of 1,000"][0] for row in read_table(table)] == ["$0.42", "$0"]
    [table] = compare(free, free).changes
    assert "cost of 1,000" not in read_table(table)[0]


def test_runs_of_different_machines_share_quality_but_no_times():
    """The reason names both machines; what does not depend on them is compared."""
    other = synthetic.MACHINE.model_copy(update={"processor": "Another CPU", "cores": 8})
    comparison = compare(*make_pair(machine=other))
    assert set(rows_of(comparison.figures)) == {"CIDEr-D", "BLEU-4", "CLIPScore", "cost of 1,000"}
    assert comparison.obstacles == ("Times and memory: another machine (Made-up CPU, 2 cores → Another CPU, 8 cores).",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"photos": "b"}, "other photos (synthetic-24, 24 images drawn by the seed 7, of other contents)"),
        (
            {"quality": (synthetic.make_quality("local", "describe").model_copy(update={"images": 12}),)},
            "other photos (synthetic-24, 24 images drawn by the seed 7 → synthetic-24, 12 images drawn by the seed 7)",
        ),
    ],
)
def test_figures_about_other_photos_are_not_set_beside_one_another(changes, said):
    """A change of the photos is no change of the model, even where a folder kept its name and its number of images."""
    before, after = (
        run.model_copy(update={"photos": "a"} | update) for run, update in zip(make_pair(), ({}, changes), strict=True)
    )
    comparison = compare(before, after)
    assert "CIDEr-D" not in rows_of(comparison.figures)
    assert any(said in sentence for sentence in comparison.obstacles)


def test_the_same_photos_under_another_name_can_be_compared():
    """A folder that was moved holds the same images."""
    before, after = (run.model_copy(update={"photos": "a"}) for run in make_pair())
    quality = after.quality[0].model_copy(update={"dataset": "moved"})
    comparison = compare(before, after.model_copy(update={"quality": (quality,)}))
    assert comparison.obstacles == ()


def test_photos_are_known_by_names_and_contents(tmp_path):
    """The order does not matter, one other byte does; a file that is not there breaks nothing."""

    def write(folder, **contents):
        (tmp_path / folder).mkdir()
        for name, content in contents.items():
            (tmp_path / folder / f"{name}.jpg").write_bytes(content)
        return open_dataset(str(tmp_path / folder), limit=None, seed=len(folder))

    first = write("first", a=b"1", b=b"2", c=b"3").fingerprint()
    assert write("again", a=b"1", b=b"2", c=b"3").fingerprint() == first
    assert write("other", a=b"1", b=b"2", c=b"4").fingerprint() != first
    assert write("swapped", a=b"2", b=b"1", c=b"3").fingerprint() != first
    gone = write("gone", a=b"1")
    (tmp_path / "gone" / "a.jpg").unlink()
    assert gone.fingerprint() != first


def test_the_sandbox_and_a_real_server_are_not_compared():
    """Its answers are made up; other rungs are not concerned."""
    results = [synthetic.make_latency(name, "describe") for name in ("openai", "embedded")]
    before = synthetic.make_part(*results)
    comparison = compare(before, before.model_copy(update={"settings": {"options": {"sandbox": True, "limit": 24}}}))
    assert "Times and cost of openai at describe: another kind of server (a real one → the sandbox)." in (
        comparison.obstacles
    )
    assert {row["rung"][0] for row in read_table(comparison.figures)} == {"openai: describe", "embedded: describe"}
    assert [row["figure"][0] for row in read_table(comparison.figures) if row["rung"][0].startswith("openai")] == [
        "peak memory"
    ]


def test_a_rung_that_was_not_there_in_one_run_is_named_with_the_reason():
    """The other run's figures stand alone."""
    before = synthetic.make_part(*(synthetic.make_quality(name, "describe") for name in ("openai", "local")))
    absent = before.quality[0].model_copy(
        update={"answered": 0, "declined": {"not_ready": 24}, "reason": "There is no API key.", "metrics": ()}
    )
    comparison = compare(before, before.model_copy(update={"quality": (absent, before.quality[1])}))
    assert comparison.obstacles == ("openai at describe: not in run 2 (There is no API key).",)


def test_what_only_one_run_measured_is_named_by_what_it_is():
    """A whole part, or a single figure."""
    before, after = make_pair()
    without_times = after.model_copy(update={"latency": ()})
    assert compare(before, without_times).obstacles == ("Times, memory and cost of local at describe: not in run 2.",)
    fewer = after.latency[0].model_copy(update={"loads": after.latency[0].loads[:2]})
    comparison = compare(before, after.model_copy(update={"latency": (fewer,)}))
    assert comparison.obstacles == ("Images a second, 16 callers of local at describe: not in run 2.",)


def test_days_of_another_length_are_not_compared():
    """They have other numbers of calls."""
    day = synthetic.make_day("vision-backends")
    longer = day.model_copy(update={"phases": tuple(each.model_copy(update={"calls": 9}) for each in day.phases)})
    before = synthetic.make_part(failover=(day,))
    comparison = compare(before, before.model_copy(update={"failover": (longer,)}))
    assert (comparison.changes, comparison.figures) == ((), None)
    assert "No figure of these runs can be compared." in write_markdown(
        gather_contents([before, before.model_copy(update={"failover": (longer,)})])
    )
    assert comparison.obstacles == (
        "The played day and times of the played day: another day (360 calls in 90 s → 36 calls in 90 s).",
    )


def test_settings_and_models_that_differ_are_told_but_hide_nothing():
    """A change may come of them: that is what runs are compared for."""
    before, after = make_pair(settings={"options": {"limit": 24, "rounds": 9}, "configuration": {"local": {"a": 1}}})
    other = after.latency[0].contestant.model_copy(update={"model": "b", "random_weights": True})
    after = after.model_copy(update={"latency": (after.latency[0].model_copy(update={"contestant": other}),)})
    before = before.model_copy(update={"quality": ()})
    comparison = compare(before, after.model_copy(update={"quality": ()}))
    assert "warm call, median" in rows_of(comparison.figures)
    assert any("Salesforce/blip-image-captioning-base" in each and "→ b " in each for each in comparison.differences)
    assert "Settings: rounds none → 9; local.a none → 1." in comparison.differences
    assert (
        read_table(comparison.figures)[0]["rung"][1] == "Salesforce/blip-image-captioning-base → b with random weights"
    )


def test_commits_are_told_from_one_another_in_few_letters():
    """Files that differed from one are not forgotten."""
    before, after = (
        run.model_copy(update={"commit": name})
        for run, name in zip(make_pair(), ("a" * 40, f"{'b' * 40}-dirty"), strict=True)
    )
    assert compare(before, after).differences == (f"Commit: {'a' * 10} → {'b' * 10}-dirty.",)
    assert compare(before, before.model_copy(update={"commit": None})).differences == (f"Commit: {'a' * 10} → none.",)


def test_each_later_run_is_set_beside_the_first():
    """Three runs make two comparisons, and runs that are alike say so."""
    run = synthetic.make_part(synthetic.make_latency("local", "describe"))
    comparisons = compare_runs([run, run, run])
    assert [each.heading.partition(" (")[0] for each in comparisons] == ["Run 2 beside run 1", "Run 3 beside run 1"]
    assert {(each.obstacles, each.differences) for each in comparisons} == {((), ())}
