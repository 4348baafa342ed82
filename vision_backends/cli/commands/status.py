"""``vision status``: how each rung stands now, which gates are blocked, and what would happen if something were asked.

This module decides how the router's reports read. It must not judge any rung itself.
"""

from dataclasses import asdict
from typing import Any

import typer

from vision_backends.cli.options import (
    BackendNames,
    JsonOptions,
    Label,
    Language,
    LocalOnly,
    OfModel,
    Prompt,
    Space,
    TaskName,
    command,
    rungs_of,
)
from vision_backends.cli.rendering.status import (
    print_begun_anew,
    print_budgets,
    print_gates,
    print_left_out,
    print_models,
    print_reasons,
    print_unpriced,
)
from vision_backends.cli.rendering.text import dump_json, print_table
from vision_backends.errors import InvalidRequestError
from vision_backends.foreign_text import printable
from vision_backends.reports import RungStatus, Verdict
from vision_backends.types import TASKS, Task

__all__ = ["status"]

OPTIONS_OF: dict[Task, frozenset[str]] = {
    "describe": frozenset({"prompt", "language"}),
    "embed": frozenset({"space"}),
    "embed_text": frozenset({"space"}),
    "detect": frozenset({"labels"}),
    "ask": frozenset({"prompt"}),
}
"""Which of the router's options have an effect on which task; the others affect all of them."""


@command
def status(
    *,
    task: TaskName = None,
    prompt: Prompt = None,
    language: Language = None,
    label: Label = None,
    space: Space = None,
    backends: BackendNames = None,
    model: OfModel = None,
    local_only: LocalOnly = False,
    options: JsonOptions,
) -> None:
    """Show the state of backends, gates and budgets; with --task, what would happen now, and why."""
    with options.open_router() as (router, _):
        asked: dict[str, Any] = {"prompt": prompt, "language": language, "labels": label, "space": space}
        asked |= {"backends": rungs_of(backends), "model": model}
        given = {name: value for name, value in asked.items() if value is not None}
        _check_options(task, {*given} | ({"local_only"} if local_only else set()))
        if task is not None:
            explanation = router.explain(task, local_only=local_only, **given)
            typer.echo(dump_json(explanation.to_dict()) if options.as_json else printable(str(explanation), keep="\n"))
        elif options.as_json:
            about = {"gates": [*map(asdict, router.gates())], "budgets": [*map(asdict, router.spending())]}
            typer.echo(dump_json({"rungs": [rung.to_dict() for rung in router.status()], **about}))
        else:
            rungs = router.status()
            _print_rungs(rungs)
            for rung in rungs:
                print_models(rung)
            if gates := router.gates():
                typer.echo()
                print_gates(gates)
            if budgets := router.spending():
                typer.echo()
                print_budgets(budgets)
                print_begun_anew(router, budgets)


def _check_options(task: Task | None, given: set[str]) -> None:
    """Refuse options that would have no effect."""
    useful = frozenset() if task is None else OPTIONS_OF[task] | {"backends", "model", "local_only"}
    for name in sorted(given - useful):
        option = "--" + {"labels": "label"}.get(name, name).replace("_", "-")
        if task is None:
            raise InvalidRequestError(f"{option} needs a --task.", remedy=f"There are: {', '.join(TASKS)}.")
        raise InvalidRequestError(f"{option} has no effect on {task}.")


def _print_rungs(rungs: list[RungStatus]) -> None:
    rows = [(rung.backend, *(_cell(rung.tasks.get(task)) for task in TASKS)) for rung in rungs]
    print_table(("backend", *TASKS), rows)
    for rung in rungs:
        print_reasons(rung, named=True)
        print_left_out(rung)
        print_unpriced(rung)


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    if verdict.ready:
        return "ready"
    state = (verdict.error or "blocked").replace("_", " ")
    return state if verdict.retry_after_s is None else f"{state}, retry in {verdict.retry_after_s:.0f} s"
