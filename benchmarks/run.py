"""How a run goes: begun or resumed, part after part, until it is finished, interrupted or out of money.

This module decides in which order things happen. It must not know how anything is measured, nor how options are
called on a command line.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pydantic import ValidationError

from vision_backends import ConfigError, InvalidRequestError, VisionError
from vision_backends.cli.rendering.exits import INTERRUPTED, tell
from vision_backends.cli.servers import tell_servers
from vision_backends.cli.settings_in_force import mask
from vision_backends.installing import pip_command

from .plan import TASKS, Part, Plan, resumed_plan, settings_to_measure
from .run_file import BudgetReached, RunFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import Run

__all__ = [
    "check_checkout",
    "check_extra",
    "check_folder",
    "is_here",
    "report_folder",
    "run",
    "typed_command",
    "typed_program",
    "write_report",
]

NEEDED = ("jinja2", "matplotlib", "pycocoevalcap", "pycocotools", "scipy")
"""What the extra ``[bench]`` brings."""

REPORT_FILES = ("report.md", "report.html")
"""What a report consists of; the page comes last."""

MODULES: dict[Part, str] = {"quality": "quality", "latency": "latency", "failover": "day"}
"""Who measures each part; each has a function ``measure(plan, run_file)``, and is imported when its turn comes."""


def run(
    context: typer.Context,
    parts: tuple[Part, ...],
    *,
    out: Path | None,
    resume: Path | None,
) -> RunFile:
    """Measure some parts into a new file, or what is missing in one that was begun."""
    check_extra()
    if resume is not None:
        _check_alone(context)
        plan, run_file = _reopen(context, resume)
    else:
        plan = _plan(context, parts)
        begun = datetime.now(UTC)
        path = out or Path(f"benchmark-{begun:%Y%m%d-%H%M%S}.json")
        run_file = RunFile.begin(
            path,
            plan,
            program=typed_program(context),
            command=_words(context),
            configuration=_configuration(plan),
        )
    tell_servers(plan.settings, plan.backends)
    try:
        for part in plan.parts:
            if not run_file.done(f"part/{part}"):
                _measure(part, plan, run_file)
                run_file.note(f"part/{part}", value=True)
    except KeyboardInterrupt:
        run_file.stop("It was interrupted.")
        again = shlex.join([str(context.info_name), "--resume", str(run_file.path)])
        tell(f"interrupted; go on with: {typed_program(context)} {again}")
        raise typer.Exit(INTERRUPTED) from None
    except VisionError:
        run_file.forget_if_empty()
        raise
    run_file.finish()
    if run_file.run.stopped:
        tell(run_file.run.stopped)
    typer.echo(str(run_file.path))
    return run_file


def _measure(part: Part, plan: Plan, run_file: RunFile) -> None:
    """Let one part measure; what it measured before the money was spent is kept."""
    module = import_module(f".{MODULES[part]}", package=__package__)
    try:
        module.measure(plan, run_file)
    except BudgetReached as reached:
        run_file.stop(f"{part.capitalize()}: {reached}")


def _plan(context: typer.Context, parts: tuple[Part, ...]) -> Plan:
    given = {name: value for name, value in context.params.items() if name in Plan.model_fields and value is not None}
    backends = given.pop("backends", None)
    config = given.get("config")
    settings, names = settings_to_measure(
        config if isinstance(config, Path) else None, backends=None if backends is None else _names(backends)
    )
    for name in ("tasks", "concurrency"):
        if name in given:
            given[name] = _names(given[name])
    try:
        plan = Plan.model_validate({"parts": parts, "backends": names, "settings": settings, **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InvalidRequestError(
            f"{option} {first['input']!r} is not valid: {first['msg']}.", remedy=_remedy(str(first["loc"][0]))
        ) from None
    _check_peers(context, plan)
    return plan


def _remedy(option: str) -> str | None:
    return {
        "tasks": f"Name some of {', '.join(TASKS)}, with commas between.",
        "concurrency": "Write numbers with commas between, as 1,4,16.",
    }.get(option)


def _names(text: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in str(text).split(",") if word.strip()))


def _configuration(plan: Plan) -> dict[str, object]:
    """Return the configuration in force, without secrets."""
    masked: dict[str, object] = mask(plan.settings.model_dump(mode="json"))
    return masked


def _reopen(context: typer.Context, path: Path) -> tuple[Plan, RunFile]:
    """Return an interrupted run and its plan.

    Raises:
        InvalidRequestError: There is no such run, or it was begun with another configuration.
    """
    run_file = RunFile.resume(path)
    plan = resumed_plan(run_file.options)
    _check_peers(context, plan)
    if _configuration(plan) != run_file.run.settings["configuration"]:
        raise InvalidRequestError(
            f"The configuration has changed since {str(path)!r} was begun.",
            remedy="Restore it, or begin a new run.",
        )
    return plan, run_file


def _check_peers(context: typer.Context, plan: Plan) -> None:
    """Return if the other libraries are not asked for, or what asks them is here: the wheel leaves it out."""
    if (plan.peers or plan.install_peers) and not is_here("peers"):
        raise ConfigError(
            "Other libraries are compared in a checkout only: the installed package has no benchmarks/peers.",
            remedy=_remedy_of_checkout(context, "failover --peers"),
        )


def is_here(part: str) -> bool:
    """Tell whether a part is here that the wheel leaves out."""
    return find_spec(f".{part}", __package__) is not None


def check_checkout(context: typer.Context, part: str) -> None:
    """Return if a part is here that the wheel leaves out.

    Raises:
        ConfigError: It is not.
    """
    if not is_here(part):
        raise ConfigError(
            f"The installed package has no benchmarks/{part}: it measures this project's own targets.",
            remedy=_remedy_of_checkout(context, part),
        )


def _remedy_of_checkout(context: typer.Context, words: str) -> str:
    install = pip_command("-e", ".[bench]")
    return f"Install the package in a checkout ({install}), and run there: {typed_program(context)} {words}"


def _check_alone(context: typer.Context) -> None:
    given = [option for name, option in _given(context).items() if name not in {"resume", "debug", "folder"}]
    if given:
        raise InvalidRequestError(f"--resume takes the options of the run: leave out {given[0]}.")


def _given(context: typer.Context) -> dict[str, str]:
    """Return the options that stand on the command line, as they are called there, by the name of the parameter."""
    found = {}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            found[parameter.name or ""] = parameter.opts[0]
    return found


def check_extra() -> None:
    """Return if everything is installed that a run needs.

    Raises:
        ConfigError: Something is missing; names the command that brings it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The benchmark needs {', '.join(missing)}.", remedy=f"Run: {pip_command('vision-backends[bench]')}"
        )


def _words(context: typer.Context) -> tuple[str, ...]:
    """Return the command and those of its options that were given, as a user would write them."""
    words = [str(context.info_name)]
    for name, option in _given(context).items():
        value = context.params[name]
        words += [option] if value is True else [option, str(value)]
    return tuple(words)


def typed_program(context: typer.Context) -> str:
    """Return what the reader has typed to start the benchmark, such as ``vision bench``: texts call it so."""
    group = context.parent
    return str(context.info_name) if group is None else group.command_path


def typed_command(context: typer.Context) -> str:
    """Return the whole command, with the options that were given."""
    return f"{typed_program(context)} {shlex.join(_words(context))}"


def report_folder(run: Path, *, at: datetime) -> Path:
    """Return a folder beside a run that is not there yet, for its report of that date and time."""
    name = f"report-{at:%Y%m%d-%H%M%S}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(folder for each in names if not (folder := run.with_name(each)).exists())


def check_folder(folder: Path | None) -> None:
    """Return if a report can be written into a folder that was named: no other one may be lost.

    Raises:
        InvalidRequestError: It holds a report, or is none.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise InvalidRequestError(f"{str(folder)!r} is a file, not a folder.", remedy="Name another --folder.")
    taken = [path for name in REPORT_FILES if (path := folder / name).exists()]
    if taken:
        raise InvalidRequestError(
            f"{str(taken[0])!r} already exists.", remedy="Name another --folder, or leave it out: it is a new one then."
        )


def write_report(runs: Sequence[Run], folder: Path) -> None:
    """Write the report of some runs into a folder, and print the path of the page to open.

    Raises:
        InvalidRequestError: It cannot be written.
    """
    from . import report

    try:
        *_, page = report.write_report(runs, folder)
    except OSError as error:
        raise InvalidRequestError(f"No report can be written into {str(folder)!r}: {error.strerror}.") from error
    typer.echo(str(page))
