"""What has to stand before anything is timed: a server on this machine, models without weights.

This module decides how the configuration changes for them, and what a reader is told about it. It must not know how
anything is timed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from vision_backends import ConfigError
from vision_backends.backends.openai.models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL

from ..sandbox_process import API_KEY, RemoteSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..plan import Plan, Task
    from ..weights import Role

__all__ = ["CAPTION_WORDS", "Stage", "staged"]

PUBLISHED: dict[Task, tuple[Role, str, str]] = {
    "describe": ("caption", "caption_model", "Salesforce/blip-image-captioning-base"),
    "embed": ("embedding", "embedding_model", "sentence-transformers/clip-ViT-B-32"),
    "detect": ("detection", "detection_model", "ustc-community/dfine-small-coco"),
}
"""For each task the model without weights: its role, its key of ``[local]``, and who has published the real one."""

FREE_BYTES = 3_000_000_000
"""What has to be free for them; they take half of it."""

CAPTION_WORDS = 13
"""A model that has learned nothing never ends a caption; this ends it after 20 tokens, where BLIP's own captions do."""

SERVICE_S = {"talk": 1.5, "/v1/embeddings": 0.3}
"""Median seconds until the sandbox answers: what a small hosted model takes for two sentences about an image, and for
a vector. An assumption that stands beside every figure made with it."""

SPREAD = 0.35
"""Of the logarithm of those seconds: one call in ten takes half as long again or more."""

STEPS = 64

CACHE = "XDG_CACHE_HOME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the rungs are measured.

    Attributes:
        plan: The plan with the configuration that is measured.
        sandboxed: Whether the ``openai`` rung asks a server on this machine.
        models: For each task whose local model has random weights, who has published the real one.
    """

    plan: Plan
    sandboxed: bool = False
    models: Mapping[Task, str] = field(default_factory=dict)


@contextmanager
def staged(plan: Plan) -> Iterator[Stage]:
    """Set up what a plan asks for, as long as the block runs.

    Raises:
        ConfigError: There is no room for the models.
    """
    with ExitStack() as stack:
        settings, sandboxed, models = plan.settings, False, {}
        if plan.sandbox and "openai" in plan.backends:
            sandbox = stack.enter_context(RemoteSandbox.started())
            _let_it_take_its_time(sandbox, seed=plan.seed)
            asked = {"base_url": sandbox.url, "api_key": API_KEY, "prices": _no_prices(settings.openai)}
            settings, sandboxed = settings.model_copy(update={"openai": settings.openai | asked}), True
        if plan.random_weights and "local" in plan.backends and find_spec("transformers") is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vision-backends-")))
            stack.enter_context(_caching_in(folder / "cache"))
            models = {task: PUBLISHED[task][2] for task in plan.tasks}
            table = settings.local | _weights(plan, folder) | {"download": "never"}
            settings = settings.model_copy(update={"local": table})
        measured = plan.model_copy(update={"settings": settings})
        yield Stage(plan=measured, sandboxed=sandboxed, models=models)


@contextmanager
def _caching_in(folder: Path) -> Iterator[None]:
    """Let this process and its children cache there: a model without weights is converted for an engine like others.

    What that leaves behind is as large as the model, and of no use to anybody afterwards.
    """
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE]
        else:
            os.environ[CACHE] = before


def _no_prices(table: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return prices of nothing for the models of ``[openai]``: no budget shall pay for a server on this machine."""
    models = table.get("model", DEFAULT_MODEL), table.get("embedding_model", DEFAULT_EMBEDDING_MODEL)
    return {model: {"input": 0.0, "output": 0.0} for model in models}


def _weights(plan: Plan, folder: Path) -> dict[str, Any]:
    """Write a model for each task, and return the keys of ``[local]`` that name them."""
    from ..weights import make_checkpoint

    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES:
        raise ConfigError(
            f"Random weights need {FREE_BYTES / 1e9:.0f} GB on the disk; {folder.parent} has {free_bytes / 1e9:.1f}.",
            remedy="Name a folder with more room in the variable TMPDIR.",
        )
    made = {}
    for task in plan.tasks:
        role, key, _ = PUBLISHED[task]
        made[key] = str(make_checkpoint(role, folder / role, seed=plan.seed))
    return made


def _let_it_take_its_time(sandbox: RemoteSandbox, *, seed: int) -> None:
    """Let each request take its own time, drawn by the seed, over and over again."""
    chance = Random(seed)  # noqa: S311 — no secret
    for path, median_s in SERVICE_S.items():
        paths = [path] if path.startswith("/") else []
        steps = [
            {"play": {"name": "healthy", "delay_s": median_s * chance.lognormvariate(0, SPREAD), "paths": paths}}
            for _ in range(STEPS)
        ]
        sandbox.play({"steps": steps, "repeat": True}, instead=False)
