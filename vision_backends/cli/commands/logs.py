"""``vision logs``: what was asked and said, from the log that a user has switched on.

This module decides which lines are shown, and how they read. It must not know who has written them.
"""

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from vision_backends.cli.commands.usage import since_of
from vision_backends.cli.options import JsonOptions, command
from vision_backends.cli.rendering.exits import tell
from vision_backends.cli.rendering.text import dump_json, print_table
from vision_backends.foreign_text import printable

__all__ = ["logs"]

ANSWER_CHARACTERS = 100
"""How much of an answer a line of the table has room for."""

LOOK_S = 0.5
"""How often a log that is followed is looked at."""

LONGEST_TASK = len("embed_text")


@command
def logs(
    *,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="First day: a date such as 2026-11-01, or days ago such as 7d.")
    ] = "30d",
    last: Annotated[int, typer.Option("-n", "--last", min=1, metavar="COUNT", help="Only the last ones.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is asked from now on, until Ctrl-C.")
    ] = False,
    options: JsonOptions,
) -> None:
    """Show what was asked and said, where logs.enabled = true keeps it.

    With --json each line is a whole record, with its prompt and its trace.
    """
    from vision_backends.config.loading import load_settings
    from vision_backends.observability.call_log import CallLog

    begin = since_of(since, now=time.time())
    settings = load_settings(options.config)
    path = settings.log_file
    if path is None:
        tell(
            "nothing is kept: set logs.enabled = true, or VISION_LOGS__ENABLED=true, to keep what is asked from then on"
        )
        return
    log = CallLog(path)
    if follow:
        show = _print_json if options.as_json else _print_line
        for place, lines in enumerate(log.follow(wait=partial(time.sleep, LOOK_S))):
            for record in _records(lines, begin=begin)[0 if place else -last :]:
                show(record)
            sys.stdout.flush()
    records = _records(log.lines(), begin=begin)[-last:]
    if options.as_json:
        for record in records:
            _print_json(record)
    elif records:
        print_table(("at (UTC)", "task", "input", "by", "answer"), [_row(record) for record in records])
    else:
        typer.echo("Nothing was asked in that time since the log is kept.")


def _records(lines: Iterable[str], *, begin: float) -> list[dict[str, Any]]:
    """Return the records of a time on."""
    return [record for line in lines if (record := _read(line)) and record["at"] >= begin]


def _print_json(record: dict[str, Any]) -> None:
    typer.echo(dump_json(record))


def _print_line(record: dict[str, Any]) -> None:
    """Print a record by itself; nobody knows how wide the columns of later ones will be."""
    at, task, *others = _row(record)
    typer.echo("  ".join((at, task.ljust(LONGEST_TASK), *others)))


def _read(line: str) -> dict[str, Any] | None:
    """Return a record, or None for a line that was cut or is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_one = isinstance(record, dict) and isinstance(record.get("at"), int | float) and "task" in record
    return record if is_one else None


def _row(record: dict[str, Any]) -> list[str]:
    answer, error = record.get("answer") or {}, record.get("error") or {}
    trace = answer.get("trace") or {}
    by = f"{trace.get('backend') or '-'}{' (degraded)' if trace.get('degraded') else ''}"
    said = _said(answer) if answer else error.get("message") or "no backend could answer"
    asked = record.get("input")
    named = ", ".join(map(str, asked)) if isinstance(asked, list) else str(asked)
    at = datetime.fromtimestamp(record["at"], UTC)
    cells = (f"{at:%Y-%m-%d %H:%M:%S}", record["task"], named, by, " ".join(str(said).split()))
    return [printable(str(cell))[:ANSWER_CHARACTERS] for cell in cells]


def _said(answer: dict[str, Any]) -> str:
    """Return the text of an answer, or what it consists of."""
    if "text" in answer:
        return str(answer["text"])
    if "dimension" in answer:
        return f"{answer['dimension']} numbers in {answer.get('space')}"
    items = answer.get("items") or answer.get("detections") or []
    return ", ".join(str(each.get("label")) for each in items) or "nothing found"
