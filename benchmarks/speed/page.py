"""The figures of a run as a table on the terminal and as a page in Markdown.

This module decides which figures are shown where: those with a target first and together, all others by subject. It
must not know how any came about.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..checks.timing import show_number
from ..report.cells import Cell, Column, Table
from ..report.markdown import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..checks.timing import Figure
    from .run import Section, Speed

__all__ = ["show_targets", "write_page"]

TITLE = "How fast it is"

LEAST_GRID = 3
"""Rows with the same columns that make a table of their own."""


def show_targets(speed: Speed) -> Iterator[str]:
    """Yield the lines of the table of all targets."""
    rows = [("", "target (goal)", "figure", "")]
    for section in speed.sections:
        rows.append((section.title if section.trouble is None else f"{section.title}: not measured", "", "", ""))
        rows += [(f"  {each.name}", each.shown_target, each.shown, each.verdict) for each in _with_target(section)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, target, figure, verdict in rows:
        yield f"{name:<{widths[0]}}  {target:>{widths[1]}}  {figure:>{widths[2]}}  {verdict}".rstrip()
    yield ""
    yield _sum_up(speed)


def write_page(speed: Speed, *, command: str) -> str:
    """Return the text of the page; the command is what the reader has typed to measure it."""
    return "\n".join([*_write_lines(speed, command), ""])


def _write_lines(speed: Speed, command: str) -> Iterator[str]:
    yield f"# {TITLE}"
    yield ""
    yield _describe(speed, command)
    if speed.quick:
        yield ""
        yield "> A short run: its figures are rough."
    yield from write_table(_tabulate_targets(speed))
    for section in speed.sections:
        if section.trouble is not None:
            yield from ("", f"## {section.title}", "", f"Not measured: {section.trouble.splitlines()[-1]}")
        else:
            for table in _tabulate(section):
                yield from write_table(table)


def _describe(speed: Speed, command: str) -> str:
    day = datetime.fromtimestamp(speed.began_at, UTC).strftime("%Y-%m-%d")
    machine = speed.machine
    loads = [section.load for section in speed.sections if section.load is not None]
    busy = f", on average {max(0.0, sum(loads) / len(loads)):.1f} processes running or waiting" if loads else ""
    return (
        f"`{command}` wrote this page on {day}: {machine['processor']}, {machine['cores']} cores"
        f"{busy}, Python {machine['python']}. {_sum_up(speed)}\n\n"
        "What is compared is measured in turns within one run, in processes of its own: ratios hold elsewhere, "
        "times do not. CPU time is that of all threads of a process: on a busy machine it is the figure that counts."
    )


def _sum_up(speed: Speed) -> str:
    verdicts = [figure.verdict for figure in speed.targets]
    goals = verdicts.count("goal")
    beyond = f", {goals} of them with the goal" if goals else ""
    return f"{len(verdicts) - verdicts.count('missed')} of {len(verdicts)} targets are reached{beyond}."


def _tabulate_targets(speed: Speed) -> Table:
    rows = [
        (Cell(section.title), Cell(each.name), *_cells(each))
        for section in speed.sections
        for each in _with_target(section)
    ]
    columns = (
        Column("subject", is_number=False),
        Column("what", is_number=False),
        Column("figure"),
        Column("10 to 90 %"),
        Column("target (goal)"),
        Column("", is_number=False),
    )
    return Table(caption="Targets", columns=columns, rows=tuple(rows))


def _cells(figure: Figure) -> tuple[Cell, ...]:
    texts = (figure.shown, figure.shown_spread, figure.shown_target, figure.verdict)
    return tuple(Cell(text) for text in texts)


def _with_target(section: Section) -> list[Figure]:
    return [figure for figure in section.figures if figure.target is not None]


def _tabulate(section: Section) -> Iterator[Table]:
    """Yield the other figures of a subject; those that are alike in a grid."""
    rest = [figure for figure in section.figures if figure.target is None]
    rows: dict[str, dict[str, Figure]] = {}
    for figure in rest:
        row, _, column = figure.name.rpartition(": ")
        rows.setdefault(row, {})[column] = figure
    grids: dict[tuple[str, ...], list[str]] = {}
    for row, cells in rows.items():
        if row:
            grids.setdefault(tuple(cells), []).append(row)
    grids = {columns: names for columns, names in grids.items() if len(names) >= LEAST_GRID}
    in_grids = {name for names in grids.values() for name in names}
    plain = [figure for figure in rest if figure.name.rpartition(": ")[0] not in in_grids]
    if plain:
        yield Table(
            caption=section.title,
            columns=(Column("", is_number=False), Column("figure"), Column("10 to 90 %")),
            rows=tuple((Cell(each.name), Cell(each.shown), Cell(each.shown_spread)) for each in plain),
        )
    for columns, names in grids.items():
        yield _grid(section.title, columns, [(name, rows[name]) for name in names])


def _grid(caption: str, columns: Sequence[str], rows: Sequence[tuple[str, dict[str, Figure]]]) -> Table:
    units = {column: {cells[column].unit for _, cells in rows} for column in columns}
    heads = [f"{column} ({unit})" if (unit := _only(units[column])) else column for column in columns]
    return Table(
        caption=caption,
        columns=(Column("", is_number=False), *map(Column, heads)),
        rows=tuple(
            (Cell(name), *(Cell(show_number(cells[column].value)) for column in columns)) for name, cells in rows
        ),
    )


def _only(units: set[str]) -> str:
    return next(iter(units)) if len(units) == 1 else ""
