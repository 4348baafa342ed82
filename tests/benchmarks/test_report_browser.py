"""The page as a browser lays it out: on a phone and on a desk, nothing is cut off and no words lie on others."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
import synthetic

from benchmarks.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed: Chromium or Chrome")

MEASURE = """
const page = frame.contentDocument, root = page.documentElement;
const seen = (element) => element.getClientRects().length > 0;
const meet = (a, b) =>
  Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
  Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
const overlapping = [], outside = [];
for (const chart of page.querySelectorAll("svg.chart")) {
  const texts = [...chart.querySelectorAll("text")].filter(seen).map((text) => [text, text.getBoundingClientRect()]);
  texts.forEach(([one, a], place) => texts.slice(place + 1).forEach(([other, b]) => {
    const which = [chart.querySelector("title"), one, other].map((each) => each.textContent);
    if (meet(a, b)) overlapping.push(which.join(" / "));
  }));
}
for (const table of [...page.querySelectorAll("table")].filter(seen))
  for (const cell of table.querySelectorAll("tbody th, tbody td"))
    if (cell.getBoundingClientRect().right > table.parentElement.getBoundingClientRect().right + 1)
      outside.push(`${table.querySelector("caption").textContent}: ${cell.textContent}`);
document.body.replaceChildren(JSON.stringify({ width: root.scrollWidth, overlapping, outside }));
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of two runs, with all that a report can hold."""
    folder = tmp_path_factory.mktemp("report")
    write_report([synthetic.make_run(), synthetic.make_run(slower=1.3, gain=0.1, commit="abcdef0")], folder)
    return folder


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_screen_and_no_words_lie_on_others(folder, width):
    """The page does not scroll sideways, every cell of every table is in sight, and labels of charts stand apart."""
    around = folder / f"frame-{width}.html"
    around.write_text(
        f'<body><iframe src="report.html" width="{width}" height="900" style="border: 0"></iframe><script>\n'
        f'const frame = document.querySelector("iframe"); frame.addEventListener("load", () => {{ {MEASURE} }});\n'
        "</script></body>"
    )
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files")
    done = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", "--dump-dom", around.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(html.unescape(re.search(r"\{.*\}", done.stdout)[0]))
    assert found == {"width": width, "overlapping": [], "outside": []}
