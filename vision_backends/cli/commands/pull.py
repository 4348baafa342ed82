"""``vision models pull``: fetching models before they are needed.

This module decides what a person is shown and asked before anything large is fetched. It must not know how that is
done.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vision_backends.cli.inventory import Entry, Inventory
from vision_backends.cli.options import JsonOptions, ModelNames, Yes
from vision_backends.cli.rendering.cards import about_json, lines_of_offer, print_paragraph
from vision_backends.cli.rendering.exits import NOTHING_ANSWERED, agreed, exit_code_of, tell, tell_error
from vision_backends.cli.rendering.progress import bytes_bar
from vision_backends.cli.rendering.text import bytes_text, dump_json, one_line
from vision_backends.errors import BackendError, InvalidRequestError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vision_backends.backends.local.hub.listing import Offer
    from vision_backends.backends.local.hub.source import Source

__all__ = ["fetch", "pull"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A model that is to be fetched, or what is missing of it.

    Attributes:
        entry: The model.
        offer: What the hub has.
        missing_bytes: How much of that is not here, or damaged.
    """

    entry: Entry
    offer: "Offer"
    missing_bytes: int


def pull(
    *,
    names: ModelNames = None,
    all_configured: Annotated[
        bool, typer.Option("--all-configured", help="Fetch every model that the configuration names.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compare installed files with the hub first, and fetch damaged ones again.")
    ] = False,
    yes: Yes = False,
    options: JsonOptions,
) -> None:
    """Fetch models before they are needed; files that arrived before an interruption are not fetched again."""
    inventory = Inventory(options.config)
    if all_configured == bool(names):
        raise InvalidRequestError("Name models, or pass --all-configured.", remedy="See: vision models list")
    inventory.check_hub()
    chosen = inventory.configured if all_configured else [inventory.find(name) for name in names or ()]
    fetched = [(entry, source) for entry in chosen if (source := _fetched(entry, named=not all_configured))]
    orders = [
        _order(inventory, entry, source)
        for entry, source in fetched
        if repair or inventory.hold(entry).state != "installed"
    ]
    if any(order.missing_bytes for order in orders) and not _agreed(inventory, orders, yes=yes):
        tell("nothing was fetched")
        return
    failures = [failure for order in orders if (failure := _take(inventory, order))]
    here = [_report(inventory, entry, as_json=options.as_json) for entry, _ in fetched]
    if failures or not all(here):
        raise typer.Exit(max(map(exit_code_of, failures), default=NOTHING_ANSWERED))


def fetch(config: "Path | None", name: str, *, asked: bool) -> None:
    """Fetch a model that a command is about to need, with a progress bar; say why, where that is not possible.

    Args:
        config: The configuration file.
        name: The model, as it is configured.
        asked: Whether the person is asked before.
    """
    try:
        inventory = Inventory(config)
        inventory.check_hub()
        entry = inventory.find(name)
        if entry.source is None:
            return
        order = _order(inventory, entry, entry.source)
        if _agreed(inventory, [order], yes=not asked):
            _take(inventory, order)
    except BackendError as error:
        tell_error(error)


def _fetched(entry: Entry, *, named: bool) -> "Source | None":
    """Return where a model is fetched from; None for one that is a folder of the user's.

    Raises:
        InvalidRequestError: It was named, and cannot be fetched.
    """
    if entry.source is not None and entry.source.repository is not None:
        return entry.source
    if named:
        where = "is a folder of your own" if entry.source else "ships with the package"
        raise InvalidRequestError(f"{entry.name} {where}; there is nothing to fetch.")
    return None


def _order(inventory: Inventory, entry: Entry, source: "Source") -> Order:
    from vision_backends.backends.local.hub.progress import Progress

    try:
        offer = inventory.hub.offer(source)
    except ModelNotFoundError as error:
        nearest = inventory.nearest(source.name)
        if nearest is not None and nearest != source.name:
            error.remedy = f"Did you mean {nearest}? {error.remedy}"
        raise
    progress = Progress(stage=f"reading {entry.name}")
    with bytes_bar(progress):
        damaged = inventory.hub.damaged(offer, progress)
    for file in damaged:
        tell(f"{entry.name}: {file.name} is damaged and has to be fetched again")
    return Order(entry=entry, offer=offer, missing_bytes=inventory.hub.room_bytes(offer, damaged))


def _agreed(inventory: Inventory, orders: "Sequence[Order]", *, yes: bool) -> bool:
    """Show what will be fetched, whether there is room for it, and ask.

    Raises:
        NotReadyError: There is no room for it.
    """
    from vision_backends.backends.local.hub.hub import check_disk, free_disk_bytes

    cache = inventory.hub.cache
    for order in orders:
        lines = lines_of_offer(
            order.entry,
            order.offer,
            missing_bytes=order.missing_bytes,
            folder=str(cache),
            free_bytes=free_disk_bytes(cache),
        )
        print_paragraph(order.entry, lines, err=True)
    missing_bytes = sum(order.missing_bytes for order in orders)
    check_disk(cache, missing_bytes)
    return agreed(f"Fetch {bytes_text(missing_bytes)}?", yes=yes)


def _take(inventory: Inventory, order: Order) -> BackendError | None:
    """Fetch one model; return what it failed with, so that others are fetched all the same."""
    from vision_backends.backends.local.hub.progress import Progress

    progress = Progress(stage=order.entry.name)
    try:
        with bytes_bar(progress):
            inventory.hub.take(order.offer, progress)
    except BackendError as error:
        tell_error(error)
        return error
    except KeyboardInterrupt:
        tell("files that have arrived whole are kept; the same command fetches the others")
        raise
    return None


def _report(inventory: Inventory, entry: Entry, *, as_json: bool) -> bool:
    """Say what is here now; of a model that is not, standard error has the reason.

    Returns:
        Whether it is, whole and fit for use.
    """
    held = inventory.hold(entry)
    if as_json:
        typer.echo(dump_json(about_json(entry, held)))
    elif held.state == "installed":
        typer.echo(one_line(f"{entry.name}: here, revision {held.revision}, {bytes_text(held.size_bytes)}"))
    elif held.flaw is not None:
        tell(held.flaw)
    return held.state == "installed"
