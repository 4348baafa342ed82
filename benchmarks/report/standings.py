"""What several runs say of each rung, put together: one standing for each rung, task and data set.

This module decides which result of which run counts, and what a rung's headline figures are. It must not know how
anything is worded or drawn. Where two runs measured the same, the later one given counts; rungs stand in the
ladder's order, so that the first one is what the others are a fallback for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from ..records import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from ..records import Contestant, LatencyResult, Metric, Published, QualityResult, Run

__all__ = ["Group", "Standing", "gather_groups", "median_interval", "number_runs", "rank_metric"]

Result = TypeVar("Result")

Task = Literal["describe", "embed", "detect"]

_HEADLINES: dict[Task, tuple[str, ...]] = {
    "describe": ("CIDEr-D", "CIDEr", "CLIPScore", "BLEU-4", "ROUGE-L"),
    "embed": ("R@1 image↔image", "R@1", "R@5"),
    "detect": ("mAP", "mAP50"),
}
"""What a task's quality is judged by, best first: a metric counts whose name begins so. Images are looked for by
images, because all rungs can do that."""

_MIN_SAMPLES = 6
"""With fewer, no interval of 95 % for a median exists that makes no assumption: 2 · 0.5⁶ is the first under 0.05."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of one rung at one task.

    Attributes:
        label: What it is called among the others of its task: the rung, and the model where a rung has several.
        quality: How good it was; None where that was not asked.
        quality_run: Number of the run that says so.
        latency: How fast it was; None where that was not asked.
        latency_run: Number of the run that says so.
    """

    label: str
    quality: QualityResult | None = None
    quality_run: int | None = None
    latency: LatencyResult | None = None
    latency_run: int | None = None

    @property
    def contestant(self) -> Contestant:
        """Who it is."""
        result = self.quality or self.latency
        if result is None:
            raise ValueError("A standing has to hold a result.")
        return result.contestant

    @property
    def backend(self) -> str:
        """The rung."""
        return self.contestant.backend

    @property
    def model(self) -> str | None:
        """The model, by whichever result names it."""
        contestants = [result.contestant for result in (self.quality, self.latency) if result]
        return next((each.model for each in contestants if each.model), None)

    @property
    def random_weights(self) -> bool:
        """Whether any of it comes from random weights."""
        return any(result.contestant.random_weights for result in (self.quality, self.latency) if result)

    @property
    def has_quality(self) -> bool:
        """Whether it was asked for quality; with random weights it has none, whatever the figures are."""
        return self.quality is not None and self.quality.images > 0 and not self.quality.contestant.random_weights

    @property
    def answered_nothing(self) -> bool:
        """Whether it was asked and never answered."""
        return self.quality is not None and self.quality.images > 0 and self.quality.answered == 0

    @property
    def metrics(self) -> dict[str, Metric]:
        """Its figures of quality by name, without those that could not be measured."""
        if self.quality is None or not self.has_quality:
            return {}
        return {metric.name: metric for metric in self.quality.metrics if metric.value is not None}

    @property
    def median_s(self) -> float | None:
        """Median seconds of a warm call."""
        if self.latency and self.latency.warm_s:
            return median(self.latency.warm_s)
        return self.quality.median_s if self.quality else None

    @property
    def middle_s(self) -> tuple[float, float] | None:
        """Seconds between which 80 % of the warm calls lie."""
        if not self.latency or len(self.latency.warm_s) < 2:
            return None
        low, high = np.percentile(self.latency.warm_s, [10, 90])
        return float(low), float(high)

    @property
    def cost_per_1000_usd(self) -> float | None:
        """What a thousand answers cost."""
        if self.latency and self.latency.cost_per_1000_usd is not None:
            return self.latency.cost_per_1000_usd
        if self.quality is None or self.quality.cost_usd is None or not self.quality.answered:
            return None
        return self.quality.cost_usd / self.quality.answered * 1000

    @property
    def published(self) -> tuple[Published, ...]:
        """What others published of the model, each figure once."""
        results = [result for result in (self.quality, self.latency) if result]
        return tuple(dict.fromkeys(figure for result in results for figure in result.contestant.published))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rungs that can be compared: they did the same task on the same data set, or were only timed.

    Attributes:
        task: The task.
        dataset: The data set; None where nothing but time was measured.
        standings: The rungs, in the ladder's order.
    """

    task: Task
    dataset: str | None
    standings: tuple[Standing, ...]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """All metrics that anybody was measured by, in the order of the runs."""
        results = [each.quality for each in self.standings if each.quality]
        return tuple(dict.fromkeys(metric.name for result in results for metric in result.metrics))

    def headline(self, standings: Iterable[Standing]) -> str | None:
        """Return the metric by which to compare some rungs: one that most of them have, and the task's own if so."""
        chosen = list(standings)
        counts = {name: sum(name in each.metrics for each in chosen) for name in self.metric_names}
        ranks = [name for name in counts if counts[name]]
        return min(ranks, key=lambda name: (-counts[name], rank_metric(self.task, name)), default=None)


def number_runs(runs: Sequence[Run]) -> dict[int, Run]:
    """Return runs by the number that they are called by."""
    return dict(enumerate(runs, start=1))


def gather_groups(runs: Sequence[Run]) -> tuple[Group, ...]:
    """Put all results of quality and latency together.

    A result of latency stands beside the quality of the same model on the same rung, and alone where there is none.
    """
    numbered = number_runs(runs)
    quality = _latest(numbered, lambda run: run.quality, _quality_key)
    latency = _latest(numbered, lambda run: run.latency, lambda result: _key(result.contestant))
    groups: dict[tuple[Task, str | None], list[Standing]] = {}
    for number, result in quality:
        standing = Standing(label=result.contestant.backend, quality=result, quality_run=number)
        groups.setdefault((result.contestant.task, result.dataset), []).append(standing)
    for number, timed in latency:
        task = timed.contestant.task
        if not any(key[0] == task for key in groups):
            groups[task, None] = []
        for key, standings in groups.items():
            if key[0] == task:
                _place(standings, timed, number)
    ladder = [
        *(name for run in runs for name in _ladder_of(run)),
        *(each.contestant.backend for _, each in quality),
        *(each.contestant.backend for _, each in latency),
    ]
    order = {name: place for place, name in reversed(list(enumerate(ladder)))}
    return tuple(
        Group(task=task, dataset=dataset, standings=_label(sorted(found, key=lambda each: order[each.backend])))
        for (task, dataset), found in sorted(groups.items(), key=lambda item: tuple(_HEADLINES).index(item[0][0]))
    )


def median_interval(samples: Sequence[float]) -> Interval | None:
    """Return the 95 % confidence interval of a median by order statistics; None where there are too few samples."""
    from scipy.stats import quantile_test

    if len(samples) < _MIN_SAMPLES:
        return None
    found = quantile_test(samples, p=0.5, q=median(samples)).confidence_interval(0.95)
    return Interval(low=float(found.low), high=float(found.high))


def _ladder_of(run: Run) -> list[str]:
    """Return the rungs that a run was asked for, best first; none where its settings do not say."""
    options = run.settings.get("options")
    backends = options.get("backends") if isinstance(options, dict) else None
    return [name for name in backends if isinstance(name, str)] if isinstance(backends, list | tuple) else []


def _latest(
    runs: dict[int, Run], results: Callable[[Run], Sequence[Result]], key: Callable[[Result], Hashable]
) -> list[tuple[int, Result]]:
    """Return each result once, by its key: where it first stands, as the last run says it."""
    found: dict[Hashable, tuple[int, Result]] = {}
    for number, run in runs.items():
        for result in results(run):
            found[key(result)] = number, result
    return list(found.values())


def _key(contestant: Contestant) -> Hashable:
    return contestant.task, contestant.backend, contestant.model


def _quality_key(result: QualityResult) -> Hashable:
    return (_key(result.contestant), result.dataset)


def _place(standings: list[Standing], timed: LatencyResult, number: int) -> None:
    """Put a result of latency beside the quality of the same model, or alone."""
    for place, standing in enumerate(standings):
        models = {standing.contestant.model, timed.contestant.model} - {None}
        if standing.backend == timed.contestant.backend and standing.latency is None and len(models) < 2:
            standings[place] = replace(standing, latency=timed, latency_run=number)
            return
    standings.append(Standing(label=timed.contestant.backend, latency=timed, latency_run=number))


def _label(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    """Name the model as well where a rung stands more than once."""
    names = [each.backend for each in standings]
    return tuple(
        replace(each, label=f"{each.backend} {(each.model or 'unknown model').rpartition('/')[2]}")
        if names.count(each.backend) > 1
        else each
        for each in standings
    )


def rank_metric(task: Task, name: str) -> int:
    """Return how well a metric stands for a task: 0 is best."""
    prefixes = _HEADLINES[task]
    exact = [place for place, prefix in enumerate(prefixes) if name == prefix]
    begins = [place for place, prefix in enumerate(prefixes) if name.startswith(prefix)]
    return min(exact or begins, default=len(prefixes))
