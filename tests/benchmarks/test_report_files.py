"""The files of a report: both are written whatever was measured, and Markdown shows texts as they are."""

from __future__ import annotations

import pytest
import synthetic
from markdown_it import MarkdownIt
from pages import read_page, text_of

from benchmarks.records import Interval
from benchmarks.report import write_report
from benchmarks.report.contents import gather_contents
from benchmarks.report.markdown import write_markdown

EVIL = (
    "<script>x</script> | [a](javascript:x) ![b](http://evil.example/b.png) `c` **d** http://evil.example www.evil.com"
)


def read_markdown(text):
    """Return the tokens of Markdown, read as GitHub does."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [each for token in tokens for each in (token, *(token.children or ()))]


@pytest.mark.parametrize(
    "nothing",
    [
        {"quality": (), "latency": (), "failover": (), "examples": ()},
        {"latency": (), "failover": (), "examples": ()},
        {"quality": (), "failover": (), "examples": ()},
        {"quality": (), "latency": (), "examples": ()},
        {"quality": (), "latency": (), "failover": ()},
    ],
)
def test_a_part_that_was_not_measured_is_left_out(tmp_path, nothing):
    """One subcommand's run is a report, too, and has no empty section, table or chart."""
    markdown, html = write_report(
        [synthetic.make_run(backends=("local", "embedded"), **nothing)], tmp_path / "new" / "folder"
    )
    page = read_page(html)
    assert all(len(section) > 1 for section in page.all("section"))
    assert all(len(rows) > 1 for rows in page.tables().values())
    assert len(page.all("section")) < 6
    assert read_markdown(markdown.read_text(encoding="utf-8"))[0].tag == "h1"


def test_a_report_of_nothing_is_refused(tmp_path):
    """There is no page to be written."""
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path)


def test_files_that_are_there_are_never_replaced(tmp_path):
    """Neither of the two; what was there stays."""
    run = synthetic.make_part(synthetic.make_quality("local", "describe"))
    for name in ("report.md", "report.html"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("another")
        with pytest.raises(FileExistsError):
            write_report([run], folder)
        assert (folder / name).read_text() == "another"


def test_both_files_say_the_same(tmp_path):
    """The sentences about the rungs and all cells of the tables are in both."""
    run = synthetic.make_run(backends=("openai", "embedded"), examples=())
    markdown, html = write_report([run, run], tmp_path)
    assert [markdown.name, html.name] == ["report.md", "report.html"]
    page = read_page(html)
    tokens = read_markdown(markdown.read_text(encoding="utf-8"))
    shown = " ".join(" ".join(token.content for token in tokens if token.type in {"text", "code_inline"}).split())
    sentences = [text_of(each) for each in page.all("section", "answer")[0].iter("p")]
    assert len(sentences) == 6
    assert all(sentence in shown for sentence in sentences)
    captions = {text for text in page.tables() if not text.endswith("by class")}
    headings = {
        tokens[place + 1].content.replace("\\", "")
        for place, each in enumerate(tokens)
        if each.tag == "h2" and each.nesting == 1
    }
    assert captions <= headings
    cells = [token for token in tokens if token.type == "td_open"]
    assert len(cells) == sum(
        len(row) for caption, rows in page.tables().items() if caption in captions for row in rows[1:]
    )


def test_markdown_shows_strangers_texts_as_they_are(tmp_path):
    """No tag, picture, link, code or further cell comes of a model's name or a reason."""
    quality = synthetic.make_quality("local", "describe").model_copy(
        update={"dataset": EVIL, "declined": {EVIL: 1}, "answered": 23}
    )
    markdown, _ = write_report(
        [synthetic.make_run(quality=(quality,), latency=(), failover=(), stopped=EVIL)], tmp_path
    )
    tokens = read_markdown(markdown.read_text(encoding="utf-8"))
    assert {token.type for token in tokens} & {"html_inline", "html_block", "image", "code_inline", "fence"} == set()
    links = [token.attrs["href"] for token in tokens if token.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2201.12086"]
    source = markdown.read_text(encoding="utf-8")
    assert "http://" not in source
    assert "www.evil" not in source
    assert "".join(token.content for token in tokens if token.type == "text").count("<script>x</script> | [a]") >= 3


@pytest.mark.parametrize("text", ["# a", "- a", "+ a", "1. a", "2) a", "> a", "---", "===", "***", "    a"])
def test_no_text_becomes_a_heading_or_a_list(text):
    """Notes stand at the beginning of a line."""
    latency = synthetic.make_latency("local", "describe")
    quality = synthetic.make_quality("local", "describe")
    metric = quality.metrics[0].model_copy(update={"implementation": "x", "note": text, "name": text})
    run = synthetic.make_run(
        quality=(quality.model_copy(update={"metrics": (metric,)}),),
        latency=(latency.model_copy(update={"note": text}),),
        failover=(),
        examples=(),
    )
    tokens = read_markdown(write_markdown(gather_contents([run])))
    assert {token.type for token in tokens} & {"ordered_list_open", "code_block", "hr"} == set()
    assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
    assert not [token for token in tokens if token.type == "text" and "\\" in token.content]


@pytest.mark.parametrize(
    "warm_s", [(0.0,) * 9, (0.0, 0.1, 0.2), (0.1,), (float("nan"), 0.1), (float("inf"),), (1e-6, 1e5) * 9]
)
def test_a_clock_that_stands_still_or_a_figure_that_is_none_breaks_no_chart(tmp_path, warm_s):
    """What is no number was not measured."""
    latency = synthetic.make_latency("local", "describe").model_copy(update={"warm_s": warm_s})
    quality = synthetic.make_quality("local", "describe")
    metric = quality.metrics[0].model_copy(
        update={"value": float("nan"), "interval": Interval(low=float("nan"), high=float("inf"))}
    )
    quality = quality.model_copy(update={"metrics": (metric,), "cost_usd": float("nan"), "median_s": None})
    page = read_page(write_report([synthetic.make_part(latency, quality)], tmp_path)[1])
    assert [row[1] for row in page.tables()["Quality: describe on synthetic-24"][1:]] == ["– not measured"]
    timed, compared = (any(least < each < float("inf") for each in warm_s) for least in (-1.0, 0.0))
    assert len(page.all("svg", "chart")) == 3 + timed + compared
