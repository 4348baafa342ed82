"""Rungs that were not there: left out everywhere, and told once."""

from __future__ import annotations

import pytest
import synthetic
from pages import read_page

from benchmarks.records import Answer
from benchmarks.report import write_report
from benchmarks.report.contents import gather_contents

NO_KEY = "There is no API key for OpenAI."


def make_absent(backend, task, *, kind="not_ready", reason=NO_KEY):
    """What a run holds of a rung that never answered: its quality and its times."""
    quality = synthetic.make_quality(backend, task).model_copy(
        update={"answered": 0, "declined": {kind: 24}, "reason": reason, "metrics": (), "median_s": None}
    )
    timed = synthetic.make_latency(backend, task).model_copy(
        update={"warm_s": (), "cold_s": (), "loads": (), "memory_bytes": None, "note": f"Not measured: {reason}"}
    )
    return quality, timed


def make_present(backend, *tasks):
    """What a run holds of a rung that answered."""
    return [make(backend, task) for task in tasks for make in (synthetic.make_quality, synthetic.make_latency)]


def test_a_rung_without_a_key_stands_in_no_table_and_no_chart_and_is_told_once(tmp_path):
    """No row of dashes, no mark in a legend, no "declined" beneath each photo: one sentence with the reason."""
    results = [
        *(each for task in ("describe", "embed") for each in make_absent("openai", task)),
        *make_present("embedded", "describe", "embed"),
    ]
    example = synthetic.make_example("cat")
    answers = [each for each in example.answers if each.backend == "embedded"]
    answers.append(Answer(backend="openai", declined=f"not_ready: {NO_KEY}"))
    run = synthetic.make_part(*results, examples=(example.model_copy(update={"answers": tuple(answers)}),))
    assert f"openai was not there, and is left out: {NO_KEY}" in gather_contents([run]).warnings
    markdown, html = write_report([run], tmp_path)
    page = read_page(html)
    assert page.source.count("no API key") == markdown.read_text(encoding="utf-8").count("no API key") == 1
    assert not [
        cell
        for rows in page.tables().values()
        for row in rows
        for cell in row
        if "openai" in row[0] or "not measured" in cell
    ]
    assert not [desc.text for desc in page.all("desc") if "openai" in desc.text]


def test_a_rung_that_was_there_for_one_task_keeps_it():
    """The sentence names the others; models that are missing for one reason are told as one."""
    missing = [
        each
        for task in ("describe", "detect")
        for each in make_absent("local", task, reason=f"{synthetic.MODELS['local', task]} could not be fetched.")
    ]
    contents = gather_contents([synthetic.make_part(*missing, *make_present("local", "embed"))])
    [sentence] = [each for each in contents.warnings if "left out" in each]
    assert sentence == ("local was not there for describe and detect, and is left out: its model could not be fetched.")
    assert [group.task for group in contents.groups] == ["embed"]


@pytest.mark.parametrize("kind", ["quota_exhausted", "timed_out", "unavailable"])
def test_a_rung_that_was_there_and_failed_keeps_its_row(kind):
    """That it answered none of 24 is a result; only its times are missing."""
    failed = make_absent("openai", "describe", kind=kind, reason="It took too long.")
    contents = gather_contents([synthetic.make_part(*failed, *make_present("embedded", "describe"))])
    assert [row[0].text for row in contents.summaries[0].rows] == ["openai", "embedded"]
    assert [row[0].text for row in contents.times[0].rows] == ["embedded"]
    assert "openai was not timed for describe, and is left out: It took too long." in contents.warnings


def test_among_several_runs_the_one_that_lacks_a_rung_is_named():
    """Its figures come from the run in which it was there."""
    first = synthetic.make_part(*make_present("openai", "describe"))
    second = synthetic.make_part(*make_absent("openai", "describe"))
    contents = gather_contents([first, second])
    assert f"In run 2, openai was not there, and is left out: {NO_KEY}" in contents.warnings
    assert contents.summaries[0].rows[0][1].text == "1.080"


def test_random_weights_that_were_not_timed_have_nothing_to_show():
    """They have no quality, and the sentence says why."""
    quality = synthetic.make_quality("local", "describe", random_weights=True)
    note = synthetic.make_metric("CIDEr-D", None).model_copy(update={"note": "random weights"})
    quality = quality.model_copy(update={"images": 0, "answered": 0, "metrics": (note,)})
    alone = gather_contents([synthetic.make_part(quality)])
    assert "local was not there, and is left out: random weights." in alone.warnings
    assert alone.summaries == ()
    timed = synthetic.make_latency("local", "describe", random_weights=True)
    [summary] = gather_contents([synthetic.make_part(quality, timed)]).summaries
    assert summary.rows[0][0].text == "local"
