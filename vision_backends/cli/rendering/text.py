"""Text that is safe to print: file names and answers may hold anything.

This module decides how a name, a record and a table look on standard output. It must not know any command.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vision_backends.foreign_text import UNPRINTABLE, printable

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

__all__ = ["bytes_text", "dollars", "dump_json", "one_line", "print_table", "short_path"]

_NUMBER = re.compile(r"-|unknown|(≥ )?-?\$?\d[\d.,]*( ?(%|s|ms|MB))?")

SHORT = 10
"""Characters of a cell, such as a date, that are not broken into two lines for the sake of longer ones."""


def one_line(text: str) -> str:
    """Return a text on one line."""
    return printable(" ".join(text.split()))


def short_path(path: Path) -> str:
    """Return a path as a person at this place would write it: from the working directory, or from home."""
    whole = path.absolute()
    for folder, name in ((Path.cwd(), ""), (Path.home(), "~/")):
        if whole.is_relative_to(folder):
            return f"{name}{whole.relative_to(folder)}"
    return str(whole)


def dump_json(value: Any, *, indent: int | None = None) -> str:  # noqa: ANN401 — anything JSON-able
    """Return a value as JSON that standard output can encode, and in which what drives a terminal stands escaped."""
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    dumped = json.dumps(value, ensure_ascii=not readable, indent=indent)
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], dumped)


def dollars(amount: float, *, decimals: int = 2) -> str:
    """Return an amount of money with so many decimals, or as many as it takes to show its first two digits."""
    if not amount:
        return "$0"
    return f"${amount:,.{max(decimals, 1 - math.floor(math.log10(amount)))}f}"


def bytes_text(size_bytes: int) -> str:
    """Return a size for people, rounded: ``312 bytes``, ``4 kB``, ``500 MB``."""
    for factor, unit in ((1, "bytes"), (1e3, "kB"), (1e6, "MB")):
        if round(size_bytes / factor) < 1_000:
            return f"{size_bytes / factor:.0f} {unit}"
    return f"{size_bytes / 1e9:,.1f} GB"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Container[str] = ()) -> None:
    """Print rows with a header: as a table on a terminal, else as aligned plain text.

    Args:
        header: Names of the columns.
        rows: One text per column; a column of numbers and amounts is aligned to the right.
        whole: The columns whose cells stay on one line, as names that people copy.
    """
    cells = [[printable(cell) for cell in row] for row in rows]  # with all spaces: a cell may be the name of a file
    right = [bool(cells) and all(_is_number(row[place]) for row in cells) for place in range(len(header))]
    if sys.stdout.isatty():
        _print_rich_table(header, cells, right, whole)
        return
    widths = [max(len(row[place]) for row in [header, *cells]) for place in range(len(header))]
    for row in [header, *cells]:
        padded = (
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        typer.echo("  ".join(padded).rstrip())


def _print_rich_table(
    header: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], whole: Container[str]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, (name, numeric) in enumerate(zip(header, right, strict=True)):
        short = name in whole or all(len(row[place]) <= SHORT for row in cells)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=short)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: a file called "[red]" is not markup
    Console().print(table)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None
