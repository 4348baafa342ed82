"""``vision bench`` and ``python -m benchmarks``: how much worse, slower and cheaper is the fallback?

This module decides which commands there are and which options each takes. It must not know what any of them does: an
option is read from the context by its name, which is that of a field of `plan.Plan`.
"""

import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from vision_backends.cli.options import ConfigFile, Debug, several_of
from vision_backends.cli.rendering.exits import exit_codes, tell

from .options import (
    Backends,
    BudgetUsd,
    Concurrency,
    Dataset,
    DayS,
    Examples,
    Folder,
    InstallPeers,
    Limit,
    LoadS,
    Out,
    Peers,
    Processes,
    RandomWeights,
    Resamples,
    Resume,
    Rounds,
    Sandbox,
    Seed,
    Tasks,
)
from .plan import PARTS
from .records import Run
from .run import check_checkout, check_extra, check_folder, is_here, report_folder, run, typed_command, write_report
from .run_file import read_run

__all__ = ["app", "main"]

MEASURE = "Measure"
SHOW = "Show"

ALL_TASKS = "describe,embed,detect"


def _subject_names() -> list[str]:
    if not is_here("speed"):
        return []
    from .speed.run import SUBJECTS  # only when a shell asks

    return [subject.name for subject in SUBJECTS]


app = typer.Typer(
    name="bench",
    help="How much worse, slower and cheaper is the fallback? Measures the rungs of your configuration side by side.",
    epilog="Exit codes: 0 measured, 2 usage or bad input, 130 interrupted: go on with --resume.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(rich_help_panel=MEASURE)
def quality(
    context: typer.Context,
    *,
    config: ConfigFile = None,
    backends: Backends = None,
    tasks: Tasks = ALL_TASKS,
    dataset: Dataset = "sample",
    limit: Limit = None,
    seed: Seed = 7,
    budget_usd: BudgetUsd = None,
    resamples: Resamples = 1000,
    examples: Examples = 6,
    random_weights: RandomWeights = False,
    out: Out = None,
    resume: Resume = None,
    debug: Debug = False,
) -> None:
    """Ask each rung about the same images, and compare its answers with the truth."""
    with exit_codes(debug=debug):
        run(context, ("quality",), out=out, resume=resume)


@app.command(rich_help_panel=MEASURE)
def latency(
    context: typer.Context,
    *,
    config: ConfigFile = None,
    backends: Backends = None,
    tasks: Tasks = ALL_TASKS,
    dataset: Dataset = "sample",
    limit: Limit = None,
    seed: Seed = 7,
    budget_usd: BudgetUsd = None,
    rounds: Rounds = 20,
    processes: Processes = 3,
    concurrency: Concurrency = "1,4,16",
    load_s: LoadS = 5.0,
    random_weights: RandomWeights = False,
    sandbox: Sandbox = False,
    out: Out = None,
    resume: Resume = None,
    debug: Debug = False,
) -> None:
    """Time each rung: cold, warm, with many callers, and where the time goes."""
    with exit_codes(debug=debug):
        run(context, ("latency",), out=out, resume=resume)


@app.command(rich_help_panel=MEASURE)
def failover(
    context: typer.Context,
    *,
    seed: Seed = 7,
    day_s: DayS = 30.0,
    peers: Peers = False,
    install_peers: InstallPeers = False,
    out: Out = None,
    resume: Resume = None,
    debug: Debug = False,
) -> None:
    """Play a day on which the best server fails and recovers: who answers, how fast, at what cost?"""
    with exit_codes(debug=debug):
        run(context, ("failover",), out=out, resume=resume)


@app.command(rich_help_panel=MEASURE)
def speed(
    context: typer.Context,
    *,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            autocompletion=several_of(_subject_names),
            help="Measure only these subjects, as lists,one,photo.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Take less than a minute; figures are rough.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Measure the local rung as well: ten more minutes.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here as JSON.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page here, in Markdown.")] = None,
    debug: Debug = False,
) -> None:
    """Measure this package beside what people would otherwise write, and against its targets; in a checkout."""
    with exit_codes(debug=debug):
        check_extra()
        check_checkout(context, "speed")
        from .speed.page import show_targets, write_page
        from .speed.run import choose_subjects, measure_speed

        names = None if only is None else [word.strip() for word in only.split(",") if word.strip()]
        found = measure_speed(choose_subjects(names, quick=quick, local=local), quick=quick, tell=tell)
        for line in show_targets(found):
            typer.echo(line)
        for path, text in ((json_file, found.to_json()), (out, write_page(found, command=typed_command(context)))):
            if path is not None:
                path.write_text(text, encoding="utf-8", newline="\n")


@app.command(name="all", rich_help_panel=MEASURE)
def everything(
    context: typer.Context,
    *,
    config: ConfigFile = None,
    backends: Backends = None,
    tasks: Tasks = ALL_TASKS,
    dataset: Dataset = "sample",
    limit: Limit = None,
    seed: Seed = 7,
    budget_usd: BudgetUsd = None,
    resamples: Resamples = 1000,
    examples: Examples = 6,
    rounds: Rounds = 20,
    processes: Processes = 3,
    concurrency: Concurrency = "1,4,16",
    load_s: LoadS = 5.0,
    random_weights: RandomWeights = False,
    sandbox: Sandbox = False,
    day_s: DayS = 30.0,
    peers: Peers = False,
    install_peers: InstallPeers = False,
    folder: Folder = None,
    out: Out = None,
    resume: Resume = None,
    debug: Debug = False,
) -> None:
    """Quality, latency and failover in one run, and the report of it."""
    with exit_codes(debug=debug):
        check_folder(folder)
        run_file = run(context, PARTS, out=out, resume=resume)
        write_report([run_file.run], folder or report_folder(run_file.path, at=datetime.now(UTC)))


@app.command(rich_help_panel=SHOW)
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Files of runs; several are compared.")],
    *,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Write a run as a table and a page, or compare runs."""
    with exit_codes(debug=debug):
        check_extra()
        check_folder(folder)
        write_report([read_run(path) for path in runs], folder or report_folder(runs[0], at=datetime.now(UTC)))


@app.command(rich_help_panel=SHOW)
def schema(*, debug: Debug = False) -> None:
    """Print the JSON schema of a run's file."""
    with exit_codes(debug=debug):
        typer.echo(json.dumps(Run.model_json_schema(), indent=2))


def main(arguments: Sequence[str] | None = None, *, name: str = "vision bench") -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: What stands after the program's name; by default what the shell gave.
        name: What the reader has typed to start it: all texts call it so.

    Raises:
        SystemExit: Always.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(arguments, prog_name=name)
