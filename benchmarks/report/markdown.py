"""The report as a Markdown file: all of its tables, those with the answer first.

This module decides how text becomes Markdown that shows it and does nothing else. It must not know what it says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .comparison import DIFFERENT, NOTHING_ALIKE, UNLIKE
from .contents import QUESTION
from .wording import split_links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cells import Cell, Column, Table
    from .comparison import Comparison
    from .contents import Contents

__all__ = ["write_markdown", "write_table"]


def write_markdown(contents: Contents) -> str:
    """Return the file's text."""
    return "\n".join(_write_lines(contents))


def _write_lines(contents: Contents) -> Iterator[str]:
    yield f"# {QUESTION}"
    yield ""
    for warning in contents.warnings:
        yield f"> {_escape(warning)}"
        yield ">"
    for comparison in contents.comparisons:
        yield from _write_comparison(comparison)
    tables = (
        *contents.summaries,
        *contents.quality,
        *contents.times,
        contents.failover,
        *(each.figures for each in contents.comparisons),
        contents.contestants,
        contents.circumstances,
    )
    for table in tables:
        if table is not None:
            yield from write_table(table)


def _write_comparison(comparison: Comparison) -> Iterator[str]:
    for table in comparison.changes:
        yield from write_table(table)
    if not comparison.changes:
        yield from ("", f"## Run {comparison.number} beside run 1", "", NOTHING_ALIKE)
    for heading, sentences in ((UNLIKE, comparison.obstacles), (DIFFERENT, comparison.differences)):
        if sentences:
            yield from ("", f"**{heading}**", "")
            yield from (f"- {_escape(sentence)}" for sentence in sentences)


def write_table(table: Table) -> Iterator[str]:
    """Yield the lines of one table, under a heading of its own."""
    yield from ("", f"## {_escape(table.caption)}", "")
    yield _write_row([_escape(column.name) for column in table.columns])
    yield _write_row(["---:" if column.is_number else "---" for column in table.columns])
    for row in table.rows:
        yield _write_row([_write_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)])
    for note in table.notes:
        yield from ("", _escape(note))


def _write_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write_cell(cell: Cell, column: Column) -> str:
    text = _link(cell.text) if column.is_published else _escape(cell.text)
    return f"{text} ({_escape(cell.detail)})" if cell.detail else text


def _link(text: str) -> str:
    return "".join(f"<{address}>" if address else _escape(piece) for piece, address in split_links(text))


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is: no tag, picture, link or table comes of it."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|~&!$])", r"\\\1", text)
    escaped = re.sub(
        r"(?i)(://)|(www)\.|@", lambda found: _BROKEN.get(found[0], "www\\."), escaped
    )  # GitHub's own links
    return re.sub(r"^(\d*)([-+=.)](?=\s|[-=]|$))", r"\1\\\2", escaped)  # no list, no heading


_BROKEN = {"://": ":\\/\\/", "@": "\\@"}
