"""Under which conditions a figure was measured, and what is not the same in two runs.

This module decides what has to be equal for two figures to be compared, and what only has to be told. It must not know
any figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..lateness import could_not_keep
from .wording import join_words, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..records import Contestant, FailoverResult, QualityResult, Run

__all__ = [
    "Condition",
    "day_conditions",
    "list_differences",
    "list_unlike",
    "machine_of",
    "photos_of",
    "punctuality_of",
    "server_of",
]

_MAX_SETTINGS = 8

_COMMIT_LETTERS = 10

_TOLD_ELSEWHERE = {"parts", "tasks", "backends", "dataset", "limit", "sandbox", "day_s"}
"""Options that are told where they make figures unlike, or as what is missing."""


class Condition(NamedTuple):
    """One condition under which a figure was measured.

    Attributes:
        reason: Why figures cannot be compared that were measured under another one.
        shown: What it was, for readers.
        identity: What it was, exactly; None where that is not known.
        bars: Whether nothing can be compared under it.
    """

    reason: str
    shown: str
    identity: str | None = None
    bars: bool = False


def list_unlike(before: Sequence[Condition], after: Sequence[Condition]) -> Iterator[tuple[Condition, Condition]]:
    """Yield the conditions of two figures that are not the same."""
    for first, second in zip(before, after, strict=True):
        exact = first.identity is not None and second.identity is not None
        differs = first.identity != second.identity if exact else first.shown != second.shown
        if differs or first.bars or second.bars:
            yield first, second


def machine_of(run: Run) -> tuple[Condition, ...]:
    """Return what times and memory depend on."""
    machine = run.machine
    parts = [machine.processor, f"{machine.cores} cores", *machine.accelerators]
    return (Condition("another machine", ", ".join(parts)),)


def photos_of(run: Run, result: QualityResult | None = None) -> tuple[Condition, ...]:
    """Return which photos were asked about; a result of quality says itself of what it is, and of how many."""
    options = _options(run)
    limit = options.get("limit")
    if result is not None:
        name, count = result.dataset, f"{result.images} images"
    else:
        name, count = str(options.get("dataset", "")), "all images" if limit is None else f"{limit} images"
    drawn = "" if limit is None else f" drawn by the seed {run.seed}"
    identity = f"{run.photos} {count if result is not None else ''}" if run.photos is not None else None
    return (Condition("other photos", f"{shorten(name)}, {count}{drawn}", identity),)


def server_of(run: Run, who: Contestant) -> tuple[Condition, ...]:
    """Return whether a rung was measured against the sandbox: its answers are made up."""
    if who.backend != "openai":
        return ()
    return (Condition("another kind of server", "the sandbox" if _options(run).get("sandbox") else "a real one"),)


def day_conditions(day: FailoverResult) -> tuple[Condition, ...]:
    """Return how a day was played."""
    length_s = max((phase.ends_s for phase in day.phases), default=0.0)
    calls = sum(phase.calls for phase in day.phases)
    return (Condition("another day", f"{calls} calls in {length_s:g} s"),)


def punctuality_of(day: FailoverResult) -> tuple[Condition, ...]:
    """Return whether a day was played as planned, which its times depend on; a day that does not say may have been."""
    late = could_not_keep(day)
    shown = "too late" if late else "not measured" if day.lateness is None else "in time"
    return (Condition("the plan of the day was not kept", shown, "late" if late else "kept", bars=late),)


def list_differences(first: Run, later: Run) -> Iterator[str]:
    """Yield what is not the same in two runs though figures can be compared: a change may come of it."""
    yield from _list_models(first, later)
    versions = _differ(_versions(first), _versions(later))
    if versions:
        yield f"Versions: {'; '.join(versions)}."
    if first.commit != later.commit:
        yield f"Commit: {_shorten_commit(first.commit)} → {_shorten_commit(later.commit)}."
    settings = _differ(_flat(_settings(first)), _flat(_settings(later)))
    if settings:
        more = len(settings) - _MAX_SETTINGS
        yield f"Settings: {'; '.join(settings[:_MAX_SETTINGS])}{f'; and {more} more' if more > 0 else ''}."


def _shorten_commit(commit: str | None) -> str:
    """Return as much of a commit as tells it from others, and whether files differed from it."""
    if commit is None:
        return "none"
    name, dash, mark = commit.partition("-")
    return f"{name[:_COMMIT_LETTERS]}{dash}{mark}"


def _list_models(first: Run, later: Run) -> Iterator[str]:
    before, after = _models(first), _models(later)
    changed: dict[str, list[str]] = {}
    for (backend, task), model in before.items():
        other = after.get((backend, task), model)
        if model != other:
            changed.setdefault(f"{backend}: {model} → {other}", []).append(task)
    for change, tasks in changed.items():
        yield f"Another model of {change} ({join_words(dict.fromkeys(tasks))})."


def _models(run: Run) -> dict[tuple[str, str], str]:
    """Return who answered, by rung and task, with what else makes it another one."""
    whos = [*(each.contestant for each in run.quality), *(each.contestant for each in run.latency)]
    return {
        (who.backend, who.task): " ".join(
            filter(
                None,
                (
                    who.model or "unknown",
                    who.revision and f"({shorten(who.revision, letters=12)})",
                    who.engine and f"by {who.engine}",
                    who.device and f"on {who.device}",
                    who.dtype,
                    "random weights" if who.random_weights else None,
                ),
            )
        )
        for who in whos
    }


def _versions(run: Run) -> dict[str, str]:
    return {"Python": run.machine.python, **run.machine.packages}


def _settings(run: Run) -> dict[str, object]:
    options = {name: value for name, value in _options(run).items() if name not in _TOLD_ELSEWHERE}
    configuration = run.settings.get("configuration")
    if not isinstance(configuration, dict):
        return options
    return options | {name: value for name, value in configuration.items() if name != "ladder"}


def _options(run: Run) -> Mapping[str, object]:
    options = run.settings.get("options")
    return options if isinstance(options, dict) else {}


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings by the names that a configuration file has for them."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = "not set" if value is None else shorten(str(value), letters=40)
    return found


def _differ(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    names = dict.fromkeys((*before, *after))
    pairs = [(name, before.get(name, "none"), after.get(name, "none")) for name in names]
    return [f"{name} {old} → {new}" for name, old, new in pairs if old != new]
