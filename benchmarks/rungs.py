"""The rungs as a measurement meets them: a router that caches nothing and cannot spend too much, and who answered.

This module decides how a rung is opened and introduced. It must not know what it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends import Router
from vision_backends.backends.model_cards import ModelCard, model_cards

from .records import Contestant, Published

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vision_backends.config.settings import Settings

    from .plan import Plan, Task
    from .run_file import RunFile

__all__ = ["BUDGET_KEY", "introduce", "open_router", "rung_names"]

BUDGET_KEY = "monthly_budget_usd"
"""The limit that holds the money: counted for this run alone, since its router keeps no state."""


NOTHING_USD = 1e-9
"""The least budget that there can be; no call is that cheap."""


def open_router(plan: Plan, run_file: RunFile) -> Router:
    """Open a router with all rungs of a plan, none of which begins a call that the rest of the budget may not pay.

    Where nothing is left, those that cost nothing still answer.

    Raises:
        ConfigError: A rung cannot be made.
    """
    settings = plan.settings
    if run_file.left_usd is not None:
        for name in plan.backends:
            settings = _with_budget(settings, name, usd=max(run_file.left_usd, NOTHING_USD))
    return Router.from_config(settings)


def rung_names(plan: Plan, router: Router) -> dict[str, str]:
    """Return what each rung calls itself, by its name on the ladder; the two differ for ``package.module:Class``."""
    return dict(zip(plan.backends, (rung.backend for rung in router.status()), strict=True))


def introduce(
    router: Router,
    *,
    backend: str,
    task: Task,
    model: str | None = None,
    revision: str | None = None,
    random_weights: bool = False,
) -> Contestant:
    """Say who was measured.

    Args:
        router: It has answered already, so that it knows where its models run.
        backend: What the rung calls itself.
        task: What it was asked for.
        model: Who answered, as a trace says it; None when nobody did.
        revision: Its version, likewise.
        random_weights: Whether its weights are random.
    """
    rung = next(rung for rung in router.status() if rung.backend == backend)
    model = model or rung.tasks[task].model
    parts = (model or "").split("+")
    found = [_cards_of(part, backend) for part in parts]
    cards = [card for some in found for card in some]
    known = all(found)
    counts = [card.parameters for card in cards if card.parameters is not None]
    facts = _facts_of(rung.facts, model)
    return Contestant(
        backend=backend,
        task=task,
        model=model,
        revision=revision,
        engine=_engine_of(facts),
        device=facts.get("device"),
        dtype=facts.get("dtype"),
        random_weights=random_weights,
        parameters=sum(counts) if known and len(counts) == len(cards) else None,
        licence=" and ".join(dict.fromkeys(card.licence for card in cards)) if known else None,
        published=tuple(
            Published(metric=figure.metric, value=figure.value, source=figure.source)
            for card in cards
            for figure in card.quality
            if len(parts) == 1  # of a part of a pipeline it says little
        ),
    )


def _with_budget(settings: Settings, name: str, *, usd: float) -> Settings:
    table = settings.table(name)
    usd = min(usd, table.get(BUDGET_KEY, usd))
    table = {**table, BUDGET_KEY: usd}
    if name in {"openai", "local", "embedded"}:
        return settings.model_copy(update={name: table})
    return settings.model_copy(update={"backends": {**settings.backends, name: table}})


def _cards_of(part: str, backend: str) -> list[ModelCard]:
    """Return the card of a model, or those of the files that it consists of."""
    cards = [card for card in model_cards() if card.backend == backend]
    return [card for card in cards if card.name == part] or [card for card in cards if card.name.startswith(f"{part}-")]


def _facts_of(facts: Mapping[str, Any], model: str | None) -> Mapping[str, Any]:
    """Return what a rung says of one of its models, or of all."""
    for each in facts.values():
        if isinstance(each, dict) and each.get("model") == model and "device" in each:
            return each
    return facts


def _engine_of(facts: Mapping[str, Any]) -> str | None:
    """Return what runs a model; several, where its parts run on different ones."""
    engine = facts.get("engine") or ("onnxruntime" if "onnxruntime" in facts else None)
    if isinstance(engine, dict):  # each part says which, and why it is no other one
        return " and ".join(dict.fromkeys(str(each).partition(" ")[0] for each in engine.values()))
    return engine
