"""What one run is to do: every option in force, and the configuration of the rungs that it measures.

This module decides which options there are and what a measured rung's configuration looks like. It must not know how
anything is measured. A plan goes into the run's file, all but the configuration, which may hold secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from vision_backends.config.loading import load_settings
from vision_backends.config.settings import CacheSettings, Settings, TaskLadders

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PARTS", "TASKS", "Part", "Plan", "Task", "resumed_plan", "settings_to_measure"]

Task = Literal["describe", "embed", "detect"]
"""What rungs are compared in; the embedding of texts belongs to ``embed``."""

TASKS: tuple[Task, ...] = get_args(Task)

Part = Literal["quality", "latency", "failover"]

PARTS: tuple[Part, ...] = get_args(Part)


class Plan(BaseModel):
    """The options of one run; `settings` is what a router is made from.

    Attributes:
        parts: What is measured, in this order.
        config: The configuration file that was named; None for the usual one.
        backends: Rungs as a ladder of the configuration names them, best first.
        tasks: In which they are compared.
        dataset: A folder, ``hf:`` and an id, or ``sample`` for the bundled photos.
        limit: How many images at most, drawn by the seed; None takes all.
        seed: Of every random choice.
        budget_usd: What the whole run may cost; None without limit.
        resamples: How many bootstrap samples an interval is made from.
        examples: How many images are kept with what each rung said.
        random_weights: Run models of the published sizes with random weights where there are none.
        sandbox: Measure the ``openai`` rung against the server on loopback.
        rounds: How many warm calls of each rung are timed.
        processes: How many fresh processes time their first answer.
        concurrency: Numbers of callers at once.
        load_s: Seconds that each number of callers keeps asking.
        day_s: Seconds that the day of the failover takes.
        peers: Also let other libraries through that day.
        install_peers: Make environments for them first.
        settings: The configuration of the rungs, with nothing cached and no state kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: tuple[Part, ...] = PARTS
    config: Path | None = None
    backends: Annotated[tuple[str, ...], Field(min_length=1)] = ("openai", "local", "embedded")
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = TASKS
    dataset: str = "sample"
    limit: PositiveInt | None = None
    seed: int = 7
    budget_usd: PositiveFloat | None = None
    resamples: PositiveInt = 1000
    examples: Annotated[int, Field(ge=0)] = 6
    random_weights: bool = False
    sandbox: bool = False
    rounds: PositiveInt = 20
    processes: PositiveInt = 3
    concurrency: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 4, 16)
    load_s: PositiveFloat = 5.0
    day_s: PositiveFloat = 30.0
    peers: bool = False
    install_peers: bool = False
    settings: Settings = Field(exclude=True, repr=False)

    def without(self, backend: str) -> Plan:
        """Return the plan of all rungs but one; it may have none then."""
        names = tuple(name for name in self.backends if name != backend)
        settings = self.settings.model_copy(update={"ladder": names})
        return self.model_copy(update={"backends": names, "settings": settings})


def resumed_plan(options: Mapping[str, Any]) -> Plan:
    """Make the plan of a run again, from the options in its file and the configuration as it is now.

    Raises:
        ConfigError: The configuration cannot be used any more.
        ValueError: These are no options.
    """
    config = options.get("config")
    settings, _ = settings_to_measure(config and Path(config), backends=tuple(options["backends"]))
    return Plan.model_validate({**options, "settings": settings})


def settings_to_measure(config: Path | None, *, backends: tuple[str, ...] | None) -> tuple[Settings, tuple[str, ...]]:
    """Read the user's configuration, and set what a measurement needs: nothing cached, hedged, kept or told.

    Args:
        config: The configuration file; None takes the usual one, if it is there.
        backends: The rungs, best first; None takes all that the configuration names.

    Returns:
        The settings and the rungs.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    settings = load_settings(config)
    ladder = settings.ladder
    ladders = (ladder.describe, ladder.embed, ladder.detect) if isinstance(ladder, TaskLadders) else (ladder,)
    named = tuple(dict.fromkeys(name for each in ladders for name in each))
    names = named if backends is None else backends
    changed = {
        "ladder": names,
        "cache": CacheSettings(enabled=False),
        "state": "memory",
        "hedge_after_s": None,
        "alerts": Settings.model_fields["alerts"].default,
    }
    if settings.local.get("download", "background") == "background":
        changed["local"] = settings.local | {"download": "wait"}  # else all images would be declined meanwhile
    return settings.model_copy(update=changed), names
