"""The axes of charts: they begin at zero, end at a tick, and every tick has a unit."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import synthetic
from matplotlib.figure import Figure
from pages import read_page, text_of

from benchmarks.report import write_report
from benchmarks.report.axes import set_count_axis, set_time_axis, write_end_labels
from benchmarks.report.palette import assign_marks
from benchmarks.report.standings import gather_groups


@pytest.mark.parametrize(
    ("longest_s", "ticks"),
    [
        (0.0, ["0", "0.00025 ms", "0.0005 ms", "0.00075 ms", "0.001 ms", "0.00125 ms"]),
        (0.031, ["0", "10 ms", "20 ms", "30 ms", "40 ms"]),
        (0.99, ["0", "250 ms", "500 ms", "750 ms", "1,000 ms", "1,250 ms"]),
        (3.4, ["0", "1 s", "2 s", "3 s", "4 s"]),
        (64000, ["0", "20,000 s", "40,000 s", "60,000 s", "80,000 s"]),
    ],
)
def test_an_axis_of_times_begins_at_zero_and_ends_at_a_tick(longest_s, ticks):
    """All of its ticks are in one unit; nothing is drawn beyond the last one."""
    for vertical in (False, True):
        axes = Figure().subplots()
        set_time_axis(axes, longest_s, vertical=vertical)
        axis, (low, high) = (axes.yaxis, axes.get_ylim()) if vertical else (axes.xaxis, axes.get_xlim())
        assert axis.get_scale() == "linear"
        assert (low, high) == (0.0, max(axis.get_ticklocs()))
        assert high >= longest_s
        shown = axis.get_major_formatter().format_ticks(axis.get_ticklocs())
        assert [text.replace("\u00a0", " ") for text in shown] == ticks


@pytest.mark.parametrize("highest", [0.0, 0.3, 39.7, 1000.0, 3e6])
def test_an_axis_of_figures_begins_at_zero_as_well(highest):
    """A line that looks flat is flat."""
    axes = Figure().subplots()
    set_count_axis(axes, highest)
    assert axes.get_ylim() == (0.0, max(axes.get_yticks()))
    assert 2 <= len(axes.get_yticks()) <= 7
    assert axes.get_ylim()[1] >= highest


def test_every_chart_shows_its_zero_and_its_unit(tmp_path):
    """Also where all values are large and alike, and where two rungs are a thousand times apart."""
    results = [
        make(name, "describe")
        for name in ("openai", "local", "embedded")
        for make in (synthetic.make_quality, synthetic.make_latency)
    ]
    page = read_page(write_report([synthetic.make_part(*results, failover=(synthetic.make_day("a"),))], tmp_path)[1])
    charts = {
        text_of(chart.find("title")): [text_of(each) for each in chart.iter("text")]
        for chart in page.all("svg")
        if "chart" in chart.get("class", "")
    }
    for title, texts in charts.items():
        assert any(re.fullmatch(r"0(\.0+)?( %)?", text) for text in texts), title
        assert len([text for text in texts if re.match(r"[\d.,]+( m?s| %)?$", text)]) >= 4, title
        assert any(text.endswith((" s", " ms", " %", "a second")) for text in texts), title
    assert len(charts) == 6


def test_names_at_the_ends_of_lines_stand_apart():
    """Rungs that are equally fast still have a name each."""
    results = [synthetic.make_latency(name, "describe") for name in ("openai", "local", "embedded")]
    [group] = gather_groups([synthetic.make_part(*results)])
    axes = Figure().subplots()
    axes.set_ylim(0, 10)
    write_end_labels(axes, [(5.0, each) for each in group.standings], assign_marks(["openai", "local", "embedded"]))
    rises = sorted(each.xyann[1] for each in axes.texts)
    assert [round(after - before, 3) for before, after in pairwise(rises)] == [12.5, 12.5]
