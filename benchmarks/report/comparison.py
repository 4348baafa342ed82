"""What has changed from one run to another: the figures that both hold, and which of them cannot be compared, and why.

This module decides which figures belong together and what a change says. It must not know how it is shown. Figures are
compared where they were measured under the same conditions; what only explains a change, such as another model or
version, is told beside them. Where both sides have an interval and the two do not overlap, a figure is better or worse;
where one has none, the change may be chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cells import Cell, Column, Table
from .conditions import list_differences, list_unlike
from .figures import list_figures
from .wording import join_words, show_date, show_interval, show_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..records import Run
    from .absence import Absence
    from .conditions import Condition
    from .figures import Figure, Key

__all__ = ["DIFFERENT", "NOTHING_ALIKE", "UNLIKE", "Comparison", "compare_runs"]

UNLIKE = "What cannot be compared, and why"

DIFFERENT = "What else is not the same: a change may come of it"

NOTHING_ALIKE = "No figure of these runs can be compared."

_RULE = (
    "▲ and ▼: the two 95 % intervals do not overlap. ≈: they do, so the change may be chance. "
    "?: nobody can say, because there is no interval."
)

_GAP = "\u00a0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A later run beside the first one.

    Attributes:
        number: The later run's.
        heading: Which runs these are.
        changes: The figures that matter most: a row for each rung and task, and one for each library of the played day.
        figures: All figures that can be compared; None where there are none.
        obstacles: What cannot be compared, and why: one sentence each.
        differences: What else is not the same, so that a change may come of it.
    """

    number: int
    heading: str
    changes: tuple[Table, ...]
    figures: Table | None
    obstacles: tuple[str, ...]
    differences: tuple[str, ...]


def compare_runs(runs: Sequence[Run], absences: Sequence[Absence] = ()) -> tuple[Comparison, ...]:
    """Return a comparison for each later run with the first one.

    Args:
        runs: What was measured, without rungs that were not there.
        absences: Those rungs.
    """
    return tuple(_compare_run(runs[0], run, number, absences) for number, run in enumerate(runs[1:], start=2))


def _compare_run(first: Run, later: Run, number: int, absences: Sequence[Absence]) -> Comparison:
    before, after = list_figures(first), list_figures(later)
    shared = [key for key in before if key in after]
    alike = [key for key in shared if not any(list_unlike(before[key].conditions, after[key].conditions))]
    top = [key for key in alike if before[key].is_headline]
    kept = max((key.size for key in top), default=0)
    top = [key for key in top if key.size in {0, kept}]
    heading = f"Run {number} beside run 1"
    if not any(side[key].value for key in top if key.topic == "cost" for side in (before, after)):
        top = [key for key in top if key.topic != "cost"]
    rungs, days = ([key for key in top if (key.backend is None) is of_day] for of_day in (False, True))
    return Comparison(
        number=number,
        heading=f"{heading} ({show_date(first.started_at)} → {show_date(later.started_at)})",
        changes=tuple(
            _tabulate_changes(keys, before, after, caption=f"{heading}: {what}", subject=subject)
            for keys, what, subject in ((rungs, "rungs", "rung"), (days, "the day of trouble", "library"))
            if keys
        ),
        figures=_tabulate_all(alike, before, after, caption=f"All figures: {heading}", number=number)
        if alike
        else None,
        obstacles=(
            *_list_unlike(shared, before, after),
            *_list_missing(before, after, missing_in=number, absences=absences),
            *_list_missing(after, before, missing_in=1, absences=absences),
        ),
        differences=tuple(list_differences(first, later)),
    )


def _tabulate_changes(
    keys: Sequence[Key], before: Mapping[Key, Figure], after: Mapping[Key, Figure], *, caption: str, subject: str
) -> Table:
    """Return a row for each rung and task, or library, and a column for each kind of figure."""
    columns = list(dict.fromkeys(_column(key) for key in keys))
    rows: dict[tuple[str, str | None], dict[str, Cell]] = {}
    for key in keys:
        rows.setdefault((key.who, key.backend), {})[_column(key)] = _change_cell(key, before[key], after[key])
    return Table(
        caption=caption,
        columns=(Column(subject, is_number=False), *map(Column, columns)),
        rows=tuple(
            (Cell(who, backend=backend), *(cells.get(column, Cell(detail="not in both")) for column in columns))
            for (who, backend), cells in rows.items()
        ),
        notes=(_RULE,) if any(key.backend is not None for key in keys) else (),
    )


def _column(key: Key) -> str:
    return "quality" if key.topic == "quality" else key.name.removeprefix("day: ")


def _change_cell(key: Key, before: Figure, after: Figure) -> Cell:
    """Return both figures in a line, and what that means beneath it."""
    verdict = _verdict(before, after)
    name = f"{key.name}: " if key.topic == "quality" else ""
    if after.value == before.value:
        return Cell(after.shown, f"{name}{verdict.text}")
    detail = f"{name}{_change(before, after)}, {verdict.text}"
    return Cell(f"{before.shown} → {after.shown}", detail, tone=verdict.tone)


def _tabulate_all(
    keys: Sequence[Key], before: Mapping[Key, Figure], after: Mapping[Key, Figure], *, caption: str, number: int
) -> Table:
    """Return a row for each figure, with both models where they differ and with intervals."""
    return Table(
        caption=caption,
        columns=(
            Column("rung", is_number=False),
            Column("figure", is_number=False),
            *(Column(name) for name in ("run 1", f"run {number}", "change")),
            Column("better or worse?", is_number=False),
        ),
        rows=tuple(_compare(key, before[key], after[key]) for key in keys),
    )


def _compare(key: Key, before: Figure, after: Figure) -> tuple[Cell, ...]:
    changed = f"{before.source} → {after.source}" if before.source != after.source else None
    return (
        Cell(key.who, changed, backend=key.backend),
        Cell(key.name),
        *(Cell(each.shown, show_interval(each.interval, each.show)) for each in (before, after)),
        Cell(_change(before, after)),
        _verdict(before, after),
    )


def _change(before: Figure, after: Figure) -> str:
    delta = after.value - before.value
    if delta == 0:
        return "none"
    sign = "+" if delta > 0 else "−"
    share = show_share(abs(delta / before.value)) if before.value else ""
    signed = share if share.startswith(("under", "over")) else f"{sign}{share}"
    return f"{sign}{before.show(abs(delta))}{f' ({signed})' if share else ''}"


def _verdict(before: Figure, after: Figure) -> Cell:
    if after.value == before.value:
        return Cell(f"={_GAP}equal")
    first, second = before.interval, after.interval
    direction = "better" if (after.value > before.value) == after.higher_is_better else "worse"
    if first is None or second is None:
        return Cell(f"?{_GAP}{direction}, no interval", tone="open")
    if first.low <= second.high and second.low <= first.high:
        return Cell(f"≈{_GAP}{direction}, may be chance", tone="open")
    return Cell(f"▲{_GAP}better", tone="better") if direction == "better" else Cell(f"▼{_GAP}worse", tone="worse")


def _list_unlike(keys: Sequence[Key], before: Mapping[Key, Figure], after: Mapping[Key, Figure]) -> Iterator[str]:
    """Yield a sentence for each reason for which figures of both runs cannot be compared, and what it is about."""
    found: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        for first, second in list_unlike(before[key].conditions, after[key].conditions):
            found.setdefault((first.reason, _set_beside(first, second)), []).append(key)
    for (reason, values), about in found.items():
        topics = dict.fromkeys(key.topic for key in about)
        everywhere = all(key in about for key in keys if key.topic in topics)
        whom = "" if everywhere else f" of {join_words(dict.fromkeys(key.spoken for key in about))}"
        yield f"{_begin(join_words(topics))}{whom}: {reason} ({values})."


def _set_beside(first: Condition, second: Condition) -> str:
    if first.shown != second.shown:
        return f"{first.shown} → {second.shown}"
    return f"{first.shown} in both" if first.bars else f"{first.shown}, of other contents"


def _list_missing(
    held: Mapping[Key, Figure], other: Mapping[Key, Figure], *, missing_in: int, absences: Sequence[Absence]
) -> Iterator[str]:
    """Yield a sentence for each rung, topic or figure that one run holds and the other does not."""
    whom, topics = {key.who for key in other}, {(key.who, key.topic) for key in other}
    reasons = {f"{each.backend}: {each.task}": each.reason.rstrip(".") for each in absences if each.run == missing_in}
    keys = [key for key in held if key not in other]
    rungs, figures = _Grouped(), _Grouped()
    lacking: dict[str, list[str]] = {}
    for key in keys:
        if key.who not in whom:
            rungs.add(reasons.get(key.who, "it was not measured"), key.spoken)
        elif (key.who, key.topic) not in topics:
            lacking.setdefault(key.spoken, []).append(key.topic)
        else:
            figures.add(key.name, key.spoken)
    for reason, spoken in rungs.items():
        yield f"{join_words(spoken)}: not in run {missing_in} ({reason})."
    parts = _Grouped()
    for who, missed in lacking.items():
        parts.add(join_words(dict.fromkeys(missed)), who)
    for missed_topics, spoken in parts.items():
        yield f"{_begin(missed_topics)} of {join_words(spoken)}: not in run {missing_in}."
    for name, spoken in figures.items():
        yield f"{_begin(name)} of {join_words(spoken)}: not in run {missing_in}."


class _Grouped(dict[str, dict[str, None]]):
    """Who shares something, each once, in order."""

    def add(self, shared: str, who: str) -> None:
        self.setdefault(shared, {})[who] = None


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
