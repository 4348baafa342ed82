"""What a reader meets first: the warnings, and for each task a few figures with a sentence about each rung."""

from __future__ import annotations

import synthetic
from pages import read_table

from benchmarks.records import FailoverResult
from benchmarks.report.contents import list_warnings
from benchmarks.report.standings import gather_groups
from benchmarks.report.tables import summarize_days, summarize_group, tabulate_days, tabulate_quality


def summarize(*results):
    """Return the summary of one group of results: its rows by rung, and its sentences."""
    [group] = gather_groups([synthetic.make_part(*results)])
    table = summarize_group(group)
    rows = {row["rung"][0]: row for row in read_table(table)}
    return rows, [note.replace("\u00a0", " ") for note in table.notes]


def test_each_rung_is_set_beside_the_first_in_one_sentence():
    """Quality, time and price, with intervals in the table."""
    results = [
        make(name, "describe")
        for name in ("openai", "embedded")
        for make in (synthetic.make_quality, synthetic.make_latency)
    ]
    results[1] = results[1].model_copy(update={"warm_s": (1.3,) * 9})
    results[3] = results[3].model_copy(update={"warm_s": (0.030, 0.031, 0.032) * 3})
    rows, (openai, embedded) = summarize(*results)
    assert openai == "openai: CIDEr-D 1.080, 1.3 s a call, $0.42 for 1,000 images."
    assert embedded == (
        "embedded: CIDEr-D 0.170 instead of 1.080, 31 ms instead of 1.3 s a call, $0 instead of $0.42 for 1,000 images."
    )
    assert rows["embedded"] == {
        "rung": ("embedded", "embedded-made-up"),
        "CIDEr-D (95\u00a0% interval), higher is better": ("0.170", "0.020\u00a0to\u00a00.320"),
        "warm call (95\u00a0% interval)": ("31 ms", "30\u00a0ms\u00a0to\u00a032\u00a0ms"),
        "cost of 1,000": ("$0", None),
        "answered": ("24 of 24", None),
    }


def test_the_heading_says_which_direction_is_better():
    """Some metrics count faults."""
    quality = synthetic.make_quality("local", "describe")
    metric = quality.metrics[0].model_copy(update={"higher_is_better": False})
    rows, _ = summarize(quality.model_copy(update={"metrics": (metric,)}))
    assert any("lower is better" in heading for heading in rows["local"])


def test_a_figure_that_the_first_rung_lacks_stands_alone():
    """What is not known is left out of the sentence, and is a dash with its reason in the table."""
    top = synthetic.make_latency("openai", "describe").model_copy(update={"cost_per_1000_usd": None})
    rows, (openai, local) = summarize(top, synthetic.make_quality("local", "describe"))
    assert openai.startswith("openai: 1.")
    assert openai.endswith(" s a call.")
    assert local.startswith("local: CIDEr-D 0.940, 410 ms instead of 1.")
    assert local.endswith("a call, $0 for 1,000 images.")
    assert rows["openai"]["cost of 1,000"] == ("–", "not known")
    assert rows["openai"]["answered"] == ("–", "not asked")


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
    assert "CIDEr-D" not in summarize_group(group).notes[1]
    row = read_table(tabulate_quality(group))[1]
    assert row["CIDEr-D"] == ("–", "random weights")
    assert "time is real, quality is not measured" in row["rung"][1]
    assert "Random weights: local; time is real, quality is not measured." in list_warnings([run], [group])


def test_a_rung_that_declined_everything_says_why():
    """Its figures are dashes, and the next rung is what others are set beside."""
    top = synthetic.make_quality("openai", "describe").model_copy(
        update={"answered": 0, "declined": {"quota_exhausted": 24}, "metrics": (), "median_s": None, "cost_usd": None}
    )
    rows, (openai, local, embedded) = summarize(
        top, *(synthetic.make_quality(name, "describe") for name in ("local", "embedded"))
    )
    assert openai == "openai: 0 of 24 (quota_exhausted 24) answered."
    assert local.startswith("local: CIDEr-D 0.940, ")
    assert embedded.startswith("embedded: CIDEr-D 0.170 instead of 0.940, ")
    assert rows["openai"]["answered"] == ("0 of 24", "quota_exhausted 24")
    assert rows["openai"]["cost of 1,000"] == ("–", "not known")
    assert rows["openai"]["warm call (95\u00a0% interval)"] == ("–", "not timed")


def test_a_rung_that_was_not_asked_says_so():
    """With random weights nobody asks for quality."""
    quality = synthetic.make_quality("local", "describe", random_weights=True)
    quality = quality.model_copy(update={"images": 0, "answered": 0, "median_s": None, "cost_usd": None})
    _, (local, _) = summarize(quality, synthetic.make_quality("embedded", "describe"))
    assert local == "local: not measured."


def test_answers_of_the_sandbox_are_called_made_up():
    """Whoever sees the page has to know it before any figure."""
    run = synthetic.make_part(settings={"options": {"sandbox": True}})
    said = "upper rung was the sandbox: its answers are made up, its times lack the network."
    assert list_warnings([run], ()) == [f"The {said}"]
    assert list_warnings([synthetic.make_part(), run], ()) == [f"In run 2, the {said}"]


def test_results_on_other_images_are_not_to_be_compared():
    """The same data set, cut elsewhere, is another one; of few images a reader is warned as well."""
    top, fallback = (synthetic.make_quality(name, "describe") for name in ("openai", "local"))
    run = synthetic.make_part(top, fallback.model_copy(update={"images": 12}))
    assert list_warnings([run], gather_groups([run])) == [
        "In describe rungs were asked about 12 and 24 images: their quality cannot be compared.",
        "Quality comes from 12 images: small differences mean nothing, which the intervals show.",
    ]


def test_the_day_is_summed_up_for_each_library():
    """Who answered, what was lost, and what the upper server was asked."""
    lost, ours = read_table(
        summarize_days([synthetic.make_day("a-peer", requests=120, loses=True), synthetic.make_day("vision-backends")])
    )
    assert lost["library"][0] == "a-peer 1.2.3"
    assert lost["answered"][0] == "323 of 360"
    assert lost["by"][0] == "openai 214 and embedded 109"
    assert lost["requests to the upper server"][0] == "360"
    assert ours["answered"][0] == "360 of 360"
    assert ours["p99 in the worst phase"][1] in {"healthy", "rate limits", "recovery"}
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
    [row] = read_table(summarize_days([FailoverResult(library="x", version="1", settings="", phases=())]))
    assert row["answered"][0] == "0 of 0"
    assert row["p99 in the worst phase"][0] == "–"


def test_warnings_name_what_is_unfinished_or_unlike():
    """A reader meets them before any figure."""
    other = synthetic.MACHINE.model_copy(update={"processor": "another CPU"})
    runs = [synthetic.make_part(stopped="budget of $1 reached."), synthetic.make_part(finished_at=None, machine=other)]
    assert list_warnings(runs, ()) == [
        "Run 1 ended early: budget of $1 reached.",
        "Run 2 is not finished: its figures cover what was done so far.",
        "The runs come from different machines: times of one cannot be compared with those of another.",
    ]
