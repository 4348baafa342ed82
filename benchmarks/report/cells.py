"""Tables as data: columns, rows and cells, which the page and the Markdown file write each in its own way.

This module decides what a table consists of. It must not know what is in one, nor how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .wording import UNKNOWN

__all__ = ["Cell", "Column", "Table"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: What it says; a dash where that is unknown.
        detail: What stands smaller beneath it: an interval, or the reason for a dash.
        backend: The rung that it names; it gets its mark.
        tone: Whether it is good or bad news.
    """

    text: str = UNKNOWN
    detail: str | None = None
    backend: str | None = None
    tone: Literal["better", "worse", "open"] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, whether it holds numbers, and whether others have published what stands in it."""

    name: str
    is_number: bool = True
    is_published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: the first cell of each row says what the row is about.

    Attributes:
        caption: What it shows.
        columns: One for each cell of a row.
        rows: The cells.
        notes: What a reader has to know beside it.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} - {len(self.columns)}
        if widths:
            raise ValueError(f"{self.caption!r} has {len(self.columns)} columns, but rows of {sorted(widths)} cells.")
