"""All that a report says, put together once for the page and the Markdown file.

This module decides what is in a report and in which order. It must not know how it is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..lateness import could_not_keep, tell_lateness
from ..records import Run
from .absence import leave_out_absent, tell_absences
from .comparison import compare_runs
from .conditions import machine_of
from .settings import tabulate_contestants, tabulate_runs
from .standings import gather_groups
from .tables import summarize_days, summarize_group, tabulate_days, tabulate_quality, tabulate_times
from .wording import RANDOM_WEIGHTS, clean_text, join_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records import Example, FailoverResult
    from .cells import Table
    from .comparison import Comparison
    from .standings import Group

__all__ = ["QUESTION", "Contents", "gather_contents", "list_warnings"]

_KEPT = {"thumbnail", "xyxy"}
"""Fields that are looked at where they are drawn."""

QUESTION = "How much worse, how much slower and how much cheaper is the fallback?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a report says.

    Attributes:
        runs: What it is made of, with strangers' texts made fit to be shown.
        groups: Rungs by task and data set.
        summaries: The answer: a table for each group, and one of the played day.
        days: What each library did on the played day.
        warnings: What a reader has to know before any figure.
        quality: A table for each group that was asked for quality.
        times: A table for each task that was timed.
        failover: The table of the played day; None where none was played.
        comparisons: Each later run beside the first one.
        examples: Images with what was said.
        contestants: Who was measured; None where nobody was.
        circumstances: How it was measured.
    """

    runs: tuple[Run, ...]
    groups: tuple[Group, ...]
    summaries: tuple[Table, ...]
    days: tuple[FailoverResult, ...]
    warnings: tuple[str, ...]
    quality: tuple[Table, ...]
    times: tuple[Table, ...]
    failover: Table | None
    comparisons: tuple[Comparison, ...]
    examples: tuple[Example, ...]
    contestants: Table | None
    circumstances: Table


def gather_contents(runs: Sequence[Run]) -> Contents:
    """Return what a report of these runs says.

    Raises:
        ValueError: There is no run.
    """
    if not runs:
        raise ValueError("A report needs at least one run: name the JSON file of one.")
    clean, absences = leave_out_absent([_clean_run(run) for run in runs])
    groups = gather_groups(clean)
    timed = {group.task: group for group in groups if any(each.latency for each in group.standings)}
    days = tuple({day.library: day for run in clean for day in run.failover}.values())
    return Contents(
        runs=tuple(clean),
        groups=groups,
        summaries=(*map(summarize_group, groups), *([summarize_days(days)] if days else [])),
        days=days,
        warnings=(
            *list_warnings(clean, groups),
            *(tell_lateness(day) for day in days if could_not_keep(day)),
            *tell_absences(absences, clean),
        ),
        quality=tuple(tabulate_quality(group) for group in groups if group.dataset is not None),
        times=tuple(tabulate_times(group) for group in timed.values()),
        failover=tabulate_days(days) if days else None,
        comparisons=compare_runs(clean, absences),
        examples=_join_examples(clean),
        contestants=tabulate_contestants(clean),
        circumstances=tabulate_runs(clean),
    )


def list_warnings(runs: Sequence[Run], groups: Sequence[Group]) -> list[str]:
    """Return what a reader has to know before any figure: what is not real, not finished or not alike."""
    found = []
    random = dict.fromkeys(each.label for group in groups for each in group.standings if each.random_weights)
    if random:
        found.append(f"Random weights: {join_words(random)}; {RANDOM_WEIGHTS}.")
    for number, run in enumerate(runs, start=1):
        name = "The run" if len(runs) == 1 else f"Run {number}"
        if run.stopped:
            found.append(f"{name} ended early: {run.stopped.rstrip('.')}.")
        elif run.finished_at is None:
            found.append(f"{name} is not finished: its figures cover what was done so far.")
    if len({machine_of(run) for run in runs}) > 1:
        found.append("The runs come from different machines: times of one cannot be compared with those of another.")
    found += [f"{clause}." for clause in _list_sandboxes(runs)]
    for group in groups:
        asked = sorted({each.quality.images for each in group.standings if each.quality and each.has_quality})
        if len(asked) > 1:
            numbers = join_words(map(str, asked))
            found.append(f"In {group.task} rungs were asked about {numbers} images: their quality cannot be compared.")
    sizes = {each.quality.images for group in groups for each in group.standings if each.quality and each.has_quality}
    if sizes and min(sizes) < 100:
        found.append(
            f"Quality comes from {min(sizes)} images: small differences mean nothing, which the intervals show."
        )
    return found


def _list_sandboxes(runs: Sequence[Run]) -> list[str]:
    """Name runs that asked the sandbox, whose answers are made up."""
    numbers = [
        f"run {number}"
        for number, run in enumerate(runs, start=1)
        if isinstance(options := run.settings.get("options"), dict) and options.get("sandbox")
    ]
    if not numbers:
        return []
    where = "The" if len(runs) == 1 else f"In {join_words(numbers)}, the"
    return [f"{where} upper rung was the sandbox: its answers are made up, its times lack the network"]


def _join_examples(runs: Sequence[Run]) -> tuple[Example, ...]:
    """Return each image once, with what each rung said in the last run that asked it."""
    found: dict[str, Example] = {}
    for example in (example for run in runs for example in run.examples):
        earlier = found.get(example.image)
        asked = {answer.backend for answer in example.answers}
        kept = tuple(answer for answer in earlier.answers if answer.backend not in asked) if earlier else ()
        found[example.image] = example.model_copy(update={"answers": (*kept, *example.answers)})
    return tuple(found.values())


def _clean_run(run: Run) -> Run:
    """Return a run that can be shown: its texts come from strangers, and what is no number was not measured."""
    return Run.model_validate(_clean(run.model_dump()))


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        cleaned = {_clean(key): each if key in _KEPT else _clean(each) for key, each in value.items()}
        return None if cleaned.keys() == {"low", "high"} and None in cleaned.values() else cleaned
    if isinstance(value, list | tuple):
        return [kept for each in value if (kept := _clean(each)) is not None or each is None]
    return value
