"""A finished chart as SVG that stands inside a page and takes part in it: its colours, fonts and ids are the page's.

This module decides how a chart is embedded. It must not know what a chart shows.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib as mpl

from .palette import INKS, assign_marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

__all__ = ["chart_style", "embed_figure"]

_INKS = [*INKS.values(), *(mark.ink for mark in assign_marks(f"rung-{place}" for place in range(7)).values())]
_VARIABLES = {ink.light: ink.css for ink in _INKS}


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw charts in the page's style, while the context is open; letters that matplotlib lacks the page may have."""
    ink, soft, line = (INKS[name].light for name in ("ink", "soft", "line"))
    style = mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
            "svg.hashsalt": "report",  # the same data give the same bytes
            "text.parse_math": False,  # a name with dollars in it is no formula
            "font.family": ["DejaVu Sans"],  # comes with matplotlib; the page puts its own font, which is narrower
            "font.size": 10.5,
            "text.color": ink,
            "axes.edgecolor": line,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.labelcolor": soft,
            "axes.labelsize": 10.5,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.facecolor": "none",
            "grid.color": line,
            "grid.linewidth": 0.7,
            "xtick.color": line,
            "xtick.labelcolor": soft,
            "xtick.minor.size": 0,
            "ytick.color": line,
            "ytick.labelcolor": soft,
            "ytick.minor.size": 0,
        }
    )
    with style, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield


def embed_figure(figure: Figure, *, name: str, title: str, description: str) -> str:
    """Return a chart as an ``<svg>`` element.

    Args:
        figure: The chart, drawn in ``chart_style()``.
        name: Distinguishes its ids from those of other charts on the page.
        title: What it is, for those who do not see it.
        description: What it shows, for the same.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 — written by matplotlib a line above
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
        for key, value in list(element.items()):
            del element.attrib[key]
            element.set(key.rpartition("}")[2], value)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        element.attrib.pop("version", None)
    _name_ids(root, name)
    _adopt_styles(root)
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    for defs in root.findall("defs"):
        for style in defs.findall("style"):  # would rule the whole page
            defs.remove(style)
    root.attrib |= {"class": "chart", "role": "img", "aria-labelledby": f"{name}-title {name}-text"}
    _insert(root, "desc", f"{name}-text", description)
    _insert(root, "title", f"{name}-title", title)
    return ET.tostring(root, encoding="unicode")


def _insert(root: ET.Element, tag: str, identifier: str, text: str) -> None:
    element = ET.Element(tag, {"id": identifier})
    element.text = text
    root.insert(0, element)


def _name_ids(root: ET.Element, name: str) -> None:
    """Drop ids that nothing refers to, and make the others this chart's own."""
    used = {identifier for element in root.iter() for identifier in _references(element)}
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{name}-{identifier}")
        for key, value in element.items():
            if key == "href" or "url(#" in value:
                element.set(key, value.replace("#", f"#{name}-", 1))


def _references(element: ET.Element) -> Iterator[str]:
    for key, value in element.items():
        if key == "href":
            yield value.removeprefix("#")
        yield from re.findall(r"url\(#([^)]+)\)", value)


def _adopt_styles(root: ET.Element) -> None:
    """Let the page's variables take the place of colours and fonts."""
    for element in root.iter():
        style = element.get("style")
        if style:
            style = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), style)
            element.set("style", re.sub(r"font-family: [^;]*", "font-family: var(--sans)", style))
