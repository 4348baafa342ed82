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
    from .figures import Figure, Key

__all__ = ["DIFFERENT", "NOTHING_ALIKE", "UNLIKE", "Comparison", "compare_runs"]

UNLIKE = "What cannot be compared, and why"

DIFFERENT = "What else is not the same: a change may come of it"

NOTHING_ALIKE = "No figure of these runs can be compared."

_RULE = "Better or worse is what lies outside of both 95 % intervals; without intervals a change may be chance."


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A later run beside the first one.

    Attributes:
        number: The later run's.
        heading: Which runs these are.
        changes: The figures that matter most and have changed; None where none has.
        unchanged: Those that are the same, or that no figure can be compared.
        figures: All figures that can be compared; None where there are none.
        obstacles: What cannot be compared, and why: one sentence each.
        differences: What else is not the same, so that a change may come of it.
    """

    number: int
    heading: str
    changes: Table | None
    unchanged: str | None
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
    changed = [key for key in top if before[key].value != after[key].value]
    return Comparison(
        number=number,
        heading=f"{heading} ({show_date(first.started_at)} → {show_date(later.started_at)})",
        changes=_tabulate_changes(changed, before, after, caption=heading, number=number) if changed else None,
        unchanged=_name_unchanged([key for key in top if key not in changed]) if alike else NOTHING_ALIKE,
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


def _name_unchanged(keys: Sequence[Key]) -> str | None:
    """Say which of the figures that matter most are the same; None where there are none."""
    names = _Grouped()
    for key in keys:
        names.add(key.name, key.spoken)
    told = [f"{name} of {join_words(spoken)}" for name, spoken in names.items()]
    return f"Equal in both: {'; '.join(told)}." if told else None


def _tabulate_changes(
    keys: Sequence[Key], before: Mapping[Key, Figure], after: Mapping[Key, Figure], *, caption: str, number: int
) -> Table:
    """Return a short row for each figure."""
    return Table(
        caption=caption,
        columns=(
            Column("rung", is_number=False),
            Column(f"run 1 → run {number}"),
            Column("change"),
            Column("better or worse?", is_number=False),
        ),
        rows=tuple(
            (
                Cell(key.who, key.name, backend=key.backend),
                Cell(f"{before[key].shown} → {after[key].shown}"),
                Cell(_change(before[key], after[key])),
                _verdict(before[key], after[key]),
            )
            for key in keys
        ),
        notes=(_RULE,),
    )


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
    share = f" ({sign}{show_share(abs(delta / before.value))})" if before.value else ""
    return f"{sign}{before.show(abs(delta))}{share}"


def _verdict(before: Figure, after: Figure) -> Cell:
    if after.value == before.value:
        return Cell("= equal")
    first, second = before.interval, after.interval
    direction = "better" if (after.value > before.value) == after.higher_is_better else "worse"
    if first is None or second is None:
        return Cell(f"? {direction}, or chance: no interval", tone="open")
    if first.low <= second.high and second.low <= first.high:
        return Cell("≈ may be chance: the intervals overlap", tone="open")
    return Cell("▲ better", tone="better") if direction == "better" else Cell("▼ worse", tone="worse")


def _list_unlike(keys: Sequence[Key], before: Mapping[Key, Figure], after: Mapping[Key, Figure]) -> Iterator[str]:
    """Yield a sentence for each reason for which figures of both runs cannot be compared, and what it is about."""
    found: dict[tuple[str, str, str], list[Key]] = {}
    for key in keys:
        for first, second in list_unlike(before[key].conditions, after[key].conditions):
            found.setdefault((first.reason, first.shown, second.shown), []).append(key)
    for (reason, old, new), about in found.items():
        topics = dict.fromkeys(key.topic for key in about)
        everywhere = all(key in about for key in keys if key.topic in topics)
        whom = "" if everywhere else f" of {join_words(dict.fromkeys(key.spoken for key in about))}"
        values = f"{old} → {new}" if old != new else f"{old}, of other contents"
        yield f"{_begin(join_words(topics))}{whom}: {reason} ({values})."


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
