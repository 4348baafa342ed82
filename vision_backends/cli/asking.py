"""What ``vision describe``, ``ask``, ``detect`` and ``embed`` have in common: inputs, router, answers and rows.

This module decides how the options that these commands share become calls of the router, how a long list becomes
several, and what is told of the answers. It must not know any task.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, Unpack

import typer

from vision_backends.cli.inputs import Input, find_images, folders_left_out, is_address, read_paths
from vision_backends.cli.options import AskOptions, ListOptions, rungs_of
from vision_backends.cli.rendering.answers import NOT_FETCHED, Tally, print_json
from vision_backends.cli.rendering.exits import at_terminal, tell
from vision_backends.cli.rendering.progress import progress_bar
from vision_backends.cli.rows import Rows, open_rows
from vision_backends.cli.servers import tell_prices, tell_servers
from vision_backends.errors import InvalidRequestError, VisionError
from vision_backends.types import Description, Detections, Embedding, Reply, Task

if TYPE_CHECKING:
    from vision_backends.config.settings import Settings
    from vision_backends.reports import Explanation, Verdict
    from vision_backends.router import Router

__all__ = [
    "MATRIX",
    "Outcomes",
    "answers_of",
    "as_they_come",
    "images_of",
    "open_router",
    "present",
    "readable",
    "rows_of",
    "shares_time",
    "tally_of",
    "together",
]

A = TypeVar("A", Description, Embedding, Detections, Reply)
A_co = TypeVar("A_co", Description, Embedding, Detections, Reply, covariant=True)

MATRIX = ".npy"
"""The ending of a file that is written as a whole, instead of row by row."""

PART = 64
"""How many inputs of a long list are asked about before their answers are printed."""


Outcomes = Iterator[tuple[Input, A | VisionError]]


class _Question(TypedDict, total=False):
    """What decides which model would answer; see `Router.explain`."""

    prompt: str | None
    language: str | None
    labels: Sequence[str] | None
    space: str | None


class Ask(Protocol[A_co]):
    """One of the router's ``_many`` methods, with everything filled in but the inputs."""

    def __call__(
        self,
        sources: Sequence[Path | bytes | str],
        /,
        *,
        deadline_s: float | None,
        progress: Callable[[int, int], None],
    ) -> Sequence[A_co | VisionError]:
        """Return an answer or an error for each source, in order."""


@contextmanager
def open_router(
    options: AskOptions, task: Task, find: Callable[["Settings"], list[Input]], **question: Unpack[_Question]
) -> "Iterator[tuple[Router, Settings, list[Input]]]":
    """Find the inputs and open a router, after fetching the model that would answer if it were here.

    It is fetched where the configuration says so (``download = "wait"``), or a person at a terminal does. Otherwise the
    next rung answers, and the command that fetches it is named. So is a server that is not OpenAI's. Nothing is fetched
    for inputs that nobody can be asked about.
    """
    with options.open_router() as opened:
        inputs = find(opened[1])
        chosen: dict[str, Any] = {"backends": rungs_of(options.backends), "model": options.model}
        explanation = opened[0].explain(task, **question, **chosen, local_only=options.local_only)
        if not options.quiet:
            tell_servers(opened[1], (verdict.backend for verdict in explanation.verdicts))
            tell_prices(explanation)
        missing = _missing_model(explanation)
        download = opened[1].table(missing.backend).get("download", "background") if missing else "never"
        waits, may_ask = download == "wait", download == "background" and at_terminal() and not options.quiet
        if missing is None or missing.model is None or not ((waits or may_ask) and _askable(inputs, task)):
            yield *opened, inputs
            return
    from vision_backends.cli.commands.pull import fetch

    fetch(options.config, missing.model, asked=not waits)
    with options.open_router() as opened:
        yield *opened, inputs


def _askable(inputs: Sequence[Input], task: Task) -> bool:
    """Return whether there is anything to ask about: neither all are at fault, nor the names of files that are not."""
    good = [each for each in inputs if each.error is None]
    return any(task == "embed_text" or not isinstance(each.source, str) or is_address(each.source) for each in good)


def _missing_model(explanation: "Explanation") -> "Verdict | None":
    """Return the rung that would answer if its model were here; None where another does, or nothing would help."""
    for verdict in explanation.verdicts:
        if verdict.ready:
            return None
        if verdict.code == NOT_FETCHED:
            return verdict
    return None


def images_of(paths: Sequence[str], options: AskOptions, settings: "Settings") -> list[Input]:
    """Return the images that a command names, and tell which folders were left out.

    Raises:
        InvalidRequestError: It names none.
    """
    if options.paths_from is None:
        if options.null:
            raise InvalidRequestError("--null needs --paths-from.", remedy="Pass --paths-from - for standard input.")
        if not paths:
            raise InvalidRequestError("No image is named.", remedy="Name images, folders or patterns, or - for a pipe.")
    listed = [] if options.paths_from is None else read_paths(options.paths_from, null=options.null)
    if paths or listed:
        found = find_images(paths, max_bytes=settings.images.max_bytes, recursive=options.recursive, listed=listed)
    else:
        raise InvalidRequestError(f"--paths-from {options.paths_from} names nothing.")
    skips = not options.recursive and not options.quiet
    at_fault = {each.name for each in found if each.error is not None}  # whose errors say of their folders
    named = [path for path in (*paths, *listed) if path not in at_fault]
    for folder, count in (folders_left_out(named) if skips else {}).items():
        which = "a folder in it was" if count == 1 else f"{count} folders in it were"
        tell(f"{folder}: {which} left out; -r takes the images of all folders below")
    return found


def readable(given: Input) -> Input:
    """Return an input that can be asked about.

    Raises:
        InvalidRequestError: It cannot.
    """
    if given.error is not None:
        raise given.error
    return given


def answers_of(
    inputs: Sequence[Input],
    options: AskOptions,
    rows: Rows | None,
    *,
    each: Callable[..., Iterator[A | VisionError]],
    many: Ask[A],
) -> Outcomes[A]:
    """Yield each input with its answer or error, in order: as soon as there is one, or together where they share time.

    Args:
        inputs: What is asked about.
        options: How.
        rows: The file of rows, if there is one.
        each: The router's ``_each`` method of the task, with everything filled in but the inputs.
        many: Its ``_many`` method.
    """
    if shares_time(options):
        return together(inputs, many, options, rows)
    return as_they_come(inputs, each, options, rows)


def shares_time(options: AskOptions) -> bool:
    """Return whether the inputs have one deadline, or wait for a better backend together instead of one by one."""
    return options.batch or options.deadline is not None


def as_they_come(
    inputs: Sequence[Input], ask: Callable[..., Iterator[A | VisionError]], options: AskOptions, rows: Rows | None
) -> Outcomes[A]:
    """Yield each input with its answer or error as soon as there is one, in order."""
    source = attrgetter("source") if rows is None else rows.note
    coming = ask(source(each) for each in inputs if each.error is None)
    with progress_bar(len(inputs), quiet=options.quiet) as bar:
        for done, each in enumerate(inputs, start=1):
            outcome = each.error or next(coming)
            with bar.hidden():
                yield each, outcome
                sys.stdout.flush()
            bar.counter(before=done)(0, len(inputs))


def together(
    inputs: Sequence[Input], ask: Ask[A], options: AskOptions, rows: Rows | None, *, in_parts: bool = True
) -> Outcomes[A]:
    """Yield each input with its answer or error, in order: those of a part together, and all within one deadline."""
    source = attrgetter("source") if rows is None else rows.note
    started, deadline_s = time.monotonic(), options.deadline
    if options.batch and deadline_s is not None:
        in_parts = False  # only the router knows how long it has waited
    size = PART if in_parts else max(1, len(inputs))
    with progress_bar(len(inputs), quiet=options.quiet) as bar:
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            left_s = deadline_s
            if deadline_s is not None and start:
                left_s = max(deadline_s - (time.monotonic() - started), 1e-3)  # the router wants more than nothing
            outcomes = iter(
                ask(
                    [source(each) for each in part if each.error is None],
                    deadline_s=left_s,
                    progress=bar.counter(before=start),
                )
            )
            with bar.hidden():
                for each in part:
                    yield each, each.error or next(outcomes)
                sys.stdout.flush()


@contextmanager
def rows_of(
    inputs: list[Input], asking: str, asked: Mapping[str, Any], options: ListOptions, settings: "Settings"
) -> Iterator[tuple[list[Input], Rows | None]]:
    """Yield the inputs that have no row yet, and the file of rows; all inputs where no such file was named."""
    if options.out is None or options.out.suffix.lower() == MATRIX:
        if options.redo:
            raise InvalidRequestError(f"--redo is for rows, and {options.out} is written as a whole.")
        yield inputs, None
        return
    deciding = {"backends": rungs_of(options.backends), "model": options.model, "local_only": options.local_only}
    with open_rows(
        options.out,
        inputs,
        command=asking,
        options={**asked, **deciding},
        redo_degraded=options.redo == "degraded",
        max_bytes=settings.images.max_bytes,
    ) as rows:
        left = rows.remaining(inputs, bar=partial(progress_bar, quiet=options.quiet, doing="comparing with the rows"))
        try:
            yield left, rows
        finally:
            there = len(inputs) - len(left)
            told = f"; {there} of {len(inputs)} inputs had theirs" if there else ""
            if not options.quiet:
                tell(f"{rows.written} {'row' if rows.written == 1 else 'rows'} written to {options.out}{told}")


def tally_of(inputs: Sequence[Input], left: Sequence[Input], options: AskOptions) -> Tally:
    """Return the count that a command begins with: what has a row already was answered."""
    return Tally(total=len(left), quiet=options.quiet, answered=len(inputs) - len(left))


def present(
    answers: Iterator[tuple[Input, A | VisionError]],
    show: Callable[[str, A], None] | None,
    options: AskOptions,
    tally: Tally,
    rows: Rows | None = None,
) -> None:
    """Print every answer or write its row, tell every error, and end with the worst exit code.

    Raises:
        typer.Exit: Not all were answered.
    """
    try:
        for each, outcome in answers:
            tally.count(each.name, outcome)
            if rows is not None:
                if not isinstance(outcome, VisionError):
                    rows.add(each, outcome)
            elif options.as_json:
                print_json(each.name, outcome)
            elif show is not None and not isinstance(outcome, VisionError):
                show(each.name, outcome)
    except (KeyboardInterrupt, SystemExit):
        tally.conclude(interrupted=True)
        raise
    tally.conclude()
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)
