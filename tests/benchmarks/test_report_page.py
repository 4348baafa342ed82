"""The page of a report: its structure, that it loads nothing, and that a stranger's text stays text."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import synthetic
from pages import read_page, text_of

from benchmarks.records import Answer, Box
from benchmarks.report import write_report

EVIL = '<script>alert("x")</script><img src="http://evil.example/x.png" onerror="alert(1)">'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of one whole run."""
    return read_page(write_report([synthetic.make_run()], tmp_path_factory.mktemp("report"))[1])


@pytest.fixture
def write_page(tmp_path):
    """A maker of pages of any runs."""
    return lambda *runs: read_page(write_report(runs, tmp_path)[1])


def test_the_answer_stands_before_anything_else(page):
    """The first section says per task and fallback what it costs, in quality, time and money."""
    first = page.all("section")[0]
    tables = [text_of(each.find("caption")) for each in first.iter("table")]
    assert tables == [*(f"{task} on synthetic-24" for task in ("describe", "embed", "detect")), "A day of trouble"]
    said = [text_of(each) for each in first.iter("p")]
    assert len(said) == 9
    assert said[0].startswith("openai: CIDEr-D 1.080, 1.")
    assert re.fullmatch(
        r"local: CIDEr-D 0\.940 instead of 1\.080, \d+ ms instead of 1\.\d s a call, "
        r"\$0 instead of \$0\.42 for 1,000 images\.",
        said[1],
    )


def test_the_page_loads_nothing(page):
    """No element fetches: addresses are places in the page, data in it, or links that somebody may follow."""
    assert {"script", "link", "iframe", "object", "embed", "audio", "video", "base", "form"} & set(
        page.reader.tags
    ) == set()
    assert all(value.startswith(("#", "data:image/")) for _, value in _addresses(page))
    assert page.attributes("src", "srcset", "poster", "background", "action", "formaction", "ping") == []
    assert re.findall(r"url\((?!#)|@import|@font-face", page.source) == []
    assert "default-src 'none'" in page.attributes("content")[0]
    assert not [name for _, name, _ in page.reader.attributes if name.startswith("on")]


def _addresses(page):
    return [(tag, value) for tag, name, value in page.reader.attributes if name.endswith("href") and tag != "a"]


def test_links_lead_to_named_sources_only(page):
    """The only links are the addresses in published figures and in credits."""
    assert {each.get("href") for each in page.all("a")} == {
        "https://example.org/photo",
        "https://arxiv.org/abs/2201.12086",
        "https://github.com/Peterande/D-FINE",
        "https://github.com/RangiLyu/nanodet",
    }
    assert all("noopener" in each.get("rel", "") for each in page.all("a"))


def test_every_id_is_unique_and_every_reference_leads_to_one(page):
    """Charts stand in one page with their markers and clips, hence their ids must not meet."""
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    used = [value.removeprefix("#") for tag, value in _addresses(page) if value.startswith("#")]
    used += re.findall(r"url\(#([^)]+)\)", page.source)
    used += " ".join(page.attributes("aria-labelledby")).split()
    assert set(used) <= set(ids)
    assert len(used) > 50


def test_charts_are_told_in_words_and_coloured_by_the_page(page):
    """Each chart has a title and a description, and none of its colours is fixed."""
    charts = page.all("svg", "chart")
    assert len(charts) == 5 * 3 + 2 * 2
    for chart in charts:
        assert chart.get("role") == "img"
        assert text_of(chart.find("title"))
        assert len(text_of(chart.find("desc"))) > 30
    styles = " ".join(each.get("style", "") for chart in charts for each in chart.iter())
    assert re.findall(r"#[0-9a-f]{6}", styles) == []
    assert "var(--rung-1)" in styles


def test_all_tables_have_headings_and_a_caption(page):
    """Each column and each row says what it is."""
    for table in page.all("table"):
        assert text_of(table.find("caption"))
        assert {each.get("scope") for each in table.iter("th")} == {"col", "row"}
        assert all(row[0].tag == "th" for row in table.iter("tr"))


def test_headings_skip_no_level(page):
    """A reader who jumps from heading to heading finds an outline."""
    levels = [int(each.tag[1]) for each in page.root.iter() if re.fullmatch(r"h[1-6]", each.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_published_figures_stand_in_a_column_of_their_own(page):
    """What others published is never in the column of a measured figure."""
    heading, *rows = page.tables()["Quality: describe on synthetic-24"]
    place = heading.index("published by others, measured otherwise")
    assert place == len(heading) - 1
    assert [("133.3" in row[place], any("133.3" in cell for cell in row[:place])) for row in rows] == [
        (False, False),
        (True, False),
        (False, False),
    ]
    table = next(each for each in page.all("table") if text_of(each.find("caption")).startswith("Quality: describe"))
    assert all("published" in row[place].get("class") for row in table.find("tbody"))


def test_a_photo_is_in_the_file_once_and_shown_for_each_answer(page):
    """Boxes are shapes over the same picture, which is not repeated."""
    assert page.source.count("data:image/jpeg") == 3
    assert len(page.all("svg", "photo")) == 3 * 4
    shown = [each.get("href") for photo in page.all("svg", "photo") for each in photo.iter("use")]
    assert [shown.count(f"#photo-{number}") for number in (1, 2, 3)] == [4, 4, 4]
    labels = [text_of(each) for photo in page.all("svg", "photo")[:3] for each in photo.iter("text")]
    assert labels == ["cat", "thing", "cat 0.97", "cat 0.90", "thing 0.40"]


def test_strangers_texts_stay_text(write_page):
    """Names of files, captions, answers, labels, models, phases, sources and settings can hold anything."""
    example = synthetic.make_example("cat", caption=EVIL).model_copy(
        update={
            "image": EVIL,
            "credit": EVIL,
            "boxes": (Box(label=EVIL, xyxy=(1, 1, 90, 90)),),
            "answers": (
                Answer(
                    backend=EVIL, text=EVIL, nearest=(EVIL,), boxes=(Box(label=EVIL, xyxy=(9, 9, 80, 80), score=1),)
                ),
                Answer(backend=EVIL, declined=EVIL),
            ),
        }
    )
    page = write_page(_make_evil_run(EVIL, examples=(example,)))
    assert "script" not in page.reader.tags
    assert "img" not in page.reader.tags
    assert page.source.count("<script") == 0
    assert page.source.count("&lt;script") > 30
    assert {each.get("href") for each in page.all("a")} <= {"http://evil.example/x.png"}
    assert text_of(page.all("blockquote")[0]) == EVIL


def _make_evil_run(text, **changes):
    """A run in which every free text is the same one."""
    quality, latency = synthetic.make_quality("local", "describe"), synthetic.make_latency("local", "describe")
    who = quality.contestant.model_copy(
        update={"backend": text, "model": text, "revision": text, "engine": text, "device": text, "licence": text}
    )
    metric = synthetic.make_metric(text, 0.5, note=text).model_copy(
        update={"implementation": text, "per_class": {text: 0.5}}
    )
    published = synthetic.PUBLISHED["local", "detect"].model_copy(update={"metric": text, "source": text})
    who = who.model_copy(update={"published": (published,)})
    day = synthetic.make_day("a-peer")
    phases = tuple(phase.model_copy(update={"name": text, "answered_by": {text: 5}}) for phase in day.phases)
    calls = tuple(call.model_copy(update={"backend": text, "phase": text}) for call in day.calls)
    day = day.model_copy(update={"library": text, "version": text, "settings": text, "phases": phases, "calls": calls})
    changes = {
        "quality": (
            quality.model_copy(
                update={"contestant": who, "dataset": text, "metrics": (metric,), "declined": {text: 1}, "answered": 23}
            ),
        ),
        "latency": (latency.model_copy(update={"contestant": who, "note": text}),),
        "failover": (day,),
        "settings": {text: [text]},
        "stopped": text,
        "commit": text,
        "started_at": text,
        **changes,
    }
    return synthetic.make_run(**changes)


def test_letters_that_no_page_may_hold_are_dropped(write_page):
    """Control characters and changes of direction would break the file, or show a text that is not there."""
    page = write_page(_make_evil_run("a\x00b\x1b[31m\u202ec\ud800\ufffe $x_1$ 漢字"))
    assert "ab[31mc $x_1$ 漢字" in page.source
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page.source)


def test_a_source_that_is_no_web_address_is_no_link(write_page):
    """Links lead to http and https only."""
    page = write_page(_make_evil_run("javascript:alert(1)", examples=()))
    assert page.all("a") == []
    assert "javascript:alert(1)" in page.source


@pytest.mark.parametrize("thumbnail", ["https://evil.example/x.jpg", "data:image/svg+xml;base64,PHN2Zy8+", "", "x"])
def test_a_thumbnail_that_is_no_picture_is_not_shown(write_page, thumbnail):
    """Only pixels are put into the page, never what could load something."""
    example = synthetic.make_example("cat").model_copy(update={"thumbnail": thumbnail})
    page = write_page(synthetic.make_run(quality=(), latency=(), failover=(), examples=(example,)))
    assert page.all("image") == []
    assert "holds no picture" in text_of(page.all("article", "example")[0])


def test_the_same_runs_give_the_same_page(tmp_path):
    """Two reports of the same file can be compared byte by byte."""
    runs = [synthetic.make_run(backends=("embedded",), failover=())]
    first, second = (write_report(runs, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
