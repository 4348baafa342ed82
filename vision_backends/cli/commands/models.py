"""``vision models``: which models there are and what of them is here; fetching, checking and removing them.

This module decides what is asked before something is fetched or removed, and what a program hears. It must not know
how a model is fetched, checked or run.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vision_backends.cli.commands.doctor import REINSTALL
from vision_backends.cli.commands.pull import pull
from vision_backends.cli.inventory import Entry, Inventory
from vision_backends.cli.options import JsonOptions, ModelName, ModelNames, Yes, command
from vision_backends.cli.rendering.cards import (
    about_json,
    lines_of_card,
    lines_of_holding,
    print_models,
    print_paragraph,
)
from vision_backends.cli.rendering.exits import NOTHING_ANSWERED, agreed, tell
from vision_backends.cli.rendering.progress import bytes_bar
from vision_backends.cli.rendering.text import bytes_text, dump_json, one_line, print_table
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.local.hub.verify import FileCheck

__all__ = ["models"]

models = typer.Typer(add_completion=False, help="List, fetch, check and remove models.")


@models.callback(invoke_without_command=True)
@command
def list_without_command(context: typer.Context, *, options: JsonOptions) -> None:
    """Do what ``list`` does where no command is named.

    Raises:
        InvalidRequestError: An option stands before a command, which would never hear of it.
    """
    if context.invoked_subcommand is None:
        _list(options)
    elif options != JsonOptions():
        raise InvalidRequestError(f"Write the option after the command: vision models {context.invoked_subcommand} …")


@models.command("list")
@command
def list_models(*, options: JsonOptions) -> None:
    """List every model with a card and every configured one: tasks, licence, size, and whether it is installed."""
    _list(options)


def _list(options: JsonOptions) -> None:
    inventory = Inventory(options.config)
    found = [(entry, inventory.hold(entry)) for entry in inventory.entries]
    if options.as_json:
        for entry, held in found:
            typer.echo(dump_json(about_json(entry, held)))
        return
    print_models(found)


@models.command()
@command
def show(*, name: ModelName, options: JsonOptions) -> None:
    """Show what is known about a model: its card with published quality, and what of it is installed."""
    inventory = Inventory(options.config)
    entry = inventory.find(name)
    held = inventory.hold(entry)
    nearest = inventory.nearest(name)
    if entry.card is None and not entry.roles and held.state == "absent" and nearest is not None:
        tell(f"{name} is not a model in the list. Did you mean {nearest}?")
    if options.as_json:
        typer.echo(dump_json(about_json(entry, held)))
        return
    print_paragraph(entry, lines_of_card(entry) + lines_of_holding(entry, held))


models.command()(command(pull))


@models.command()
@command
def remove(*, name: ModelName, yes: Yes = False, options: JsonOptions) -> None:
    """Remove a fetched model from the cache; with NAME@REVISION, only that revision."""
    from vision_backends.backends.local.installed import plan_removal

    inventory = Inventory(options.config)
    inventory.check_hub()
    entry = inventory.find(name)
    if entry.source is None:
        raise InvalidRequestError(f"{entry.name} ships with the package and cannot be removed.")
    removal = plan_removal(entry.source, inventory.hub)
    for commit, refs in removal.revisions.items():
        typer.echo(one_line(f"{removal.name}: revision {' '.join((commit, *refs))}"), err=True)
    if entry.roles:
        tell(f"{entry.named_by} names it: the next request that needs it fetches it again")
    if not agreed(f"Remove it from {inventory.hub.cache}, {bytes_text(removal.freed_bytes)}?", yes=yes):
        tell("nothing was removed")
        return
    removal.execute()
    if options.as_json:
        about = {"name": entry.name, "revisions": list(removal.revisions), "freed_bytes": removal.freed_bytes}
        typer.echo(dump_json(about))
    else:
        typer.echo(one_line(f"{entry.name}: removed, {bytes_text(removal.freed_bytes)} are free again"))


@models.command()
@command
def verify(
    *,
    names: ModelNames = None,
    every: Annotated[bool, typer.Option("--all", help="Check every installed model.")] = False,
    options: JsonOptions,
) -> None:
    """Compare every file of the models with the checksum recorded by the hub or on the card."""
    inventory = Inventory(options.config)
    if every == bool(names):
        raise InvalidRequestError("Name models, or pass --all.", remedy="See: vision models list")
    chosen = inventory.entries if every else [inventory.find(name) for name in names or ()]
    found = [(entry, verdict) for entry in chosen for verdict in _verdicts(inventory, entry, every=every)]
    if options.as_json:
        for entry, verdict in found:
            typer.echo(dump_json({"model": entry.name, **asdict(verdict)}))
    else:
        _print_verdicts(found)
    bad = {entry.name: entry for entry, verdict in found if not verdict.good}
    for entry in bad.values():
        tell(f"{entry.name} is incomplete or damaged. {_remedy(entry)}")
    if bad:
        raise typer.Exit(NOTHING_ANSWERED)


def _verdicts(inventory: Inventory, entry: Entry, *, every: bool) -> "list[FileCheck]":
    from vision_backends.backends.local.hub.progress import Progress

    held = inventory.hold(entry)
    if every and held.state == "absent":
        return []
    if held.state == "refused":
        tell(f"{held.flaw}")
    progress = Progress(stage=f"reading {entry.name}")
    with bytes_bar(progress):
        return list(inventory.verify(entry, held, progress))


def _print_verdicts(found: "Sequence[tuple[Entry, FileCheck]]") -> None:
    print_table(
        ("model", "file", "size", "verdict", "detail"),
        [
            (
                entry.name,
                each.file,
                "-" if each.size_bytes is None else bytes_text(each.size_bytes),
                each.state,
                each.detail,
            )
            for entry, each in found
        ],
    )


def _remedy(entry: Entry) -> str:
    if entry.source is None:
        return f"Run: {REINSTALL}"
    if entry.source.folder is not None:
        return "Save or copy it again; it is a folder of your own."
    return f"Run: vision models pull --repair {entry.name}"
