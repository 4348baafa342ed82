"""A page as a tree: it is read twice, by the strict parser of XML and by that of HTML, which have to agree."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Page", "read_page", "read_table", "text_of"]


@dataclass
class _Reader(HTMLParser):
    """Counts elements and collects attributes as a browser would see them."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


@dataclass
class Page:
    """What a page consists of."""

    root: ET.Element
    reader: _Reader
    source: str

    def all(self, tag: str, kind: str | None = None) -> list[ET.Element]:
        """Return all elements of a tag, and of a class where one is named."""
        return [each for each in self.root.iter(tag) if kind is None or kind in each.get("class", "").split()]

    def attributes(self, *names: str) -> list[str]:
        """Return the values of attributes, by whatever element has them."""
        return [value for _, name, value in self.reader.attributes if name in names]

    def tables(self) -> dict[str, list[list[str]]]:
        """Return the cells of all tables by caption, the row of headings first."""
        return {text_of(table.find("caption")): list(_rows(table)) for table in self.all("table")}


def read_page(path: Path) -> Page:
    """Return a page; fails where an element is not closed or a letter not escaped."""
    source = path.read_text(encoding="utf-8")
    assert source.startswith("<!DOCTYPE html>")
    reader = _Reader()
    reader.feed(source)
    root = ET.fromstring(source)  # noqa: S314 — written by the test
    assert sorted(reader.tags) == sorted(each.tag.lower() for each in root.iter())
    return Page(root=root, reader=reader, source=source)


def text_of(element: ET.Element | None) -> str:
    """Return all text in an element, in one line with plain spaces."""
    return "" if element is None else " ".join(" ".join(element.itertext()).split())


def _rows(table: ET.Element) -> Iterator[list[str]]:
    for row in table.iter("tr"):
        yield [text_of(cell) for cell in row]


def read_table(table):
    """Return a table's rows as lists of texts and details with plain spaces, by heading."""
    names = [column.name for column in table.columns]
    return [
        {name: (cell.text.replace("\u00a0", " "), cell.detail) for name, cell in zip(names, row, strict=True)}
        for row in table.rows
    ]
